"""Which preview is taken for a VAE: told by whether it fits, not by its name."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core.models.configs import TINY_VAE
from core.models.preview import ApproxDecoder, LinearPreview
from core.weights.files import Files
from core.weights.previews import DecoderPreview, preview_for


class MeanVAE(nn.Module):
    """Its raw latents are a cell's mean colours and a constant, scaled so that network space holds the colours themselves."""

    config = TINY_VAE

    def __init__(self):
        super().__init__()
        self.quant_conv = nn.Conv2d(1, 1, 1)

    def encode(self, image):
        cells = torch.nn.functional.avg_pool2d(image, 8)
        return torch.cat([cells, torch.ones_like(cells[:, :1])], dim=1)


def approx(sign):
    """An ApproxDecoder that shows the first three channels, times `sign`.

    The first leaky ReLU makes 0.1 x out of what is above 0, the last one takes that back; between them everything is lifted.
    """
    decoder = ApproxDecoder()
    factors, biases = [-sign, 1, 1, 1, 1, 1, 1, -10], [0, 4, 0, 0, 0, 0, 0, 40]
    for conv, factor, bias in zip(decoder.children(), factors, biases, strict=True):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        middle = conv.kernel_size[0] // 2
        for channel in range(3):
            conv.weight.data[channel, channel, middle, middle] = factor
            conv.bias.data[channel] = bias
    return decoder.eval()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_a_decoder_that_fits_is_taken_and_one_of_other_latents_is_not(folder):
    save_file(approx(-1.0).state_dict(), folder / "other.safetensors")
    assert isinstance(preview_for(MeanVAE(), Files([folder]), 1.0), LinearPreview)
    save_file(approx(1.0).state_dict(), folder / "fits.safetensors")
    assert isinstance(preview_for(MeanVAE(), Files([folder]), 1.0), DecoderPreview)


def test_a_small_decoder_stays_where_it_was_brought(folder):
    """Who is on the device is known to one owner alone."""
    preview = DecoderPreview(approx(1.0), LinearPreview(torch.eye(4, 3), torch.zeros(3)))
    preview.decoder.to("meta")
    assert preview.decoded(torch.zeros(1, 4, 4, 4)).device.type == "meta"
    assert {weight.device.type for weight in preview.decoder.parameters()} == {"meta"}


def test_files_that_are_no_decoders_are_passed_over(folder):
    save_file({"a": torch.zeros(1)}, folder / "interposer.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"nothing")
    assert isinstance(preview_for(MeanVAE(), Files([folder]), 1.0), LinearPreview)


def test_a_decoder_that_would_cost_more_than_its_share_makes_way_for_the_linear_map():
    ticks = iter([0.0, 10.0, 10.1, 10.2, 20.0, 20.1])  # made; call, done; call; call, done
    linear = LinearPreview(torch.eye(4, 3), torch.zeros(3))
    preview = DecoderPreview(approx(1.0), linear, clock=lambda: next(ticks))
    latent = torch.zeros(1, 4, 4, 4)
    sides = [preview(latent).shape[0] for _ in range(3)]
    assert sides == [8, 4, 8]
