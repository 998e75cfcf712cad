"""What the program's own phrases will make of a prompt, told before a model is loaded. No torch."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.prompt.resolve import Resolved
from core.settings import Settings
from core.text.phrases import Phrases
from core.text.tokenizer import ClipTokenizer
from core.weights.files import Catalog
from core.weights.header import read_header
from core.weights.info import CLIP_G, CLIP_L

SEEDS = 2**32
SHARED = 1000  # tokens with the very same vector, as in core.text.vocabulary
SAME_BITS = {
    "F16": np.uint16,
    "BF16": np.uint16,
    "F32": np.uint32,
}  # vectors are only compared, whatever they stand for
GPT2_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, eq=False)
class KnownWords:
    """The words that a checkpoint's encoders know, as `core.text.vocabulary.Vocabulary` of the loaded model."""

    tokenizer: ClipTokenizer
    unknown: frozenset[int]

    def knows(self, text: str) -> bool:
        """Whether every token of `text` says something."""
        return self.unknown.isdisjoint(self.tokenizer.ids(text))

    def length(self, text: str) -> int:
        """How many tokens `text` has."""
        return len(self.tokenizer.ids(text))


class Foreteller:
    """Says ahead what the style "Fooocus V2" makes of a prompt, where that is certain. Several threads may use one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._phrases = Phrases()
        self._unknown: tuple[tuple[str, int, int], frozenset[int] | None] | None = None  # of the file asked for last
        self._lock = threading.Lock()

    def __call__(self, settings: Settings, found: Resolved, seed: int) -> str | None:
        """The main text of `found` with what will come behind it; None if only the loaded models can tell.

        That is so where a GPT-2 model may continue it, and for encoders that come from files of their own.
        """
        if settings.expander == "gpt2" or settings.text_encoder_l or settings.text_encoder_g:
            return None
        if settings.expander == "auto" and self._may_be_gpt2():
            return None
        with suppress(UserError, OSError):
            unknown = self._unknown_to(settings.base_model or self._catalog.default(["vae"] if settings.vae else []))
            if unknown is not None:
                said, unwanted = (", ".join(part.text for part in side) for side in (found.positive, found.negative))
                words = KnownWords(self._tokenizer, unknown)
                return self._phrases(found.main, seed % SEEDS, words, said=said, unwanted=unwanted)
        return None

    def _may_be_gpt2(self) -> bool:
        return any(name.endswith(GPT2_WEIGHTS) for name in self._catalog.files("prompt_expansion").paths())

    def _unknown_to(self, base_model: str) -> frozenset[int] | None:
        file = self._catalog.find(base_model)
        status = file.stat()
        state = str(file), status.st_size, status.st_mtime_ns
        with self._lock:
            if self._unknown is None or self._unknown[0] != state:
                self._unknown = state, unknown_to(file)
            return self._unknown[1]

    @cached_property
    def _tokenizer(self) -> ClipTokenizer:
        return ClipTokenizer()


def unknown_to(checkpoint: Path) -> frozenset[int] | None:
    """The ids of the tokens that one of the encoders in the file does not know; None if its tables cannot be compared.

    Reads one number of each token's vector, and whole vectors only where very many are alike. Raises as `read_header`, and
    OSError.
    """
    parts = read_header(checkpoint).part(CLIP_L, CLIP_G)
    tables = [entry for name, entry in parts.items() if name.endswith("token_embedding.weight")]
    if not tables or any(len(entry.shape) != 2 or 0 in entry.shape or entry.dtype not in SAME_BITS for entry in tables):
        return None
    found: set[int] = set()
    for entry in tables:
        table = np.memmap(checkpoint, SAME_BITS[entry.dtype], "r", entry.start, entry.shape)
        values, counts = np.unique(table[:, 0], return_counts=True)
        ids = np.flatnonzero(table[:, 0] == values[np.argmax(counts)])
        if len(ids) > SHARED:
            rows = table[ids]
            ids = ids[(rows == rows[0]).all(axis=1)]
        if len(ids) > SHARED:
            found.update(ids.tolist())
    return frozenset(found)
