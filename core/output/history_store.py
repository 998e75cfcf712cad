"""history_store: the database as the history uses it: opened when first needed, replaced when damaged, never in the way."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import HistoryError
from core.output.history_database import Database, is_damage
from core.output.history_rows import index_all, rescue
from core.output.history_words import Term

log = logging.getLogger(__name__)


class Store:
    """One database file. Making a Store opens nothing; any thread may use it.

    A damaged file is moved aside, never deleted; what can still be read of it is taken over, `notices` say so, and
    `on_damage` is called. All methods raise HistoryError if the file cannot be used.
    """

    def __init__(self, file: Path, on_damage: Callable[[], None], fts5: bool | None = None) -> None:
        self.file = file
        self.notices: tuple[str, ...] = ()
        self._on_damage = on_damage
        self._fts5 = fts5
        self._lock = threading.RLock()
        self._open: Database | None = None

    @property
    def words(self) -> str:
        """The table of words that is in use."""
        return self._database().words

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with."""
        database = self._database()
        with self._explained(database), database.reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone writes; nothing is kept if an exception is raised."""
        database = self._database()
        with self._explained(database), database.writing() as connection:
            yield connection

    def found(
        self, terms: Sequence[Term], tags: Sequence[str], low: int, high: int, left_out: Sequence[tuple[int, int]] = ()
    ) -> tuple[str, list[Any]]:
        """See `Database.found`."""
        return self._database().found(terms, tags, low, high, left_out)

    def check(self) -> None:
        """Read the whole file for damage."""
        database = self._database()
        with self._explained(database):
            database.check()

    def close(self) -> None:
        """Close the file. It is opened again if somebody asks."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _database(self) -> Database:
        with self._lock:
            if self._open is None:
                self._open = self._opened()
            return self._open

    def _opened(self) -> Database:
        damaged = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                database = Database(self.file, self._fts5)
            except sqlite3.Error as problem:
                if not is_damage(problem):
                    raise
                damaged = self._moved_aside(problem)
                database = Database(self.file, self._fts5)
            with database.writing() as connection:
                if damaged:
                    rescue(damaged, connection)
                if database.needs_words:
                    index_all(connection, database.words)
                    database.words_are_there(connection)
        except (OSError, sqlite3.Error) as problem:
            raise HistoryError(_unusable(self.file, problem)) from problem
        return database

    @contextmanager
    def _explained(self, database: Database) -> Iterator[None]:
        """SQLite's errors, and those of texts that it cannot take, as ours."""
        try:
            yield
        except sqlite3.Error as problem:
            if not is_damage(problem):
                raise HistoryError(_unusable(self.file, problem)) from problem
            self._replace(database, problem)
            raise HistoryError("The history was damaged and is being made anew from the pictures.") from problem
        except UnicodeEncodeError as problem:
            letter = problem.object[problem.start]
            raise HistoryError(f"The history cannot hold {letter!r}, which is only part of a character.") from problem

    def _replace(self, damaged: Database, problem: sqlite3.Error) -> None:
        with self._lock:
            if self._open is not damaged:
                return  # another thread was faster
            damaged.close()
            self._open = None
            aside = self._moved_aside(problem)
            with self._database().writing() as connection:
                rescue(aside, connection)
        self._on_damage()

    def _moved_aside(self, problem: sqlite3.Error) -> Path:
        aside = self.file.with_name(f"history-damaged-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}.sqlite3")
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.file}{ending}").replace(f"{aside}{ending}")
        notice = (
            f"The history of pictures could not be read ({problem}). Its file is kept as {aside.name}; a new one is being "
            "made from the pictures."
        )
        log.warning("%s", notice)
        self.notices = (*self.notices, notice)
        return aside


def _unusable(file: Path, problem: Exception) -> str:
    return (
        f"The history {file.name} cannot be used ({problem}). The pictures themselves are safe; make room on the disk and "
        f"see that {file.parent} is writable."
    )
