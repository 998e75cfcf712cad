"""What all samplers share: the step they report, the arguments they take, how noise levels are split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.tables import Table


@dataclass(frozen=True, eq=False)
class Step:
    """One step done: its `index` from 0, the latent `x` after it, the clean guess `x0` that it followed."""

    index: int
    x: Tensor
    x0: Tensor


class Sampler(Protocol):
    """Walks `x`, which has the noise level sigmas[0], down `sigmas` (1-dim, on the CPU, descending, usually to 0).

    Nothing happens until a step is asked for, and nothing after the last one that was.
    """

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table
    ) -> Iterator[Step]: ...


def ancestral_split(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """The level to step down to, and the level of fresh noise that brings it back up to `sigma_next`."""
    up = torch.minimum(sigma_next, (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).sqrt())
    return (sigma_next**2 - up**2).sqrt(), up
