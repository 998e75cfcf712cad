"""Arrays in a prompt: `[[red, green]] flower` makes a red flower in the first picture and a green one in the second."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod


def expand_arrays(text: str, index: int) -> tuple[str, list[tuple[str, str]]]:
    """`text` as picture `index` has it, and what each array gave, as pairs of the array and the item.

    Items are cut at commas and keep their blanks. Of several arrays the first changes fastest; after the last
    combination the first one comes again. Arrays in arrays are none: the first `]]` ends one.
    """
    found = list(_arrays(text))
    index %= combinations(text)
    parts, chosen, at = [], [], 0
    for start, end in found:
        items = text[start + 2 : end - 2].split(",")
        item = items[index % len(items)]
        index //= len(items)
        parts += [text[at:start], item]
        chosen.append((text[start:end], item.strip()))
        at = end
    return "".join(parts) + text[at:], chosen


def combinations(text: str) -> int:
    """How many different texts the arrays in `text` make; 1 if there is none."""
    return prod(text.count(",", start, end) + 1 for start, end in _arrays(text))


def _arrays(text: str) -> Iterator[tuple[int, int]]:
    """From where to where each array reaches, brackets included. Takes time in proportion to the text."""
    end = 0
    while (start := text.find("[[", end)) >= 0:
        close = text.find("]]", start + 2)
        if close < 0:
            return
        end = close + 2
        yield start, end
