"""Latent formats against the formulas of the two families."""

import pytest
import torch

from core.models.latent_format import PLAYGROUND, SD15, SDXL, preview_in
from core.models.preview import LinearPreview


def test_sdxl_latents_are_raw_ones_times_their_scale():
    latent = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SDXL.to_raw(latent), latent / 0.13025)


def test_playground_latents_are_whitened_channel_by_channel_with_half_the_deviation():
    mean, std = (-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299)
    raw = PLAYGROUND.to_raw(torch.full((1, 4, 1, 1), 0.25))
    expected = [0.25 * s / 0.5 + m for m, s in zip(mean, std, strict=True)]
    torch.testing.assert_close(raw.flatten(), torch.tensor(expected))


def test_a_preview_shows_the_same_picture_in_another_format():
    """The latents of an EDM model, looked at as SDXL's, have wrong colours (register: Q05c)."""
    preview = LinearPreview(
        torch.tensor([[0.3, 0, 0], [0, 0.2, 0], [0, 0, 0.1], [0.1, 0.1, 0.1]]), torch.tensor([0.1, 0, 0])
    )
    raw = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 5
    wanted = preview(SDXL.to_network(raw)).astype(int)
    found = preview_in(PLAYGROUND, preview)(PLAYGROUND.to_network(raw)).astype(int)
    assert abs(found - wanted).max() <= 1 and wanted.std() > 5
    assert abs(preview(PLAYGROUND.to_network(raw)).astype(int) - wanted).max() > 5


def test_sd15_latents_are_raw_ones_times_their_scale():
    raw = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SD15.to_network(raw), raw * 0.18215)


@pytest.mark.parametrize("latent_format", [SDXL, SD15, PLAYGROUND])
def test_to_network_is_the_way_back_from_to_raw(latent_format):
    latent = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(latent_format.to_network(latent_format.to_raw(latent)), latent)
