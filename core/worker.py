"""Worker: the queue of tasks and the one background thread that carries them out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from core.errors import UserError
from core.events import Event, Failed, Finished
from core.task import AsyncTask, Interrupted

if TYPE_CHECKING:
    from core.pipeline import Pipeline

log = logging.getLogger(__name__)

KEPT_PER_OWNER = 20  # finished tasks that a reloaded page can still find
LONGEST_QUEUE = 200

Handler = Callable[[AsyncTask, "Pipeline"], Iterator[Event]]


class Worker:
    """Owns `async_tasks` and the thread that iterates `handler(task, pipeline)` for one after the other.

    `make_pipeline` is called inside the thread, so that the page is up before torch is imported; if it fails, the task
    at hand fails with its message and the next task tries again.
    """

    def __init__(self, handler: Handler, make_pipeline: Callable[[], Pipeline]) -> None:
        self.async_tasks: deque[AsyncTask] = deque()
        self._handler = handler
        self._make_pipeline = make_pipeline
        self._pipeline: Pipeline | None = None
        self._running: AsyncTask | None = None
        self._finished: deque[AsyncTask] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the background thread; it makes the pipeline at once, before the first task comes."""
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Stop the running task, drop the waiting ones and end the thread; waits at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            waiting = list(self.async_tasks)
            self.async_tasks.clear()
            if self._running:
                self._running.stop()
            self._changed.notify_all()
        for task in waiting:
            _end_unstarted(task)
        if self._thread:
            self._thread.join(timeout)

    def submit(self, task: AsyncTask) -> None:
        """Append `task` to the queue and return at once. Raises UserError when the queue is full."""
        with self._changed:
            if len(self.async_tasks) >= LONGEST_QUEUE:
                raise UserError(f"{LONGEST_QUEUE} tasks are waiting already. Cancel some or wait until they are done.")
            self.async_tasks.append(task)
            self._changed.notify_all()

    def cancel(self, task_id: str, owner: str) -> bool:
        """Stop the task if it runs, take it off the queue if it waits. False if `owner` has no such task."""
        with self._changed:
            task = self._find(task_id, owner)
            if task is None or task.done:
                return False
            task.stop()
            if task is self._running:
                return True
            self.async_tasks.remove(task)
            self._keep(task)
        _end_unstarted(task)
        return True

    def find(self, task_id: str, owner: str) -> AsyncTask | None:
        """The task of that id if it belongs to `owner`."""
        with self._changed:
            return self._find(task_id, owner)

    def tasks(self, owner: str) -> list[AsyncTask]:
        """The tasks of `owner`: the running one, the waiting ones in order, then the finished ones, newest first."""
        with self._changed:
            return [task for task in self._all() if task.owner == owner]

    def position(self, task: AsyncTask) -> int:
        """How many tasks (of anybody) come before `task`; 0 when it runs or is done."""
        with self._changed:
            if task not in self.async_tasks:
                return 0
            return self.async_tasks.index(task) + (self._running is not None)

    def _all(self) -> list[AsyncTask]:
        running = [self._running] if self._running else []
        return [*running, *self.async_tasks, *reversed(self._finished)]

    def _find(self, task_id: str, owner: str) -> AsyncTask | None:
        return next((task for task in self._all() if task.id == task_id and task.owner == owner), None)

    def _keep(self, task: AsyncTask) -> None:
        self._finished.append(task)
        of_owner = [kept for kept in self._finished if kept.owner == task.owner]
        if len(of_owner) > KEPT_PER_OWNER:
            self._finished.remove(of_owner[0])

    def _run(self) -> None:
        try:
            self._pipeline = self._make_pipeline()
        except Exception:
            log.exception("The engine could not start; the next task tries again")
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or bool(self.async_tasks))
                if self._closing:
                    return
                task = self._running = self.async_tasks.popleft()
                task.state = "running"
            self._carry_out(task)
            with self._changed:
                self._running = None
                self._keep(task)

    def _carry_out(self, task: AsyncTask) -> None:
        try:
            if self._pipeline is None:
                self._pipeline = self._make_pipeline()
            for event in self._handler(task, self._pipeline):
                task.publish(event)
        except UserError as error:
            task.publish(Failed(message=str(error)))
        except Interrupted:
            task.publish(Finished(paths=(), seconds=0.0, stopped=True))
        except Exception as error:
            task.publish(Failed(message=self._told(error)))
        if not task.done:
            task.publish(
                Failed(message="The task ended without a result. This is a defect of Easel; please report it.")
            )

    def _told(self, error: Exception) -> str:
        """The message for the page for an error that nobody expected; out of memory is recognised."""
        if (
            type(error).__name__ == "OutOfMemoryError"
            or isinstance(error, MemoryError)
            or "can't allocate memory" in str(error)
        ):
            log.error("Out of memory: %s", error)
            if self._pipeline is not None:
                self._pipeline.free_memory()
            return (
                "There was too little memory for this picture. Try a smaller size, close other programs that use "
                "memory, or choose a lower precision (`python launch.py doctor` says what this machine has)."
            )
        log.error("A task failed", exc_info=error)
        return f"Easel failed at this task: {type(error).__name__}: {error}. The terminal shows the details."


def _end_unstarted(task: AsyncTask) -> None:
    task.publish(Finished(paths=(), seconds=0.0, stopped=True))
