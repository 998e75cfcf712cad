"""FreeU (Si et al. 2023), version 2: stronger shapes, weaker fine texture on the UNet's way up; no training, no weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

Joint: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(h, skip) -> (h, skip), both (B, C, y, x): called before the two are joined in front of each output block of a UNet."""


@dataclass(frozen=True)
class FreeU:
    """A `Joint` for a UNet of `model_channels`: where h is 4 times as wide, `b1` and `s1` act, at twice `b2` and `s2`.

    b (1 = off) is the factor of half of h's channels where their mean is largest; s (1 = off) that of the skip's lowest
    frequencies. The other levels stay as they are.
    """

    model_channels: int
    b1: float
    b2: float
    s1: float
    s2: float

    def __call__(self, h: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        factors = {4 * self.model_channels: (self.b1, self.s1), 2 * self.model_channels: (self.b2, self.s2)}
        if h.shape[1] not in factors:
            return h, skip
        b, s = factors[h.shape[1]]
        return with_backbone(h, b), with_low_frequencies(skip, s)


def with_backbone(h: Tensor, b: float) -> Tensor:
    """`h` (B, C, y, x) with the first half of its channels times 1 (where h's mean over channels is least) to `b`."""
    mean = h.mean(1, keepdim=True)
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    share = ((mean - low) / (high - low)).nan_to_num(0.0)  # the same mean everywhere: nothing stands out
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * ((b - 1) * share + 1), h[:, half:]], dim=1)


def with_low_frequencies(skip: Tensor, s: float) -> Tensor:
    """`skip` (B, C, y, x) with the frequencies 0 and -1 of either axis times `s`.

    These are the four entries in the middle of the shifted spectrum. Four are soon projected out with a few sines, on
    every device and without complex numbers; two Fourier transforms of the whole would take many times as long.
    """
    basis = _low_frequencies(*skip.shape[2:], skip.device)
    flat = skip.float().flatten(2)
    low = (flat @ basis.T) @ basis
    return (flat + (s - 1) * low).view(skip.shape).to(skip.dtype)


@lru_cache(maxsize=16)
def _low_frequencies(height: int, width: int, device: torch.device) -> Tensor:
    """(8, height x width) float32: cosines and sines of the four waves, scaled so that B.T @ B picks them out."""
    y, x = (torch.arange(side, dtype=torch.float64) * (2 * math.pi / side) for side in (height, width))
    waves = [
        (fy * y[:, None] + fx * x).flatten()
        for fy in range(min(2, height))  # a side of one cell knows no frequency but 0
        for fx in range(min(2, width))
    ]
    rows = [turn for wave in waves for turn in (wave.cos(), wave.sin())]
    return (torch.stack(rows) / math.sqrt(height * width)).to(device, torch.float32)
