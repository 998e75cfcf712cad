"""Preview decoders: the linear fit against known truths, the small networks against their published shapes."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import nn

from core.errors import BadModelFile
from core.models.configs import TINY_VAE
from core.models.preview import (
    SDXL_LINEAR,
    ApproxDecoder,
    LinearPreview,
    TinyDecoder,
    fit_linear,
    preview_decoder,
    to_pixels,
)
from core.models.vae import SDXL_SCALE, VAE


class MixingVAE(nn.Module):
    """Encodes each cell's mean colour by a known matrix, so that the right preview is known: its inverse."""

    config = TINY_VAE

    def __init__(self, factors, bias):
        super().__init__()
        self.factors, self.bias = factors, bias
        self.quant_conv = nn.Conv2d(1, 1, 1)

    def encode(self, image):
        cells = torch.nn.functional.avg_pool2d(image, 8)
        return torch.einsum("bchw,cz->bzhw", cells, self.factors) + self.bias[:, None, None]


def test_linear_fit_finds_the_inverse_of_a_linear_autoencoder():
    generator = torch.Generator().manual_seed(0)
    factors, bias = torch.randn(3, 4, generator=generator), torch.randn(4, generator=generator)
    vae = MixingVAE(factors, bias)
    colour = torch.tensor([0.8, -0.4, 0.1])
    latent = (colour @ factors + bias).view(1, 4, 1, 1) * SDXL_SCALE
    [[pixel]] = fit_linear(vae)(latent)
    assert np.abs(pixel - (colour.numpy() + 1) / 2 * 255).max() <= 2


def test_linear_fit_survives_an_autoencoder_that_gives_nan():
    vae = VAE(TINY_VAE)
    with torch.no_grad():
        vae.quant_conv.bias.fill_(float("nan"))
    assert fit_linear(vae) is SDXL_LINEAR


def test_linear_preview_has_a_pixel_a_cell_and_takes_any_type():
    preview = LinearPreview(torch.eye(4, 3), torch.tensor([0.0, 0.0, -1.0]))
    latent = torch.zeros(2, 4, 3, 5, dtype=torch.bfloat16)
    latent[0, 0], latent[0, 1] = 7.0, -7.0
    pixels = preview(latent)
    assert pixels.shape == (3, 5, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_pixels_are_clamped_and_cut_off():
    assert to_pixels(torch.tensor([[[-2.0, 0.0, 2.0]]])).tolist() == [[[0, 127, 255]]]


def test_eight_convolutions_double_the_sides_and_bend_below_zero():
    decoder = preview_decoder(ApproxDecoder().state_dict())
    latent = torch.randn(1, 4, 9, 6)
    assert isinstance(decoder, ApproxDecoder)
    assert decoder(latent).shape == (1, 3, 18, 12)
    with torch.no_grad():
        for conv in decoder.children():
            conv.weight.zero_()
            conv.bias.fill_(-1.0)
    assert decoder(latent).eq(torch.tensor(-0.1)).all()  # the last layer, too, is followed by the leak


@torch.inference_mode()
def test_a_picture_of_1152_x_896_has_a_preview_of_288_x_224():
    """The specification's vector (engine, section 31) for the eight convolutions: the latent of 144 x 112, doubled."""
    latent = torch.zeros(1, 4, 896 // 8, 1152 // 8)
    [picture] = preview_decoder(ApproxDecoder().state_dict())(latent)
    assert to_pixels(picture.permute(1, 2, 0)).shape == (224, 288, 3)


@torch.inference_mode()
def test_tiny_decoder_gives_the_same_picture_as_diffusers():
    torch.manual_seed(0)
    other = AutoencoderTiny().eval()
    weights = {name: tensor for name, tensor in other.state_dict().items() if name.startswith("decoder.")}
    decoder = preview_decoder(weights)
    latent = 3 * torch.randn(1, 4, 5, 7)
    expected = other.decode(latent).sample
    assert isinstance(decoder, TinyDecoder)
    torch.testing.assert_close(decoder(latent), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "decoder.", "taesd_decoder."])
def test_tiny_decoder_is_known_under_all_its_published_names(prefix):
    weights = {prefix + name: tensor for name, tensor in TinyDecoder(16).state_dict().items()}
    assert preview_decoder(weights)(torch.zeros(1, 4, 2, 2)).shape == (1, 3, 16, 16)


def test_something_else_is_refused_with_a_sentence():
    with pytest.raises(BadModelFile, match="no preview decoder"):
        preview_decoder({"weight": torch.zeros(1)})
    broken = TinyDecoder(16).state_dict()
    del broken["7.weight"]
    with pytest.raises(BadModelFile, match="do not fit"):
        preview_decoder(broken)
