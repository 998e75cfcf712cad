"""Emphasis in prompts: `(word)` weighs 1.1, `(word:1.3)` weighs 1.3, nesting multiplies, `\\(` is a plain parenthesis."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

from core.prompt.embedding_names import MARK

STEP = 1.1  # what one pair of parentheses without a number multiplies by
LARGEST = 1000.0  # bound on a weight: 8,000 nested pairs would overflow a float, and no picture survives far less


class Piece(NamedTuple):
    """A stretch of text and its weight."""

    text: str
    weight: float


def parse_weights(text: str) -> list[Piece]:
    """Split `text` at its weights, in order; escaped parentheses come out plain, empty pieces are left out.

    A number behind the last `:` of a group replaces the weight, wherever the group is nested. Text after an unclosed
    `(` is one piece that keeps its `(`; if it ends with `)`, it is a group all the same. After a surplus `)` the next
    `(` is plain text. Takes time in proportion to the text (times a logarithm), however deep it is nested.
    """
    marks = _Marks(text)
    pieces: list[Piece] = []
    todo = [(0, len(text), 0, 1.0)]  # from, to, depth at which groups start here, weight
    while todo:
        low, high, depth, weight = todo.pop()
        start = marks.next_open(low, high, depth)
        if start > low:
            pieces.append(Piece(_plain(text[low:start]), weight))
        if start == high:
            continue
        end = marks.closed_by.get(start, high)
        end = end + 1 if end < high else high  # an unclosed group reaches to the end
        todo.append((end, high, depth, weight))
        if marks.is_close(end - 1):
            inner_end, inner_weight = _group_weight(text, marks, start + 1, end - 1, weight)
            todo.append((start + 1, inner_end, depth + 1, inner_weight))
        else:
            pieces.append(Piece(_plain(text[start:end]), weight))
    return pieces


class _Marks:
    """Where the unescaped parentheses of a text are, and how deep."""

    def __init__(self, text: str) -> None:
        self.closed_by: dict[int, int] = {}  # position of `(` -> position of its `)`
        self._opens: dict[int, list[int]] = defaultdict(list)  # depth in front of `(` -> positions, ascending
        self._closes: set[int] = set()
        self.colons: list[int] = []
        depth = 0
        unclosed: list[int] = []
        for i, letter in enumerate(text):
            if letter == ":":
                self.colons.append(i)
            if letter not in "()" or (i and text[i - 1] == "\\"):
                continue
            if letter == "(":
                self._opens[depth].append(i)
                unclosed.append(i)
                depth += 1
            else:
                self._closes.add(i)
                depth -= 1
                if unclosed:
                    self.closed_by[unclosed.pop()] = i

    def is_close(self, i: int) -> bool:
        return i in self._closes

    def next_open(self, low: int, high: int, depth: int) -> int:
        """Position of the first `(` at `depth` from `low` on, or `high`."""
        opens = self._opens.get(depth, [])
        found = bisect_left(opens, low)
        return opens[found] if found < len(opens) and opens[found] < high else high


def _group_weight(text: str, marks: _Marks, low: int, high: int, weight: float) -> tuple[int, float]:
    """Where the content of the group `text[low:high]` ends, and its weight."""
    last = bisect_left(marks.colons, high) - 1
    colon = marks.colons[last] if last >= 0 else -1
    if _names_a_file(text, low, colon):
        colon = -1
    if colon > low and high - colon <= 100:  # longer is no number, and not worth reading at every level
        try:
            number = float(text[colon + 1 : high])
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return colon, max(-LARGEST, min(LARGEST, number))
    return high, max(-LARGEST, min(LARGEST, weight * STEP))


def _names_a_file(text: str, low: int, colon: int) -> bool:
    """Whether the colon is that of MARK at the beginning of a word: `(embedding:123)` is a file called 123."""
    start = colon + 1 - len(MARK)
    if start < low or text[start : colon + 1].lower() != MARK:
        return False
    return start == low or text[start - 1] in ",()" or text[start - 1].isspace()


def _plain(text: str) -> str:
    return text.replace("\\)", ")").replace("\\(", "(")
