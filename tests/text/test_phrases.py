"""The program's own expander: what it may add, and what it must not."""

import json
import re
import sys
from pathlib import Path

import pytest

from core.prompt.continuation import cleaned, continues
from core.text.phrases import PHRASES, Phrases

TABLES = json.loads(PHRASES.read_text())
GENERAL, SMALL = ([phrase for group in TABLES[kind] for phrase in group["phrases"]] for kind in ("general", "small"))
SEEDS = range(60)


class Words:
    """Knows all words but `unknown`; a token is a word or a comma."""

    def __init__(self, unknown=()):
        self.unknown = set(unknown)

    def knows(self, text):
        return self.unknown.isdisjoint(text.split())

    def length(self, text):
        return len(re.findall(r"[^\s,]+|,", text))


EVERY = Words()
FEW = Words(
    {word for phrase in GENERAL for word in phrase.split()} - {word for phrase in SMALL for word in phrase.split()}
)


@pytest.fixture(scope="module")
def phrases():
    return Phrases()


def added(phrases, prompt, words=FEW, **texts):
    """What all seeds together add, a set of phrases a seed."""
    return [
        set(phrases(prompt, seed, words, **texts).removeprefix(prompt).strip(", ").split(", ")) - {""} for seed in SEEDS
    ]


def test_the_text_begins_with_the_prompt_and_is_the_same_for_the_same_seed(phrases):
    texts = {phrases(" a red fox. ", seed, EVERY) for seed in SEEDS}
    assert len(texts) > 30 and all(continues(text, "a red fox") for text in texts)
    assert phrases("a red fox", 7, EVERY) == Phrases()("a red fox", 7, EVERY) != phrases("a red fox", 8, EVERY)


def test_a_seed_gives_the_same_text_with_every_version(phrases):
    """Recorded: a change of the table or of Python's generator would make other pictures of the same seeds."""
    assert phrases("a fox", 1, EVERY) == "a fox, clear fine lines, soft shadows, strong silhouette"
    assert phrases("a fox", 1, FEW) == "a fox, red background, 3d render"


def test_a_model_that_knows_few_words_gets_a_background_and_a_style(phrases):
    assert all(len(found) == 2 and found <= set(SMALL) for found in added(phrases, "a fox"))
    assert all(found and found <= set(GENERAL) for found in added(phrases, "a fox", EVERY))


@pytest.mark.parametrize(
    ("prompt", "never"),
    [
        ("a fox on a blue background", r"background"),
        ("a fox, pink to white gradient", r"background"),
        ("a fox on yellow", r"background"),
        ("a 3d render of a fox", r"3d|flat|drawing|cartoon|line art"),
        ("Line Art of a fox", r"3d|flat|drawing|cartoon|line art"),
        ("a cartoon fox", r"3d|flat|drawing|cartoon|line art"),
        ("a red apple", r"red|line art"),  # no apple vanishes in its ground; line art has no colour
        ("a fox under a light blue umbrella", r"blue"),
    ],
)
def test_nothing_contradicts_the_prompt(phrases, prompt, never):
    for found in added(phrases, prompt):
        assert not any(re.search(never, phrase) for phrase in found)


@pytest.mark.parametrize(
    ("prompt", "never"),
    [
        ("a blurry photo of a fox", r"sharp|crisp|detail"),
        ("a fox at night", r"light|shadow"),
        ("a black and white photo of a fox", r"color|palette|tones"),
        ("a scary fox", r"mood|atmosphere"),
        ("a close-up of a fox", r"composition|frame|silhouette"),
        ("a fox in the snow", r"warm"),
    ],
)
def test_nothing_general_contradicts_the_prompt_either(phrases, prompt, never):
    for found in added(phrases, prompt, EVERY):
        assert not any(re.search(never, phrase) for phrase in found)


def test_styles_and_the_negative_prompt_count_too(phrases):
    assert not any(
        "background" in p or "3d" in p for f in added(phrases, "a fox", unwanted="background, 3D") for p in f
    )
    assert all(f <= {p for p in SMALL if "background" in p} for f in added(phrases, "a fox", said="line art of a fox"))


def test_no_word_is_said_twice(phrases):
    for prompt in ("a fox", "a soft toy with fine texture"):
        for words in (EVERY, FEW):
            for seed in SEEDS:
                said = [
                    w for w in re.findall(r"\w+", phrases(prompt, seed, words)) if w not in ("a", "of", "with", "in")
                ]
                assert len(said) == len(set(said))


def test_words_that_the_model_does_not_know_are_not_added(phrases):
    unknown = {"3d", "white", "cartoon", "glossy"}
    assert not any(
        unknown & set(" ".join(found).split()) for found in added(phrases, "a fox", Words(FEW.unknown | unknown))
    )


@pytest.mark.parametrize("count", [*range(60, 90), 149, 150])
def test_no_further_chunk_of_tokens_is_begun(phrases, count):
    prompt = " ".join(f"w{i}" for i in range(count))
    lengths = [EVERY.length(phrases(prompt, seed, EVERY)) for seed in SEEDS]
    assert max(lengths) <= -(-(count + 1) // 75) * 75


def test_a_prompt_to_which_nothing_can_be_added_stays_as_it_is(phrases):
    assert phrases("a 3d fox, blue background", 3, FEW) == "a 3d fox, blue background"
    assert phrases(" ,. ", 3, FEW) == ""


def test_the_small_phrases_are_words_that_the_embedded_model_was_taught():
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "embedded_model"))
    from captions import AFTER, COLOUR_NAMES, GROUNDS

    taught = [*COLOUR_NAMES, *(form for form, _ in GROUNDS), *(text for texts in AFTER.values() for text in texts)]
    words = {word for text in taught for word in re.findall(r"\w+", text)}
    assert {word for phrase in SMALL for word in phrase.split()} <= words


def test_the_table_is_in_order():
    for kind in ("general", "small"):
        for group in TABLES[kind]:
            assert 0 <= group["least"] <= group["most"] <= len(group["phrases"]) == len(set(group["phrases"]))
    assert {phrase for clash in TABLES["clashes"] for phrase in clash["phrases"]} <= {*GENERAL, *SMALL}
    assert all(cleaned(phrase) == phrase and "," not in phrase for phrase in GENERAL + SMALL)


@pytest.mark.parametrize(
    ("text", "prompt", "does"),
    [
        ("a fox, glowing", " a  fox. ", True), ("a fox", "a fox", True), ("a foxglove, pink", "a fox", False),
        ("a cat, glowing", "a fox", False), ("", "a fox", False), ("glowing", "", False),
    ],
)  # fmt: skip
def test_what_continues_a_prompt(text, prompt, does):
    assert continues(text, prompt) is does
