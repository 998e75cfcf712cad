"""Completing what is being typed in a prompt."""

import pytest

from core.prompt.resources import Names, PromptResources
from core.prompt.suggestions import suggestions

NAMES = Names(
    styles=("Fooocus V2", "Random Style", "Line Art", "Single Line", "Pipeline Dream"),
    wildcards=("animal", "color", "color_flower", "plants/color"),
    loras=("look/Film.safetensors", "old/film grain.safetensors", "a/x.safetensors", "b/x.safetensors"),
    embeddings=("bad_hands.safetensors", "good.pt"),
)


def complete(text, limit=20):
    """The texts that choosing each suggestion would make; `|` is the caret."""
    caret = text.index("|")
    plain = text.replace("|", "")
    return [plain[: s.start] + s.insert + plain[s.end :] for s in suggestions(plain, caret, NAMES, limit)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a __col|", ["a __color__", "a __color_flower__", "a __plants/color__"]),
        ("a __ani|mal__ b", ["a __animal__ b"]),
        ("__animal__ __fl|", ["__animal__ __color_flower__"]),
        ("<lora:film|", ["<lora:Film:1>", "<lora:film grain:1>"]),
        ("<lora:grain|:0.7> x", ["<lora:film grain:0.7> x"]),
        ("<lora:x|", ["<lora:a/x:1>", "<lora:b/x:1>"]),
        ("<LORA:Gra|", ["<lora:film grain:1>"]),
        ("<style:line|", ["<style:Line Art>", "<style:Single Line>", "<style:Pipeline Dream>"]),
        ("<style:fooocus v|2> x", ["<style:Fooocus V2> x"]),
        ("a (embedding:b|", ["a (embedding:bad_hands:1)"]),
        ("a (embedding:b|:1.3) c", ["a (embedding:bad_hands:1.3) c"]),
        ("embedding:go|", ["embedding:good"]),
    ],
)
def test_what_was_begun_is_completed_in_place(typed, expected):
    assert complete(typed) == expected


@pytest.mark.parametrize(
    "typed", ["a fox|", "__color__|", "__color__ and|", "<lora:film:0.5>|", "a _|", "|", "__\n|", "<style:Line Art>|"]
)
def test_nothing_is_offered_where_nothing_was_begun(typed):
    assert complete(typed) == []


def test_an_open_tag_offers_all_names_in_their_order():
    assert complete("__|") == ["__animal__", "__color__", "__color_flower__", "__plants/color__"]
    assert complete("<style:|", limit=2) == ["<style:Fooocus V2>", "<style:Random Style>"]


def test_names_are_text_and_no_patterns():
    assert complete("<style:(|") == [] and complete("__[|") == []


def test_the_names_of_the_program_are_complete():
    names = PromptResources(loras=lambda: ["a.safetensors"]).names()
    assert "Line Art" in names.styles and "animal" in names.wildcards and names.loras == ("a.safetensors",)
