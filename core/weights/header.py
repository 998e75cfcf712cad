"""The header of a safetensors file: which tensors it holds and where. Reads no weights; no torch.

Our own reader rather than the library's: it says in a sentence what is wrong with a file, and the offsets it returns let
the loader map the file and let go of its pages. As strict as the library (a test compares the two on thousands of
damaged files).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadModelFile, ModelNotFound

ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
LONGEST_HEADER = 100_000_000  # bytes; the library's limit too

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
CONVERT = (
    "Such files can run any program when they are opened, so Easel reads safetensors files only. Make one of it with "
    "`python launch.py convert FILE`, or look for a .safetensors version of the model."
)
SAFETENSORS_WANTED = "A whole safetensors file was wanted; download it again."


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its type by safetensors' name, its shape, its first byte in the file and the one after its last.

    `transposed`: the file has the two axes the other way round (never so in a header; `layouts` finds such ones).
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    transposed: bool = False


@dataclass(frozen=True)
class Header:
    """What a file says about itself. `tensors` is ordered by place in the file; `size` is the file's, in bytes."""

    path: Path
    size: int
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]

    def part(self, *prefixes: str) -> dict[str, TensorEntry]:
        """The tensors whose names begin with one of `prefixes`, with the prefix cut off."""
        return {
            name[len(prefix) :]: entry
            for name, entry in self.tensors.items()
            for prefix in prefixes
            if name.startswith(prefix)
        }

    def shapes(self, *prefixes: str) -> dict[str, tuple[int, ...]]:
        """As `part`, shapes only."""
        return {name: entry.shape for name, entry in self.part(*prefixes).items()}


def is_safetensors(name: str) -> bool:
    """Whether a file of this name should be one: the ending counts, in any spelling."""
    return name.lower().endswith(".safetensors")


def read_header(path: Path) -> Header:
    """The header of the safetensors file at `path`.

    Raises ModelNotFound if there is no such file, and BadModelFile for a pickle, whatever its name, and for everything
    that is damaged or no safetensors file.
    """
    if path.suffix.lower() in PICKLES:
        raise BadModelFile(f"{path.name} is a {path.suffix} file. {CONVERT}")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            too_long = length > LONGEST_HEADER or 8 + length > size
            text = b"" if too_long else file.read(length)
    except FileNotFoundError:
        raise ModelNotFound(f"The model file {path} does not exist.") from None
    except OSError as error:
        raise BadModelFile(f"{path.name} cannot be read: {error.strerror or error}.") from error
    if too_long or not text.startswith(b"{"):
        raise BadModelFile(_what_else(path.name, start, length, size))
    try:
        return _parsed(path, size, text)
    except _DamagedError as damage:
        raise BadModelFile(f"{path.name} is damaged: {damage}. {SAFETENSORS_WANTED}") from None


class _DamagedError(Exception):
    pass


def _what_else(name: str, start: bytes, length: int, size: int) -> str:
    """What the file `name` is, which has no safetensors header, in sentences."""
    if start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        return f"{name} is a PyTorch pickle, whatever its name says. {CONVERT}"
    if start.startswith(b"GGUF"):
        return f"{name} is a GGUF file. Easel reads safetensors files; look for that version of the model."
    if start == b"version ":
        return (
            f"{name} is a Git LFS pointer, not the model itself. Fetch the model with `git lfs pull`, or download it."
        )
    if start[:1] == b"<":
        return f"{name} is a web page, not a model. {SAFETENSORS_WANTED}"
    if size < 10:
        return f"{name} is damaged: it has {size} bytes. {SAFETENSORS_WANTED}"
    if length <= LONGEST_HEADER and 8 + length > size:
        return f"{name} is cut off: it has {size} bytes, and its header alone {length}. {SAFETENSORS_WANTED}"
    return f"{name} is not a safetensors file, or its beginning is damaged. {SAFETENSORS_WANTED}"


def _parsed(path: Path, size: int, text: bytes) -> Header:
    try:
        fields = json.loads(text.decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        raise _DamagedError("its header is not JSON") from None
    if not isinstance(fields, dict):
        raise _DamagedError("its header is no JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _DamagedError("its metadata is no table of texts")
    first = 8 + len(text)
    entries = {name: _entry(name, fields[name], first) for name in fields}
    tensors = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    end = first
    for name, entry in tensors.items():
        if entry.start != end:
            if entry.start < end:
                raise _DamagedError(f"the tensor {name[:200]} overlaps the one before it")
            raise _DamagedError(f"the tensor {name[:200]} leaves a gap before it")
        end = entry.end
    if end > size:
        raise BadModelFile(
            f"{path.name} is cut off: it has {size} bytes, and {end} were wanted. Download it again; the transfer may "
            "have been interrupted."
        )
    if end < size:
        raise _DamagedError(f"it has {size - end} bytes more than its header tells of")
    return Header(path, size, tensors, metadata)


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise _DamagedError(f"its header has the name {key[:200]} twice")
        table[key] = value
    return table


def _entry(name: str, fields: Any, first: int) -> TensorEntry:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _DamagedError(f"the tensor {name[:200]} is not described by type, shape and offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise _DamagedError(f"the tensor {name[:200]} has the unknown type {str(dtype)[:40]}")
    if not _sizes(shape) or len(shape) > 16:
        raise _DamagedError(f"the tensor {name[:200]} has the impossible shape {str(shape)[:80]}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _DamagedError(f"the tensor {name[:200]} has the impossible place {str(offsets)[:80]}")
    length = math.prod(shape) * ITEM_SIZES[dtype]
    if offsets[1] - offsets[0] != length:
        raise _DamagedError(
            f"the tensor {name[:200]} has {offsets[1] - offsets[0]} bytes, and its shape asks for {length}"
        )
    return TensorEntry(dtype, tuple(shape), first + offsets[0], first + offsets[1])


def _sizes(value: Any) -> bool:
    """Whether `value` is a list of whole numbers from 0 to 2^53."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= 2**53 for item in value)
