"""compel: the prompt language of InvokeAI (the library compel), written out in ours.

There `word+` weighs 1.1, each further `+` multiplies by 1.1 and each `-` by 0.9; `(a phrase)1.3` weighs 1.3, `(a phrase)++`
1.21, `(a phrase)` alone 1; nested weights multiply, and `\\(` is a plain parenthesis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.output.foreign.texts import LARGEST, written_out

MORE, LESS = 1.1, 0.9

_STRENGTH = re.compile(r"\d+(?:\.\d+)?|\++|-+")
_WORD = re.compile(r"(<[a-zA-Z0-9., _-]+>|[^\s()\\,.;:+]*[^\s()\\,.;:+-])(\++|-+)(?=[\s,.;:)]|$)")
_PLAIN = re.compile(r"\\.|[^\s()\\,.;:+]+|[,.;:+]|\s+|\\", re.DOTALL)
_FUNCTION = re.compile(r"\)\s*\.\s*(?:and|blend|swap)\s*\(")


def has_function(prompt: str) -> bool:
    """Whether `prompt` mixes or exchanges phrases, `("a", "b").blend(0.7, 0.3)`, which nothing here can do."""
    return _FUNCTION.search(prompt) is not None


def translated(prompt: str) -> str:
    """`prompt` with its weights as `(text:1.21)`. Takes time in proportion to its length, however deep it is nested."""
    return written_out(_pieces(prompt))


def _pieces(prompt: str) -> Iterator[tuple[str, float]]:
    """Words and spaces with their weights; a parenthesis without its partner is plain text."""
    strengths = _group_strengths(prompt)
    outer: list[float] = []
    weight, at = 1.0, 0
    while at < len(prompt):
        if at in strengths:
            after, strength = strengths[at]
            if prompt[at] == "(":
                outer.append(weight)
                weight *= strength
            else:
                weight = outer.pop()
            at = after
        elif word := _WORD.match(prompt, at):
            yield word[1], weight * _strength(word[2])
            at = word.end()
        else:
            plain = _PLAIN.match(prompt, at)
            text = plain[0] if plain else "\\" + prompt[at]  # a parenthesis alone
            yield text, weight
            at += len(plain[0]) if plain else 1


def _group_strengths(prompt: str) -> dict[int, tuple[int, float]]:
    """For the position of each parenthesis of a pair: where what follows it begins, and the strength of the pair."""
    found: dict[int, tuple[int, float]] = {}
    unclosed: list[int] = []
    for mark in re.finditer(r"\\.|[()]", prompt, re.DOTALL):
        if mark[0] == "(":
            unclosed.append(mark.start())
        elif mark[0] == ")" and unclosed:
            number = _STRENGTH.match(prompt, mark.end())
            strength = _strength(number[0]) if number else 1.0
            opening = unclosed.pop()
            found[opening] = (opening + 1, strength)
            found[mark.start()] = (number.end() if number else mark.end(), strength)
    return found


def _strength(mark: str) -> float:
    if mark[0] in "+-":
        return float(min(LARGEST, (MORE if mark[0] == "+" else LESS) ** min(len(mark), 50)))
    return min(LARGEST, float(mark))
