"""From captions to the rows that the text encoders train on: only tokens that captions use have rows of their own.

The other 48,000 tokens share one row, which stands for "a word I don't know" and is trained by hiding words. The order of
ids is kept, so that the end token stays the largest, as pooling wants it. export.py spreads the rows to the full table.
"""

from __future__ import annotations

import itertools

import torch
from captions import phrases
from torch import Tensor

from core.text.chunks import LENGTH
from core.text.tokenizer import END, START, ClipTokenizer

PAD_G = 0
VOCABULARY = 49408


class Words:
    """The tokens that captions of the first `things` use, and texts as rows of them."""

    def __init__(self, things: int) -> None:
        self.tokenizer = ClipTokenizer()
        used = {i for text in phrases(things) for i in self.tokenizer.ids(text)} | {PAD_G}
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
        words = text.replace(",", " , ").split()
        return [*itertools.chain.from_iterable(self._word(word) for word in words)][: LENGTH - 2]

    def _word(self, word: str) -> list[int]:
        if word not in self._cache:
            self._cache[word] = [self.rows.get(token, self.unknown) for token in self.tokenizer.ids(word)]
        return self._cache[word]

    def batch(self, contents: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Rows for CLIP-L (padded with the end token) and bigG (padded with token 0), each (B, 77)."""
        start, end, zero = self.rows[START], self.rows[END], self.rows[PAD_G]
        sides = []
        for padding in (end, zero):
            rows = [[start, *content, end, *[padding] * (LENGTH - 2 - len(content))] for content in contents]
            sides.append(torch.tensor(rows))
        return sides[0], sides[1]

    def adopt(self, rows: Tensor, known: list[int], fresh: Tensor) -> Tensor:
        """A table for this vocabulary: `rows` of a run whose tokens were `known`, `fresh` for those that it had not."""
        table = fresh.clone()
        old = {token: row for row, token in enumerate(known)} | {START: len(known) + 1, END: len(known) + 2}
        for token, row in self.rows.items():
            if token in old:
                table[row] = rows[old[token]]
        table[self.unknown] = rows[len(known)]
        return table


def full_table(rows: Tensor, known: list[int]) -> Tensor:
    """The compact table (size, width) of a run whose tokens were `known` as CLIP's (49408, width)."""
    unknown = len(known)
    table = rows[unknown].expand(VOCABULARY, -1).clone()
    table[known] = rows[:unknown]
    table[START], table[END] = rows[unknown + 1], rows[unknown + 2]
    return table
