"""Completing what is being typed in a prompt."""

import unicodedata

import pytest

from core.prompt.embedding_names import chosen
from core.prompt.plan import plan_images
from core.prompt.resources import Names, PromptResources
from core.prompt.suggestions import suggestions
from core.settings import Settings
from core.text.chunks import weighted_words
from core.text.tokenizer import ClipTokenizer

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
        (r"\(embedding:go|", [r"\(embedding:good"]),
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


TOKENIZER = ClipTokenizer()
ODD = (
    "my neg", "neg (1)", "neg(v2)", "a,b", "c  d", "x__y__z", "two: parts", "v1.5", "end.", "wow!", "[[a, b]]", "<lora:x:1>", "(",
    "tab\tbed", "no\u00a0break", unicodedata.normalize("NFD", "beauté"), "_x_", "sub dir/in it (2)", "-", "日本 語",
)  # fmt: skip


@pytest.mark.parametrize("prompt", ["{}", "a {}, b", "a,{}", "[[{}, b]] c", "({}:1.3), a b", "({}) {}"])
@pytest.mark.parametrize("name", ODD)
def test_every_embedding_that_is_offered_is_found_by_what_is_written_for_it(name, prompt):
    """Browsers call a second download "neg (1)"; blanks end a word and parentheses weigh it."""
    files = tuple(f"{odd}.safetensors" for odd in ODD)
    offers = suggestions("embedding:", 10, Names(embeddings=files), limit=50)
    assert len(offers) == len(ODD)
    [word] = [one.insert for one in offers if one.label == name.rpartition("/")[2]]
    settings = Settings(prompt=prompt.format(*[word] * 2), negative_prompt=f"{word}\n{word}, b")
    plan = plan_images(settings, PromptResources())[0]
    asked = []

    def insert(word):
        asked.append(chosen(word, files) or chosen(word.strip(","), files))
        return [], ""

    for text in (*plan.positive, *plan.negative):
        rest = [i for ids, _ in weighted_words(text, TOKENIZER, insert) for i in ids]
        assert set(rest) <= set(TOKENIZER.ids("a, b c"))
    assert asked == [f"{name}.safetensors"] * (prompt.count("{}") + 2)


@pytest.mark.parametrize("typed", ["embedding:my_|", "embedding:MY|", "(embedding:my|_n:1.2)"])
def test_an_embedding_is_found_as_it_is_written(typed):
    [offer] = suggestions(typed.replace("|", ""), typed.index("|"), Names(embeddings=("my neg.safetensors",)))
    assert offer.label == "my neg" and "embedding:my_neg" in offer.insert


def test_what_is_written_for_parentheses_is_read_as_a_whole():
    text, names = r"a embedding:neg_\(1\) b", Names(embeddings=("neg (1).safetensors", "neg (2).safetensors"))
    [offer] = suggestions(text, text.index("1"), Names(embeddings=("neg (1).safetensors",)))
    assert text[: offer.start] + offer.insert + text[offer.end :] == text
    assert len(suggestions(text, text.index("1"), names)) == 2


def test_an_embedding_that_nothing_leads_to_is_not_offered():
    names = Names(embeddings=("my neg.safetensors", "my_neg.safetensors", "sub/my neg.safetensors"))
    assert [one.insert for one in suggestions("embedding:my", 12, names)] == [
        "embedding:my_neg",
        "embedding:sub/my_neg",
    ]


def test_the_names_of_the_program_are_complete():
    names = PromptResources(loras=lambda: ["a.safetensors"]).names()
    assert "Line Art" in names.styles and "animal" in names.wildcards and names.loras == ("a.safetensors",)
