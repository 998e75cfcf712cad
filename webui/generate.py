"""What the buttons do: values by name -> Settings -> task; a browser's tasks -> what the page shows of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from core.errors import UserError
from core.settings import Settings
from core.task import AsyncTask
from webui.app import App
from webui.controls import settings_from
from webui.render import View, view

INTERVAL = 0.1  # seconds over which changes are gathered: at most ten updates a second


class Waker:
    """One watcher's bell rope: `rung` is set when something changed, `urgent` when it should be seen at once."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.rung, self.urgent = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def pull(self, urgent: bool) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is shutting down
            self._loop.call_soon_threadsafe(self.rung.set)
            if urgent:
                self._loop.call_soon_threadsafe(self.urgent.set)

    async def wait(self) -> None:
        """Until something changed; then for INTERVAL, to gather what else does, or until something is urgent."""
        await self.rung.wait()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.urgent.wait(), INTERVAL)
        self.rung.clear()
        self.urgent.clear()


class Bell:
    """Wakes those who watch an owner's tasks. The worker rings it from its thread."""

    def __init__(self) -> None:
        self._wakers: list[Waker] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def listening(self, owner: str) -> Iterator[Waker]:
        """A Waker of the running loop, for `owner`."""
        waker = Waker(owner)
        with self._lock:
            self._wakers.append(waker)
        try:
            yield waker
        finally:
            with self._lock:
                self._wakers.remove(waker)

    def ring(self, task: AsyncTask) -> None:
        """`task` changed. One that is done concerns everybody: the others move up in the queue."""
        with self._lock:
            wakers = [waker for waker in self._wakers if waker.owner == task.owner or task.done]
        for waker in wakers:
            waker.pull(urgent=task.done)


class Desk:
    """Takes requests and tells how they stand. One for the page, shared by all browsers."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.bell = Bell()

    def submit(self, values: Mapping[str, Any], owner: str, *, any_seed: bool) -> Settings:
        """Queue a task with the controls' `values` by name; returns its settings. Raises UserError."""
        settings = settings_from(values, self.app.defaults(values.get("base_model") or ""), any_seed)
        task = AsyncTask(settings, owner)
        task.subscribe(lambda: self.bell.ring(task))
        self.app.worker.submit(task)
        self.bell.ring(task)
        return settings

    def cancel(self, task_id: str, owner: str) -> None:
        """Stop or drop that task, if it is `owner`'s."""
        if self.app.worker.cancel(task_id, owner):
            self._ring(owner)

    def stop(self, owner: str) -> None:
        """Stop what runs for `owner`; what is waiting goes on."""
        running = self._running(owner)
        if running:
            self.cancel(running.id, owner)

    def skip(self, owner: str) -> None:
        """Drop the picture under way for `owner`, and go on with the next one of the task."""
        running = self._running(owner)
        if running:
            running.skip()
            self._ring(owner)

    def latest(self, owner: str) -> AsyncTask | None:
        """The task `owner` asked for last."""
        return max(self.app.worker.tasks(owner), key=lambda task: task.created, default=None)

    def view(self, owner: str) -> View:
        """How the tasks of `owner` stand."""
        return view(self.app.worker.tasks(owner), self.app.worker.position)

    async def watch(self, owner: str) -> AsyncGenerator[View, None]:
        """A View now and after each change (at most one every INTERVAL), until none of `owner`'s tasks is under way."""
        with self.bell.listening(owner) as waker:
            while True:
                under_way = any(not task.done for task in self.app.worker.tasks(owner))
                yield self.view(owner)
                if not under_way:
                    return
                await waker.wait()

    def _running(self, owner: str) -> AsyncTask | None:
        return next((task for task in self.app.worker.tasks(owner) if task.state == "running"), None)

    def _ring(self, owner: str) -> None:
        for task in self.app.worker.tasks(owner)[:1]:
            self.bell.ring(task)


def defaults_or_problem(app: App, base_model: str) -> tuple[Settings, str]:
    """The settings recommended for `base_model`; if there are none, the general ones and why."""
    try:
        return app.defaults(base_model), ""
    except UserError as error:
        return Settings(), str(error)
