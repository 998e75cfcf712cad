"""What the buttons do: values by name -> Settings -> task; a browser's tasks -> what the page shows of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from core.errors import UserError
from core.settings import Settings
from core.task import AsyncTask
from webui.app import App
from webui.controls import settings_from
from webui.render import View, view

INTERVAL = 0.1  # seconds between two updates; with the way to the browser, at most eight previews a second


class Bell:
    """Wakes those who watch an owner's tasks. The page's server rings it from any thread."""

    def __init__(self) -> None:
        self._ropes: dict[Callable[[], None], str] = {}

    @contextlib.contextmanager
    def listening(self, owner: str) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever something may have changed for `owner`."""
        loop, rung = asyncio.get_running_loop(), asyncio.Event()

        def rope() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server is shutting down
                loop.call_soon_threadsafe(rung.set)

        self._ropes[rope] = owner
        try:
            yield rung
        finally:
            del self._ropes[rope]

    def ring(self, task: AsyncTask) -> None:
        """`task` changed. One that is done concerns everybody: the others move up in the queue."""
        for rope, owner in list(self._ropes.items()):
            if owner == task.owner or task.done:
                rope()


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

    async def watch(self, owner: str) -> AsyncIterator[View]:
        """A View now and after each change (at most one every INTERVAL), until none of `owner`'s tasks is under way."""
        with self.bell.listening(owner) as rung:
            while True:
                rung.clear()
                under_way = any(not task.done for task in self.app.worker.tasks(owner))
                yield self.view(owner)
                if not under_way:
                    return
                await asyncio.sleep(INTERVAL)
                await rung.wait()

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
