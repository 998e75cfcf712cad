"""The lines of a prompt: the first is the main prompt, each further one a text of its own."""

from __future__ import annotations

import re


def clean_lines(text: str) -> list[str]:
    """The lines of `text` without runs of blanks and without commas, full stops and blanks at the ends; no empty ones."""
    lines = (re.sub(" {2,}", " ", line).strip(",. \r\n") for line in text.splitlines())
    return [line for line in lines if line]
