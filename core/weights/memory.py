"""Who is on the device now, how much may be there, and what is done when that is too little.

Networks rest on the CPU, where their weights are views of the file, or converted copies. A network that is to compute is
brought: as a whole if there is room, or so that some of its blocks stay on the device and the others come and go while it
runs (see `streaming`). What rests is kept, so that leaving the device copies nothing back.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil
import torch
from torch import Tensor, nn

from core.errors import out_of_memory
from core.weights.patched import patches_on
from core.weights.streaming import Streamed, bytes_of, streamable, tensors_of, type_on_device

log = logging.getLogger(__name__)

T = TypeVar("T")

MIB = 2**20
HEADROOM = 1024 * MIB  # left free for what the estimates do not know; of a small budget an eighth
LEAST_SHARE = 1 / 16  # of a network's blocks to stay on the device; less is none

MOVED_OFF = "Memory ran short: networks that were not at work were moved off the device, and the picture goes on."
STREAMING = (
    "Memory ran short: the blocks of the network at work now come to the device when their turn comes, which is slower."
)


def free_bytes(device: torch.device) -> int:
    """Memory that a computation on `device` can still take, in bytes."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def sampling_bytes(rows: int, height: int, width: int, element: int) -> int:
    """What a network call on `rows` latents of height x width cells takes beside the weights, in bytes.

    The rule of thumb of the reference for fused attention: 1 MiB for 50 bytes of latent cells.
    """
    return rows * height * width * element * MIB // 50


def decoding_bytes(height: int, width: int, element: int) -> int:
    """What decoding a latent of height x width cells takes beside the weights, in bytes (the reference's estimate)."""
    return 2178 * height * width * 64 * element


@dataclass(frozen=True, eq=False)
class Way(Generic[T]):
    """One way to compute something: what it takes beside the weights in bytes, how, and what to tell when it comes to it.

    `need` is 0 where it is not known. `differs`: what it gives is not quite what the ways before it give, so that it is
    told even if none of those was tried.
    """

    name: str
    need: int
    go: Callable[[], T]
    words: str = ""
    differs: bool = False


@dataclass(eq=False)
class _Place:
    """A network that was brought."""

    module: nn.Module
    dtype: torch.dtype | None
    working: int = 0  # bytes of the work that it was brought for
    share: float = 1.0  # of its blocks that stay
    streamed: Streamed | None = None
    coming: tuple[nn.Module, ...] = ()  # the blocks that do not


