"""Samplers that add plain Gaussian noise as they go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from core.errors import BadSetting
from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.samplers.ode import heun_step
from core.sampling.samplers.step import Step, ancestral_split
from core.sampling.schedules import karras_sigmas
from core.sampling.tables import Table


def euler_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table
) -> Iterator[Step]:
    """Euler steps to below the next level, and fresh noise back up to it (k-diffusion; DDPM's split of variance)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        down, up = ancestral_split(sigma, sigma_next)
        x = x + (x - x0) / sigma * (down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield Step(i, x, x0)


def dpm_2_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table
) -> Iterator[Step]:
    """Midpoint steps (see `dpm_2`) to below the next level, and fresh noise back up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        d = (x - x0) / sigma
        down, up = ancestral_split(sigma, sigma_next)
        if down == 0:
            x = x - d * sigma
        else:
            middle = (sigma * down).sqrt()
            x2 = x + d * (middle - sigma)
            d2 = (x2 - denoise(x2, middle)) / middle
            x = x + d2 * (down - sigma) + noise(sigma, sigma_next) * up
        yield Step(i, x, x0)


def dpmpp_2s_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table
) -> Iterator[Step]:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1) to below the next level, and fresh noise back up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        down, up = ancestral_split(sigma, sigma_next)
        if down == 0:
            x = x0
        else:
            middle = (sigma * down).sqrt()
            x2 = middle / sigma * x + (1 - middle / sigma) * x0
            x = down / sigma * x + (1 - down / sigma) * denoise(x2, middle)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield Step(i, x, x0)


def ddpm(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """DDPM (Ho et al. 2020, algorithm 2), the steps' betas taken from the noise levels."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        alpha = alpha_bar / alpha_bar_next
        epsilon = (x - x0) / sigma
        mean = (x * alpha_bar.sqrt() - (1 - alpha) / (1 - alpha_bar).sqrt() * epsilon) / alpha.sqrt()
        if sigma_next > 0:
            variance = (1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)
            mean = mean + noise(sigma, sigma_next) * variance.sqrt()
        x = mean / alpha_bar_next.sqrt()
        yield Step(i, x, x0)


def lcm(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Multistep consistency sampling (Luo et al. 2023, algorithm 3): go to the clean guess, add noise anew."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        x = x0 + noise(sigma, sigma_next) * sigma_next if sigma_next > 0 else x0
        yield Step(i, x, x0)


def tcd(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Strategic stochastic sampling of trajectory consistency distillation (Zheng et al. 2024, algorithm 4), gamma 0.3.

    Each step goes down to 0.7 times the next timestep, and noise brings it back up to the next level.
    Raises BadSetting for a table without training steps.
    """
    if table.alphas_cumprod is None:
        raise BadSetting(
            "The sampler tcd needs a model with 1000 training steps, and this one has continuous noise levels (EDM). "
            "Choose another sampler."
        )
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        below = 7 * int(table.timestep(sigma_next)) // 10 if i + 2 < len(sigmas) else 0
        alpha_bar = table.alphas_cumprod[below].to(sigmas.dtype)
        x = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * (x - x0) / sigma
        if sigma_next > 0:
            # At the table's lowest level the two sides are equal, but for rounding.
            missing = (sigma_next**2 + 1 - 1 / alpha_bar).clamp(min=0)
            x = x / alpha_bar.sqrt() + noise(sigma, sigma_next) * missing.sqrt()
        yield Step(i, x, x0)


def restart(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Heun steps that go back up from sigma 0.1 to 2 and down again (Xu et al. 2023, algorithm 1).

    From 20 steps on Karras' schedule between the list's ends takes the place of `sigmas`.
    """
    segments = restart_segments(sigmas)
    last = segments[0][0] if segments else sigmas[0]
    for i, (sigma, sigma_next) in enumerate(segments):
        if sigma > last:
            x = x + noise(last, sigma) * (sigma**2 - last**2).sqrt()
        x, x0 = heun_step(denoise, x, sigma, sigma_next)
        last = sigma_next
        yield Step(i, x, x0)


def restart_segments(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The steps of `restart`, as many as `sigmas` has, each from one level to the next."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    extra, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    count, first, last = steps - extra * times, float(sigmas[0]), float(sigmas[-1])
    if last > 0:  # the first part of a run that another model ends
        sigmas = karras_sigmas(count + 1, last, first, sigmas.dtype)[:-1]
    else:
        sigmas = karras_sigmas(count, float(sigmas[-2]), first, sigmas.dtype)
    low, high = (int(torch.argmin((sigmas - anchor).abs())) for anchor in (0.1, 2.0))
    segments = list(pairwise(sigmas))
    if high < low:
        again = karras_sigmas(extra + 1, float(sigmas[low]), float(sigmas[high]), sigmas.dtype)[:-1]
        segments[low:low] = list(pairwise(again)) * times
    return segments
