"""FreeU against diffusers' Fourier filter, the definition by whole transforms, and the UNet it sits in."""

import pytest
import torch
from diffusers.utils.torch_utils import apply_freeu, fourier_filter

from core.models.configs import TINY
from core.models.freeu import FreeU, with_backbone, with_low_frequencies
from core.models.unet import UNet


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (28, 36), (2, 3), (2, 2), (5, 2)])
@pytest.mark.parametrize("s", [0.2, 0.95, 1.0, 3.0])
def test_the_skips_low_frequencies_change_as_in_diffusers(size, s):
    skip = noise(2, 5, *size) + 0.7
    torch.testing.assert_close(with_low_frequencies(skip, s), fourier_filter(skip, 1, s), rtol=1e-5, atol=2e-6)


def test_a_side_of_one_cell_has_its_mean_scaled_along_it():
    """By hand: a column of one cell a row has the frequencies 0 and -1 in y alone."""
    skip = torch.full((1, 1, 1, 1), 3.0)
    assert with_low_frequencies(skip, 0.5).item() == pytest.approx(1.5)
    column = torch.tensor([1.0, 5.0]).view(1, 1, 2, 1)  # both frequencies of two cells are low: all is scaled
    torch.testing.assert_close(with_low_frequencies(column, 0.5), column / 2)


def test_half_of_the_channels_grow_where_their_mean_is_large():
    h = noise(2, 6, 4, 5)
    found = with_backbone(h, 1.5)
    for row in range(2):
        mean = h[row].mean(0)
        share = (mean - mean.min()) / (mean.max() - mean.min())
        torch.testing.assert_close(found[row, :3], h[row, :3] * (1 + 0.5 * share))
        assert torch.equal(found[row, 3:], h[row, 3:])


@pytest.mark.parametrize(("level", "channels"), [(0, 128), (1, 64)])
def test_where_the_mean_is_largest_the_factor_is_that_of_diffusers(level, channels):
    """diffusers has version 1, one factor for all places; version 2 goes from 1 to that very factor on the same channels."""
    h, skip = noise(1, channels, 4, 5), noise(1, 6, 4, 5, seed=1)
    factors = {"b1": 1.5, "b2": 1.2, "s1": 0.5, "s2": 0.8}
    theirs, their_skip = apply_freeu(level, h.clone(), skip, **factors)
    ours, our_skip = FreeU(32, **factors)(h, skip)
    mean = h.mean(1).flatten()
    highest, lowest = int(mean.argmax()), int(mean.argmin())
    torch.testing.assert_close(ours.flatten(2)[..., highest], theirs.flatten(2)[..., highest])
    torch.testing.assert_close(ours.flatten(2)[..., lowest], h.flatten(2)[..., lowest])
    assert torch.equal(ours[:, channels // 2 :], theirs[:, channels // 2 :])
    torch.testing.assert_close(our_skip, their_skip, rtol=1e-5, atol=2e-6)


def test_a_flat_map_stays_as_it_is():
    flat = torch.ones(1, 4, 3, 3)
    assert torch.equal(with_backbone(flat, 2.0), flat)


@pytest.mark.parametrize(("channels", "b", "s"), [(128, 1.5, 0.5), (64, 1.2, 0.8), (32, 1.0, 1.0), (96, 1.0, 1.0)])
def test_the_width_says_which_factors_act(channels, b, s):
    h, skip = noise(1, channels, 4, 4), noise(1, 16, 4, 4, seed=1)
    new_h, new_skip = FreeU(32, b1=1.5, b2=1.2, s1=0.5, s2=0.8)(h, skip)
    torch.testing.assert_close(new_h, with_backbone(h, b))
    torch.testing.assert_close(new_skip, fourier_filter(skip, 1, s), rtol=1e-5, atol=2e-6)


@torch.no_grad()
def test_a_unet_meets_the_joint_before_each_output_block_and_with_nothing_to_change_gives_the_same():
    torch.manual_seed(0)
    unet = UNet(TINY).eval()
    inputs = noise(2, 4, 8, 8), torch.tensor([500.0, 500.0]), noise(2, 77, 160), noise(2, 96 + 1536)
    plain = unet(*inputs)
    met = []

    def unchanged(h, skip):
        met.append((h.shape[1], skip.shape[1]))
        return h, skip

    assert torch.equal(unet(*inputs, joint=unchanged), plain)
    assert met == [(64, 64), (64, 32), (64, 32), (32, 32)]
    freeu = unet(*inputs, joint=FreeU(32, b1=1.5, b2=1.5, s1=0.5, s2=0.5))
    assert not torch.allclose(freeu, plain, atol=1e-4)
    nothing = unet(*inputs, joint=FreeU(32, b1=1.0, b2=1.0, s1=1.0, s2=1.0))
    torch.testing.assert_close(nothing, plain, rtol=1e-4, atol=1e-5)


def test_sixteen_bit_maps_keep_their_type():
    h, skip = FreeU(16, 1.1, 1.2, 0.9, 0.2)(noise(1, 64, 4, 4).bfloat16(), noise(1, 32, 4, 4).bfloat16())
    assert h.dtype == skip.dtype == torch.bfloat16
