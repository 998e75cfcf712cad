"""Latent formats: from what a denoising network works in to the autoencoder's raw latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.vae import SDXL_SCALE


@dataclass(frozen=True)
class LatentFormat:
    """network = (raw - mean) * scale, channel by channel."""

    scale: tuple[float, float, float, float]
    mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def to_raw(self, latent: Tensor) -> Tensor:
        """A network-space latent (B, 4, h, w) as the autoencoder decodes it."""
        return latent / _channels(self.scale, latent) + _channels(self.mean, latent)


SDXL = LatentFormat((SDXL_SCALE,) * 4)
# Playground v2.5's own statistics (its VAE's config.json: latents_mean, latents_std), times sigma_data 0.5.
_PLAYGROUND_STD = (8.4927, 5.9022, 6.5498, 5.2299)
PLAYGROUND = LatentFormat(
    scale=(0.5 / _PLAYGROUND_STD[0], 0.5 / _PLAYGROUND_STD[1], 0.5 / _PLAYGROUND_STD[2], 0.5 / _PLAYGROUND_STD[3]),
    mean=(-1.6574, 1.886, -1.383, 2.5155),
)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
