"""UniPC: multistep predictor and corrector of up to third order (Zhao et al. 2023, data prediction).

Written in x at noise level sigma, lambda = -ln sigma; in the paper's variance-preserving latent, x / sqrt(1 + sigma^2),
the formulas are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.samplers.step import Step
from core.sampling.tables import Table

ORDER = 3
END = 0.001  # stands for sigma 0, whose lambda is infinite


def uni_pc(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """UniPC with B(h) = h."""
    return _uni_pc(denoise, x, sigmas, bh2=False)


def uni_pc_bh2(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """UniPC with B(h) = exp(h) - 1."""
    return _uni_pc(denoise, x, sigmas, bh2=True)


def _uni_pc(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, bh2: bool) -> Iterator[Step]:
    """One evaluation a step, which first corrects the step before and then predicts the next; the last is not corrected."""
    lambdas = -torch.where(sigmas == 0, END, sigmas).double().log()
    steps = len(lambdas) - 1
    most = max(1, min(ORDER, steps - 1))
    guesses: list[Tensor] = []  # clean guesses, the newest first
    start = x
    for i in range(steps):
        x0 = denoise(x, sigmas[i])
        if i > 0:
            x = _advance(start, guesses, lambdas[: i + 1], min(most, i, steps + 1 - i), bh2, corrected_by=x0)
        guesses = [x0, *guesses[: ORDER - 1]]
        start = x
        x = _advance(start, guesses, lambdas[: i + 2], min(most, i + 1, steps - i), bh2)
        yield Step(i, x, x0)


def _advance(
    x: Tensor, guesses: list[Tensor], lambdas: Tensor, order: int, bh2: bool, corrected_by: Tensor | None = None
) -> Tensor:
    """x at lambdas[-1] from x at lambdas[-2] and the `guesses` at the levels before, newest first (equations 3 and 8).

    `corrected_by` is the guess at lambdas[-1] itself, once it is known.
    """
    *_, now, target = lambdas.tolist()
    hh = now - target
    grown = math.expm1(hh)
    b = grown if bh2 else hh
    ratios = [(float(lambdas[-2 - k]) - now) / (target - now) for k in range(1, order)]
    changes = [(guesses[k] - guesses[0]) / ratio for k, ratio in enumerate(ratios, start=1)]
    if corrected_by is not None:
        ratios, changes = [*ratios, 1.0], [*changes, corrected_by - guesses[0]]
    x = math.exp(hh) * x - grown * guesses[0]
    for weight, change in zip(_weights(ratios, hh, b), changes, strict=True):
        x = x - b * weight * change
    return x


def _weights(ratios: list[float], hh: float, b: float) -> list[float]:
    """What makes the changes at `ratios` of the step add up to the right integral, up to the order of their number."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    right, g = [], math.expm1(hh) / hh - 1
    for i in range(1, len(ratios) + 1):
        right.append(g * math.factorial(i) / b)
        g = g / hh - 1 / math.factorial(i + 1)
    points = torch.tensor(ratios, dtype=torch.float64)
    powers = points ** torch.arange(len(ratios), dtype=torch.float64).unsqueeze(1)
    return torch.linalg.solve(powers, torch.tensor(right, dtype=torch.float64)).tolist()
