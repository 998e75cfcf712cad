"""pace: how long pictures take on this machine, learned from those it has made. No torch.

A step's time depends on the model, the number of pixels, and how many rows the network gets at once (two with guidance,
one without). Of each of these kinds the median of the last runs counts, so that one busy minute spoils nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from core.events import Event, Progress, Saved
from core.output.files import write_new
from core.performance import effective
from core.settings import Settings
from core.task import AsyncTask

log = logging.getLogger(__name__)

REMEMBERED = 15  # runs of a kind
MOST_KINDS = 300
MOST_TASKS = 1000  # whose kinds are kept at hand

# Calls of the network in a step, where it is not one; `UNSTEADY` ones depend on the picture, so nothing is learned from them.
CALLS = {
    "heun": 2.0, "heunpp2": 3.0, "dpm_2": 2.0, "dpm_2_ancestral": 2.0, "dpmpp_2s_ancestral": 2.0, "dpmpp_sde": 2.0,
    "dpmpp_sde_gpu": 2.0, "restart": 3.0, "dpm_adaptive": 2.0,
}  # fmt: skip
UNSTEADY = ("restart", "dpm_adaptive")


@dataclass(frozen=True)
class Kind:
    """What the time of a step depends on."""

    model: str
    pixels: int
    rows: int

    @classmethod
    def of(cls, settings: Settings) -> Kind:
        """The kind of an effective request."""
        return cls(settings.base_model, settings.width * settings.height, 1 if settings.guidance_scale == 1.0 else 2)


class Pace:
    """What was learned; kept in `file` (None: in memory alone). Making one reads nothing; any thread may use it."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._known: dict[Kind, tuple[deque[float], deque[float]]] | None = None
        self._costs: dict[str, Mapping[tuple[Kind, float], int]] = {}

    def watch(self, task: AsyncTask) -> Watch:
        """Learns from the events of `task`."""
        return Watch(self, task)

    def learn(self, kind: Kind, call: float, rest: float) -> None:
        """A picture took `call` seconds for each call of the network, and `rest` seconds beside them."""
        with self._lock:
            known = self._read()
            calls, rests = known[kind] if kind in known else (deque(maxlen=REMEMBERED), deque(maxlen=REMEMBERED))
            known.pop(kind, None)
            calls.append(call)
            rests.append(rest)
            known[kind] = calls, rests  # the newest last
            while len(known) > MOST_KINDS:
                del known[next(iter(known))]

    def seconds(self, task: AsyncTask) -> float | None:
        """How long the pictures that `task` has not made yet will take; None if nothing like it was ever made here."""
        with self._lock:
            costs = self._costs.get(task.id)
            if costs is None:
                if len(self._costs) >= MOST_TASKS:
                    self._costs.clear()
                costs = self._costs[task.id] = _costs(task)
            total = 0.0
            for (kind, calls), pictures in costs.items():
                found = self._like(kind)
                if found is None:
                    return None
                call, rest = found
                total += pictures * (calls * call + rest)
            return total

    def save(self) -> None:
        """Write the file; that it cannot be written is no trouble."""
        if self._file is None:
            return
        with self._lock:
            rows = [[k.model, k.pixels, k.rows, list(c), list(r)] for k, (c, r) in self._read().items()]
        part = self._file.with_name(f".{self._file.name}.{secrets.token_hex(4)}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_new(part, json.dumps(rows).encode())
            part.replace(self._file)
        except OSError as problem:
            log.debug("What was learned about this machine's pace cannot be kept: %s", problem)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _like(self, kind: Kind) -> tuple[float, float] | None:
        """Seconds a call and beside them: of this kind, else of the nearest one of the same model in proportion."""
        known = self._read()
        if kind in known:
            calls, rests = known[kind]
            return median(calls), median(rests)
        others = [other for other in known if other.model == kind.model]
        if not others:
            return None
        near = min(others, key=lambda o: (abs(o.pixels - kind.pixels), abs(o.rows - kind.rows)))
        calls, rests = known[near]
        larger = kind.pixels / near.pixels
        return median(calls) * larger * kind.rows / near.rows, median(rests) * larger

    def _read(self) -> dict[Kind, tuple[deque[float], deque[float]]]:
        if self._known is None:
            self._known = {}
            with suppress(OSError, ValueError, TypeError, RecursionError):
                for model, pixels, rows, calls, rests in json.loads(self._file.read_text()) if self._file else ():
                    kept = (deque(map(float, calls), REMEMBERED), deque(map(float, rests), REMEMBERED))
                    if kept[0] and kept[1] and pixels > 0 and rows > 0:
                        self._known[Kind(str(model), int(pixels), int(rows))] = kept
        return self._known


class Watch:
    """Learns from one task, event by event."""

    def __init__(self, pace: Pace, task: AsyncTask) -> None:
        self._pace = pace
        self._task = task
        self._begun = self._before = self._first = self._last = time.monotonic()
        self._steps = self._image = 0

    def see(self, event: Event) -> None:
        """The next event, just now."""
        now = time.monotonic()
        if isinstance(event, Progress) and event.image != self._image:  # the one before may have been skipped
            self._image, self._steps, self._begun = event.image, 0, now
        if isinstance(event, Progress) and event.text.startswith("Step "):
            if not self._steps:
                self._first = now
            self._steps, self._last = self._steps + 1, now
        elif isinstance(event, Saved) and not event.sheet:
            self._learn(event, now)
        elif isinstance(event, Progress) and not self._steps:
            self._before = now

    def end(self) -> None:
        """The task is done: keep what was learned."""
        self._pace.save()

    def _learn(self, event: Saved, now: float) -> None:
        settings = effective(self._task.request(event.index))
        if not self._steps or settings.sampler in UNSTEADY:
            return
        sampling = self._last - self._before  # the first step is timed from the event before it
        if self._steps > 1:
            sampling = (self._last - self._first) * self._steps / (self._steps - 1)
        calls = settings.steps * CALLS.get(settings.sampler, 1.0)
        self._pace.learn(Kind.of(settings), sampling / calls, max(0.0, now - self._begun - sampling))


def _costs(task: AsyncTask) -> Mapping[tuple[Kind, float], int]:
    """How many pictures of each kind and number of calls are still to be made."""
    costs: Counter[tuple[Kind, float]] = Counter()
    requests = {}
    for index in range(task.pictures):
        if index in task.made:
            continue
        request = task.request(index)
        if id(request) not in requests:
            settings = effective(request)
            calls = settings.steps * CALLS.get(settings.sampler, 1.0)
            requests[id(request)] = Kind.of(settings), calls
        costs[requests[id(request)]] += 1
    return costs
