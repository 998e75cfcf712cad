"""InvokeAI's prompt language in ours, against the weights that both parsers mean."""

import pytest

from core.output.foreign.compel import has_function, translated
from core.text.emphasis import parse_weights


def weighed(prompt):
    """The words of the translation with their weights, as our own parser reads them."""
    return [(word, round(weight, 3)) for text, weight in parse_weights(translated(prompt)) for word in text.split()]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a tall man", [("a", 1), ("tall", 1), ("man", 1)]),
        ("a tall++ man", [("a", 1), ("tall", 1.21), ("man", 1)]),
        ("sky-, sea--", [("sky", 0.9), (",", 1), ("sea", 0.81)]),
        ("(a tall man)1.3 there", [("a", 1.3), ("tall", 1.3), ("man", 1.3), ("there", 1)]),
        ("(old oak)+ tree", [("old", 1.1), ("oak", 1.1), ("tree", 1)]),
        ("(plain words)", [("plain", 1), ("words", 1)]),
        ("(a (b)1.5 c+)2", [("a", 2), ("b", 3), ("c", 2.2)]),
        ("well-known half-timbered house", [("well-known", 1), ("half-timbered", 1), ("house", 1)]),
        (r"a smile \(drawn\)", [("a", 1), ("smile", 1), ("(drawn)", 1)]),
        ("not closed (here", [("not", 1), ("closed", 1), ("(here", 1)]),
        ("a) b", [("a)", 1), ("b", 1)]),
        ("C++", [("C", 1.21)]),
    ],
)
def test_words_weigh_what_they_weighed_there(prompt, words):
    assert weighed(prompt) == words


def test_text_without_marks_is_left_as_it_is():
    assert translated("a  quiet\nlake, at dawn ") == "a  quiet\nlake, at dawn "


def test_functions_are_known():
    assert has_function('("a cat", "a dog").blend(0.7, 0.3)')
    assert has_function('("a", "b") .and()')
    assert not has_function("a (blend) of colours. and more")


@pytest.mark.timeout(60)  # a quadratic one takes minutes
def test_depth_and_length_cost_no_more_than_their_share():
    assert translated("(" * 50_000 + "a" + ")" * 50_000) == "a"
    assert translated("a-" * 50_000 + "b") == "a-" * 50_000 + "b"
    assert translated("(a+" * 30_000 + ")9" * 30_000).count("a") == 30_000
