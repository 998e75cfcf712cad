"""Size conditioning: the specification's numbers, read back out of the vectors' sinusoids."""

import math

import pytest
import torch

from core.text.size_conditioning import refiner_vector, size_vectors


def numbers_in(vector, pooled_width):
    """The numbers whose sinusoids make up a class vector, found by trying every one up to 4,096 in steps of a half."""
    frequencies = [10000 ** (-i / 128) for i in range(128)]
    candidates = torch.arange(0, 8193, dtype=torch.float64) / 2
    angles = candidates[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    table = torch.cat([angles.cos(), angles.sin()], dim=1)
    found = []
    for part in vector[pooled_width:].double().split(256):
        distance = (table - part).abs().amax(dim=1)
        assert distance.min() < 2e-3  # float32 sines of numbers in the thousands
        found.append(candidates[distance.argmin()].item())
    return found


POOLED = torch.linspace(-1, 1, 1280)[None]


def vectors(width, height, scale, end=0.3):
    return size_vectors(POOLED, width, height, scale=scale, end=end)


@pytest.mark.parametrize(("scale", "said"), [(1.5, (1344, 1728)), (0.8, (716, 921))])
def test_the_specified_numbers_for_1152_x_896(scale, said):
    found = vectors(1152, 896, scale)
    assert found.emphasised.shape == found.consistent.shape == (1, 2816)
    assert numbers_in(found.emphasised[0], 1280) == [*said, 0, 0, 896, 1152]
    assert numbers_in(found.consistent[0], 1280) == [896, 1152, 0, 0, 896, 1152]


def test_the_target_is_rounded_to_64_half_to_even():
    assert numbers_in(vectors(1056, 1120, 1.0).consistent[0], 1280) == [1152, 1024, 0, 0, 1152, 1024]


@pytest.mark.parametrize("size", [(1152, 896), (1000, 520), (256, 256)])
def test_neutral_values_give_plain_sdxl(size):
    width, height = size
    found = vectors(width, height, 1.0, end=0.0)
    assert numbers_in(found.emphasised[0], 1280) == [height, width, 0, 0, height, width]
    assert torch.equal(found.emphasised, found.consistent)


@pytest.mark.parametrize(("size", "said"), [((1056, 1120), [1152, 1024]), ((1000, 520), [512, 1024])])
def test_strict_sizes_are_rounded_though_the_scaling_ends_at_0(size, said):
    """16.1 and 16.3: the consistent half from the start, and its size is a multiple of 64."""
    found = size_vectors(POOLED, *size, scale=1.5, end=0.0, strict=True)
    assert numbers_in(found.consistent[0], 1280) == [*said, 0, 0, *said]


def test_the_pooled_text_comes_first_in_float32_for_every_row():
    pooled = torch.randn(3, 96, dtype=torch.float16)
    found = size_vectors(pooled, 256, 256, scale=1.5, end=0.3).emphasised
    assert found.shape == (3, 96 + 6 * 256)
    assert found.dtype == torch.float32
    assert torch.equal(found[:, :96], pooled.float())
    assert torch.equal(found[0, 96:], found[2, 96:])


def test_the_refiner_is_told_size_crop_and_score():
    found = refiner_vector(POOLED, 1152, 896, 2.5)
    assert found.shape == (1, 2560)
    assert numbers_in(found[0], 1280) == [896, 1152, 0, 0, 2.5]


def test_a_number_is_cosines_then_sines_at_frequencies_from_1_down():
    vector = refiner_vector(torch.zeros(1, 1), 1152, 896, 6.0)[0, -256:]
    assert vector[0] == pytest.approx(math.cos(6), abs=1e-6)
    assert vector[128] == pytest.approx(math.sin(6), abs=1e-6)
    assert vector[128 + 64] == pytest.approx(math.sin(6 / 100), abs=1e-6)
