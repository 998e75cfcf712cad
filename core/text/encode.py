"""Text to conditions: chunks through the text encoders, emphasis, several texts side by side, and a cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.clip import CLIPText
from core.text.chunks import Chunk, tokenize
from core.text.tokenizer import END, START, ClipTokenizer

Check = Callable[[], None]

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


class TextEncoder:
    """One or both of SDXL's text encoders, with a cache of the texts encoded last.

    CLIP-L's tokens come first on the feature axis, then bigG's; the pooled vector is bigG's. With CLIP-L alone it is
    SD 1.x's encoder (its last norm is applied), with bigG alone the SDXL refiner's. The weights may move between devices
    and change their values between calls; call `clear_cache` when their values did.
    """

    def __init__(
        self,
        clip_l: CLIPText | None,
        clip_g: CLIPText | None,
        tokenizer: ClipTokenizer | None = None,
        *,
        cached: int = 64,
    ) -> None:
        if clip_l is None and clip_g is None:
            raise ValueError("A TextEncoder needs at least one encoder.")
        self.clip_l = clip_l
        self.clip_g = clip_g
        self.tokenizer = tokenizer or ClipTokenizer()
        self._cached = cached
        self._cache: OrderedDict[tuple[str, int], TextConditions] = OrderedDict()

    def clear_cache(self) -> None:
        """Forget all encoded texts."""
        self._cache.clear()

    def encode(
        self, texts: Sequence[str], clip_skip: int = 2, pool_top_k: int = 1, *, check: Check | None = None
    ) -> TextConditions:
        """Encode each of `texts` by itself and join the tokens in order; sum the first `pool_top_k` pooled vectors.

        `clip_skip` is the hidden layer counted from the end: 1 is the last, 2 is SDXL's. `check` may raise between layers.
        Raises ValueError if `texts` is empty or `pool_top_k` below 1.
        """
        if not texts or pool_top_k < 1:
            raise ValueError(
                f"There must be a text, and one to pool at least: {len(texts)} texts, {pool_top_k} pooled."
            )
        each = [self._encode_one(text, clip_skip, check) for text in texts]
        pooled = [conditions.pooled for conditions in each[:pool_top_k] if conditions.pooled is not None]
        return TextConditions(
            tokens=torch.cat([conditions.tokens for conditions in each], dim=1),
            pooled=torch.stack(pooled).sum(dim=0) if pooled else None,
        )

    def _encode_one(self, text: str, clip_skip: int, check: Check | None) -> TextConditions:
        """The conditions of one text, from the cache if it is there.

        Each text has its own call: in one batch with others its last bits would depend on which others were not in the
        cache, and with them the picture.
        """
        key = (text, clip_skip)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        chunks = tokenize(text, self.tokenizer)
        weights = torch.tensor([chunk.padded_weights() for chunk in chunks])[:, :, None]
        weighted = bool((weights != 1).any())
        sides: list[Tensor] = []
        pooled: Tensor | None = None
        for clip, padding in ((self.clip_l, END), (self.clip_g, 0)):
            if clip is None:
                continue
            rows = [chunk.padded_ids(padding) for chunk in ([*chunks, _EMPTY] if weighted else chunks)]
            hidden, pooled = _run(clip, rows, -clip_skip, final_norm=self.clip_g is None, check=check)
            if weighted:
                hidden = emphasised(hidden[:-1], hidden[-1:], weights)
            sides.append(hidden.flatten(0, 1)[None])
        conditions = TextConditions(torch.cat(sides, dim=2), None if pooled is None else pooled[:1].clone())
        self._cache[key] = conditions
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return conditions


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
    clip: CLIPText, rows: list[list[int]], layer: int, *, final_norm: bool, check: Check | None
) -> tuple[Tensor, Tensor | None]:
    """Hidden states (rows, 77, width) and pooled vectors (rows, projection) or None; float32, on the CPU."""
    device = next(clip.parameters()).device
    ids = torch.tensor(rows, dtype=torch.int64, device=device)
    parts = [clip(part, layer, final_norm=final_norm, check=check) for part in ids.split(_ROWS)]
    pooled = [part.pooled.float().cpu() for part in parts if part.pooled is not None]
    return torch.cat([part.hidden.float().cpu() for part in parts]), torch.cat(pooled) if pooled else None
