"""From captions to the rows that the text encoders train on: only tokens that captions use have rows of their own.

The other 49,000 tokens share one row, which stands for "a word I don't know" and is trained by hiding words. The order of
ids is kept, so that the end token stays the largest, as pooling wants it. export.py spreads the rows to the full table.
"""

from __future__ import annotations

import itertools

import torch
from data import COLOUR_NAMES, ENDINGS, FILLERS, THINGS, with_article
from torch import Tensor

from core.text.chunks import LENGTH
from core.text.tokenizer import END, START, ClipTokenizer

PAD_G = 0
VOCABULARY = 49408


class Words:
    """The tokens in use, and texts as rows of them."""

    def __init__(self) -> None:
        self.tokenizer = ClipTokenizer()
        texts = [with_article(name) for thing in THINGS for name in thing.names]
        texts += [*COLOUR_NAMES, *FILLERS, *ENDINGS, "on a background, with a against an the", "."]
        used = {i for text in texts for i in self.tokenizer.ids(text)} | {PAD_G}
        self.known = sorted(used - {START, END})
        self.unknown = len(self.known)  # row of all tokens not in use
        self.rows = {token: row for row, token in enumerate(self.known)} | {
            START: self.unknown + 1,
            END: self.unknown + 2,
        }
        self.size = len(self.known) + 3
        self._cache: dict[str, list[int]] = {}

    def content(self, text: str) -> list[int]:
        """Rows of `text` without start and end."""
        if text not in self._cache:
            words = itertools.chain.from_iterable(self.tokenizer.ids(word) for word in text.split())
            self._cache[text] = [self.rows.get(token, self.unknown) for token in words][: LENGTH - 2]
        return self._cache[text]

    def batch(self, contents: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Rows for CLIP-L (padded with the end token) and bigG (padded with token 0), each (B, 77)."""
        start, end, zero = self.rows[START], self.rows[END], self.rows[PAD_G]
        sides = []
        for padding in (end, zero):
            rows = [[start, *content, end, *[padding] * (LENGTH - 2 - len(content))] for content in contents]
            sides.append(torch.tensor(rows))
        return sides[0], sides[1]

    def full_table(self, rows: Tensor) -> Tensor:
        """The compact table (size, width) as CLIP's (49408, width)."""
        table = rows[self.unknown].expand(VOCABULARY, -1).clone()
        table[self.known] = rows[: self.unknown]
        table[START], table[END] = rows[self.unknown + 1], rows[self.unknown + 2]
        return table
