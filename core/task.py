"""AsyncTask: one request on its way: its settings, who asked for it, its stop, its stream of events."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from core.axes import Cell, Grid
from core.events import Event, Failed, Finished, Progress
from core.settings import Settings

A_WHILE = 0.5  # seconds; on Windows Ctrl-C does not wake what waits without an end


class Interrupted(Exception):
    """Raised by `AsyncTask.check` inside a long computation when the user pressed Stop or Skip."""


class AsyncTask:
    """One request and what became of it. Safe to use from several threads.

    `state` is "waiting", "running", "finished", "stopped" or "failed". `owner` names the browser session it belongs to.
    With a `grid` the request is one picture for each of its cells. `made` are the pictures that are on disk already, by
    their number from 0. Raises BadSetting for a grid that does not suit the settings.
    """

    def __init__(
        self, settings: Settings, owner: str = "", *, grid: Grid | None = None, made: Mapping[int, str] | None = None
    ) -> None:
        self.id = secrets.token_urlsafe(18)
        self.settings = settings
        self.owner = owner
        self.grid = grid
        self.cells: tuple[Cell, ...] = grid.cells(settings) if grid else ()
        self.made: dict[int, str] = dict(made or {})
        self.created = time.time()
        self.state = "waiting"
        self.last_stop: str | None = None  # None, "skip" or "stop"
        self.progress = Progress(share=0.0, text="Waiting")
        self.preview: bytes | None = None  # the newest preview, for a page that joins late; none once the task is done
        self._kept: list[Event] = []  # all but Progress
        self._version = 0
        self._changed = threading.Condition()
        self._stopping = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def pictures(self) -> int:
        """How many pictures are asked for."""
        return len(self.cells) or self.settings.image_number

    def request(self, index: int) -> Settings:
        """The settings that picture `index` is asked for with."""
        return self.cells[index].settings if self.cells else self.settings

    @property
    def done(self) -> bool:
        """Whether the last event has been published."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def stopped(self) -> bool:
        """Whether Stop was pressed."""
        return self.last_stop == "stop"

    def stop(self) -> None:
        """End the task as soon as possible; pictures already saved stay."""
        with self._stopping:
            self.last_stop = "stop"

    def skip(self) -> None:
        """Drop the picture under way and go on with the next one."""
        with self._stopping:
            self.last_stop = self.last_stop or "skip"

    def unskip(self) -> None:
        """Forget a Skip that has been acted on, or that came too late; a Stop stays."""
        with self._stopping:
            self.last_stop = "stop" if self.stopped else None

    def check(self) -> None:
        """Called between the blocks of a network. Raises Interrupted if Stop or Skip was pressed."""
        if self.last_stop is not None:
            raise Interrupted(self.last_stop)

    def publish(self, event: Event) -> None:
        """Hand `event` to everybody who listens. The worker's side."""
        with self._changed:
            if isinstance(event, Progress):
                self.progress = event
                self.preview = event.preview or self.preview
            else:
                self._kept.append(event)
            if isinstance(event, Failed):
                self.state = "failed"
            elif isinstance(event, Finished):
                self.state = "stopped" if event.stopped else "finished"
            if self.done:
                self.preview, self.progress = None, replace(self.progress, preview=None)
            self._version += 1
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def kept(self) -> list[Event]:
        """All events so far except Progress, oldest first."""
        with self._changed:
            return list(self._kept)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` (in the publishing thread) after each event; returns the function that ends this."""
        with self._changed:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def events(self) -> Iterator[Event]:
        """All events, for any number of readers; waits for new ones and ends after Finished or Failed.

        Of Progress a reader gets the newest only; the other events all arrive, in order.
        """
        seen, taken = -1, 0
        while True:
            with self._changed:
                while self._version == seen:
                    self._changed.wait(A_WHILE)
                seen = self._version
                fresh, progress, done = self._kept[taken:], self.progress, self.done
                taken = len(self._kept)
            if not done:
                yield progress
            yield from fresh
            if done:
                return
