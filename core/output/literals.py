"""Tuples of numbers and lists of words as Python writes them, `(1.5, 0.8, 0.3)` and `['a', 'b']`, read without running them."""

from __future__ import annotations

import re

from core.errors import BadSetting

LONGEST = 20_000  # characters

_NUMBER = r"\s*([+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?)\s*"
_WORD = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*(,|$)""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}


def numbers(text: str, count: int) -> list[float]:
    """The `count` numbers of a tuple or list. Raises BadSetting."""
    inner = _inner(text)
    found = re.fullmatch(",".join([_NUMBER] * count) + ",?", inner)
    if found is None:
        raise BadSetting(f"{text[:100]!r} is no list of {count} numbers.")
    return [float(number) for number in found.groups()]


def words(text: str) -> list[str]:
    """The words of a list or tuple. Raises BadSetting."""
    inner, found, at = _inner(text).rstrip().removesuffix(","), [], 0
    while at < len(inner):
        word = _WORD.match(inner, at)
        if word is None or (word[3] == "," and word.end() == len(inner)):
            raise BadSetting(f"{text[:100]!r} is no list of words.")
        found.append(_ESCAPE.sub(_unescaped, word[1] if word[1] is not None else word[2]))
        at = word.end()
    return found


def _inner(text: str) -> str:
    text = text.strip()
    if len(text) > LONGEST or text[:1] + text[-1:] not in ("()", "[]"):
        raise BadSetting(f"{text[:100]!r} is no list.")
    return text[1:-1]


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1]
    if len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else "\ufffd"
    return _LETTERS.get(code, code)
