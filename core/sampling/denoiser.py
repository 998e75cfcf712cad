"""Denoiser: from a network and the conditions it is given to clean guesses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from core.sampling.prediction import Prediction

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> x0: all that a sampler knows of a model. `sigma` is a 0-dim tensor on the CPU, wherever x is."""

MOST_REPEATS = 4  # of the shorter of two token sequences that share a batch


class Network(Protocol):
    """A denoising network: `x` (N, 4, h, w), `timestep` (N,) float32, `context` (N, T, D), `y` (N, A) or None."""

    def __call__(self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Condition:
    """What a network is told beside the latent: `tokens` (1, T, D) and, for SDXL, the vector `y` (1, A).

    `y_end`, if there is one, takes y's place once the share `switch` of the run lies behind (0: from the start).
    """

    tokens: Tensor
    y: Tensor | None = None
    y_end: Tensor | None = None
    switch: float = 1.0

    def y_at(self, progress: float) -> Tensor | None:
        """The vector for the moment when `progress` (0 to 1) of the run lies behind."""
        return self.y if self.y_end is None or progress < self.switch else self.y_end


Predict: TypeAlias = Callable[[Tensor, Tensor, Sequence[Condition]], list[Tensor]]
"""(x, sigma, conditions) -> one x0, shaped like x, for each condition."""


def network_denoiser(network: Network, prediction: Prediction, dtype: torch.dtype = torch.float32) -> Predict:
    """A function that asks `network`, which computes in `dtype`, for x0 under one or several conditions.

    Conditions whose sequences fit into one batch share a call of the network, in the order given; else each has its own.
    The tensors `context` and `y` stay the same objects from call to call, so the network can keep what it makes of them.
    """

    @lru_cache(maxsize=8)
    def context_of(conditions: tuple[Condition, ...], batch: int, device: torch.device) -> Tensor:
        return _rows(_equally_long([c.tokens for c in conditions]), batch).to(device, dtype)

    @lru_cache(maxsize=8)
    def y_of(conditions: tuple[Condition, ...], late: tuple[bool, ...], batch: int, device: torch.device) -> Tensor:
        vectors = [c.y_end if is_late else c.y for c, is_late in zip(conditions, late, strict=True)]
        return _rows([y for y in vectors if y is not None], batch).to(device, dtype)

    def predict(x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        rows = tuple(conditions)
        if len(rows) > 1 and not fit_together(rows):
            return [predict(x, sigma, [condition])[0] for condition in rows]
        batch = len(x)
        y = None
        if rows[0].y is not None:
            progress = prediction.progress(sigma)
            late = tuple(c.y_at(progress) is not c.y for c in rows)
            y = y_of(rows, late, batch, x.device)
        timestep = prediction.table.timestep(sigma).to(x.device).expand(len(rows) * batch)
        scaled = prediction.scale_input(x, sigma).to(dtype).repeat(len(rows), 1, 1, 1)
        output = network(scaled, timestep, context_of(rows, batch, x.device), y).to(x.dtype)
        return [prediction.denoised(x, part, sigma) for part in output.chunk(len(rows))]

    return predict


def fit_together(conditions: Sequence[Condition]) -> bool:
    """Whether the conditions can share a batch.

    Token sequences of different lengths are repeated up to their common multiple, which leaves attention's result as it
    is; past MOST_REPEATS repeats two calls are cheaper.
    """
    lengths = [c.tokens.shape[1] for c in conditions]
    widths = {c.tokens.shape[2] for c in conditions}
    vectors = {None if c.y is None else c.y.shape[1] for c in conditions}
    return len(widths) == len(vectors) == 1 and math.lcm(*lengths) <= MOST_REPEATS * min(lengths)


def _equally_long(tokens: list[Tensor]) -> list[Tensor]:
    length = math.lcm(*(t.shape[1] for t in tokens))
    return [t.repeat(1, length // t.shape[1], 1) for t in tokens]


def _rows(parts: list[Tensor], batch: int) -> Tensor:
    """Each part (1, ...) once for every latent of the batch: (len(parts) * batch, ...)."""
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts])
