"""Prompts of other programs, written as ours are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.prompt.embedding_names import MARK, written

LARGEST = 10.0  # no prompt that somebody wrote weighs a word more


def one_line(text: str) -> str:
    """`text` without line feeds: for the program that it is from they are white space, here each line is a text of its own."""
    return " ".join(line for line in map(str.strip, text.splitlines()) if line)


def with_embeddings(text: str, tag: re.Pattern[str]) -> str:
    """`text` with each `tag` (its group 1 is a name) as our word for that embedding, parted from its neighbours."""

    def word(found: re.Match[str]) -> str:
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        left = "" if not before or before.isspace() or before in "(," else " "
        right = " " if after.isalnum() or after in ("_", "-", "<") else ""
        return f"{left}{MARK}{written(found[1].strip())}{right}"

    return tag.sub(word, text)


def written_out(pieces: Iterable[tuple[str, float]]) -> str:
    """Pieces of text and their weights as one text, `(text:1.21)` where they weigh something else than 1."""
    parts: list[tuple[list[str], float]] = []
    for text, weight in pieces:
        if parts and (parts[-1][1] == weight or not text.strip()):
            parts[-1][0].append(text)
        else:
            parts.append(([text], weight))
    return "".join(_written("".join(texts), weight) for texts, weight in parts)


def _written(text: str, weight: float) -> str:
    weight = round(min(weight, LARGEST), 3)
    inner = text.strip()
    if weight == 1 or not inner:
        return text
    start = text.index(inner)
    return f"{text[:start]}({inner}:{weight:g}){text[start + len(inner) :]}"
