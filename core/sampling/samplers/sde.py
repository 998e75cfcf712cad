"""DPM-Solver++ for the diffusion SDE (Lu et al. 2022b; the SDE forms by K. Crowson), noise from a Brownian path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.sampling.noise import NoiseSource
from core.sampling.samplers.step import Step, ancestral_split
from core.sampling.tables import Table


def dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Singlestep, second order, its midpoint halfway in ln sigma: two evaluations a step."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if sigma_next == 0:
            x = x0
        else:
            middle = (sigma * sigma_next).sqrt()
            down, up = ancestral_split(sigma, middle)
            x2 = down / sigma * x + (1 - down / sigma) * x0 + noise(sigma, middle) * up
            down, up = ancestral_split(sigma, sigma_next)
            x = down / sigma * x + (1 - down / sigma) * denoise(x2, middle) + noise(sigma, sigma_next) * up
        yield Step(i, x, x0)


def dpmpp_2m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Multistep, second order ("midpoint"): one evaluation a step."""
    earlier, h_earlier = None, sigmas[0]
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        h = (sigma / sigma_next).log()
        if sigma_next == 0:
            x = x0
        else:
            toward = -(-2 * h).expm1()  # 1 - exp(-2h)
            x = sigma_next / sigma * (-h).exp() * x + toward * x0
            if earlier is not None:
                x = x + toward / 2 * (h / h_earlier) * (x0 - earlier)
            x = x + noise(sigma, sigma_next) * (sigma_next * toward.sqrt())
        earlier, h_earlier = x0, h
        yield Step(i, x, x0)


def dpmpp_3m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource, table: Table) -> Iterator[Step]:
    """Multistep, third order: one evaluation a step."""
    earlier: list[Tensor] = []  # guesses, the newest first
    h_earlier: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        h = (sigma / sigma_next).log()
        if sigma_next == 0:
            x = x0
        else:
            g = 2 * h
            toward = -(-g).expm1()  # 1 - exp(-g)
            phi_2 = 1 - toward / g
            phi_3 = phi_2 / g - 0.5
            x = (-g).exp() * x + toward * x0
            if len(earlier) == 1:
                x = x + phi_2 * (h / h_earlier[0]) * (x0 - earlier[0])
            elif len(earlier) == 2:
                r0, r1 = h_earlier[0] / h, h_earlier[1] / h
                slope, slope_before = (x0 - earlier[0]) / r0, (earlier[0] - earlier[1]) / r1
                bend = (slope - slope_before) / (r0 + r1)
                x = x + phi_2 * (slope + bend * r0) - phi_3 * bend
            x = x + noise(sigma, sigma_next) * (sigma_next * toward.sqrt())
        earlier, h_earlier = [x0, *earlier[:1]], [h, *h_earlier[:1]]
        yield Step(i, x, x0)
