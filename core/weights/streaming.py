"""Networks larger than the device: each block's weights come just before it runs, and leave after it.

The blocks take turns in two places that are as large as the largest of them. While one block computes out of one place,
a thread fills the other with the block that ran next the last time it went this way; on a CUDA device by way of
page-locked memory and a stream of its own, so that the copy and the computation go on at the same time. The weights are
the same numbers wherever they lie, so the results are the same, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.models import clip, unet
from core.weights.mapped import PIECE, converted

ALIGN = 512  # bytes between the starts of two tensors in a place; what CUDA's own allocator keeps
# Modules that only call others: their parts come one by one. Any other module comes as a whole.
DIVISIBLE = (
    unet.UNet, unet.Block, unet.SpatialTransformer, clip.CLIPText, clip.TextModel, clip.Encoder, nn.ModuleList,
)  # fmt: skip


def units(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of `module` that come and go as a whole, those with weights, in the order of their names."""
    if isinstance(module, DIVISIBLE):
        for child in module.children():
            yield from units(child)
    elif any(True for _ in tensors_of(module)):
        yield module


def streamable(module: nn.Module) -> list[nn.Module]:
    """The blocks that may come and go. What stands outside the network's lists (the time embedding, say) always stays."""
    if not isinstance(module, DIVISIBLE):
        return []
    return [unit for child in module.children() if isinstance(child, DIVISIBLE) for unit in units(child)]


def tensors_of(*modules: nn.Module) -> Iterator[Tensor]:
    """The weights of `modules`, each once."""
    seen: set[int] = set()
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def type_on_device(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Weights of 16 and 32 bits take the type that is computed in, if one is named; smaller ones stay as they are."""
    return dtype if dtype and tensor.is_floating_point() and tensor.itemsize > 1 else tensor.dtype


def bytes_of(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> int:
    """Room that `tensors` take in one place."""
    return sum(_room(tensor, type_on_device(tensor, dtype)) for tensor in tensors)


def _room(tensor: Tensor, dtype: torch.dtype) -> int:
    return -(-tensor.numel() * dtype.itemsize // ALIGN) * ALIGN


class Streamed:
    """Makes the blocks `blocks` of a network come to `device`, and in the type `dtype` (None: their own), when they run.

    Holds on from when it is made until `close`. The weights may be changed between runs of the network; call `renew`
    then. A block that is not among them must be on the device already.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, dtype: torch.dtype | None = None) -> None:
        self._weights = {block: list(tensors_of(block)) for block in blocks}
        self._dtype = dtype
        self.route: Hashable = None  # which of the ways through the network is gone: each has an order of its own
        self._next: dict[tuple[Hashable, nn.Module], nn.Module] = {}  # who ran after whom, on which route
        self._last: nn.Module | None = None
        self._coming: tuple[nn.Module, Future[_Filled]] | None = None
        self._here: tuple[_Filled, list[Tensor]] | None = None  # and the weights as they rest
        size = max((bytes_of(weights, dtype) for weights in self._weights.values()), default=0)
        self.size = 2 * size  # bytes on the device
        self._free = [_place(size, device) for _ in range(2)]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self._hooks = [
            hook
            for block in blocks
            for hook in (
                block.register_forward_pre_hook(self._before),
                block.register_forward_hook(self._after, always_call=True),
            )
        ]

    def close(self) -> None:
        """All blocks are at rest, and run where they are from now on."""
        for hook in self._hooks:
            hook.remove()
        self.renew()
        self._thread.shutdown()
        for place in self._free:
            place.close()
        self._free.clear()

    def renew(self) -> None:
        """Weights may have changed: nothing that was fetched before is used."""
        if self._coming:
            self._free.append(self._coming[1].result().place)
            self._coming = None
        self._last = None

    def _before(self, block: nn.Module, _: Any) -> None:
        filled = self._fetched(block)
        weights = self._weights[block]
        self._here = filled, [weight.data for weight in weights]
        filled.place.wait()
        for weight, here in zip(weights, filled.views, strict=True):
            weight.data = here
        if self._last is not None:
            self._next[self.route, self._last] = block
        self._last = block
        following = self._next.get((self.route, block))
        if following is not None and following is not block:
            self._coming = following, self._thread.submit(self._fill, self._free.pop(), following)

    def _after(self, block: nn.Module, *_: Any) -> None:
        if self._here is None:  # it never got its weights
            return
        (filled, resting), self._here = self._here, None
        for weight, rest in zip(self._weights[block], resting, strict=True):
            weight.data = rest
        filled.place.release()
        self._free.append(filled.place)

    def _fetched(self, block: nn.Module) -> _Filled:
        """`block` in a place: it has been on its way, or it comes now."""
        if self._coming and self._coming[0] is block:
            coming, self._coming = self._coming[1], None
            return coming.result()
        last = self._last
        self.renew()
        self._last = last
        return self._thread.submit(self._fill, self._free.pop(), block).result()

    @torch.no_grad()
    def _fill(self, place: _Place, block: nn.Module) -> _Filled:
        weights = self._weights[block]
        types = [type_on_device(weight, self._dtype) for weight in weights]
        with place.writing(bytes_of(weights, self._dtype)) as memory:
            _copy(weights, list(_views(memory, weights, types)))
        return _Filled(place, list(_views(place.memory, weights, types)))


