"""Which words text encoders know: those of small models were taught few, and have one vector for all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.text.tokenizer import ClipTokenizer

SHARED = 1000  # tokens with the very same vector; more can be no chance


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a model. `unknown` are the ids of tokens that say nothing to it."""

    tokenizer: ClipTokenizer
    unknown: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: ClipTokenizer, tables: Iterable[Tensor]) -> Vocabulary:
        """What encoders with these token `tables` (tokens, width) know: unknown is what one of them does not know."""
        return cls(tokenizer, frozenset(i for table in tables for i in unknown_tokens(table)))

    def knows(self, text: str) -> bool:
        """Whether every token of `text` says something."""
        return self.unknown.isdisjoint(self.tokenizer.ids(text))

    def length(self, text: str) -> int:
        """How many tokens `text` has."""
        return len(self.tokenizer.ids(text))


@torch.no_grad()
def unknown_tokens(table: Tensor) -> list[int]:
    """The ids of the tokens of `table` (tokens, width) that share one vector, if more than SHARED do; else none."""
    first = table[:, 0].float()
    values, counts = first.unique(return_counts=True)
    ids = (first == values[counts.argmax()]).nonzero()[:, 0]
    if len(ids) <= SHARED:
        return []
    rows = table[ids]
    ids = ids[(rows == rows[0]).all(dim=1)]
    found: list[int] = ids.tolist()
    return found if len(found) > SHARED else []
