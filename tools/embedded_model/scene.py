"""A scene: what one training picture shows, drawn by chance, and the picture itself with its size conditions.

Numbers are shares of the shorter side unless said otherwise.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from data import BLACK, COLOUR_NAMES, COLOURS, STYLES, WHITE, shade
from numpy.random import Generator
from PIL import Image

NONE = -1
PLACES = ("middle", "left", "right", "top", "bottom")
MIDDLE = 0
SIZES = ("", "small")
SHAPES = ((8, 8), (6, 8), (8, 6), (8, 10), (10, 8))  # height and width of a picture, in eighths of the side
LINE = STYLES.index("line")


@dataclass(frozen=True)
class Scene:
    """One thing or two on a ground. All fields are indices, so that a scene is a row of whole numbers."""

    thing: int
    second: int = NONE  # another thing: to the right of the first, or below it where the picture is high
    style: int = 0
    ground: int = WHITE
    fade: int = NONE  # the colour at the bottom, if the ground is a gradient
    place: int = MIDDLE
    small: int = 0

    def row(self) -> tuple[int, ...]:
        return astuple(self)


@dataclass(frozen=True)
class Mix:
    """How often what is drawn."""

    two: float = 0.12
    gradient: float = 0.10
    placed: float = 0.12
    small: float = 0.10
    white: float = 0.35  # of the flat grounds
    larger: float = 0.12  # the original was larger than the picture
    smaller: float = 0.05  # the original was smaller: the picture is soft
    cropped: float = 0.12
    spread: float = 1.0  # how much size and place differ where words don't say


def draw_scene(
    thing: int, style: int, things: int, unseen: frozenset[tuple[int, int]], mix: Mix, rng: Generator
) -> Scene:
    """A scene with `thing` in `style`, of the first `things`. No thing is on a colour that it must not be seen with."""
    second, place, small, fade = NONE, MIDDLE, 0, NONE
    if rng.random() < mix.two:
        second = int(rng.integers(things - 1))
        second += second >= thing
        if rng.random() < 0.5:
            thing, second = second, thing
    elif rng.random() < mix.placed:
        place = 1 + int(rng.integers(len(PLACES) - 1))
        small = int(rng.random() < 0.3)
    elif rng.random() < mix.small:
        small = 1
    fits = [c for c in range(len(COLOURS)) if not unseen & {(thing, c), (second, c)}]
    ground = WHITE if rng.random() < mix.white else int(rng.choice(fits))
    if rng.random() < mix.gradient:
        seen = [c for c in fits if c != BLACK or style != LINE]  # black lines fade into black
        ground, fade = (int(c) for c in rng.choice(seen, 2, replace=False))
    return Scene(thing, second, style, ground, fade, place, small)


def paint(
    scene: Scene, pictures: np.ndarray, rng: Generator, size: tuple[int, int], mix: Mix
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The picture, uint8 (height, width, 3), and its six size conditions as in SDXL (Podell et al. 2023, section 2.2).

    The conditions are original height and width, top and left of the crop, target height and width, in pixels. `pictures`
    are those of the scene's style.
    """
    height, width = size
    chance = rng.random()
    factor, grown = 1.0, 1.0
    if chance < mix.larger:
        factor = rng.uniform(1.0, 2.0)
    elif chance < mix.larger + mix.smaller:
        factor = rng.uniform(0.4, 0.8)
    elif chance < mix.larger + mix.smaller + mix.cropped:
        grown = factor = rng.uniform(1.05, 1.3)
    drawn = min(1.0, factor) if grown == 1.0 else grown
    canvas = compose(scene, pictures, rng, (round(height * drawn), round(width * drawn)), mix.spread)
    top = left = 0
    if grown > 1:
        top, left = int(rng.integers(canvas.height - height + 1)), int(rng.integers(canvas.width - width + 1))
        canvas = canvas.crop((left, top, left + width, top + height))
    elif drawn < 1:
        canvas = canvas.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(canvas), (round(height * factor), round(width * factor), top, left, height, width)


def compose(scene: Scene, pictures: np.ndarray, rng: Generator, size: tuple[int, int], spread: float) -> Image.Image:
    """The whole scene at `size` (height, width)."""
    height, width = size
    short = min(size)
    canvas = backdrop(scene, rng, size)
    dx, dy = spread * rng.uniform(-0.03, 0.03, 2)
    if scene.second != NONE:
        long = max(size)
        scale = min(0.88 * short, 0.49 * long) * rng.uniform(0.94, 1.0)
        along = 0.25 * long
        for thing, way in ((scene.thing, -1), (scene.second, 1)):
            middle = [width / 2 + dx * short / 2, height / 2 + dy * short]
            middle[1 if height > width else 0] += way * along
            paste(canvas, pictures[thing], middle, scale, scene)
        return canvas
    scale = rng.uniform(0.38, 0.48) if scene.small else 0.86 + spread * rng.uniform(-0.06, 0.05)
    x, y = width / 2, height / 2
    if scene.place != MIDDLE:
        scale = scale if scene.small else rng.uniform(0.52, 0.62)
        edge = (scale / 2 + rng.uniform(0.02, 0.06)) * short  # of the middle from the side it is at
        x, y = {1: (edge, y), 2: (width - edge, y), 3: (x, edge), 4: (x, height - edge)}[scene.place]
    paste(canvas, pictures[scene.thing], [x + dx * short, y + dy * short], scale * short, scene)
    return canvas


def paste(canvas: Image.Image, picture: np.ndarray, middle: list[float], side: float, scene: Scene) -> None:
    """`picture` with its `middle` (x, y) there, `side` pixels long. Line art on black is white."""
    n = max(1, round(side))
    if scene.style == LINE and scene.ground == BLACK:
        picture = picture.copy()
        picture[..., :3] = 255 - picture[..., :3]
    shrunk = Image.fromarray(picture).resize((n, n), Image.Resampling.BICUBIC)
    canvas.paste(shrunk, (round(middle[0] - n / 2), round(middle[1] - n / 2)), shrunk)


def backdrop(scene: Scene, rng: Generator, size: tuple[int, int]) -> Image.Image:
    """A flat ground, or a gradient from `ground` at the top to `fade` at the bottom."""
    first = np.asarray(shade(scene.ground, rng), np.float32)
    if scene.fade == NONE:
        rows = np.broadcast_to(first, (size[0], 3))
    else:
        share = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
        rows = first * (1 - share) + np.asarray(shade(scene.fade, rng), np.float32) * share
    pixels = np.broadcast_to((rows + 0.5).astype(np.uint8)[:, None], (*size, 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def plain(thing: int, ground: int, style: int, pictures: np.ndarray, side: int, scale: float = 0.86) -> np.ndarray:
    """The reference picture of a thing on a colour, as training shows it on average, uint8 (side, side, 3)."""
    scene = Scene(thing, style=style, ground=ground)
    canvas = Image.new("RGB", (side, side), COLOURS[COLOUR_NAMES[ground]])
    paste(canvas, pictures[thing], [side / 2, side / 2], scale * side, scene)
    return np.asarray(canvas)
