"""Prompt lines: what is cut off, what counts as a line."""

import time

import pytest

from core.prompt.lines import clean_lines, tidy


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a cat", ["a cat"]),
        (" ., a  cat,   big hat . ,\n", ["a cat, big hat"]),
        ("main\n\n , . \r\nextra one,\r\nextra two", ["main", "extra one", "extra two"]),
        ("e.g. 3,5", ["e.g. 3,5"]),
        ("", []),
        ("  \n.,\n", []),
    ],
)
def test_lines_lose_blanks_commas_and_full_stops_at_their_ends_and_empty_ones_go(text, lines):
    assert clean_lines(text) == lines


@pytest.mark.parametrize(
    ("line", "tidied"),
    [
        ("a  cat ,, big hat,sun", "a cat, big hat, sun"),
        ("some prompt, very cool, ,  cool   ", "some prompt, very cool, cool"),
        (", ,", ""),
        ("(a, b:1.2),(c)", "(a, b:1.2), (c)"),
        ("x <lora:a,b:1>,,<style:Y,  Z> < 3", "x <lora:a,b:1>, <style:Y, Z> < 3"),
    ],
)
def test_the_main_line_has_one_blank_behind_each_comma_and_tags_stay_whole(line, tidied):
    assert tidy(line) == tidied
    assert tidy(tidied) == tidied


@pytest.mark.parametrize("line", ["<lora:" * 20_000, "<" * 100_000, "," * 100_000, "<style:" + "a," * 50_000])
def test_no_line_takes_long(line):
    began = time.perf_counter()
    tidy(line)
    assert time.perf_counter() - began < 5
