"""Text to image: sampling starts from nothing but noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.sampling.denoiser import Denoiser
from core.settings import Settings


def _unchanged(denoise: Denoiser) -> Denoiser:
    return denoise


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where sampling starts from.

    `latent` (1, 4, H/8, W/8) in network space is added to the first noise; `strength` in (0, 1] is the share of the
    schedule that is run; `wrap` changes the denoiser (inpainting, say), and `wrap_swapped`, if it is not the same, that of
    a refiner with an autoencoder of its own, in whose latent space it is asked.
    """

    latent: Tensor
    strength: float = 1.0
    wrap: Callable[[Denoiser], Denoiser] = _unchanged
    wrap_swapped: Callable[[Denoiser], Denoiser] | None = None


def start_from_text(settings: Settings) -> Start:
    """An empty latent of the asked size, the whole schedule."""
    return Start(latent=torch.zeros(1, 4, settings.height // 8, settings.width // 8))
