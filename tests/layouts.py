"""The lists of full-size layouts that tools/make_layout_lists.py wrote."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

FILE = Path(__file__).parent / "data" / "layouts.json.xz"

UNET, VAE = "model.diffusion_model.", "first_stage_model."


def layout(family: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a full-size checkpoint of `family`."""
    return {name: tuple(shape) for name, shape in json.loads(lzma.decompress(FILE.read_bytes()))[family].items()}


def part(family: str, prefix: str) -> dict[str, tuple[int, ...]]:
    """Those under `prefix`, cut off."""
    return {name[len(prefix) :]: shape for name, shape in layout(family).items() if name.startswith(prefix)}
