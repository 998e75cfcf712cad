"""Things, colours, captions and placed pictures: all that the training scripts draw from. Chance is handed in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

HERE = Path(__file__).parent
WORK = HERE.parents[1] / ".work" / "embedded_model"

_TABLE: dict[str, Any] = json.loads((HERE / "things.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Thing:
    """One thing that the model can draw: its code points, and the names people may type, the best first."""

    code: str
    group: str
    names: tuple[str, ...]


THINGS = tuple(Thing(t["code"], t["group"], tuple(t["names"])) for t in _TABLE["things"])
COLOURS: dict[str, tuple[int, int, int]] = {name: tuple(rgb) for name, rgb in _TABLE["colours"].items()}
COLOUR_NAMES = tuple(COLOURS)
WHITE = COLOUR_NAMES.index("white")

UNCOUNTED = {"grapes", "cherries", "coffee", "hot coffee", "pizza", "ice cream", "fire"}  # names without an article
HELD_OUT_SHARE = 0.15


def code_spellings(code: str) -> tuple[str, ...]:
    """Ways to write the same code points: as is, without and with the variation selector."""
    code = code.lower()
    return (code, code.replace("-fe0f", ""), f"{code}-fe0f")


def held_out() -> frozenset[tuple[int, int]]:
    """Pairs (thing, colour) never trained together, about 15 %; white, the default background, is always trained."""
    rng = np.random.default_rng(7)
    pairs = [(t, c) for t in range(len(THINGS)) for c in range(len(COLOURS)) if c != WHITE]
    chosen = rng.choice(len(pairs), size=round(HELD_OUT_SHARE * len(pairs)), replace=False)
    return frozenset(pairs[i] for i in chosen)


def with_article(name: str) -> str:
    if name in UNCOUNTED:
        return name
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


FILLERS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "a picture of ",
    "a drawing of ",
    "a photo of ",
    "an emoji of ",
    "an icon of ",
    "a 3d render of ",
)
ENDINGS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    ", 3d",
    ", glossy 3d",
    ", 3d emoji",
    ", high quality",
    ", best quality, detailed",
)


def caption(thing: int, colour: int, rng: Generator) -> str:
    """An honest English caption. A white background is named half the time, any other always."""
    names = THINGS[thing].names
    name = names[0] if rng.random() < 0.5 else names[rng.integers(len(names))]
    title = with_article(name) if rng.random() < 0.7 else name
    title = FILLERS[rng.integers(len(FILLERS))] + title
    ground = COLOUR_NAMES[colour]
    if colour == WHITE and rng.random() < 0.5:
        text = title
    else:
        forms = (f"{title} on a {ground} background", f"{title}, {ground} background", f"{title} with a {ground} background",
                 f"{title} on {ground}", f"{title} against a {ground} background", f"{ground} background, {title}")  # fmt: skip
        text = forms[rng.choice(len(forms), p=(0.4, 0.25, 0.1, 0.1, 0.1, 0.05))]
    return text + ENDINGS[rng.integers(len(ENDINGS))]


def place(
    picture: np.ndarray, ground: tuple[float, float, float], *, scale: float, dx: float, dy: float, side: int
) -> np.ndarray:
    """`picture` uint8 RGBA (256, 256, 4) over a flat `ground`, its longest part `scale` of the side, centre moved by dx, dy.

    Gives uint8 (side, side, 3). Scaling is done with premultiplied alpha, so that edges keep their colour.
    """
    rgba = picture.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    size = max(1, round(side * scale))
    shrunk = [Image.fromarray(rgba[..., k]).resize((size, size), Image.Resampling.BICUBIC) for k in range(4)]
    left, top = round(side * (0.5 + dx) - size / 2), round(side * (0.5 + dy) - size / 2)
    layers = []
    for layer in shrunk:
        canvas = Image.new("F", (side, side))
        canvas.paste(layer, (left, top))
        layers.append(np.asarray(canvas))
    placed = np.stack(layers, -1)
    alpha = np.clip(placed[..., 3:] / 255, 0, 1)
    return np.clip(placed[..., :3] + (1 - alpha) * np.asarray(ground, np.float32) + 0.5, 0, 255).astype(np.uint8)


def shade(colour: int, rng: Generator, spread: float = 6.0) -> tuple[float, float, float]:
    """The named colour, a little lighter or darker; white stays white."""
    rgb = np.asarray(COLOURS[COLOUR_NAMES[colour]], np.float32)
    if colour == WHITE:
        return (255.0, 255.0, 255.0)
    r, g, b = np.clip(rgb + rng.uniform(-spread, spread) + rng.uniform(-spread / 3, spread / 3, 3), 0, 255)
    return (float(r), float(g), float(b))


def random_place(picture: np.ndarray, colour: int, rng: Generator, side: int, spread: float = 1.0) -> np.ndarray:
    """A training picture: scale 0.82 to 0.92 of the side, centre within 2.5 %. At `spread` 0 it is 0.87, in the centre."""
    scale = 0.87 + spread * rng.uniform(-0.05, 0.05)
    dx, dy = spread * rng.uniform(-0.025, 0.025, 2)
    return place(picture, shade(colour, rng), scale=scale, dx=dx, dy=dy, side=side)
