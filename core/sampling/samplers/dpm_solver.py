"""DPM-Solver (Lu et al. 2022): steps of order one to three in lambda = -ln sigma, of fixed or adaptive size.

Both samplers end at the smallest positive level of the list, as their authors have it, and leave that much noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.samplers.ode import euler
from core.sampling.samplers.step import Step
from core.sampling.tables import Table

# The adaptive sampler's tolerances, its first step in lambda, and how much a step may have to shrink and yet be taken.
RELATIVE, ABSOLUTE = 0.05, 0.0078
FIRST_STEP = 0.05
ACCEPT = 0.81


def dpm_fast(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """DPM-Solver-fast: even steps in lambda, mostly of third order; as many evaluations in all as the list has steps."""
    positive = sigmas[sigmas > 0]
    if len(positive) == 1:
        yield from euler(denoise, x, sigmas, noise=noise, table=table)
        return
    orders = fast_orders(len(sigmas) - 1)
    start, end = -positive[0].log(), -positive[-1].log()
    lambdas = start + (end - start) * torch.linspace(0, 1, len(orders) + 1, dtype=sigmas.dtype)
    for i, (order, (s, t)) in enumerate(zip(orders, pairwise(lambdas), strict=True)):
        epsilon, x0 = noise_estimate(denoise, x, s)
        if order == 1:
            x = first_order(x, epsilon, s, t)
        elif order == 2:
            x = second_order(denoise, x, epsilon, s, t)
        else:
            _, x = third_order(denoise, x, epsilon, s, t)
        yield Step(i, x, x0)


def fast_orders(evaluations: int) -> list[int]:
    """The orders of `dpm_fast`'s steps, which add up to `evaluations`."""
    thirds, rest = divmod(evaluations, 3)
    if rest:
        return [3] * thirds + [rest]
    return [3] * (thirds - 1) + [2, 1] if thirds else []


def dpm_adaptive(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """DPM-Solver-23: third order, its step set by the distance to second order (PID control, integral part only).

    Of the list only the ends count; the number of (accepted) steps depends on the picture.
    """
    positive = sigmas[sigmas > 0]
    if len(positive) == 1:
        yield from euler(denoise, x, sigmas, noise=noise, table=table)
        return
    s, end = -positive[0].log(), -positive[-1].log()
    h, index, low_before = FIRST_STEP, 0, x
    epsilon, x0 = noise_estimate(denoise, x, s)
    while True:
        t = torch.minimum(end, s + h)
        low, high = third_order(denoise, x, epsilon, s, t)
        tolerance = (RELATIVE * torch.maximum(low.abs(), low_before.abs())).clamp(min=ABSOLUTE)
        error = float(((low - high) / tolerance).square().mean().sqrt())
        if not math.isfinite(error):  # the network gave NaN or infinity: no step would ever be good enough
            yield Step(index, high, x0)
            return
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        h *= factor
        if factor < ACCEPT:
            continue  # the same step again, shorter
        yield Step(index, high, x0)
        if t >= end - 1e-5:
            return
        s, x, low_before, index = t, high, low, index + 1
        epsilon, x0 = noise_estimate(denoise, x, s)


def noise_estimate(denoise: Denoiser, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The noise in `x` at lambda `s`, as a unit Gaussian would be, and the clean guess."""
    sigma = (-s).exp()
    x0 = denoise(x, sigma)
    return (x - x0) / sigma, x0


def first_order(x: Tensor, epsilon: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """x at lambda `t` from x and its noise at lambda `s`: the exact solution if the noise stayed the same."""
    return x - (-t).exp() * (t - s).expm1() * epsilon


def second_order(denoise: Denoiser, x: Tensor, epsilon: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The same with the noise's change seen at the midpoint (algorithm 1)."""
    middle = (s + t) / 2
    change = noise_estimate(denoise, first_order(x, epsilon, s, middle), middle)[0] - epsilon
    return first_order(x, epsilon + change, s, t)


def third_order(denoise: Denoiser, x: Tensor, epsilon: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x at lambda `t` in second and in third order, from evaluations at one and two thirds (algorithm 2)."""
    h = t - s
    s1, s2 = s + h / 3, s + 2 * h / 3
    change = noise_estimate(denoise, first_order(x, epsilon, s, s1), s1)[0] - epsilon
    second = first_order(x, epsilon + 1.5 * change, s, t)
    u2 = first_order(x, epsilon, s, s2) - (-s2).exp() * 2 * _slope_weight(2 * h / 3) * change
    change = noise_estimate(denoise, u2, s2)[0] - epsilon
    return second, first_order(x, epsilon, s, t) - (-t).exp() * 1.5 * _slope_weight(h) * change


def _slope_weight(h: Tensor) -> Tensor:
    return h.expm1() / h - 1
