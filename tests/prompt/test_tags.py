"""Tags: LoRAs and styles in the prompt."""

import time

import pytest

from core.errors import BadSetting
from core.prompt.lines import tidy
from core.prompt.tags import LoraNames, take_loras, take_styles, with_tags
from core.settings import Lora

NAMES = LoraNames([f"{n}.safetensors" for n in ("hey-lora", "you-lora", "l1", "l2", "l3", "l4", "l6", "l7")])


def loras(**weights):
    return tuple(Lora(f"{name.replace('_', '-')}.safetensors", weight) for name, weight in weights.items())


def taken(prompt, rows=(), most=5):
    text, inline, _ = take_loras(prompt, NAMES)
    return with_tags(rows, inline, most)[0], tidy(text)


HEY_YOU = "some prompt, very cool, <lora:hey-lora:0.4>,  cool   <lora:you-lora:0.2>"


@pytest.mark.parametrize(
    ("prompt", "rows", "most", "expected", "left"),
    [
        (HEY_YOU, (), 5, loras(hey_lora=0.4, you_lora=0.2), "some prompt, very cool, cool"),
        (HEY_YOU, (), 1, loras(hey_lora=0.4), "some prompt, very cool, cool"),
        (
            "some prompt, very cool, <lora:l1:0.4><lora:l2:-0.2><lora:l3:0.3><lora:l4:0.5><lora:l6:0.24><lora:l7:0.1>",
            loras(hey_lora=0.4),
            5,
            loras(hey_lora=0.4, l1=0.4, l2=-0.2, l3=0.3, l4=0.5),
            "some prompt, very cool",
        ),
        (
            "some prompt, very cool, <lora:hey-lora:0.4><lora:you-lora:0.2>",
            (),
            3,
            loras(hey_lora=0.4, you_lora=0.2),
            "some prompt, very cool",
        ),
        (
            "some prompt, very cool, <lora:hey-lora:0.4><lora:hey-lora:0.4><lora:you-lora:0.2>",
            loras(you_lora=0.3),
            3,
            loras(you_lora=0.3, hey_lora=0.4),
            "some prompt, very cool",
        ),
        (
            "<lora:foo:1..2>, <lora:bar:.>, <test:1.0>, <lora:baz:+> and <lora:quux:>",
            (),
            6,
            (),
            "<lora:foo:1..2>, <lora:bar:.>, <test:1.0>, <lora:baz:+> and <lora:quux:>",
        ),
    ],
)
def test_the_references_own_vectors(prompt, rows, most, expected, left):
    """Section 7.2 of the specification."""
    assert taken(prompt, rows, most) == (expected, left)


def test_cleaning_a_prompt_takes_its_loras_and_leaves_one_blank_behind_each_comma():
    """The specification's vector (engine, section 31)."""
    names = LoraNames(["ink.safetensors", "film.safetensors"])
    text, inline, notices = take_loras("a cat, <lora:ink:0.4>, big   hat <lora:film:-.2>", names)
    assert inline == [Lora("ink.safetensors", 0.4), Lora("film.safetensors", -0.2)] and notices == []
    assert tidy(text) == "a cat, big hat"
    text, inline, [notice] = take_loras("a cat, <lora:ink:1..2>", names)
    assert (tidy(text), inline) == ("a cat, <lora:ink:1..2>", []) and "<lora:NAME:WEIGHT>" in notice


@pytest.mark.parametrize(
    ("mode", "own"),
    [
        ("quality", None),
        ("speed", None),
        ("extreme_speed", "sdxl_lcm_lora"),
        ("lightning", "sdxl_lightning_4step_lora"),
        ("hyper_sd", "sdxl_hyper_sd_4step_lora"),
    ],
)
def test_a_fast_modes_own_lora_cannot_be_added_by_a_tag(mode, own):
    """Section 7.3 of the specification; and it is told, not dropped in silence (D23)."""
    names = LoraNames(
        ["hey.safetensors", "sdxl_lcm_lora.safetensors", "sdxl_lightning_4step_lora.safetensors",
         "sub/sdxl_hyper_sd_4step_lora.safetensors"]
    )  # fmt: skip
    prompt = f"cool <lora:hey:0.4> <lora:{own or 'sdxl_lcm_lora'}:1>"
    text, inline, notices = take_loras(prompt, names, mode)
    assert tidy(text) == "cool"
    assert inline[0] == Lora("hey.safetensors", 0.4)
    assert len(inline) == (1 if own else 2) and bool(notices) == bool(own)


