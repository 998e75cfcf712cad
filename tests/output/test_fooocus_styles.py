"""Styles of a Fooocus picture that are named nowhere: found by their templates in the text that was encoded."""

import pytest
from foreign_samples import FOOOCUS_TEXT

from core.output.foreign.fooocus_styles import with_recovered_styles
from core.output.metadata import read_settings_text
from core.prompt.style_files import Style

STILL = Style("Still", "cinematic still {prompt} . emotional, harmonious", "anime, cartoon")
STYLES = [
    Style("Sharp", "photo of {prompt}, film grain\nsharp focus", "blurry"),
    STILL,
    Style("Enhance", "", "low quality, text"),
    Style("Grim", "grim, dark mood"),
    Style("Nothing", "{prompt}"),
    Style("Still Life", "cinematic still {prompt} . emotional, harmonious, fruit", "anime, cartoon"),
]


def recovered(positive, negative="", *, raw="a fox", raw_negative="", pairs="", styles=STYLES):
    text = (
        f"{positive}\nNegative prompt: {negative}\nSteps: 30, Sampler: Euler, Seed: 1, "
        f'Raw prompt: "{raw}", Raw negative prompt: "{raw_negative}"{pairs}, Version: Fooocus v2.5.5'
    )
    read = with_recovered_styles(read_settings_text(text), styles)
    return [one.name for one in read.named if one.field == "styles"], read


def test_d76_styles_are_recovered_from_the_text_and_no_expansion_is_made_up():
    """D76: a picture with a style gained Fooocus V2 on import; here the list is what stands in the text."""
    read = with_recovered_styles(read_settings_text(FOOOCUS_TEXT), STYLES)
    assert [one.name for one in read.named if one.field == "styles"] == ["Still"]
    assert read.unknown == {}
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == ("a fox", "ugly")
    assert "prompt_expansion" not in read.settings


def test_several_styles_come_in_the_order_of_their_texts_with_the_continued_prompt_first():
    positive = (
        "photo of a fox, film grain, sharp focus, cinematic still a fox . emotional, harmonious, grim, dark mood, "
        "in the snow, a fox, glowing, a fox again"
    )
    negative = "blurry, low quality, text, anime, cartoon, ugly, bad"
    names, read = recovered(positive, negative, raw="a fox\\nin the snow", raw_negative="ugly\\nbad")
    assert names == ["Fooocus V2", "Sharp", "Enhance", "Still", "Grim"]
    assert read.settings["prompt_expansion"] == "a fox, glowing, a fox again"
    assert read.unknown == {}


@pytest.mark.parametrize(
    ("positive", "negative", "names"),
    [
        ("a fox", "", []),
        ("a fox, grim, dark mood", "low quality, text", ["Grim", "Enhance"]),
        ("a fox, a fox, glowing", "", ["Fooocus V2"]),
        ("cinematic still a fox . emotional, harmonious, fruit", "anime, cartoon", ["Still Life"]),
    ],
)
def test_styles_without_a_place_for_the_prompt_stand_behind_it(positive, negative, names):
    found, read = recovered(positive, negative)
    assert (found, read.unknown) == (names, {})
    if not names:
        assert read.settings["styles"] == ()


def test_a_prompt_whose_wildcards_chance_has_settled_is_found_in_its_place():
    names, read = recovered(
        "cinematic still a red, old fox . emotional, harmonious, a red, old fox, glowing",
        "anime, cartoon",
        raw="a __colour__, old fox <lora:ink:0.5>",
    )
    assert (names, read.unknown) == (["Fooocus V2", "Still"], {})


def test_what_no_style_of_the_library_explains_is_told():
    names, read = recovered("oil on canvas of a fox . thick, a fox, glowing", "photo, low quality, text")
    assert names == ["Fooocus V2", "Enhance"]
    assert read.unknown == {
        "Raw prompt with styles": "oil on canvas of a fox . thick",
        "Raw negative prompt with styles": "photo",
    }


def test_a_style_whose_negative_text_is_not_there_is_another_one():
    names, read = recovered("cinematic still a fox . emotional, harmonious", "cartoon")
    assert names == []
    assert read.unknown["Raw prompt with styles"] == "cinematic still a fox . emotional, harmonious"


def test_styles_that_are_named_are_not_sought():
    names, read = recovered("grim, dark mood", pairs=", Styles: \"['Enhance']\"")
    assert names == ["Enhance"]
    assert read.embedded is None


def test_templates_that_would_outgrow_the_text_cost_nothing():
    giant = Style("Giant", "{prompt} " * 2000)
    names, _ = recovered("a fox " * 300, raw="a fox " * 300, styles=[giant] * 2000)
    assert names == []
