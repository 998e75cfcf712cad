"""Text to conditions: chunks through the text encoders, emphasis, several texts side by side, and a cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from core.models.clip import CLIPText
from core.prompt.embedding_names import MARK
from core.text.chunks import LENGTH, Chunk, tokenize
from core.text.tokenizer import END, START, ClipTokenizer
from core.text.vocabulary import Vocabulary
from core.weights.embeddings import Embedding, EmbeddingFiles, Embeddings
from core.weights.memory import Memory, Way

Check = Callable[[], None]

PIECEWISE = "Memory ran short: texts are now encoded piece by piece, which is slower."
_EMPTY = Chunk((START, END), (1.0, 1.0))
_ROWS = 16  # chunks in one call of an encoder; a prompt of 20,000 characters can have 270


@dataclass(frozen=True)
class TextConditions:
    """What the network gets to know of a prompt. Float32, on the CPU: the sampler moves them where it computes."""

    tokens: Tensor  # (1, T, width), T a multiple of 77
    pooled: Tensor | None  # (1, projection); None if no encoder has a projection (SD 1.x)

    def clone(self) -> TextConditions:
        """A copy that shares no memory with this one."""
        return TextConditions(self.tokens.clone(), None if self.pooled is None else self.pooled.clone())


TextCache: TypeAlias = "OrderedDict[tuple[object, ...], TextConditions]"


class TextEncoder:
    """One or both of SDXL's text encoders, with a cache of the texts encoded last.

    CLIP-L's tokens come first on the feature axis, then bigG's; the pooled vector is bigG's. With CLIP-L alone it is
    SD 1.x's encoder (its last norm is applied), with bigG alone the SDXL refiner's. The weights may move between devices
    and change their values between calls; call `clear_cache` when their values did. `embeddings` are the files that words
    such as `embedding:name` mean; without them such words are plain text. `memory` brings an encoder when a text is not in
    the cache; without it the encoders must be where they compute. Several may share a `cache`, if `files` says which files
    each one's weights are from.
    """

    def __init__(
        self,
        clip_l: CLIPText | None,
        clip_g: CLIPText | None,
        tokenizer: ClipTokenizer | None = None,
        *,
        embeddings: EmbeddingFiles | None = None,
        memory: Memory | None = None,
        cache: TextCache | None = None,
        files: Hashable = (),
        cached: int = 64,
    ) -> None:
        if clip_l is None and clip_g is None:
            raise ValueError("A TextEncoder needs at least one encoder.")
        self.clip_l = clip_l
        self.clip_g = clip_g
        self.tokenizer = tokenizer or ClipTokenizer()
        sides = {"clip_l": clip_l, "clip_g": clip_g}
        widths = {side: clip.config.width for side, clip in sides.items() if clip is not None}
        self._embeddings = Embeddings(embeddings, widths) if embeddings is not None else None
        self._memory = memory
        self._notices: list[str] = []
        self._cached = cached
        self._cache: TextCache = OrderedDict() if cache is None else cache
        self._files = files
        self.identity: Hashable = ()  # what lies on the weights (LoRAs); texts encoded under another one stay cached

    def take_notices(self) -> list[str]:
        """What the user should know about the embeddings named since the last call, as sentences."""
        notices, self._notices = self._notices, []
        return notices

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Which words the encoders know."""
        clips = [clip for clip in (self.clip_l, self.clip_g) if clip is not None]
        return Vocabulary.of(self.tokenizer, [clip.text_model.embeddings.token_embedding.weight for clip in clips])

    def clear_cache(self) -> None:
        """Forget all encoded texts."""
        self._cache.clear()

    def encode(
        self,
        texts: Sequence[str],
        clip_skip: int = 2,
        pool_top_k: int = 1,
        *,
        strict: bool = False,
        check: Check | None = None,
    ) -> TextConditions:
        """Encode each of `texts` by itself and join the tokens in order; sum the first `pool_top_k` pooled vectors.

        `clip_skip` is the hidden layer counted from the end: 1 is the last, 2 is SDXL's. `check` may raise between layers.
        `strict` pads as the reference does; see `_Inserted.collided`.
        Raises ValueError if `texts` is empty or `pool_top_k` below 1, BadModelFile for an embedding that cannot be used.
        """
        if not texts or pool_top_k < 1:
            raise ValueError(
                f"There must be a text, and one to pool at least: {len(texts)} texts, {pool_top_k} pooled."
            )
        each = [self._encode_one(text, clip_skip, strict, check) for text in texts]
        pooled = [conditions.pooled for conditions in each[:pool_top_k] if conditions.pooled is not None]
        return TextConditions(
            tokens=torch.cat([conditions.tokens for conditions in each], dim=1),
            pooled=torch.stack(pooled).sum(dim=0) if pooled else None,
        )

    def _encode_one(self, text: str, clip_skip: int, strict: bool, check: Check | None) -> TextConditions:
        """The conditions of one text, from the cache if it is there.

        Each text has its own call: in one batch with others its last bits would depend on which others were not in the
        cache, and with them the picture.
        """
        inserted = _Inserted(self._embeddings) if self._embeddings and MARK in text.lower() else None
        chunks = tokenize(text, self.tokenizer, inserted) if inserted else []
        if inserted:
            self._notices += [notice for notice in inserted.notices if notice not in self._notices]
        key = (text, clip_skip, self._files, self.identity, *((strict, *inserted.stamps) if inserted else ()))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        chunks = chunks or tokenize(text, self.tokenizer)
        weighted = any(weight != 1 for chunk in chunks for weight in chunk.weights)
        sides: list[Tensor] = []
        pooled: Tensor | None = None
        for side, clip, padding in (("clip_l", self.clip_l, END), ("clip_g", self.clip_g, 0)):
            if clip is None:
                continue
            own, vectors = inserted.for_side(side, chunks, clip.config.width) if inserted else (chunks, None)
            rows = [chunk.padded_ids(padding) for chunk in ([*own, _EMPTY] if weighted else own)]
            if strict and inserted and padding == END:
                rows = inserted.collided(side, chunks, rows)
            hidden, pooled = self._run(clip, rows, -clip_skip, vectors, check)
            if weighted:
                weights = torch.tensor([chunk.padded_weights() for chunk in own])[:, :, None]
                hidden = emphasised(hidden[:-1], hidden[-1:], weights)
            sides.append(hidden.flatten(0, 1)[None])
        conditions = TextConditions(torch.cat(sides, dim=2), None if pooled is None else pooled[:1].clone())
        self._cache[key] = conditions
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return conditions

    def _run(
        self, clip: CLIPText, rows: list[list[int]], layer: int, vectors: Tensor | None, check: Check | None
    ) -> tuple[Tensor, Tensor | None]:
        final_norm = self.clip_g is None
        if self._memory is None:
            device = next(clip.parameters()).device
            return _run(clip, rows, layer, vectors, device, final_norm=final_norm, check=check)
        device = self._memory.device
        self._memory.bring(clip)

        def parts(size: int) -> tuple[Tensor, Tensor | None]:
            return _run(clip, rows, layer, vectors, device, final_norm=final_norm, check=check, at_once=size)

        return self._memory.run(
            clip, [Way("encode", 0, lambda: parts(_ROWS)), Way("encode singly", 0, lambda: parts(1), PIECEWISE)]
        )


