"""Decoding by rows against decoding at once."""

import pytest
import torch

from core.models import vae_rows
from core.models.configs import TINY_VAE
from core.models.vae import VAE
from core.models.vae_rows import decode_in_rows


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return VAE(TINY_VAE).eval().requires_grad_(False)


@pytest.mark.parametrize("strip", [1, 5_000, 2**24], ids=["row by row", "a few rows", "all rows"])
@pytest.mark.parametrize("size", [(8, 8), (9, 5), (1, 3)])
@pytest.mark.parametrize("batch", [1, 2])
@torch.inference_mode()
def test_rows_give_what_the_whole_gives(vae, monkeypatch, strip, size, batch):
    monkeypatch.setattr(vae_rows, "STRIP", strip)
    latent = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode_in_rows(vae, latent), vae.decode(latent), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_in_bf16_rows_deviate_from_the_true_picture_no_more_than_the_whole_does(vae, monkeypatch):
    monkeypatch.setattr(vae_rows, "STRIP", 5_000)
    latent = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False):
        half = VAE(TINY_VAE).eval().requires_grad_(False)
        half.load_state_dict(vae.state_dict())
        half.to(torch.bfloat16)
    true = vae.decode(latent)
    by_rows, whole = decode_in_rows(half, latent), half.decode(latent)
    assert by_rows.is_contiguous() and by_rows.dtype == torch.float32
    assert (by_rows - true).norm() < 1.2 * (whole - true).norm()


@torch.inference_mode()
def test_no_more_than_a_layers_input_and_output_are_whole(vae, monkeypatch):
    """What the largest piece given to a convolution takes, against the map that it is a piece of."""
    monkeypatch.setattr(vae_rows, "STRIP", 2**14)
    sizes, real = [], torch.nn.functional.conv2d

    def seen(x, *args, **kwargs):
        sizes.append(x.numel() * 4)
        return real(x, *args, **kwargs)

    monkeypatch.setattr(vae_rows.F, "conv2d", seen)
    decode_in_rows(vae, torch.zeros(1, 4, 32, 32))
    whole = TINY_VAE.channels * 256 * 256 * 4
    assert max(sizes) < whole / 20


@torch.inference_mode()
def test_stop_acts_between_blocks(vae):
    class Stop(Exception):
        pass

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise Stop

    calls = []
    with pytest.raises(Stop):
        decode_in_rows(vae, torch.zeros(1, 4, 8, 8), check=check)
