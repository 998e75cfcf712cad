"""queue_store: the tasks that wait or run, on disk, so that a restart or a crash does not lose what somebody asked for.

The next start finds them and offers them to whoever they belong to; nothing runs unasked. Kept in a small SQLite file that
one process holds for itself as long as it lives: the operating system lets go of it however the process ends. Each process
has its own; what the file of one that has ended holds goes into the file of the next one that looks. No torch.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core.axes import Grid
from core.errors import BadSetting
from core.owner import owner_mark
from core.settings import Settings
from core.task import AsyncTask

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = 1  # PRAGMA user_version
MOST_FILES = 9  # processes of one installation at the same time
LONGEST_KEPT = 30 * 24 * 3600  # seconds that left tasks wait for their owner
SETTLING = 30.0  # seconds in which a process that was here before may still be closing
TABLE = f"""
CREATE TABLE IF NOT EXISTS tasks (
  id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  place INTEGER NOT NULL,
  created REAL NOT NULL,
  running INTEGER NOT NULL DEFAULT 0,
  offered INTEGER NOT NULL DEFAULT 0,
  request TEXT NOT NULL,
  made TEXT NOT NULL DEFAULT '{{}}'
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
COLUMNS = "id, owner, created, running, request, made, place"  # of a task, as one file hands it to another
_FIELDS = frozenset(f.name for f in fields(Settings))


@dataclass(frozen=True, kw_only=True)
class LeftTask:
    """A task that an earlier run did not get to the end of. `made` are the pictures that it made, by their number."""

    id: str = ""
    settings: Settings
    grid: Grid | None = None
    made: dict[int, str] = field(default_factory=dict)
    running: bool = False

    def task(self, owner: str) -> AsyncTask:
        """It, to be submitted anew: only what is missing will be made."""
        return AsyncTask(self.settings, owner, grid=self.grid, made=self.made)


class QueueStore:
    """The file. Making one opens nothing, and with `file` None it keeps nothing; any thread may use it.

    A file that cannot be used is told in the log, and the queue then lives in memory alone.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._open: sqlite3.Connection | None = None
        self._left: dict[str, list[LeftTask]] = {}  # by owner's mark
        self._read = False  # whether it has been
        self._unseen = _files(file) if file else []  # where more of it may be: the files of other processes
        self._start = time.monotonic()
        self._ended = file is None

    def add(self, tasks: Sequence[AsyncTask]) -> None:
        """Remember `tasks` behind all others."""
        names = "id, owner, place, created, request, made"

        def insert(connection: sqlite3.Connection) -> None:
            (last,) = connection.execute("SELECT COALESCE(MAX(place), 0) FROM tasks").fetchone()
            for place, task in enumerate(tasks, last + 1):
                row = [task.id, owner_mark(task.owner), place, task.created, _request(task), json.dumps(task.made)]
                connection.execute(f"INSERT OR REPLACE INTO tasks ({names}) VALUES (?, ?, ?, ?, ?, ?)", row)

        self._do("keep a task", insert)

    def begin(self, task: AsyncTask) -> None:
        """`task` runs now."""
        self._change("mark a task", "UPDATE tasks SET running = 1 WHERE id = ?", [(task.id,)])

    def progress(self, task: AsyncTask) -> None:
        """`task` has made another picture."""
        self._change("mark a picture", "UPDATE tasks SET made = ? WHERE id = ?", [(json.dumps(task.made), task.id)])

    def order(self, tasks: Sequence[AsyncTask]) -> None:
        """The waiting tasks stand in this order now."""
        rows = [(place, task.id) for place, task in enumerate(tasks, 1)]
        self._change("keep the order", "UPDATE tasks SET place = ? WHERE id = ?", rows)

    def drop(self, tasks: Sequence[AsyncTask]) -> None:
        """Forget `tasks`: they are done, or nobody wants them."""
        self._change("forget a task", "DELETE FROM tasks WHERE id = ?", [(task.id,) for task in tasks])

    def left(self, owner: str) -> list[LeftTask]:
        """What earlier runs left of `owner`'s, in its order. What cannot be read any more is not among it.

        A process that was here before may still be closing: its file is looked for at each call while that may be, and once
        after that.
        """
        with self._lock:
            last = time.monotonic() > self._start + SETTLING
            if self._take_over() or not self._read:
                self._read_left()
            if last:
                self._unseen = []
            return list(self._left.get(owner_mark(owner), ()))

    def forget_left(self, owner: str, tasks: Sequence[LeftTask] | None = None) -> None:
        """Drop those `tasks` of what an earlier run left of `owner`'s, all of it without them; and what cannot be read."""
        mark = owner_mark(owner)
        with self._lock:
            left = self._left.pop(mark, [])
            dropped = {task.id for task in (left if tasks is None else tasks)}
            self._left[mark] = kept = [task for task in left if task.id not in dropped]
            others = ", ".join("?" * len(kept))
            statement = f"DELETE FROM tasks WHERE offered AND owner = ? AND id NOT IN ({others})"
            self._change("forget the last run's tasks", statement, [(mark, *(task.id for task in kept))])

    def close(self) -> None:
        """Close the file, for good."""
        with self._lock:
            self._ended = True
            if self._open is not None:
                self._open.close()
                self._open = None

    def _read_left(self) -> None:
        query = "SELECT owner, id, request, made, running FROM tasks WHERE offered ORDER BY running DESC, place"
        self._read = True
        self._left = {}
        for mark, *row in self._do("find the last run's tasks", lambda db: db.execute(query).fetchall()) or ():
            if found := _left(*row):
                self._left.setdefault(mark, []).append(found)

    def _take_over(self) -> int:
        """Move the tasks out of the files that no process holds any more into the own one; how many that were."""
        if not self._unseen or self._connection() is None:
            return 0
        moved, busy = 0, []
        for file in filter(Path.exists, self._unseen):
            try:
                moved += self._emptied(file)
            except (OSError, sqlite3.Error):  # it is held, or whoever takes it for the own one will see what it has
                busy.append(file)
        self._unseen = busy
        return moved

    def _emptied(self, file: Path) -> int:
        """How many tasks came out of `file` into the own one. Raises OSError, sqlite3.Error."""
        with closing(_held(file)) as ended:
            tasks = ended.execute(f"SELECT {COLUMNS} FROM tasks").fetchall()
            if not tasks or not self._do("find the tasks of another run", partial(_offer, tasks=tasks)):
                return 0
            ended.execute("DELETE FROM tasks")
            return len(tasks)

    def _change(self, what: str, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._do(what, lambda connection: connection.executemany(statement, rows))

    def _do(self, what: str, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of `action`, done whole or not at all; None without a file, and when it goes wrong."""
        with self._lock:
            connection = self._connection()
            if connection is None:
                return None
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = action(connection)
                connection.execute("COMMIT")
                return result
            except sqlite3.Error as problem:
                log.warning("The queue could not %s: %s. A restart may not find all that is waiting.", what, problem)
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                return None

    def _connection(self) -> sqlite3.Connection | None:
        if self._open is None and not self._ended and self._file is not None:
            try:
                self._open, own = _opened(self._file)
                self._unseen = [file for file in self._unseen if file != own]
            except (OSError, sqlite3.Error) as problem:
                log.warning(
                    "The queue %s cannot be used (%s): a restart will not find what is waiting.", self._file, problem
                )
            self._ended = self._open is None
        return self._open


def _opened(file: Path) -> tuple[sqlite3.Connection, Path]:
    """The first of this installation's files that no other process holds, and its path. Raises OSError, sqlite3.Error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for own in _files(file):
        try:
            return _held(own), own
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem):
                raise
        except sqlite3.DatabaseError as problem:
            aside = own.with_name(f"{own.stem}-damaged-{secrets.token_hex(4)}{own.suffix}")
            log.warning("The queue %s is damaged (%s). It is kept as %s.", own, problem, aside.name)
            for ending in ("-wal", "-shm"):
                Path(f"{own}{ending}").unlink(missing_ok=True)
            own.replace(aside)
            return _held(own), own
    raise sqlite3.OperationalError(f"{MOST_FILES} other processes use it")


def _files(file: Path) -> list[Path]:
    """The files of the processes of one installation, whether they are there or not."""
    return [file, *(file.with_name(f"{file.stem}-{number}{file.suffix}") for number in range(2, MOST_FILES + 1))]


def _offer(connection: sqlite3.Connection, tasks: Sequence[tuple[Any, ...]]) -> bool:
    """Take in rows of another file, as of an earlier run, behind all others."""
    (last,) = connection.execute("SELECT COALESCE(MAX(place), 0) FROM tasks").fetchone()
    statement = f"INSERT OR IGNORE INTO tasks ({COLUMNS}, offered) VALUES (?, ?, ?, ?, ?, ?, ? + ?, 1)"
    connection.executemany(statement, [(*task, last) for task in tasks])
    return True


def _held(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}, and this program knows version {VERSION}")
        connection.executescript(TABLE)
        connection.execute("DELETE FROM tasks WHERE created < ?", [time.time() - LONGEST_KEPT])
        connection.execute("UPDATE tasks SET offered = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _request(task: AsyncTask) -> str:
    return json.dumps({"settings": task.settings.to_dict(), "grid": task.grid.to_dict() if task.grid else None})


def _left(task_id: str, request: str, made: str, running: int) -> LeftTask | None:
    try:
        values = json.loads(request)
        known = {name: value for name, value in values["settings"].items() if name in _FIELDS}
        grid = Grid.from_dict(values["grid"]) if values["grid"] else None
        pictures = {int(number): str(path) for number, path in json.loads(made).items()}
        settings = Settings(**known)
        if grid:
            grid.cells(settings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadSetting) as problem:
        log.warning("A task of the last run cannot be read any more: %s", problem)
        return None
    return LeftTask(id=task_id, settings=settings, grid=grid, made=pictures, running=bool(running))
