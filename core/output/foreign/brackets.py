"""AUTOMATIC1111's square brackets, the part of its prompt language that is not ours, written out in ours.

There `[a phrase]` weighs 1 / 1.1, brackets and parentheses in each other multiply, and `\\[` is a plain bracket.
`[a:b:0.5]` and `[a|b]` exchange words while the picture is made, which nothing here can do: they stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from core.output.foreign.texts import written_out

STEP = 1.1  # what a pair of parentheses multiplies by, and a pair of brackets divides by

_MARK = re.compile(r"\\.|[()\[\]|]", re.DOTALL)
_PLAIN = re.compile(r"\\[\\()\[\]]|[^\\()\[\]:]+|.", re.DOTALL)
_NUMBER = re.compile(r":\s*([+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))\s*\Z")
_OPENING = {")": "(", "]": "["}


class _Group(NamedTuple):
    """A pair of brackets or parentheses, by positions."""

    start: int
    inner_end: int  # of what is weighed, in front of a number
    end: int
    strength: float | None  # None: it exchanges words


def exchanges(prompt: str) -> list[str]:
    """The pieces of `prompt` that exchange words, brackets included."""
    return [prompt[group.start : group.end] for group in _groups(prompt) if group.strength is None]


def translated(prompt: str) -> str:
    """`prompt` with its weights as `(text:0.909)`, unchanged if no brackets weigh in it. Takes time in proportion to its length."""
    groups = _groups(prompt)
    if any(prompt[group.start] == "[" and group.strength is not None for group in groups):
        return written_out(_pieces(prompt, groups))
    return prompt


def _groups(prompt: str) -> list[_Group]:
    """The pairs, by their ends; of one that exchanges words not those in it."""
    groups: list[_Group] = []
    unclosed: list[int] = []
    alternating: set[int] = set()
    for mark in _MARK.finditer(prompt):
        if mark[0] in ("(", "["):
            unclosed.append(mark.start())
        elif mark[0] == "|" and unclosed:
            alternating.add(unclosed[-1])
        elif unclosed and prompt[unclosed[-1]] == _OPENING.get(mark[0]):
            start = unclosed.pop()
            group = _group(prompt, start, mark.start(), start in alternating)
            while group.strength is None and groups and groups[-1].start > start:
                groups.pop()
            groups.append(group)
    return groups


def _group(prompt: str, start: int, close: int, alternating: bool) -> _Group:
    number = _NUMBER.search(prompt, max(start + 1, close - 40), close)
    if prompt[start] == "[":
        return _Group(start, close, close + 1, None if alternating or number else 1 / STEP)
    if number:
        return _Group(start, number.start(), close + 1, float(number[1]))
    return _Group(start, close, close + 1, STEP)


def _pieces(prompt: str, groups: list[_Group]) -> Iterator[tuple[str, float]]:
    """Stretches of text with their weights; a bracket without its partner is plain text."""
    begun = {group.start: group for group in groups}
    ends = {group.inner_end: group.end for group in groups if group.strength is not None}
    outer: list[float] = []
    weight, at = 1.0, 0
    while at < len(prompt):
        group = begun.get(at)
        if group and group.strength is None:
            yield prompt[at : group.end], weight
            at = group.end
        elif group and group.strength is not None:
            outer.append(weight)
            weight *= group.strength
            at += 1
        elif at in ends:
            weight, at = outer.pop(), ends[at]
        else:
            plain = _PLAIN.match(prompt, at)
            text = plain[0] if plain else prompt[at]
            yield ("\\" + text if text in ("(", ")") else text), weight
            at += len(text)
