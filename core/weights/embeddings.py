"""Textual inversion (Gal et al. 2023): files with vectors for words that no tokenizer knows, found by name.

In a safetensors file the vectors are under `clip_l` and `clip_g` (SDXL), `emb_params` (AUTOMATIC1111) or the word itself
(diffusers); one vector (width,) or several (n, width).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch
from torch import Tensor

from core.errors import BadModelFile
from core.prompt.embedding_names import chosen, written
from core.there import is_file
from core.weights.header import CONVERT, PICKLES, Header, TensorEntry, read_header
from core.weights.mapped import MappedFile

SIDES = {
    "clip_l": ("clip_l", "text_encoders_0"),
    "clip_g": ("clip_g", "text_encoders_1"),
}  # side -> names in SDXL files
WORDS = {"clip_l": "CLIP-L", "clip_g": "CLIP-G"}
MADE_FOR = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 1280: "CLIP-G alone"}
MOST_VECTORS = 1000
MOST_TENSORS = 4  # of a file without SDXL's names; one with more is something else

PUNCTUATION = ",.;:!?"
STOPS = ",.;:"  # those that a name hardly ends with


class EmbeddingFiles(Protocol):
    """The side of `core.weights.files.Files` that matters here."""

    def paths(self) -> dict[str, Path]:
        """All files, of any kind, by their names relative to their folders, with `/`."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The vectors of one file for each text encoder: float32 (n, width), or None if it has none that fit.

    `stamp` names the state of the file; `notice` is what the user should know, "" if nothing.
    """

    name: str
    stamp: tuple[str, int, int]
    clip_l: Tensor | None
    clip_g: Tensor | None
    notice: str = ""

    def side(self, side: str) -> Tensor | None:
        """The vectors for the encoder `side`, a key of SIDES."""
        return self.clip_l if side == "clip_l" else self.clip_g

    def __len__(self) -> int:
        return max(0 if vectors is None else len(vectors) for vectors in (self.clip_l, self.clip_g))


class Embeddings:
    """The embeddings that text encoders of these widths (by side; a side that is missing is no key) can use.

    Files are read when they are first named, and again when they change.
    """

    def __init__(self, files: EmbeddingFiles, widths: dict[str, int]) -> None:
        self._files = files
        self._widths = widths
        self._read: dict[tuple[str, int, int], Embedding] = {}

    def find(self, word: str) -> tuple[Embedding | None, str]:
        """The embedding that `word` (without `embedding:`) names, and what of it is plain text: punctuation behind it.

        None if there is no such file; a link to nowhere is none. Raises BadModelFile for a pickle, for a file that is damaged
        or cannot be read, or vectors that fit no encoder.
        """
        paths = dict(self._files.paths())
        for name, behind in _readings(word):
            while (file := named(name, list(paths))) is not None:
                if is_file(paths[file]):
                    return self._loaded(file, paths[file]), behind
                del paths[file]
        return None, ""

    def missing(self, word: str) -> str:
        """What to tell the user of a `word` that names nothing."""
        name = word.strip(PUNCTUATION)
        stems = {written(PurePosixPath(file).stem): None for file, path in self._files.paths().items() if is_file(path)}
        near = [f"'{stem}'" for stem in difflib.get_close_matches(name, stems, n=1)]
        hint = f"Did you mean {near[0]}?" if near else "Is its file in the embeddings folder?"
        return f"There is no embedding {name[:200]!r}, so the prompt was read without it. {hint}"

    def _loaded(self, name: str, path: Path) -> Embedding:
        if PurePosixPath(name).suffix.lower() in PICKLES:
            raise BadModelFile(f"The embedding {name} is a {PurePosixPath(name).suffix} file. {CONVERT}")
        try:
            status = path.stat()
            stamp = (str(path), status.st_size, status.st_mtime_ns)
            if stamp not in self._read:
                self._read[stamp] = read_embedding(path, name, stamp, self._widths)
        except OSError as problem:
            raise BadModelFile(f"The embedding {name} cannot be read: {problem.strerror or problem}.") from problem
        return self._read[stamp]


def _readings(word: str) -> Iterator[tuple[str, str]]:
    """The names that `word` may say, each with the plain text behind it, the likeliest first."""
    yield word, ""
    for marks in (STOPS, PUNCTUATION):
        yield word.strip(marks), word[len(word.rstrip(marks)) :]
    text = word.lstrip(PUNCTUATION)
    name = text.partition(",")[0]
    yield name, text[len(name) :]


def named(name: str, files: list[str]) -> str | None:
    """Which of `files`, of any kind, is the embedding `name`; see `chosen`."""
    return chosen(name, [file for file in files if PurePosixPath(file).suffix.lower() in {".safetensors", *PICKLES}])


def read_embedding(path: Path, name: str, stamp: tuple[str, int, int], widths: dict[str, int]) -> Embedding:
    """The embedding in the safetensors file at `path`, for encoders of `widths`. Raises BadModelFile."""
    header = read_header(path)
    vectors = {key: entry for key, entry in header.tensors.items() if entry.dtype in ("F16", "BF16", "F32", "F64")}
    vectors = {key: entry for key, entry in vectors.items() if len(entry.shape) in (1, 2) and 0 not in entry.shape}
    chosen = _sdxl(name, vectors, widths) or _plain(name, header, vectors, widths)
    lacks = [WORDS[side] for side in widths if side not in chosen]
    file = MappedFile(header, torch.device("cpu"))
    tensors = file.tensors({side: chosen[side] for side in chosen}, torch.float32)
    for side, tensor in tensors.items():
        tensors[side] = tensor.reshape(-1, tensor.shape[-1])
        if len(tensors[side]) > MOST_VECTORS:
            raise BadModelFile(f"{name} has {len(tensors[side])} vectors; an embedding has at most {MOST_VECTORS}.")
        if not tensors[side].isfinite().all():
            raise BadModelFile(f"{name} is damaged: its vectors for {WORDS[side]} are not all numbers.")
    notice = (
        f"The embedding {name} has no vectors for {lacks[0]}, so it acts by half. It was made for another kind of model."
        if lacks
        else ""
    )
    return Embedding(name, stamp, tensors.get("clip_l"), tensors.get("clip_g"), notice)


def _sdxl(name: str, vectors: dict[str, TensorEntry], widths: dict[str, int]) -> dict[str, TensorEntry]:
    """The entries by side, if the file has SDXL's names; {} if it has not."""
    chosen = {
        side: vectors[key] for side in widths for key in SIDES[side] if key in vectors
    }  # an encoder that the model lacks needs none
    for side, entry in chosen.items():
        if entry.shape[-1] != widths[side]:
            raise BadModelFile(
                f"The embedding {name} has vectors of width {entry.shape[-1]} for {WORDS[side]}, and the model's are "
                f"{widths[side]} wide. Choose one that was made for this kind of model."
            )
    return chosen


def _plain(
    name: str, header: Header, vectors: dict[str, TensorEntry], widths: dict[str, int]
) -> dict[str, TensorEntry]:
    """The entries by side of a file that does not say which encoder they are for: their width does."""
    if not vectors or len(header.tensors) > MOST_TENSORS:
        raise BadModelFile(
            f"{name} is no embedding: it has {len(header.tensors)} tensors, and none under a known name."
        )
    chosen = {
        side: next((entry for entry in vectors.values() if entry.shape[-1] == width), None)
        for side, width in widths.items()
    }
    fitting = {side: entry for side, entry in chosen.items() if entry is not None}
    if not fitting:
        found = next(iter(vectors.values())).shape[-1]
        wanted = ", ".join(f"{width} ({WORDS[side]})" for side, width in widths.items())
        sentences = [
            f"The embedding {name} has vectors of width {found}, and the model's text encoders want {wanted}.",
            *([f"It was made for {MADE_FOR[found]}."] if found in MADE_FOR else []),
            "Choose one that was made for this kind of model.",
        ]
        raise BadModelFile(" ".join(sentences))
    return fitting
