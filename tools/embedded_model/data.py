"""Things, colours, styles and placed pictures: all that the training scripts draw from. Chance is handed in."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # so that scripts of this folder find `core`: all import this module first
WORK = HERE.parents[1] / ".work" / "embedded_model"
CHECKPOINT = HERE.parents[1] / "models" / "checkpoints" / "easel-emoji-256.safetensors"  # that ships

_TABLE: dict[str, Any] = json.loads((HERE / "things.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Thing:
    """One thing that the model can draw: its code points, the names people may type, the best first, and keywords."""

    code: str
    group: str
    names: tuple[str, ...]
    keywords: tuple[str, ...] = ()


THINGS = tuple(Thing(t["code"], t["group"], tuple(t["names"]), tuple(t["keywords"])) for t in _TABLE["things"])
STAGES = (60, 206, 352)  # things of the first stage, of the tier that two CPU cores can learn, of those named by hand
COLOURS: dict[str, tuple[int, int, int]] = {name: tuple(rgb) for name, rgb in _TABLE["colours"].items()}
COLOUR_NAMES = tuple(COLOURS)
WHITE, BLACK = COLOUR_NAMES.index("white"), COLOUR_NAMES.index("black")
STYLES = ("3d", "flat", "line", "drawing")  # rows of the pictures' files are things, files are styles

HELD_OUT_SHARE = 0.15


def code_spellings(code: str) -> tuple[str, ...]:
    """Ways to write the same code points: as is, without and with the variation selector."""
    code = code.lower()
    return (code, code.replace("-fe0f", ""), f"{code}-fe0f")


def held_out() -> frozenset[tuple[int, int]]:
    """Pairs (thing, colour) never trained together, about 15 %; white, the default background, is always trained.

    Drawn stage by stage, so that more things leave the pairs of those before them as they were.
    """
    found: set[tuple[int, int]] = set()
    edges = [0, *STAGES, len(THINGS)]
    for stage, (first, last) in enumerate(pairwise(edges)):
        rng = np.random.default_rng(7 + stage)
        pairs = [(t, c) for t in range(first, last) for c in range(len(COLOURS)) if c != WHITE]
        chosen = rng.choice(len(pairs), size=round(HELD_OUT_SHARE * len(pairs)), replace=False)
        found |= {pairs[i] for i in chosen}
    return frozenset(found)


def pictures_of(folder: Path, style: int) -> np.ndarray:
    """All pictures of a style, uint8 (N, 256, 256, 4) straight-alpha RGBA, of THINGS first; empty where it has none."""
    pictures: np.ndarray = np.load(folder / "data" / f"pictures_{STYLES[style]}.npy", mmap_mode="r")
    return pictures


def shade(colour: int, rng: Generator, spread: float = 6.0) -> tuple[float, float, float]:
    """The named colour, a little lighter or darker; white stays white."""
    rgb = np.asarray(COLOURS[COLOUR_NAMES[colour]], np.float32)
    if colour == WHITE:
        return (255.0, 255.0, 255.0)
    r, g, b = np.clip(rgb + rng.uniform(-spread, spread) + rng.uniform(-spread / 3, spread / 3, 3), 0, 255)
    return (float(r), float(g), float(b))
