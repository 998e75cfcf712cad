"""Arrays: which item each picture of a request gets."""

import time

import pytest

from core.prompt.arrays import combinations, expand_arrays


def texts(text, number):
    return [expand_arrays(text, index)[0] for index in range(number)]


def test_the_first_array_changes_fastest_and_items_keep_their_blanks():
    """The example of the specification, section 5.6."""
    expected = [f"{color} flower in {place}" for place in ("x", "y") for color in ("red", " green", " blue")]
    assert texts("[[red, green, blue]] flower in [[x,y]]", 6) == expected


def test_after_the_last_combination_the_first_comes_again():
    assert texts("[[a,b]]", 5) == ["a", "b", "a", "b", "a"]
    assert combinations("[[a,b]][[c,d,e]]") == 6


@pytest.mark.parametrize("text", ["plain", "[single] [brackets]", "[[never closed", "closed only]]", ""])
def test_a_text_without_arrays_stays_as_it_is(text):
    assert expand_arrays(text, 3) == (text, [])
    assert combinations(text) == 1


def test_weights_may_stand_in_items():
    assert texts("a [[(red:1.3),(blue:0.7)]] hat", 2) == ["a (red:1.3) hat", "a (blue:0.7) hat"]


def test_an_empty_item_leaves_the_word_out():
    assert texts("a [[,big ]]fox", 2) == ["a fox", "a big fox"]


def test_what_each_array_gave_is_told():
    assert expand_arrays("[[a, b]] and [[c]]", 1)[1] == [("[[a, b]]", "b"), ("[[c]]", "c")]


@pytest.mark.parametrize("text", ["[" * 100_000, "[[" + "," * 99_996 + "]]", "[[a]" * 25_000, "[[a]]" * 20_000])
def test_no_text_takes_long(text):
    began = time.perf_counter()
    expand_arrays(text, 10**18)
    assert time.perf_counter() - began < 5