class _Filled:
    """A place with a block's weights in it."""

    def __init__(self, place: _Place, views: list[Tensor]) -> None:
        self.place = place
        self.views = views


class _Place:
    """Memory on the device for one block's weights at a time."""

    def __init__(self, size: int, device: torch.device) -> None:
        with torch.inference_mode(False):  # weights are ordinary tensors
            self.memory = torch.empty(size, dtype=torch.uint8, device=device)

    @contextmanager
    def writing(self, size: int) -> Iterator[Tensor]:
        """Memory to write `size` bytes of weights into; at the end they are in this place, or on their way."""
        yield self.memory

    def wait(self) -> None:
        """What computes from now on finds what was written."""

    def release(self) -> None:
        """What has computed up to now is the last that needs what was written."""

    def close(self) -> None:
        """Nothing is on its way any more: the memory may be used for something else."""


class _CudaPlace(_Place):
    """Filled from page-locked memory by a stream of its own."""

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        with torch.inference_mode(False):
            self._staging = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._stream = torch.cuda.Stream(device)
        self._written = torch.cuda.Event()
        self._released = torch.cuda.Event()
        self.release()

    @contextmanager
    def writing(self, size: int) -> Iterator[Tensor]:
        self._written.synchronize()  # the last copy out of the page-locked memory is over
        yield self._staging
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._released)
            self.memory[:size].copy_(self._staging[:size], non_blocking=True)
            self._written.record(self._stream)

    def wait(self) -> None:
        torch.cuda.current_stream(self.memory.device).wait_event(self._written)

    def release(self) -> None:
        self._released.record(torch.cuda.current_stream(self.memory.device))

    def close(self) -> None:
        self._written.synchronize()


def _place(size: int, device: torch.device) -> _Place:
    return _CudaPlace(size, device) if device.type == "cuda" else _Place(size, device)


def _views(memory: Tensor, weights: Sequence[Tensor], types: Sequence[torch.dtype]) -> Iterator[Tensor]:
    """Where in `memory` each of `weights` goes, in its type and shape, and in its order of dimensions."""
    start = 0
    for weight, dtype in zip(weights, types, strict=True):
        flat = memory[start : start + weight.numel() * dtype.itemsize].view(dtype)
        start += _room(weight, dtype)
        yield flat.as_strided(weight.shape, weight.stride()) if _dense(weight) else flat.view(weight.shape)


def _dense(weight: Tensor) -> bool:
    """Whether its numbers lie side by side without gaps, in whatever order of its dimensions."""
    return math.prod(weight.shape) == 1 + sum(
        (size - 1) * step for size, step in zip(weight.shape, weight.stride(), strict=True)
    )


def _copy(weights: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    buffer = torch.empty(PIECE)
    for weight, target in zip(weights, targets, strict=True):
        if weight.dtype != target.dtype and weight.is_contiguous() and target.is_contiguous():
            converted(weight.view(-1), target.view(-1), buffer)
        else:
            target.copy_(weight)
