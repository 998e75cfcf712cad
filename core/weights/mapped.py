"""Tensors out of a memory map of a safetensors file.

A tensor that keeps its type is a view of the map: nothing is copied, and the system reads its pages when they are first
used. A tensor that changes its type is converted straight into its last form, and the pages behind it are let go, so
that file and copy are never both in memory. The map is our own rather than safetensors' safe_open, which can neither let
go of pages nor convert without a copy in between.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from core.weights.header import Header, TensorEntry
from core.weights.layouts import Entries

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16,
    "I32": torch.int32, "U32": torch.uint32, "F32": torch.float32, "I64": torch.int64, "U64": torch.uint64,
    "F64": torch.float64,
}  # fmt: skip
PIECE = 2**18  # numbers; 1 MiB of float32 stays in the cache
ALIGN = 64  # numbers between the starts of two tensors, so that no two share a cache line
THREADS = 2  # conversion waits for memory and disk, so that more gain nothing


class MappedFile:
    """The file of `header`, for tensors on `device`. Lives as long as one of its views."""

    def __init__(self, header: Header, device: torch.device) -> None:
        self.header = header
        self.device = device
        with header.path.open("rb") as file:
            # Copy on write: torch wants a buffer that can be written, and nothing may ever be written to the file.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensors(
        self, entries: Entries, dtype: torch.dtype | None, check: Callable[[], None] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of `entries` in `dtype`; None: as stored, where networks can compute in that.

        `check` is called before each one, by the threads that convert them, and may raise.
        """
        dtype = dtype or _usual({entry.dtype for entry in entries.values()})
        changing = {name for name, entry in entries.items() if DTYPES[entry.dtype] != dtype}
        room = _Arena(sum(math.prod(entries[name].shape) + ALIGN for name in changing), dtype)
        places = [room.take(entry.shape if name in changing else (0,)) for name, entry in entries.items()]
        items = iter([(*item, place) for item, place in zip(entries.items(), places, strict=True)])  # of all threads

        def work(_: int) -> dict[str, Tensor]:
            buffer, made = torch.empty(PIECE), {}
            for name, entry, target in items:
                if check:
                    check()
                made[name] = self._tensor(entry, dtype, target, buffer)
            return made

        with ThreadPoolExecutor(THREADS, thread_name_prefix="load") as pool:
            return {name: tensor for share in pool.map(work, range(THREADS)) for name, tensor in share.items()}

    def stored(self, entry: TensorEntry) -> Tensor:
        """The numbers of `entry` (n,) on the CPU, as they are in the file: a view of the map, which nobody may write to."""
        dtype = DTYPES[entry.dtype]
        if entry.start % dtype.itemsize:  # nothing but the format's own custom keeps tensors aligned
            return torch.frombuffer(bytearray(self._map[entry.start : entry.end]), dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=math.prod(entry.shape), offset=entry.start)

    def _tensor(self, entry: TensorEntry, dtype: torch.dtype, target: Tensor, buffer: Tensor) -> Tensor:
        view = self.stored(entry)
        tensor = converted(view.to(self.device), target, buffer)
        if tensor.data_ptr() != view.data_ptr():
            self.let_go(entry)
        return in_shape(tensor, entry)

    def let_go(self, entry: TensorEntry) -> None:
        """The pages of `entry` are not needed again; where a neighbour shares one, it is read again from the file."""
        self.let_go_range(entry.start, entry.end)

    def let_go_range(self, start: int, end: int) -> None:
        """The same for all bytes from `start` to `end`."""
        if hasattr(mmap, "MADV_DONTNEED"):
            start = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def in_shape(flat: Tensor, entry: TensorEntry) -> Tensor:
    """The numbers of `entry` (n,) in its shape."""
    return flat.view(entry.shape[::-1]).T if entry.transposed else flat.view(entry.shape)


class _Arena:
    """Room for `numbers` of `dtype` in one piece of memory that asks for huge pages: 2 MiB a page fault, not 4 KiB.

    The memory lives as long as one of the tensors in it.
    """

    def __init__(self, numbers: int, dtype: torch.dtype) -> None:
        size = max(1, numbers) * dtype.itemsize
        if hasattr(mmap, "MAP_PRIVATE"):
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            memory = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._room = torch.frombuffer(memory, dtype=dtype)
        self._taken = 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """The next free numbers, as many as a tensor of `shape` has, flat."""
        size = math.prod(shape)
        taken = self._room[self._taken : self._taken + size]
        self._taken += -(-size // ALIGN) * ALIGN
        return taken


def converted(stored: Tensor, target: Tensor, buffer: Tensor) -> Tensor:
    """`stored` (n,) in the type of `target` (n,); itself if it is so already, else on a CPU written into `target`.

    One 16-bit type becomes the other by way of float32, a `buffer` of that at a time: exactly the same numbers with a
    third of the work, because torch has fast kernels for these two ways and none for the direct one.
    """
    dtype = target.dtype
    if stored.dtype == dtype:
        return stored
    if stored.device.type != "cpu":
        return stored.to(dtype)
    if stored.dtype.itemsize != 2 or dtype.itemsize != 2:
        return target.copy_(stored)
    for source, part in zip(stored.split(len(buffer)), target.split(len(buffer)), strict=True):
        part.copy_(buffer[: len(source)].copy_(source))
    return target


def _usual(stored: set[str]) -> torch.dtype:
    """The type to compute in for tensors stored so: their own if they share a usual one, else float32."""
    usual = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    if len(stored) == 1:
        return usual.get(stored.pop(), torch.float32)
    return torch.float32