@pytest.mark.parametrize("weight", ["1", "1.", ".5", "-1.6", "+2", "0"])
def test_a_weight_is_a_signed_decimal_number(weight):
    assert take_loras(f"<lora:l1:{weight}>", NAMES)[:2] == ("", [Lora("l1.safetensors", float(weight))])


@pytest.mark.parametrize(
    "name", ["film", "FILM", "Film.safetensors", "look/film", "look\\Film", "look/Film.safetensors"]
)
def test_a_name_is_found_by_stem_or_path_in_any_case(name):
    assert LoraNames(["look/Film.safetensors", "other/film.safetensors"]).find(name) is not None


def test_a_whole_path_comes_before_the_same_name_in_a_folder():
    names = LoraNames(["anime/deep/foo.safetensors", "anime/foo.safetensors", "bar/x.safetensors", "foo.safetensors"])
    for name in ("foo", "foo.safetensors", "FOO"):
        assert names.find(name) == "foo.safetensors"
    assert names.find("anime/foo") == "anime/foo.safetensors"
    assert LoraNames(["a/deep/foo.safetensors", "b/foo.safetensors"]).find("foo") == "b/foo.safetensors"


def test_an_exact_name_comes_before_one_in_another_case_and_the_first_of_two_counts():
    names = LoraNames(["a/film.safetensors", "b/Film.safetensors", "c/film.safetensors"])
    assert (names.find("Film"), names.find("film"), names.find("c/film")) == (
        "b/Film.safetensors", "a/film.safetensors", "c/film.safetensors",
    )  # fmt: skip


def test_an_unknown_name_is_told_with_the_one_that_was_meant():
    """Defect D23: the reference drops the tag in silence."""
    text, inline, [notice] = take_loras("a <lora:hey_lora:1> b", NAMES)
    assert (tidy(text), inline) == ("a b", [])
    assert "'hey_lora'" in notice and "'hey-lora'" in notice


def test_what_only_looks_like_a_tag_is_told_and_stays():
    text, _, [notice] = take_loras("a <lora:hey-lora> b", NAMES)
    assert text == "a <lora:hey-lora> b" and "<lora:NAME:WEIGHT>" in notice


def test_a_weight_out_of_bounds_is_an_error():
    with pytest.raises(BadSetting, match=r"from -10\.0 to 10\.0"):
        take_loras(f"<lora:l1:{'9' * 40}>", NAMES)


def test_rows_come_before_tags_of_the_same_file_and_this_is_told():
    rows = (Lora("l1.safetensors", 0.3), Lora("l2.safetensors", 1.0, enabled=False))
    found, [notice] = with_tags(rows, [Lora("l1.safetensors", 0.9), Lora("l2.safetensors", 0.5)], 5)
    assert found == (Lora("l1.safetensors", 0.3), Lora("l2.safetensors", 0.5))
    assert "l1.safetensors" in notice


def test_without_new_ones_the_rows_stay_however_many():
    rows = tuple(Lora(f"{i}.safetensors") for i in range(9))
    assert with_tags(rows, [], 5) == (rows, [])
    assert with_tags(rows, [Lora("0.safetensors", 2)], 5)[0] == rows


def test_what_is_beyond_the_limit_is_told():
    found, [notice] = with_tags((), [Lora("a", 1), Lora("b", 1)], 1)
    assert found == (Lora("a", 1),) and "left out: b" in notice


def test_style_tags_are_taken_out_in_order():
    assert take_styles("a <style:Line Art> fox<style: 3D Render >") == ("a  fox", ["Line Art", "3D Render"])


@pytest.mark.parametrize(
    "text", ["<lora:" * 20_000, "<lora:" + "a" * 100_000, "<lora:a:" + "1" * 100_000, "<style:" * 15_000]
)
def test_no_text_takes_long(text):
    """Five times what a prompt may have: what grows with the square of it takes a minute."""
    began = time.perf_counter()
    take_loras(text, NAMES)
    take_styles(text)
    assert time.perf_counter() - began < 5