class _Inserted:
    """The embeddings of one text. Called with a word, it gives the ids of the word's vectors: -1 and downwards."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._vectors: list[tuple[Embedding, int]] = []  # which row of which embedding stands behind each id
        self.notices: list[str] = []
        self.stamps: list[tuple[str, int, int]] = []

    def __call__(self, word: str) -> tuple[list[int], str]:
        embedding, rest = self._embeddings.find(word)
        if embedding is None:
            self.notices.append(self._embeddings.missing(word))
            return [], rest
        if embedding.notice:
            self.notices.append(embedding.notice)
        self.stamps.append(embedding.stamp)
        first = len(self._vectors)
        self._vectors += [(embedding, row) for row in range(len(embedding))]
        return [-1 - i for i in range(first, len(self._vectors))], rest

    def for_side(self, side: str, chunks: list[Chunk], width: int) -> tuple[list[Chunk], Tensor | None]:
        """The chunks without the vectors that this encoder has no use for, and the vectors (V, width) behind the ids."""
        rows: list[Tensor] = []
        absent = set()
        for i, (embedding, row) in enumerate(self._vectors):
            vectors = embedding.side(side)
            if vectors is None or row >= len(vectors):
                absent.add(-1 - i)
                rows.append(torch.zeros(width))
            else:
                rows.append(vectors[row])
        without = frozenset(absent)
        return [chunk.without(without) for chunk in chunks], torch.stack(rows) if rows else None

    def collided(self, side: str, chunks: list[Chunk], rows: list[list[int]]) -> list[list[int]]:
        """The padded `rows` of `chunks`, with the reference's mistake: where vectors fell out because their file has none for
        this encoder, the row is filled up with the first vector of another file that has."""
        unfit = {-1 - i for i, (embedding, _) in enumerate(self._vectors) if embedding.side(side) is None}
        first = next((-1 - i for i in range(len(self._vectors)) if -1 - i not in unfit), None)
        if first is None:
            return rows
        fallen = [sum(id_ in unfit for id_ in chunk.ids) for chunk in chunks]
        fallen += [0] * (len(rows) - len(chunks))  # the empty text's row, if there is one
        return [[*row[: LENGTH - n], *[first] * n] for row, n in zip(rows, fallen, strict=True)]


def emphasised(hidden: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """Push each token of `hidden` (B, 77, D) away from the `empty` prompt's (1, 77, D) by its weight (B, 77, 1).

    Then scales each chunk so that its mean is what it was before. A chunk whose weights are all 1 stays as it is.
    """
    pushed = torch.where(weights == 1, hidden, (hidden - empty) * weights + empty)
    scale = hidden.mean(dim=(1, 2), keepdim=True) / pushed.mean(dim=(1, 2), keepdim=True)
    # A mean of exactly 0 cannot be restored. One close to 0 gives a wild factor, as in the programs this comes from.
    return torch.where((weights == 1).all(dim=1, keepdim=True) | ~scale.isfinite(), pushed, pushed * scale)


@torch.no_grad()
def _run(
    clip: CLIPText,
    rows: list[list[int]],
    layer: int,
    vectors: Tensor | None,
    device: torch.device,
    *,
    final_norm: bool,
    check: Check | None,
    at_once: int = _ROWS,
) -> tuple[Tensor, Tensor | None]:
    """Hidden states (rows, 77, width) and pooled vectors (rows, projection) or None; float32, on the CPU."""
    ids = torch.tensor(rows, dtype=torch.int64, device=device)
    inserted = None if vectors is None else vectors.to(device)
    parts = [clip(part, layer, final_norm=final_norm, vectors=inserted, check=check) for part in ids.split(at_once)]
    pooled = [part.pooled.float().cpu() for part in parts if part.pooled is not None]
    return torch.cat([part.hidden.float().cpu() for part in parts]), torch.cat(pooled) if pooled else None
