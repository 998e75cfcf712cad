"""Deterministic samplers: solvers of the probability-flow ODE dx/dsigma = (x - x0) / sigma (Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.samplers.step import Step
from core.sampling.tables import Table


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Euler steps (Karras et al. 2022, algorithm 1 without the correction); the same as DDIM without noise."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        x = x + (x - x0) / sigma * (sigma_next - sigma)
        yield Step(i, x, x0)


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """x at `sigma_next` by one step of Heun's method (by Euler's if that is 0), and the clean guess at `sigma`."""
    x0 = denoise(x, sigma)
    d = (x - x0) / sigma
    ahead = x + d * (sigma_next - sigma)
    if sigma_next == 0:
        return ahead, x0
    d_ahead = (ahead - denoise(ahead, sigma_next)) / sigma_next
    return x + (d + d_ahead) / 2 * (sigma_next - sigma), x0


def heun(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Heun's method (Karras et al. 2022, algorithm 1): two evaluations a step."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, x0 = heun_step(denoise, x, sigma, sigma_next)
        yield Step(i, x, x0)


def heunpp2(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Heun++ (T. Wang, "sd-webui-samplers-scheduler"): slopes at up to three levels ahead, weighted by those levels."""
    first, end = sigmas[0], sigmas[-1]
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        d = (x - x0) / sigma
        if sigma_next != end:
            sigma_2 = sigmas[i + 2]
            x2 = x + d * (sigma_next - sigma)
            d2 = (x2 - denoise(x2, sigma_next)) / sigma_next
            if sigma_2 == end:
                w2 = sigma_next / (2 * first)
                d = (1 - w2) * d + w2 * d2
            else:
                x3 = x2 + d2 * (sigma_2 - sigma_next)
                d3 = (x3 - denoise(x3, sigma_2)) / sigma_2
                w2, w3 = sigma_next / (3 * first), sigma_2 / (3 * first)
                d = (1 - w2 - w3) * d + w2 * d2 + w3 * d3
        x = x + d * (sigma_next - sigma)
        yield Step(i, x, x0)


def dpm_2(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Midpoint steps, the midpoint taken in ln sigma (DPM-Solver-2, Lu et al. 2022; Karras et al. 2022, appendix)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        d = (x - x0) / sigma
        if sigma_next > 0:
            middle = (sigma * sigma_next).sqrt()
            x2 = x + d * (middle - sigma)
            d = (x2 - denoise(x2, middle)) / middle
        x = x + d * (sigma_next - sigma)
        yield Step(i, x, x0)


def lms(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Linear multistep (Adams-Bashforth on uneven steps): the last four slopes, extrapolated by a polynomial."""
    slopes: list[Tensor] = []  # the newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        levels = sigmas[i + 1 - len(slopes) : i + 1].flip(0).tolist()
        weights = multistep_weights(levels, float(sigma_next))
        x = x + sum((w * d for w, d in zip(weights, slopes, strict=True)), start=0.0)
        yield Step(i, x, x0)


def multistep_weights(levels: list[float], end: float) -> list[float]:
    """Integrals from levels[0] to `end` of the Lagrange polynomials over `levels` (one to four of them).

    Two Gauss-Legendre points are exact up to degree three, so nothing is approximated.
    """
    middle, half = (levels[0] + end) / 2, (end - levels[0]) / 2
    points = (middle - half / 3**0.5, middle + half / 3**0.5)

    def lagrange(at: float, j: int) -> float:
        value = 1.0
        for k, level in enumerate(levels):
            if k != j:
                value *= (at - level) / (levels[j] - level)
        return value

    return [half * sum(lagrange(point, j) for point in points) for j in range(len(levels))]


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): second order from the guess of the step before."""
    earlier, h_earlier = None, sigmas[0]
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        h = (sigma / sigma_next).log()
        ahead = x0
        if earlier is not None and sigma_next > 0:
            ahead = x0 + (x0 - earlier) * (h / (2 * h_earlier))
        x = sigma_next / sigma * x - (-h).expm1() * ahead
        earlier, h_earlier = x0, h
        yield Step(i, x, x0)
