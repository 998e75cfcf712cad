"""A prompt in the chunks of 77 tokens that CLIP reads: start, at most 75 tokens of text, end, padding. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.prompt.embedding_names import MARK, name_in
from core.text.emphasis import parse_weights
from core.text.tokenizer import END, START, ClipTokenizer

Insert = Callable[[str], tuple[Sequence[int], str]]
"""What a word says behind `embedding:` -> ids below 0 for vectors of a file, and the rest of the word that is plain text."""

LENGTH = 77
_FULL = LENGTH - 1  # tokens of a chunk without its end token
_GAPS = re.compile(rf"\s|(?<=,)(?={MARK})", re.IGNORECASE)  # between words where one of them names an embedding
_LONG_WORD = 8  # a word of so many tokens or more may be cut; a shorter one moves to the next chunk as a whole


@dataclass(frozen=True)
class Chunk:
    """Ids from the start token to the end token (2 to 77) and as many weights; start and end weigh 1."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    def padded_ids(self, padding: int) -> list[int]:
        """77 ids; CLIP-L pads with the end token, bigG with 0."""
        return [*self.ids, *[padding] * (LENGTH - len(self.ids))]

    def padded_weights(self) -> list[float]:
        """77 weights."""
        return [*self.weights, *[1.0] * (LENGTH - len(self.weights))]

    def without(self, ids: frozenset[int]) -> Chunk:
        """The same without these ids; what follows them moves up."""
        if ids.isdisjoint(self.ids):
            return self
        kept = [(i, weight) for i, weight in zip(self.ids, self.weights, strict=True) if i not in ids]
        return Chunk(tuple(i for i, _ in kept), tuple(weight for _, weight in kept))


def tokenize(text: str, tokenizer: ClipTokenizer, insert: Insert | None = None) -> list[Chunk]:
    """The chunks of `text`, with its emphasis; at least one."""
    return chunks(weighted_words(text, tokenizer, insert))


def weighted_words(
    text: str, tokenizer: ClipTokenizer, insert: Insert | None = None
) -> Iterator[tuple[Sequence[int], float]]:
    """Each word of `text` by itself: its ids and its weight. `insert` reads the words that name an embedding."""
    for piece, weight in parse_weights(text):
        marked = insert and MARK in piece.lower()
        for word in _GAPS.split(piece) if marked else piece.replace("\n", " ").split(" "):
            if insert and (name := name_in(word)):
                inserted, word = insert(name)
                if inserted:
                    yield inserted, weight
            ids = tokenizer.ids(word) if word else []
            if ids:
                yield ids, weight


def chunks(words: Iterable[tuple[Sequence[int], float]]) -> list[Chunk]:
    """Fill chunks with words; a word that does not fit starts the next one, or is cut if it has 8 tokens or more."""
    closed: list[Chunk] = []
    ids, weights = [START], [1.0]

    def close() -> None:
        closed.append(Chunk((*ids, END), (*weights, 1.0)))
        ids[:], weights[:] = [START], [1.0]

    for word, weight in words:
        rest = list(word)
        while len(ids) + len(rest) > _FULL:
            room = _FULL - len(ids) if len(word) >= _LONG_WORD else 0
            ids += rest[:room]
            weights += [weight] * room
            rest = rest[room:]
            close()
        ids += rest
        weights += [weight] * len(rest)
    close()
    return closed
