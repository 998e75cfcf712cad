"""What the buttons do: values by name -> Settings -> task; a browser's tasks -> what the page shows of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core.axes import Grid, read_axis
from core.errors import BadSetting, UserError
from core.settings import Settings, random_seed
from core.task import AsyncTask
from webui.app import App
from webui.controls import asked_model, settings_from
from webui.render import View, view
from webui.task_list import Standing

MOST_PROMPTS = 200  # of one list
MOST_WATCHES = 12  # of one visitor; each keeps a place in Gradio's queue, and a page has up to five
INTERVAL = 0.12  # seconds over which changes are gathered at first; the bar glides between them
LONGEST_INTERVAL = 0.5  # seconds
PACE = 5  # later the interval is the time since the task began over this: seven looks in the first second, then fewer


def interval_after(seconds: float) -> float:
    """Seconds over which changes are gathered when a task has run for so long."""
    return min(max(seconds / PACE, INTERVAL), LONGEST_INTERVAL)


class Waker:
    """One watcher's bell rope: `rung` is set when something changed, `urgent` when it should be seen at once."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.dismissed = False
        self.rung, self.urgent = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def pull(self, urgent: bool) -> None:
        """From any thread, after the change. A bell that rings already is left alone: who is woken looks after it is still."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is shutting down
            if not self.rung.is_set():
                self._loop.call_soon_threadsafe(self.rung.set)
            if urgent and not self.urgent.is_set():
                self._loop.call_soon_threadsafe(self.urgent.set)

    def dismiss(self) -> None:
        """Whoever watches by it is to leave."""
        self.dismissed = True
        self.pull(urgent=True)

    async def wait(self, interval: float) -> None:
        """Until something changed; then for `interval` seconds, to gather what else does, or until something is urgent."""
        await self.rung.wait()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.urgent.wait(), interval)
        self.rung.clear()
        self.urgent.clear()


class Bell:
    """Wakes those who watch an owner's tasks. The worker rings it from its thread."""

    def __init__(self) -> None:
        self._wakers: list[Waker] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def listening(self, owner: str) -> Iterator[Waker]:
        """A Waker of the running loop, for `owner`, whose oldest is dismissed if there are MOST_WATCHES already."""
        waker = Waker(owner)
        with self._lock:
            self._wakers.append(waker)
            for old in [each for each in self._wakers if each.owner == owner][:-MOST_WATCHES]:
                old.dismiss()
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

    def ring_all(self) -> None:
        """The order of the queue changed, or who waits in it: everybody may stand elsewhere now."""
        with self._lock:
            wakers = list(self._wakers)
        for waker in wakers:
            waker.pull(urgent=True)


class Desk:
    """Takes requests and tells how they stand. One for the page, shared by all browsers."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.bell = Bell()

    def submit(self, values: Mapping[str, Any], owner: str, *, any_seed: bool, in_place: bool = False) -> Settings:
        """Queue a task with the controls' `values` by name, or put it `in_place` of the one that `owner` edits; returns its
        settings. Raises UserError."""
        settings = self._settings(values, any_seed)
        self._send([AsyncTask(settings, owner)], in_place=in_place)
        return settings

    def submit_list(self, values: Mapping[str, Any], owner: str, text: str, *, any_seed: bool) -> int:
        """Queue one task for each line of `text`, its prompt; returns how many. Raises UserError."""
        prompts = [line for line in map(str.strip, text.splitlines()) if line]
        if not prompts:
            raise BadSetting("The list is empty. Write one prompt a line, or choose a text file that has one a line.")
        if len(prompts) > MOST_PROMPTS:
            raise BadSetting(f"The list has {len(prompts)} prompts; at most {MOST_PROMPTS} are possible at once.")
        base = self._settings(values, any_seed)
        requests = [replace(base, prompt=p, seed=random_seed() if any_seed else base.seed) for p in prompts]
        self._send([AsyncTask(settings, owner) for settings in requests])
        return len(prompts)

    def submit_grid(
        self,
        values: Mapping[str, Any],
        owner: str,
        axes: Mapping[str, str],
        *,
        any_seed: bool,
        in_place: bool = False,
    ) -> Settings:
        """The same for the grid of two settings that `axes` says. See `grid_task`."""
        task = self.grid_task(values, owner, axes, any_seed=any_seed)
        self._send([task], in_place=in_place)
        return task.settings

    def grid_task(self, values: Mapping[str, Any], owner: str, axes: Mapping[str, str], *, any_seed: bool) -> AsyncTask:
        """A task, not yet queued, for a grid: `axes` has the settings `x` and `y` ("" = none) and their values as text.

        Raises UserError.
        """
        x = read_axis(axes["x"], axes["x_values"], self.app.files)
        y = read_axis(axes["y"], axes["y_values"], self.app.files) if axes["y"] else None
        return AsyncTask(self._settings(values, any_seed), owner, grid=Grid(x, y))

    def act(self, action: str, owner: str, task_id: str, place: int) -> AsyncTask | None:
        """What a button of the task list does, only ever to `owner`'s own tasks. Returns the task to edit, if it is that.

        Raises UserError when the queue has no room for the tasks of the last run.
        """
        worker = self.app.worker
        taken = None
        match action:
            case "cancel":
                worker.cancel(task_id, owner)
            case "cancel_all":
                worker.cancel_all(owner)
            case "move":
                worker.move(task_id, owner, place)
            case "hold":
                worker.hold(owner)
            case "release":
                worker.release(owner)
            case "edit":
                taken = worker.edit(task_id, owner)
            case "keep":
                worker.let_go(owner)
            case "take_up":
                # What finds no room stays on offer; where there is none at all, one is tried, so that this is told.
                left = worker.left_over(owner)[: max(1, worker.room(owner))]
                self._send([one.task(owner) for one in left])
                worker.forget_left_over(owner, left)
            case "forget":
                worker.forget_left_over(owner)
        self.bell.ring_all()
        return taken

    def cancel(self, task_id: str, owner: str) -> None:
        """Stop or drop that task, if it is `owner`'s."""
        self.act("cancel", owner, task_id, 0)

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
        worker = self.app.worker
        standing = Standing(worker.held(owner), worker.left_over(owner), worker.forecast(owner), worker.edited(owner))
        positions = worker.positions(owner)
        return view(worker.tasks(owner), lambda task: positions.get(task.id, 0), standing)

    async def watch(self, owner: str) -> AsyncGenerator[View, None]:
        """A View now and after each change, at most one every `interval_after` seconds, until none of `owner`'s tasks is
        under way, or MOST_WATCHES others of `owner` have begun since."""
        running, began = None, 0.0
        with self.bell.listening(owner) as waker:
            while not waker.dismissed:
                under_way = any(not task.done for task in self.app.worker.tasks(owner))
                if (now := self._running(owner)) is not running:
                    running, began = now, time.monotonic()
                yield self.view(owner)
                if not under_way:
                    return
                await waker.wait(interval_after(time.monotonic() - began))

    def _settings(self, values: Mapping[str, Any], any_seed: bool) -> Settings:
        return settings_from(values, self.app.defaults(asked_model(values)), any_seed)

    def _send(self, tasks: Sequence[AsyncTask], *, in_place: bool = False) -> None:
        """Queue `tasks`; `in_place` puts the only one in the place of the one that its owner edits, if they do."""
        for task in tasks:
            task.subscribe(partial(self.bell.ring, task))
        if not (in_place and self.app.worker.put_back(tasks[0])):
            self.app.worker.submit(*tasks)
        for task in tasks[:1]:
            self.bell.ring(task)

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
        return Settings(), app.told(error)
