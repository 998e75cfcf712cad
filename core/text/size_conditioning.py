"""SDXL's size conditioning: the vector that tells the network the picture's size, and the tilt that is given to it.

SDXL was trained with the size of each training picture beside its text (Podell et al. 2023, section 2.2). Naming a larger
one for the positive side and a smaller one for the negative side, early in the run, makes details crisper.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.models.unet import sinusoid


class SizeVectors(NamedTuple):
    """The network's class vector for the early and the late part of a run, each (B, P + 1536), float32."""

    emphasised: Tensor
    consistent: Tensor


def size_vectors(
    pooled: Tensor, width: int, height: int, *, scale: float, end: float, strict: bool = False
) -> SizeVectors:
    """Class vectors of SDXL for a picture of `width` x `height` pixels and pooled text (B, P).

    `scale` times the size is named in the first share `end` of the run; then the size rounded to 64. With `end` 0 both
    are plain SDXL: the true size throughout; with `strict` it is rounded even then, as in the reference.
    """
    if end == 0 and not strict:
        plain = size_vector(pooled, height, width, 0, 0, height, width)
        return SizeVectors(plain, plain)
    target = round(height / 64) * 64, round(width / 64) * 64
    return SizeVectors(
        emphasised=size_vector(pooled, int(height * scale), int(width * scale), 0, 0, *target),
        consistent=size_vector(pooled, *target, 0, 0, *target),
    )


def refiner_vector(pooled: Tensor, width: int, height: int, score: float) -> Tensor:
    """Class vector (B, P + 1280) of the SDXL refiner; `score` is the aesthetic one: 6 positive, 2.5 negative."""
    return size_vector(pooled, height, width, 0, 0, score)


def size_vector(pooled: Tensor, *numbers: float) -> Tensor:
    """Pooled text (B, P) and each of `numbers` as a 256-wide sinusoid: (B, P + 256 x numbers), float32.

    SDXL's numbers are height, width, the crop's top and left, target height, target width.
    """
    embedded = sinusoid(torch.tensor(numbers, dtype=torch.float32, device=pooled.device), 256).flatten()
    return torch.cat([pooled.float(), embedded.expand(len(pooled), -1)], dim=1)
