"""Worker: the queue of tasks and the one background thread that carries them out."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from core.errors import BadInput, UserError, out_of_memory
from core.events import Event, Failed, Finished, Progress, Saved, Warned
from core.pace import Pace
from core.queue_store import LeftTask, QueueStore
from core.task import AsyncTask, Interrupted

if TYPE_CHECKING:
    from core.pipeline import Pipeline

log = logging.getLogger(__name__)

KEPT_PER_OWNER = 20  # finished tasks that a reloaded page can still find
KEPT = 500  # of all owners together
LONGEST_QUEUE = 200
MOST_OF_ONE = LONGEST_QUEUE // 2  # of one visitor, where there are several: nobody fills the queue alone
HELD_FOR = 3600.0  # seconds that tasks are held, or one is edited, for somebody who is not there any more

NO_RESULT = "The task ended without a result. This is a defect of Easel; please report it."

Handler = Callable[[AsyncTask, "Pipeline"], Iterator[Event]]


@dataclass(frozen=True)
class Forecast:
    """Seconds that the tasks of one owner will take, each by its id where that is known.

    `until_done` runs from now until the last of them is done, tasks of others before it counted in, None if nothing is
    known; `complete` tells whether it holds all of them.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    until_done: float | None = None
    complete: bool = True


class Worker:
    """Owns `async_tasks` and the thread that iterates `handler(task, pipeline)` for one after the other.

    `make_pipeline` is called inside the thread, so that the page is up before torch is imported; if it fails, the task
    at hand fails with its message and the next task tries again. `store` keeps what waits or runs for the next start,
    `pace` learns how long tasks take. An owner may have `most_of_one` tasks at a time, the running one counted in, so that
    after a restart there is room for all of them; None: the queue's length alone counts. What a task warns of, or fails
    with, is told as `shown` gives it. Who was not `seen` for HELD_FOR seconds of `clock` holds and edits nothing any more.
    """

    def __init__(
        self,
        handler: Handler,
        make_pipeline: Callable[[], Pipeline],
        store: QueueStore | None = None,
        pace: Pace | None = None,
        most_of_one: int | None = None,
        shown: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.async_tasks: deque[AsyncTask] = deque()
        self._store = store or QueueStore()
        self._pace = pace or Pace()
        self._most_of_one = most_of_one
        self._shown = shown
        self._clock = clock
        self._held: set[str] = set()  # owners whose tasks wait until they say otherwise
        self._edited: dict[str, AsyncTask] = {}  # by owner, a waiting task that does not begin meanwhile
        self._seen: dict[str, float] = {}  # when those who held or edited something were there last
        self._handler = handler
        self._make_pipeline = make_pipeline
        self._pipeline: Pipeline | None = None
        self.trouble = ""  # why no task can run at present, as far as is known
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
        """Stop the running task, drop the waiting ones and end the thread; waits at most `timeout` seconds.

        The store goes on holding all of them, for the next start.
        """
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
        self._store.close()

    def submit(self, *tasks: AsyncTask) -> None:
        """Append `tasks` to the queue, all or none, and return at once. Raises UserError when there is no room."""
        with self._changed:
            self._check_room(tasks)
            self.async_tasks.extend(tasks)
            self._store.add(tasks)
            self._changed.notify_all()

    def cancel(self, task_id: str, owner: str) -> bool:
        """Stop the task if it runs, take it off the queue if it waits. False if `owner` has no such task."""
        with self._changed:
            task = self._find(task_id, owner)
            if task is None or task.done:
                return False
            self._store.drop([task])
            task.stop()
            if task is self._running:
                return True
            self.async_tasks.remove(task)
            self._keep(task)
        _end_unstarted(task)
        return True

    def cancel_all(self, owner: str) -> int:
        """Stop or drop all tasks of `owner`; how many that were."""
        with self._changed:  # the waiting ones first, so that none of them begins
            tasks = [*self._waiting(owner), *([self._running] if self._running else [])]
        return sum(self.cancel(task.id, owner) for task in tasks)

    def edit(self, task_id: str, owner: str) -> AsyncTask | None:
        """Keep a waiting task of `owner` from beginning until `put_back` or `let_go`; None if there is none.

        An owner edits one task at a time: another one that was edited is let go.
        """
        with self._changed:
            task = next((task for task in self._waiting(owner) if task.id == task_id), None)
            if task is not None:
                self._edited[owner] = task
                self._keep_for(owner)
        return task

    def edited(self, owner: str) -> AsyncTask | None:
        """The waiting task that `owner` edits."""
        with self._changed:
            task = self._edited.get(owner)
            return task if task in self.async_tasks else None

    def let_go(self, owner: str) -> None:
        """The task that `owner` edits stays as it was, and may begin."""
        with self._changed:
            self._edited.pop(owner, None)
            self._changed.notify_all()

    def put_back(self, task: AsyncTask) -> bool:
        """Put `task` in the place of the one that its owner edits; a grid takes only a grid's. False if there is none."""
        with self._changed:
            before = self._edited.get(task.owner)
            if before is None or before not in self.async_tasks or (before.grid is None) != (task.grid is None):
                return False
            del self._edited[task.owner]
            self.async_tasks[self.async_tasks.index(before)] = task
            self._store.drop([before])
            self._store.add([task])
            self._store.order(self.async_tasks)
            self._changed.notify_all()
        return True

    def move(self, task_id: str, owner: str, place: int) -> bool:
        """Put a waiting task of `owner` at `place` (from 0) among the others of `owner`, who keep the places they have.

        Nobody else's task moves. False if `owner` has no such task.
        """
        with self._changed:
            mine = self._waiting(owner)
            task = next((task for task in mine if task.id == task_id), None)
            if task is None:
                return False
            slots = [index for index, other in enumerate(self.async_tasks) if other.owner == owner]
            mine.remove(task)
            mine.insert(min(max(0, place), len(mine)), task)  # a page may send any number
            for index, other in zip(slots, mine, strict=True):
                self.async_tasks[index] = other
            self._store.order(self.async_tasks)
        return True

    def hold(self, owner: str) -> None:
        """Begin no further task of `owner`; what runs goes on."""
        with self._changed:
            if len(self._held) > LONGEST_QUEUE:  # of so many, only those count who have tasks
                self._held &= {task.owner for task in self.async_tasks}
            self._held.add(owner)
            self._keep_for(owner)

    def release(self, owner: str) -> None:
        """Go on with the tasks of `owner`."""
        with self._changed:
            self._held.discard(owner)
            self._changed.notify_all()

    def held(self, owner: str) -> bool:
        """Whether the tasks of `owner` are held."""
        with self._changed:
            return owner in self._held

    def seen(self, owner: str) -> None:
        """`owner` is there: what they hold or edit waits on for them."""
        if owner not in self._seen:  # as nearly always: nobody is to wait for it
            return
        with self._changed:
            if owner in self._seen:
                self._seen[owner] = self._clock()

    def left_over(self, owner: str) -> list[LeftTask]:
        """What `owner` had asked for when the program ended last time, neither taken up nor forgotten since."""
        return self._store.left(owner) if owner else []

    def forget_left_over(self, owner: str, tasks: Sequence[LeftTask] | None = None) -> None:
        """Drop it, or those `tasks` of it: they were submitted anew, or nobody wants them."""
        self._store.forget_left(owner, tasks)

    def room(self, owner: str) -> int:
        """How many more tasks of `owner` would be taken now."""
        with self._changed:
            return min(LONGEST_QUEUE - len(self.async_tasks), self._room_of_one(owner))

    def forecast(self, owner: str) -> Forecast:
        """How long the tasks of `owner` will take, as far as this machine has made pictures like theirs."""
        with self._changed:
            running, waiting, held = self._running, list(self.async_tasks), set(self._held)
        tasks = [*([running] if running else []), *waiting]
        last = max((index for index, task in enumerate(tasks) if task.owner == owner), default=-1)
        own: dict[str, float] = {}
        total, known, complete = 0.0, False, True
        for task in tasks[: last + 1]:
            if task.owner != owner and task.owner in held and task is not running:
                continue
            seconds = self._seconds_left(task)
            complete = complete and seconds is not None
            if seconds is not None:
                total, known = total + seconds, True
                if task.owner == owner:
                    own[task.id] = seconds
        return Forecast(own, total if known else None, complete)

    def estimate(self, task: AsyncTask) -> float | None:
        """Seconds that `task`, which need not be submitted, will take; None if nothing like it was made here yet."""
        return self._pace.seconds(task)

    def find(self, task_id: str, owner: str) -> AsyncTask | None:
        """The task of that id if it belongs to `owner`."""
        with self._changed:
            return self._find(task_id, owner)

    def tasks(self, owner: str) -> list[AsyncTask]:
        """The tasks of `owner`: the running one, the waiting ones in order, then the finished ones, newest first."""
        with self._changed:
            return [task for task in self._all() if task.owner == owner]

    def position(self, task: AsyncTask) -> int:
        """How many tasks (of anybody whose tasks are not held) come before `task`; 0 when it runs or is done."""
        return self.positions(task.owner).get(task.id, 0)

    def positions(self, owner: str) -> dict[str, int]:
        """The `position` of each waiting task of `owner`, by its id."""
        with self._changed:
            ahead, found = int(self._running is not None), {}
            for task in self.async_tasks:
                if task.owner == owner:
                    found[task.id] = ahead
                ahead += task.owner == owner or task.owner not in self._held
            return found

    def _check_room(self, tasks: Sequence[AsyncTask]) -> None:
        room = LONGEST_QUEUE - len(self.async_tasks)
        if not room:
            raise UserError(f"{LONGEST_QUEUE} tasks are waiting already. Cancel some or wait until they are done.")
        if len(tasks) > room:
            raise UserError(f"These are {len(tasks)} tasks, and the queue has room for {room} more. Take fewer.")
        if self._most_of_one is None:
            return
        for owner, count in Counter(task.owner for task in tasks).items():
            room = self._room_of_one(owner)
            if count > room:
                raise UserError(
                    f"One visitor may have {self._most_of_one} tasks here at a time, so that others have room: now {room} "
                    f"more are possible, and these are {count}. Take fewer, or wait until some are done."
                )

    def _room_of_one(self, owner: str) -> int:
        if self._most_of_one is None:
            return LONGEST_QUEUE
        runs = self._running is not None and self._running.owner == owner
        return max(0, self._most_of_one - len(self._waiting(owner)) - runs)

    def _all(self) -> list[AsyncTask]:
        running = [self._running] if self._running else []
        return [*running, *self.async_tasks, *reversed(self._finished)]

    def _find(self, task_id: str, owner: str) -> AsyncTask | None:
        return next((task for task in self._all() if task.id == task_id and task.owner == owner), None)

    def _waiting(self, owner: str) -> list[AsyncTask]:
        return [task for task in self.async_tasks if task.owner == owner]

    def _keep_for(self, owner: str) -> None:
        """What `owner` holds or edits waits from now on; the thread has to know when that ends."""
        self._seen[owner] = self._clock()
        self._changed.notify_all()

    def _forget_gone(self) -> None:
        """End what those hold and edit who are not there any more."""
        last = self._clock() - HELD_FOR
        for owner in [owner for owner, seen in self._seen.items() if seen <= last]:
            del self._seen[owner]
            self._held.discard(owner)
            self._edited.pop(owner, None)

    def _until_gone(self) -> float | None:
        """Seconds until `_forget_gone` may end something; None if there is nothing."""
        return min(self._seen.values()) + HELD_FOR - self._clock() if self._seen else None

    def _next(self) -> AsyncTask | None:
        self._forget_gone()
        edited = self._edited.values()
        return next((task for task in self.async_tasks if task.owner not in self._held and task not in edited), None)

    def _seconds_left(self, task: AsyncTask) -> float | None:
        if task.state != "running":
            return self._pace.seconds(task)
        if task.progress.seconds_left is not None:
            return task.progress.seconds_left
        whole = self._pace.seconds(task)
        return None if whole is None else whole * (1 - task.progress.share)

    def _keep(self, task: AsyncTask) -> None:
        self._finished.append(task)
        of_owner = [kept for kept in self._finished if kept.owner == task.owner]
        if len(of_owner) > KEPT_PER_OWNER:
            self._finished.remove(of_owner[0])
        elif len(self._finished) > KEPT:
            self._finished.popleft()

    def _run(self) -> None:
        try:
            self._pipeline = self._make_pipeline()
        except UserError as error:
            self._not_started(str(error))
        except Exception as error:
            self._not_started(f"{type(error).__name__}: {error}", exc_info=error)
        while True:
            with self._changed:
                while self._closing or (task := self._next()) is None:
                    if self._closing:
                        return
                    self._changed.wait(self._until_gone())
                self.async_tasks.remove(task)
                self._running = task
                task.state = "running"
            self._store.begin(task)
            try:
                self._carry_out(task)
            except Exception:  # whatever it was, those who wait come next
                log.exception("A task could not be ended as it should")
            with suppress(Exception):  # of somebody who listens
                if not task.done:
                    task.publish(Failed(message=NO_RESULT))
            with self._changed:
                if not (self._closing and task.state == "stopped"):
                    self._store.drop([task])
                self._running = None
                self._keep(task)

    def _not_started(self, why: str, exc_info: Exception | None = None) -> None:
        self.trouble = f"The engine could not start: {why} (The next task tries again.)"
        log.error("%s", self.trouble, exc_info=exc_info)

    def _carry_out(self, task: AsyncTask) -> None:
        watch, stage = self._pace.watch(task), "Loading models"
        try:
            if self._pipeline is None:
                self._pipeline = self._make_pipeline()
                self.trouble = ""
            for event in self._handler(task, self._pipeline):
                watch.see(event)
                if isinstance(event, Progress):
                    stage = event.text
                if isinstance(event, Saved) and not event.sheet:
                    self._store.progress(task)
                if isinstance(event, Finished):
                    watch.end()
                self._publish(task, event)
        except UserError as error:
            self._publish(task, Failed(message=str(error), bad_input=isinstance(error, BadInput)))
        except Interrupted:
            task.publish(Finished(paths=(), seconds=0.0, stopped=True))
        except Exception as error:
            self._publish(task, Failed(message=self._told(error, stage)))

    def _publish(self, task: AsyncTask, event: Event) -> None:
        if isinstance(event, (Warned, Failed)):
            message = self._shown(event.message)
            if message != event.message:
                log.warning("%s", event.message)
                event = replace(event, message=message)
        task.publish(event)

    def _told(self, error: Exception, stage: str) -> str:
        """The message for the page for an error that nobody expected at that `stage`; out of memory is recognised."""
        if out_of_memory(error):
            log.error("Out of memory: %s", error)
            self._free_memory()
            return (
                "There was too little memory for this picture. Try a smaller size, close other programs that use "
                "memory, or choose a lower precision (`python launch.py doctor` says what this machine has)."
            )
        log.error("A task failed", exc_info=error)
        return f"Easel failed at “{stage}”: {type(error).__name__}: {error}. The terminal shows the details."

    def _free_memory(self) -> None:
        if self._pipeline is None:
            return
        try:
            self._pipeline.free_memory()
        except Exception:  # a GPU that answers nothing any more
            log.exception("The engine could not let go of its memory; the next task starts another one")
            self._pipeline = None


def _end_unstarted(task: AsyncTask) -> None:
    task.publish(Finished(paths=(), seconds=0.0, stopped=True))