class Memory:
    """Owner of what is on `device`. `budget`: the bytes that networks and their work may take; None: what is free.

    On a CPU without a budget there is nothing to move, and all of this costs nothing.
    """

    def __init__(self, device: torch.device, budget: int | None = None) -> None:
        self.device = device
        self.budget = budget
        self._places: list[_Place] = []  # least recently used first
        self._rest: dict[Tensor, tuple[Tensor, object]] = {}  # what is on the device -> as it rests, its patches then
        self._most: dict[nn.Module, dict[int, float]] = {}  # the share at which a network found memory, by its work
        self._failed: dict[str, int] = {}  # name of a way -> the least need at which it found no memory
        self._notices: list[str] = []
        self.cramped = False  # whether everything is to take as little as it can

    def bring(self, module: nn.Module, working: int = 0, dtype: torch.dtype | None = None) -> None:
        """Make `module` ready to compute on the device, in `dtype` (None: as it is), with `working` bytes to spare.

        Moves others off where needed. Raises what torch raises if there is no memory even for one block at a time.
        """
        if self._stays(module, dtype):
            while self._places and self.room() < working + self._headroom() and self._send_away(keep=None):
                pass
            return
        place = self._taken(module) or _Place(module, dtype)
        place.dtype, place.working = dtype, working
        self._places.append(place)  # the most recently used one
        size = bytes_of(list(tensors_of(module)), dtype)
        while self._room(place) < size + working + self._headroom() and self._send_away(keep=place):
            pass
        place.share = self._share(place, size, self._room(place) - working - self._headroom())
        while True:
            try:
                self._put(place)
                return
            except Exception as error:
                if not out_of_memory(error) or (len(self._places) == 1 and not place.share):
                    raise
            self._step_down(place)  # here: the error holds on to what had been computed

    def bring_beside(self, module: nn.Module, working: int = 0) -> bool:
        """Make the small `module` ready to compute beside what is there, with `working` bytes to spare, if there is room.

        Nothing is moved off for it, and it is the first to leave when room is wanted. False if there is no room.
        """
        if self._stays(module, None):
            return True
        place = self._place_of(module) or _Place(module, None)
        if self._room(place) < bytes_of(list(tensors_of(module))) + working + self._headroom():
            return False
        if place not in self._places:
            self._places.insert(0, place)
            self._put(place)
        return True

    def run(self, module: nn.Module, ways: Sequence[Way[T]], route: Hashable = None) -> T:
        """What the first of `ways`, ordered by their need, gives that there is memory for; `module` is there already.

        On running out of memory others are moved off the device, then the next way is gone, then the network streamed;
        each is told in a sentence. Raises the last error if nothing helps. Runs that leave blocks of the network out have a
        `route` of their own.
        """
        left = [way for way in ways[:-1] if self._seems_possible(way)] + list(ways[-1:])
        if left[0].differs:
            self._tell(left[0].words)
        while True:
            way = left[0]
            place = self._place_of(module)
            if place and place.streamed:
                place.streamed.route = route
            try:
                return way.go()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                place = self._place_of(module)  # the way may have sent it off
                others = [each for each in self._places if each is not place]
                if not others and len(left) == 1 and not (place and place.share):
                    raise
            if others:
                self._tell(MOVED_OFF)
                while self._send_away(keep=place):
                    pass
            elif len(left) > 1:
                if way.need:
                    self._failed[way.name] = min(way.need, self._failed.get(way.name, way.need))
                left = left[1:]
                self._tell(left[0].words)
            elif place:
                self._step_down(place)
                self._put(place)
            self.empty_cache()

    def take_little(self) -> None:
        """Until `take_as_usual`, blocks come and go, and everything is computed in the way that takes least."""
        self.rest_all()
        self.cramped = True

    def take_as_usual(self) -> None:
        """What `take_little` was called for is over."""
        self.cramped = False

    def rest(self, module: nn.Module) -> None:
        """Send `module` off the device."""
        place = self._taken(module)
        if place:
            self._close(place)
            self._send_home(tensors_of(module), keep=None)

    def rest_all(self) -> None:
        """Send everything off the device and give the memory back."""
        while self._send_away(keep=None):
            pass
        self.empty_cache()

    def drop(self, module: nn.Module) -> None:
        """`module` is about to be gone: do not count on it."""
        place = self._taken(module)
        if place:
            self._close(place)
            shared = {id(tensor) for each in self._places for tensor in tensors_of(each.module)}
            for tensor in tensors_of(module):
                if id(tensor) not in shared:
                    self._rest.pop(tensor, None)
        self._most.pop(module, None)

    def forget(self) -> None:
        """Most networks are gone: give their memory back, and count on none."""
        for place in self._places:
            self._close(place)
        self._places.clear()
        for tensor, (resting, patches) in self._rest.items():
            if resting.device.type == "cpu" and patches is not None and patches == patches_on(tensor):
                tensor.data = resting  # of a network that stays
        self._rest.clear()
        self._most.clear()
        self._failed.clear()
        self.cramped = False
        self.empty_cache()

    def empty_cache(self) -> None:
        """Hand unused blocks of the allocator back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        elif sys.platform == "linux":
            _trim_heap()

    def room(self) -> int:
        """Bytes that can still be taken on the device."""
        free = free_bytes(self.device)
        if self.budget is None:
            return free
        streams = sum(place.streamed.size for place in self._places if place.streamed)
        return min(free, self.budget - streams - sum(tensor.nbytes for tensor in self._rest))

    def room_for_weights(self) -> int:
        """Bytes that weights can take while something is computed."""
        return max(0, self.room() - self._headroom())

    def take_notices(self) -> list[str]:
        """What was done for want of memory since the last call, as sentences."""
        notices, self._notices = self._notices, []
        return notices

    def _stays(self, module: nn.Module, dtype: torch.dtype | None) -> bool:
        """Whether `module` can compute where it rests."""
        if self.device.type != "cpu" or self.budget is not None:
            return False
        return dtype is None or all(
            not tensor.is_floating_point() or tensor.itemsize == 1 or tensor.dtype == dtype
            for tensor in tensors_of(module)
        )

    def _headroom(self) -> int:
        return HEADROOM if self.budget is None else min(HEADROOM, self.budget // 8)

    def _room(self, place: _Place) -> int:
        """Bytes that can be taken if what is in `place` leaves."""
        weights = sum(weight.nbytes for weight in tensors_of(place.module) if weight in self._rest)
        return self.room() + weights + (place.streamed.size if place.streamed else 0)

    def _seems_possible(self, way: Way[T]) -> bool:
        return not self.cramped and way.need <= self.room() and way.need < self._failed.get(way.name, way.need + 1)

    def _share(self, place: _Place, size: int, room: int) -> float:
        """The share of the network's blocks, `size` bytes in all, that are to stay, the others taking turns in two places."""
        blocks = streamable(place.module)
        found = self._most.get(place.module, {})
        most = 0.0 if self.cramped else min((found[work] for work in found if work <= place.working), default=1.0)
        if not blocks or (room >= size and most == 1):
            return 1.0
        sizes = [bytes_of(list(tensors_of(block)), place.dtype) for block in blocks]
        share = min(most, (room - (size - sum(sizes)) - 2 * max(sizes)) / sum(sizes))
        if place.streamed and place.share <= share < place.share + 2 * LEAST_SHARE:
            return place.share  # not worth moving blocks for
        return share if share >= LEAST_SHARE else 0.0

    def _step_down(self, place: _Place) -> None:
        """Make room for `place`: others leave, or half of the blocks that stay become ones that come and go."""
        if self._send_away(keep=place):
            self._tell(MOVED_OFF)
            while self._send_away(keep=place):
                pass
        else:
            place.share = place.share / 2 if place.share > LEAST_SHARE and streamable(place.module) else 0.0
            if place.working:
                self._most.setdefault(place.module, {})[place.working] = place.share
            self._tell(STREAMING)
        self.empty_cache()

    @torch.inference_mode(False)  # weights are ordinary tensors wherever they are
    def _put(self, place: _Place) -> None:
        """Bring what of `place` is to stay on the device, and let the rest come and go."""
        coming = _chosen(streamable(place.module), 1 - place.share, place.dtype)
        if place.streamed and coming != place.coming:
            self._close(place)
        away = {id(tensor) for tensor in tensors_of(*coming)}
        weights = list(tensors_of(place.module))
        self._send_home((tensor for tensor in weights if id(tensor) in away), keep=None)
        for tensor in weights:
            if id(tensor) not in away and tensor not in self._rest:
                moved = tensor.data.to(self.device, type_on_device(tensor, place.dtype))
                self._rest[tensor] = (tensor.data, patches_on(tensor))
                tensor.data = moved
        if place.streamed:
            place.streamed.renew()
        elif coming:
            place.streamed = Streamed(coming, self.device, place.dtype)
            log.info("%d of %d blocks come and go", len(coming), len(streamable(place.module)))
        place.coming = coming

    def _send_away(self, keep: _Place | None) -> bool:
        """Send the least recently used network off the device, but not `keep`; False if there is none."""
        place = next((place for place in self._places if place is not keep), None)
        if place is None:
            return False
        self._places.remove(place)
        self._close(place)
        self._send_home(tensors_of(place.module), keep=keep)
        self.empty_cache()
        return True

    @torch.inference_mode(False)
    def _send_home(self, tensors: Iterable[Tensor], keep: _Place | None) -> None:
        """The weights `tensors` rest again, but for those that `keep` uses, too."""
        kept = {id(tensor) for tensor in tensors_of(keep.module)} if keep else set()
        for tensor in tensors:
            if id(tensor) in kept or tensor not in self._rest:
                continue
            resting, patches = self._rest.pop(tensor)
            unchanged = patches is not None and patches_on(tensor) == patches
            tensor.data = resting if unchanged and resting.device.type == "cpu" else tensor.data.to("cpu")

    def _taken(self, module: nn.Module) -> _Place | None:
        """The place of `module`, no longer in the list."""
        place = self._place_of(module)
        if place:
            self._places.remove(place)
        return place

    def _place_of(self, module: nn.Module) -> _Place | None:
        return next((place for place in self._places if place.module is module), None)

    def _close(self, place: _Place) -> None:
        if place.streamed:
            place.streamed.close()
            place.streamed, place.coming = None, ()

    def _tell(self, words: str) -> None:
        if words and words not in self._notices:
            log.warning(words)
            self._notices.append(words)


def _trim_heap() -> None:
    """Hand the free parts of the heap back to the system, where the C library can do so (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _chosen(blocks: Sequence[nn.Module], share: float, dtype: torch.dtype | None) -> tuple[nn.Module, ...]:
    """Blocks of about the share `share` (0 to 1) of all bytes, evenly spread, so that copies go on beside computation."""
    chosen, due = [], 0.0
    for block in blocks:
        size = bytes_of(list(tensors_of(block)), dtype)
        due += share * size
        if due >= size / 2 or share == 1:
            chosen.append(block)
            due -= size
    return tuple(chosen) if share else ()
