"""Latent formats against the formulas of the two families."""

import torch

from core.models.latent_format import PLAYGROUND, SDXL


def test_sdxl_latents_are_raw_ones_times_their_scale():
    latent = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SDXL.to_raw(latent), latent / 0.13025)


def test_playground_latents_are_whitened_channel_by_channel_with_half_the_deviation():
    mean, std = (-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299)
    raw = PLAYGROUND.to_raw(torch.full((1, 4, 1, 1), 0.25))
    expected = [0.25 * s / 0.5 + m for m, s in zip(mean, std, strict=True)]
    torch.testing.assert_close(raw.flatten(), torch.tensor(expected))
