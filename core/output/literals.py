"""Values as Python writes them, `(1.5, 0.8, 0.3)`, `['a', 'b']`, `[[True, 'a', 0.5]]`, read without running them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from core.errors import BadSetting

LONGEST = 20_000  # characters
DEEPEST = 8  # brackets in one another

_NUMBER = r"\s*([+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?)\s*"
_WORD = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*(,|$)""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}
_PART = re.compile(
    r"""\s*(?:(?P<mark>[\[\](){},:])|'(?P<one>(?:[^'\\]|\\.)*)'|"(?P<two>(?:[^"\\]|\\.)*)"|(?P<name>[A-Za-z]+)"""
    rf"|(?P<number>{_NUMBER}))\s*",
    re.DOTALL,
)
_NAMES = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


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


def literal(text: str) -> Any:
    """What `text` writes as Python or as JSON: a text, a number, True, False, None, or a list, tuple (given back as a list) or
    dictionary of these.

    Raises BadSetting for anything else, for more than LONGEST characters and more than DEEPEST brackets in one another.
    """
    try:
        parts = list(_parts(text))[::-1]
        found = _next(parts, 0)
        if parts:
            raise ValueError
    except (ValueError, IndexError):
        raise BadSetting(f"{text[:100]!r} is no list.") from None
    return found


def _parts(text: str) -> Iterator[tuple[str, Any]]:
    """The pieces of `text`: ("mark", "[") and such, else ("", value)."""
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or len(text) > LONGEST or (part["name"] and part["name"] not in _NAMES):
            raise ValueError
        if part["mark"]:
            yield "mark", part["mark"]
        elif part["name"]:
            yield "", _NAMES[part["name"]]
        elif part["number"]:
            number = part["number"].strip()
            yield "", int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)
        else:
            yield "", _ESCAPE.sub(_unescaped, part["one"] if part["one"] is not None else part["two"])
        at = part.end()


def _next(parts: list[tuple[str, Any]], depth: int) -> Any:
    """Take the next value from the end of `parts`."""
    kind, found = parts.pop()
    if kind != "mark":
        return found
    if found not in _CLOSING or depth == DEEPEST:
        raise ValueError
    closing, keys, entries = ("mark", _CLOSING[found]), [], []
    while parts[-1] != closing:
        if found == "{":
            keys.append(str(_next(parts, depth + 1)))
            if parts.pop() != ("mark", ":"):
                raise ValueError
        entries.append(_next(parts, depth + 1))
        if parts[-1] == ("mark", ","):
            parts.pop()
        elif parts[-1] != closing:
            raise ValueError
    parts.pop()
    return dict(zip(keys, entries, strict=True)) if found == "{" else entries


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
