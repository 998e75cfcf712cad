"""The lines of a prompt: the first is the main prompt, each further one a text of its own."""

from __future__ import annotations

import re

_PIECES = re.compile(r"<(?:lora|style):[^<>]*>|[^,<]+|<|,")  # a tag is one piece, whatever is in it


def clean_lines(text: str) -> list[str]:
    """The lines of `text` without runs of blanks and without commas, full stops and blanks at the ends; no empty ones."""
    lines = (re.sub(" {2,}", " ", line).strip(",. \r\n") for line in text.splitlines())
    return [line for line in lines if line]


def tidy(line: str) -> str:
    """`line` with one blank behind each comma, and without runs of blanks, empty items and blanks around items."""
    items = [""]
    for piece in _PIECES.findall(line):
        if piece == ",":
            items.append("")
        else:
            items[-1] += piece
    items = [re.sub(" {2,}", " ", item).strip() for item in items]
    return ", ".join(item for item in items if item)
