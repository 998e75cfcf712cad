from fractions import Fraction

import pytest

from core.settings import ASPECT_RATIOS, Settings
from webui.sizes import CUSTOM, label, labels, matching_label, parse_label, scaled_sizes


def test_an_sdxl_model_is_offered_the_ratios_as_they_are():
    assert scaled_sizes((1024, 1024)) == list(ASPECT_RATIOS)


def test_a_256_pixel_model_is_offered_the_same_shapes_at_a_quarter():
    assert scaled_sizes((256, 256)) == [(width // 4, height // 4) for width, height in ASPECT_RATIOS]


@pytest.mark.parametrize("native", [(128, 128), (256, 256), (512, 512), (768, 768), (1024, 1024), (1536, 640)])
def test_every_size_on_offer_can_be_asked_for_and_is_near_the_native_pixel_count(native):
    sizes = scaled_sizes(native)
    assert len(sizes) == len(set(sizes)) >= 10
    for width, height in sizes:
        Settings(width=width, height=height)
        if native[0] * native[1] >= 256**2:
            assert 0.85 < width * height / (native[0] * native[1]) < 1.15


def test_a_label_shows_the_size_and_the_reduced_ratio():
    assert label((1152, 896)) == "1152 × 896 ∣ 9:7"
    assert label((1024, 1024)) == "1024 × 1024 ∣ 1:1"


def test_a_label_leads_back_to_its_size():
    for entry in labels((1024, 1024)):
        size = parse_label(entry)
        assert (size is None) == (entry == CUSTOM)
        if size:
            ratio = entry.split(" ∣ ")[1].split(":")
            assert Fraction(size[0], size[1]) == Fraction(int(ratio[0]), int(ratio[1]))
            assert matching_label(size, (1024, 1024)) == entry


@pytest.mark.parametrize("entry", [None, "", "1152", ["1152 × 896 ∣ 9:7"], "9" * 9999 + " × 1 ∣ 1:1"])
def test_what_is_no_entry_leads_to_no_size(entry):
    assert parse_label(entry) is None


def test_a_size_that_is_not_on_offer_is_custom():
    assert matching_label((1000, 1000), (1024, 1024)) == CUSTOM
    assert matching_label((None, 256), (256, 256)) == CUSTOM
