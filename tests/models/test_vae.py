"""The autoencoder against diffusers' on the same random weights, and against the published layout."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from layouts import VAE as PREFIX
from layouts import part

from core.models.configs import TINY_VAE, VAEConfig
from core.models.vae import DECODE_OVERLAP, DECODE_TILES, ENCODE_OVERLAP, VAE, _origins, _ramp, _tiled
from tools import make_layout_lists as peer

SMALL = {
    **peer.VAE,
    "block_out_channels": (128, 128, 256, 256),  # diffusers has 32 groups in every norm, so not below 128
    "layers_per_block": 1,
}


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return VAE(TINY_VAE)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    other = AutoencoderKL(**SMALL).eval()
    weights = peer.vae_to_ldm(other.state_dict())
    vae = VAE(VAEConfig.from_shapes(shapes_of(weights)))
    vae.load_state_dict(weights, strict=True)
    return vae, other


@torch.inference_mode()
def test_encodes_the_same_as_diffusers(pair):
    vae, other = pair
    image = torch.rand(1, 3, 48, 64) * 2 - 1
    expected = other.encode(image).latent_dist
    mean, logvar = vae.moments(image)
    assert relative(mean, expected.mean) < 1e-5
    assert relative(logvar, expected.logvar) < 1e-5
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    assert relative(vae.encode(image, noise=noise), expected.sample(torch.Generator().manual_seed(3))) < 1e-5
    assert torch.equal(vae.encode(image), mean)


@torch.inference_mode()
def test_decodes_the_same_as_diffusers(pair):
    vae, other = pair
    latent = torch.randn(1, 4, 6, 9)
    assert relative(vae.decode(latent), other.decode(latent).sample) < 1e-5


def test_full_size_has_the_names_shapes_and_number_of_weights_of_the_published_file():
    published = part("sdxl", PREFIX)
    with torch.device("meta"):
        vae = VAE(VAEConfig())
    assert shapes_of(vae.state_dict()) == published
    assert VAEConfig.from_shapes(published) == VAEConfig()
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


def test_log_variance_is_clamped(tiny):
    with torch.no_grad():
        tiny.quant_conv.bias[4:] = torch.tensor([1000.0, -1000.0, 0.0, 0.0])
        _, logvar = tiny.moments(torch.zeros(1, 3, 16, 16))
    assert logvar[:, 0].eq(20).all() and logvar[:, 1].eq(-30).all()


@torch.inference_mode()
def test_one_tile_is_the_whole(tiny):
    latent = torch.randn(1, 4, 20, 24)
    torch.testing.assert_close(tiny.decode_tiled(latent), tiny.decode(latent), rtol=1e-4, atol=1e-4)
    image = torch.rand(1, 3, 128, 96) * 2 - 1
    torch.testing.assert_close(tiny.encode_tiled(image), tiny.encode(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile", DECODE_TILES)
def test_tiles_of_a_local_function_join_without_seams(tile):
    """What depends on one cell alone comes out of tiles as it comes out of the whole."""
    latent = torch.randn(1, 4, 70, 140, generator=torch.Generator().manual_seed(0))
    tiled = _tiled(lambda x: F.interpolate(x, scale_factor=8.0), latent, tile, DECODE_OVERLAP, 8.0)
    torch.testing.assert_close(tiled, F.interpolate(latent, scale_factor=8.0), rtol=1e-5, atol=1e-5)
    image = torch.randn(1, 3, 600, 1200, generator=torch.Generator().manual_seed(0))
    size = (tile[0] * 8, tile[1] * 8)
    tiled = _tiled(lambda x: F.avg_pool2d(x, 8), image, size, ENCODE_OVERLAP, 1 / 8)
    torch.testing.assert_close(tiled, F.avg_pool2d(image, 8), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 16, 17, 64, 65, 112, 113, 500])
def test_tiles_cover_everything_with_positive_weight(length):
    weight = torch.zeros(length)
    for start in _origins(length, 64, 16):
        assert start < length
        size = min(64, length - start)
        weight[start : start + size] += _ramp(size, 16, weight.device)
    assert (weight > 0).all()


@torch.inference_mode()
def test_check_is_called_between_blocks(tiny):
    calls = []
    tiny.decode(torch.zeros(1, 4, 4, 4), check=lambda: calls.append(None))
    decoding = len(calls)
    tiny.encode(torch.zeros(1, 3, 32, 32), check=lambda: calls.append(None))
    assert decoding >= 8 and len(calls) - decoding >= 7


def test_every_weight_learns(tiny):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    noise = torch.randn(1, 4, 4, 4)
    (tiny.decode(tiny.encode(image, noise=noise)) - image).square().mean().backward()
    assert [name for name, p in tiny.named_parameters() if p.grad is None] == []


@torch.inference_mode()
def test_bf16_on_a_cpu_stays_within_its_rounding(tiny):
    """It has its numbers in another order there; the picture has them in the usual one."""
    rounded = VAE(TINY_VAE).to(torch.bfloat16)
    rounded.load_state_dict(tiny.state_dict())
    latent, image = torch.randn(1, 4, 9, 12), torch.rand(1, 3, 40, 56) * 2 - 1
    decoded = rounded.decode(latent)
    assert decoded.is_contiguous() and decoded.dtype == torch.float32
    assert relative(decoded, tiny.decode(latent)) < 0.03
    assert relative(rounded.encode(image), tiny.encode(image)) < 0.03
