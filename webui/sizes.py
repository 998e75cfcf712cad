"""The sizes on offer: SDXL's aspect ratios, scaled to what the chosen checkpoint was made for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from core.settings import ASPECT_RATIOS

CUSTOM = "Custom"
SDXL_SIDE = 1024  # pixels; ASPECT_RATIOS hold about SDXL_SIDE**2 pixels each
SMALLEST, MULTIPLE = 64, 8


Ratios = Sequence[tuple[int, int]]  # widths and heights in pixels, of about SDXL_SIDE**2 pixels each


def scaled_sizes(native: tuple[int, int], ratios: Ratios = ASPECT_RATIOS) -> list[tuple[int, int]]:
    """`ratios` at the pixel count of `native` (width, height), each once, in their order."""
    factor = math.sqrt(native[0] * native[1]) / SDXL_SIDE
    return list(dict.fromkeys((_fit(width * factor), _fit(height * factor)) for width, height in ratios))


def label(size: tuple[int, int]) -> str:
    """`1152 × 896 ∣ 9:7`."""
    width, height = size
    shared = math.gcd(width, height)
    return f"{width} × {height} ∣ {width // shared}:{height // shared}"


def labels(native: tuple[int, int], ratios: Ratios = ASPECT_RATIOS) -> list[str]:
    """The entries of the aspect ratio list; the last stands for any other width and height."""
    return [*map(label, scaled_sizes(native, ratios)), CUSTOM]


def parse_label(entry: Any) -> tuple[int, int] | None:
    """Width and height of an entry; None for CUSTOM, and for what is no entry."""
    found = re.match(r"(\d{1,6}) × (\d{1,6}) ∣", str(entry))
    return (int(found[1]), int(found[2])) if found else None


def matching_label(size: tuple[Any, Any], native: tuple[int, int], ratios: Ratios = ASPECT_RATIOS) -> str:
    """The entry that stands for `size`, or CUSTOM."""
    width, height = size
    return label((width, height)) if width and height and size in scaled_sizes(native, ratios) else CUSTOM


def _fit(pixels: float) -> int:
    return max(SMALLEST, round(pixels / MULTIPLE) * MULTIPLE)
