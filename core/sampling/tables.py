"""Sigma tables: which noise levels a network knows, and how it names them.

A table translates between a noise level `sigma`, the label `t` ("timestep") that the network is told, and the share of
the run that lies behind (`progress`, 0 at sigma_max, 1 at sigma_min). Tables live on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

STEPS = 1000  # of the diffusion that SD and SDXL were trained with


class Table(Protocol):
    """What predictions, schedules and samplers need to know about noise levels."""

    @property
    def sigmas(self) -> Tensor:
        """The noise levels (n,), float32, ascending."""

    @property
    def sigma_min(self) -> float: ...

    @property
    def sigma_max(self) -> float: ...

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the clean latents as the network's preconditioning assumes it."""

    @property
    def alphas_cumprod(self) -> Tensor | None:
        """Share of signal power at the 1000 training steps, float32; None for a table without such steps."""

    def timestep(self, sigma: Tensor) -> Tensor:
        """The label for `sigma` (any shape), float32."""

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level for the label `t` (any shape, fractions allowed), float32."""

    def progress(self, sigma: Tensor) -> float:
        """Share of the way from sigma_max to sigma_min that lies behind at `sigma` (one element), from 0 to 1."""

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level at which `percent` (0 to 1) of the way lies behind; beyond all levels at the two ends."""


@dataclass(frozen=True, eq=False)
class DiscreteTable:
    """Noise levels at evenly spaced training steps: entry k is step `stride` * k + `offset`."""

    sigmas: Tensor
    alphas_cumprod: Tensor
    stride: int = 1
    offset: int = 0
    sigma_data: float = 1.0

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def timestep(self, sigma: Tensor) -> Tensor:
        """The label of the nearest entry by ratio: always a whole number."""
        log_sigmas = self.sigmas.log().to(sigma.device)
        nearest = (sigma.to(torch.float32).log().unsqueeze(-1) - log_sigmas).abs().argmin(-1)
        return (nearest * self.stride + self.offset).to(torch.float32)

    def sigma(self, t: Tensor) -> Tensor:
        """Between two entries ln sigma is interpolated linearly; beyond the ends the end's value."""
        log_sigmas = self.sigmas.log().to(t.device)
        position = ((t.to(torch.float32) - self.offset) / self.stride).clamp(0, len(self.sigmas) - 1)
        low, high = position.floor().long(), position.ceil().long()
        return torch.lerp(log_sigmas[low], log_sigmas[high], position - low).exp()

    def progress(self, sigma: Tensor) -> float:
        return 1 - self.timestep(sigma).item() / (STEPS - 1)

    def percent_to_sigma(self, percent: float) -> float:
        if not 0 < percent < 1:
            return 999999999.9 if percent <= 0 else 0.0
        return float(self.sigma(torch.tensor((1 - percent) * (STEPS - 1))))


@dataclass(frozen=True)
class EDMTable:
    """Every noise level from `sigma_min` to `sigma_max` (Karras et al. 2022); the label is a quarter of ln sigma.

    That label says nothing about how far the run is, so `progress` is measured on ln sigma instead.
    """

    sigma_min: float = 0.002
    sigma_max: float = 120.0
    sigma_data: float = 0.5
    alphas_cumprod: None = None

    @property
    def sigmas(self) -> Tensor:
        """For schedules that pick entries: 1000 levels, evenly spaced in ln sigma."""
        return torch.linspace(math.log(self.sigma_min), math.log(self.sigma_max), STEPS).exp()

    def timestep(self, sigma: Tensor) -> Tensor:
        return 0.25 * sigma.to(torch.float32).log()

    def sigma(self, t: Tensor) -> Tensor:
        return (4 * t.to(torch.float32)).exp()

    def progress(self, sigma: Tensor) -> float:
        level = min(max(float(sigma), self.sigma_min), self.sigma_max)
        return math.log(self.sigma_max / level) / math.log(self.sigma_max / self.sigma_min)

    def percent_to_sigma(self, percent: float) -> float:
        if not 0 < percent < 1:
            return 999999999.9 if percent <= 0 else 0.0
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** percent


def discrete_table(*, zero_terminal_snr: bool = False) -> DiscreteTable:
    """The 1000 levels of SD and SDXL: betas from 0.00085 to 0.012, evenly spaced in their square root.

    `zero_terminal_snr` rescales them so that the last one is all but pure noise (Lin et al. 2024, Algorithm 1).
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    alphas_cumprod = (1 - betas).cumprod(0)
    if zero_terminal_snr:
        root = alphas_cumprod.sqrt()
        alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        alphas_cumprod[-1] = 4.8973451890853435e-08  # the exact 0 would be sigma = infinity
    return DiscreteTable(_sigmas(alphas_cumprod), alphas_cumprod.float())


def distilled_table() -> DiscreteTable:
    """The 50 of the 1000 levels that LCM and TCD were distilled on: steps 19, 39, ..., 999."""
    full = discrete_table()
    return DiscreteTable(full.sigmas[19::20], full.alphas_cumprod, stride=20, offset=19)


def _sigmas(alphas_cumprod: Tensor) -> Tensor:
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()
