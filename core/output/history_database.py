"""history_database: the file history.sqlite3: its tables, who may write when, and what happens when it is damaged.

Times are in the row's `id`: milliseconds since 1970 times 4096, plus a number that tells pictures of one millisecond
apart. So the order of the ids is the order of time, for SQLite's own trees and for its full text index alike, and a page
of a hundred thousand pictures is found without sorting any.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from core.output.history_words import COLUMNS, Term, like_condition, match_expression
from core.owner import owner_mark

log = logging.getLogger(__name__)

VERSION = 2  # PRAGMA user_version
WORDS_VERSION = 2  # of what history_words makes of a text: the index of an older one is made anew
WITH_SECRETS = 1  # the version whose owners stood there as they are, not as marks
PER_MILLISECOND = 4096
LATEST = 4_000_000_000_000  # milliseconds; a file's date may say anything, this is the year 2096
PATIENCE = 10.0  # seconds to wait for another process that is writing

TABLES = f"""
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  folder TEXT NOT NULL,
  path TEXT NOT NULL,
  home TEXT NOT NULL,
  prompt TEXT NOT NULL,
  negative TEXT NOT NULL,
  model TEXT NOT NULL,
  styles TEXT NOT NULL,
  loras TEXT NOT NULL,
  seed INTEGER,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  source TEXT NOT NULL,
  owner TEXT NOT NULL,
  favourite INTEGER NOT NULL DEFAULT 0,
  fingerprint TEXT NOT NULL,
  parent TEXT NOT NULL DEFAULT '',
  kind TEXT NOT NULL DEFAULT '',
  modified INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  UNIQUE (folder, path)
);
CREATE INDEX IF NOT EXISTS by_fingerprint ON pictures (fingerprint);
CREATE INDEX IF NOT EXISTS by_parent ON pictures (parent) WHERE parent != '';
CREATE TABLE IF NOT EXISTS settings (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rescued (
  folder TEXT NOT NULL, path TEXT NOT NULL, owner TEXT NOT NULL, favourite INTEGER NOT NULL, parent TEXT NOT NULL,
  kind TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (folder, path)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
WORDS = {
    "words_fts5": (  # what stands there has been parted into words already: only the blanks are no part of one
        f"CREATE VIRTUAL TABLE IF NOT EXISTS words_fts5 USING fts5({', '.join(COLUMNS)}, prefix='1 2 3', "
        "tokenize=\"unicode61 categories 'L* M* N* P* S* C*'\")"
    ),
    "words_plain": f"CREATE TABLE IF NOT EXISTS words_plain ({', '.join(f'{name} TEXT NOT NULL' for name in COLUMNS)})",
}


def has_fts5() -> bool:
    """Whether this Python's SQLite has the full text index as we need it; without it searching reads every row."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(WORDS["words_fts5"])
        except sqlite3.OperationalError:
            return False
        return True


def is_damage(problem: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is no database or a broken one, rather than busy, full or read-only."""
    return type(problem) is sqlite3.DatabaseError


def _hide_owners(connection: sqlite3.Connection) -> None:
    """Put marks in the place of the owners' secrets, and leave none in the parts of the file that are free."""
    connection.create_function("owner_mark", 1, owner_mark, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been faster
    if version == WITH_SECRETS:
        for table in ("pictures", "rescued"):
            connection.execute(f"UPDATE {table} SET owner = owner_mark(owner) WHERE owner != ''")
        connection.execute("DELETE FROM about WHERE name = 'words'")  # VACUUM may number its rows anew
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    with suppress(sqlite3.OperationalError):  # no room, or another process reads: then later rows go over them
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Database:
    """The open file. Any number of threads may read while one writes.

    Opening makes what is missing. Raises sqlite3.Error; see `is_damage`.
    """

    def __init__(self, file: Path, fts5: bool | None = None) -> None:
        self.file = file
        self.words = "words_fts5" if (has_fts5() if fts5 is None else fts5) else "words_plain"
        self.needs_words = False  # the index is new or of an older program, or another kind of SQLite wrote here since
        self._writing = threading.RLock()
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with: it sees one state, whatever is written meanwhile."""
        connection = self._taken()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            self._given_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone writes; all of it is kept at the end, nothing if an exception is raised."""
        with self._writing:
            connection = self._taken()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                self._given_back(connection)

    def check(self) -> None:
        """Read the whole file for damage. Raises sqlite3.DatabaseError."""
        with self.reading() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def found(
        self, terms: Sequence[Term], tags: Sequence[str], low: int, high: int, left_out: Sequence[tuple[int, int]] = ()
    ) -> tuple[str, list[Any]]:
        """`FROM ... WHERE ...` of the pictures with these terms and tags and low <= id < high, and its parameters.

        `left_out` are ranges of ids, too, whose pictures are not among them.
        """
        if self.words == "words_fts5":
            condition, values = "words_fts5 MATCH ?", [match_expression(terms, tags)]
        else:
            condition, values = like_condition(terms, tags)
        but = " AND NOT (rowid >= ? AND rowid < ?)" * len(left_out)
        where = f"FROM {self.words} AS words WHERE {condition} AND rowid >= ? AND rowid < ?{but}"
        return where, [*values, low, high, *chain.from_iterable(left_out)]

    def words_are_there(self, connection: sqlite3.Connection) -> None:
        """Note that the index of words is filled."""
        connection.execute("INSERT OR REPLACE INTO about VALUES ('words', ?)", [self._kind_of_words])
        self.needs_words = False

    def close(self) -> None:
        """Close the file. A thread that is reading ends what it does."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    @property
    def _kind_of_words(self) -> str:
        return f"{self.words} {WORDS_VERSION}"

    def _prepare(self) -> None:
        with self._writing:
            connection = self._taken()
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version not in (0, WITH_SECRETS, VERSION):
                    raise sqlite3.DatabaseError(f"it is of version {version}, and this program knows version {VERSION}")
                connection.execute("PRAGMA journal_mode = WAL")
                if version == WITH_SECRETS:
                    _hide_owners(connection)
                connection.executescript(TABLES)
                self._prepare_words(connection)
            finally:
                self._given_back(connection)

    def _prepare_words(self, connection: sqlite3.Connection) -> None:
        """The index of words that this SQLite can use. Only one of the two is kept up to date."""
        connection.execute(WORDS[self.words])
        current = connection.execute("SELECT value FROM about WHERE name = 'words'").fetchone()
        self.needs_words = current != (self._kind_of_words,)

    def _taken(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.OperationalError("the history is closed")
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            connection = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                connection.close()
                raise
            return connection

    def _given_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            return
        if self._closed:
            connection.close()
        else:
            self._idle.put(connection)
