"""Prompt lines: what is cut off, what counts as a line."""

import pytest

from core.prompt.lines import clean_lines


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
