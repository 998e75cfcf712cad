"""Latent formats: from what a denoising network works in to the autoencoder's raw latents, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.preview import LinearPreview, Preview
from core.models.vae import SD15_SCALE, SDXL_SCALE, VAE


@dataclass(frozen=True)
class LatentFormat:
    """network = (raw - mean) * scale, channel by channel."""

    scale: tuple[float, float, float, float]
    mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def to_raw(self, latent: Tensor) -> Tensor:
        """A network-space latent (B, 4, h, w) as the autoencoder decodes it."""
        return latent / _channels(self.scale, latent) + _channels(self.mean, latent)

    def to_network(self, raw: Tensor) -> Tensor:
        """A latent (B, 4, h, w) that the autoencoder encoded, as a denoising network wants it."""
        return (raw - _channels(self.mean, raw)) * _channels(self.scale, raw)


SDXL = LatentFormat((SDXL_SCALE,) * 4)
SD15 = LatentFormat((SD15_SCALE,) * 4)
# Playground v2.5's own statistics (its VAE's config.json: latents_mean, latents_std), times sigma_data 0.5.
_PLAYGROUND_STD = (8.4927, 5.9022, 6.5498, 5.2299)
PLAYGROUND = LatentFormat(
    scale=(0.5 / _PLAYGROUND_STD[0], 0.5 / _PLAYGROUND_STD[1], 0.5 / _PLAYGROUND_STD[2], 0.5 / _PLAYGROUND_STD[3]),
    mean=(-1.6574, 1.886, -1.383, 2.5155),
)


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """What a latent in network space is to be read with: its autoencoder, its scale, its preview."""

    vae: VAE
    format: LatentFormat
    preview: Preview


def preview_in(format: LatentFormat, preview: Preview) -> LinearPreview:
    """The preview for latents of `format` that shows what `preview` shows for the same latents in SDXL's."""
    ratio = torch.tensor(SDXL.scale) / torch.tensor(format.scale)
    shift = torch.tensor(format.mean) * torch.tensor(SDXL.scale)
    factors, bias = preview.linear.factors, preview.linear.bias
    return LinearPreview(factors * ratio.to(factors)[:, None], bias + shift.to(factors) @ factors)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
