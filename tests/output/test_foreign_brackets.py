"""AUTOMATIC1111's square brackets in our words, against the weights that its documentation gives."""

import pytest

from core.output.foreign.brackets import exchanges, translated
from core.text.emphasis import parse_weights


def weighed(prompt):
    """The words of the translation with their weights, as our own parser reads them."""
    return [(word, round(weight, 3)) for text, weight in parse_weights(translated(prompt)) for word in text.split()]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a [tall] man", [("a", 1), ("tall", 0.909), ("man", 1)]),
        ("[[old oak]] tree", [("old", 0.826), ("oak", 0.826), ("tree", 1)]),
        ("[[a, b]]", [("a,", 0.826), ("b", 0.826)]),
        ("[a (b:1.3) c]", [("a", 0.909), ("b", 1.182), ("c", 0.909)]),
        ("(a [b] c:1.5)", [("a", 1.5), ("b", 1.364), ("c", 1.5)]),
        ("(a [b])", [("a", 1.1), ("b", 1)]),
        ("[a], (b), ((c))", [("a", 0.909), (",", 1), ("b", 1.1), (",", 1), ("c", 1.21)]),
        (r"[a \(b\)] \(c\)", [("a", 0.909), ("(b)", 0.909), ("(c)", 1)]),
        ("[a) b] (c", [("a)", 0.909), ("b", 0.909), ("(c", 1)]),
        ("[cat:dog]", [("cat:dog", 0.909)]),
    ],
)
def test_words_weigh_what_they_weighed_there(prompt, words):
    assert weighed(prompt) == words


@pytest.mark.parametrize(
    "prompt",
    ["a (b:1.2)  c, ((d)) ", r"a \[b\] c", "not [closed", "closed] not", "", "[" * 9, "(a:1.2", "[a (b]"],
)
def test_text_without_brackets_that_weigh_is_left_as_it_is(prompt):
    assert translated(prompt) == prompt
    assert exchanges(prompt) == []


@pytest.mark.parametrize(
    "piece",
    ["[cat:dog:0.5]", "[cat::10]", "[dog:0.5]", "[ : cat : .25 ]", "[red|blue]", "[(a:1.2)|[b] [c:d:3]]", "[a|]"],
)
def test_brackets_that_exchange_words_stay_as_they_are_and_are_told(piece):
    assert translated(piece) == piece
    assert exchanges(f"a {piece} b [c] d") == [piece]
    assert translated(f"a {piece} b [c] d") == f"a {piece} b (c:0.909) d"
    assert translated(f"[a {piece}]") == f"(a {piece}:0.909)"


@pytest.mark.timeout(60)  # a quadratic one takes minutes
def test_depth_and_length_cost_no_more_than_their_share():
    assert translated("[" * 50_000 + "a" + "]" * 50_000) == "(a:0)"
    assert translated("(" * 50_000 + "[a]" + ")" * 50_000) == "(a:10)"
    assert translated("[a|" * 50_000 + "]" * 50_000).count("a") == 50_000
    assert translated("[a (" * 50_000 + "b:" * 50_000) == "[a (" * 50_000 + "b:" * 50_000
