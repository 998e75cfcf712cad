"""history: every picture that was made, found again by its words, its day, its model; kept in SQLite beside the outputs.

The pictures are the truth, the database is an index over them: it is made anew from them when it is lost or damaged, and
at each start it takes in what has come, gone or changed in the folders. It alone knows favourites and owners.
Of a page that is open to others (`private`) everybody sees and touches only what they made themselves. No torch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from core.errors import HistoryError
from core.output.fingerprint import fingerprint
from core.output.history_database import LATEST, PER_MILLISECOND
from core.output.history_files import Contents, PictureFile, size_of
from core.output.history_folders import Folders, Survey
from core.output.history_rows import SELECT, Picture, enter, first_id, forget, index_words, owner_tag, picture_of
from core.output.history_store import Store
from core.output.history_words import parse_query
from core.output.record import Record
from core.output.thumbnails import FOLDER as THUMBNAILS
from core.output.thumbnails import Thumbnails
from core.output.trash import TRASH, moved, thrown_away
from core.owner import owner_mark
from core.prompt.style_files import Style

log = logging.getLogger(__name__)

NAME = "history.sqlite3"
PAGE = 60  # pictures that a search gives at once
MOST_COUNTED = 100_000
LONGEST_LINE = 20  # ancestors
MOST_CHILDREN = 100
END = (LATEST + 1) * PER_MILLISECOND


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of pictures, newest first. `before` asks for the next page, None at the end; `total` comes with the first."""

    pictures: tuple[Picture, ...]
    before: int | None
    total: int | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a picture was made from, the first picture first, and what was made from it, oldest first."""

    ancestors: tuple[Picture, ...]
    children: tuple[Picture, ...]


class History:
    """The pictures of `outputs` and of other programs' `folders`. Making one opens nothing; any thread may use it.

    `styles` gives those that pictures of other programs, which do not name theirs, may have been made with. Every question
    names the `visitor` who asks. All methods raise HistoryError if the database cannot be used.
    """

    def __init__(
        self,
        outputs: Path,
        folders: Sequence[Path] = (),
        *,
        private: bool = False,
        styles: Callable[[], Iterable[Style]] = tuple,
        fts5: bool | None = None,
    ) -> None:
        self.outputs = Path(outputs).absolute()
        self.private = private
        self.thumbnails = Thumbnails(self.outputs / THUMBNAILS)
        self._folders = Folders(self.outputs, tuple(folder.absolute() for folder in folders), styles)
        self._store = Store(self.outputs / NAME, self.start, fts5)
        self._starting, self._syncing = threading.Lock(), threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._looking = self._again = False  # again: somebody asked for a look while one was under way

    @property
    def reading(self) -> Survey:
        """How far the folders have been looked through."""
        return self._folders.reading

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know: that the database was damaged."""
        return self._store.notices

    def start(self) -> None:
        """Look through the folders in the background; if that is under way, once more when it is done."""
        with self._starting:
            self._again = self._looking
            if not self._looking and not self._closing.is_set():
                self._looking = True
                self._thread = threading.Thread(target=self._look_through, name="history", daemon=True)
                self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """End the background thread, waiting for it for `timeout` seconds, and close the file."""
        self._closing.set()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        self._store.close()

    # ---- taking in ---------------------------------------------------------------------------------------------------

    def add(self, file: Path, record: Record, owner: str = "") -> None:
        """Take in a picture that was just saved below `outputs`."""
        settings = record.settings.to_dict()
        try:
            about = file.stat()
            path = file.absolute().relative_to(self.outputs).as_posix()
            width, height = size_of(file) or (record.settings.width, record.settings.height)
            contents = Contents(
                width=width, height=height, fingerprint=fingerprint(file), settings=settings,
                created=round(record.created.timestamp() * 1000), model=record.settings.base_model, source="easel",
                origin=record.origin,
            )  # fmt: skip
        except (OSError, ValueError) as problem:
            raise HistoryError(f"{file.name} is not in the history: {problem}") from problem
        place = PictureFile(path, about.st_mtime_ns, about.st_size)
        with self._store.writing() as connection:
            enter(connection, self._store.words, "", place, contents, owner=owner)

    def sync(self) -> None:
        """Take in what came, went or changed in the folders since the last time."""
        with self._syncing:
            self._folders.sync(self._store, self._closing)

    # ---- finding -----------------------------------------------------------------------------------------------------

    def search(
        self, text: str, visitor: str, *, before: int | None = None, trash: bool = False, most: int = PAGE
    ) -> Found:
        """The newest `most` pictures that fit `text` (see history_words) and come after `before` in the list."""
        query = parse_query(text)
        low, high = _ids(query.since, query.until)
        left_out = [_ids(*span) for span in query.left_out]
        tags = self._tags(visitor, trash)
        with self._store.reading() as connection:
            at, values = self._store.found(query.terms, tags, low, min(high, before or END), left_out)
            rows = connection.execute(
                f"{SELECT} JOIN (SELECT rowid AS hit {at} ORDER BY rowid DESC LIMIT ?) ON pictures.id = hit "
                "ORDER BY pictures.id DESC",
                [*values, most + 1],
            ).fetchall()
            total = len(rows)
            if before is None and total > most:
                count = f"SELECT COUNT(*) FROM (SELECT 1 {at} LIMIT ?)"
                (total,) = connection.execute(count, [*values, MOST_COUNTED]).fetchone()
        pictures = tuple(map(picture_of, rows[:most]))
        return Found(
            pictures=pictures,
            before=pictures[-1].id if len(rows) > most else None,
            total=total if before is None else None,
            remarks=query.remarks,
        )

    def picture(self, key: str, visitor: str) -> Picture | None:
        """The picture of that key, if `visitor` may see it."""
        with self._store.reading() as connection:
            return self._one(connection, key, visitor)

    def settings(self, picture: Picture) -> dict[str, Any]:
        """The settings it was made with, by their names; empty if it does not say."""
        with self._store.reading() as connection:
            row = connection.execute("SELECT json FROM settings WHERE id = ?", [picture.id]).fetchone()
        found: dict[str, Any] = json.loads(row[0]) if row else {}
        return found

    def lineage(self, picture: Picture, visitor: str) -> Lineage:
        """Where `picture` comes from and what became of it, as far as `visitor` may see."""
        mine, values = self._visible(visitor)
        with self._store.reading() as connection:
            line: list[Picture] = []
            seen, sought = {picture.fingerprint}, picture.parent
            while sought and sought not in seen and len(line) < LONGEST_LINE:
                seen.add(sought)
                where = f"{SELECT} WHERE fingerprint = ? AND {mine} ORDER BY id LIMIT 1"
                row = connection.execute(where, [sought, *values]).fetchone()
                if row is None:
                    break
                line.append(picture_of(row))
                sought = line[-1].parent
            where = f"{SELECT} WHERE parent = ? AND {mine} ORDER BY id LIMIT ?"
            children = connection.execute(where, [picture.fingerprint, *values, MOST_CHILDREN]).fetchall()
        return Lineage(ancestors=tuple(reversed(line)), children=tuple(map(picture_of, children)))

    def day(self, day: date, visitor: str) -> list[Picture]:
        """All pictures of that day, oldest first."""
        found = self.search(f"date:{day.isoformat()}", visitor, most=1_000_000)
        return list(reversed(found.pictures))

    def file(self, picture: Picture) -> Path:
        """Where it lies now."""
        return self._folders.file(picture.folder, picture.path)

    def thumbnail(self, picture: Picture) -> bytes | None:
        """A small WebP of it; None if the file is gone or broken."""
        return self.thumbnails.get(self.file(picture), picture.fingerprint)

    def kept_thumbnail(self, picture: Picture) -> bytes | None:
        """The same, if it has been made already."""
        return self.thumbnails.kept(picture.fingerprint)

    # ---- keeping and throwing away -----------------------------------------------------------------------------------

    def mark(self, keys: Sequence[str], visitor: str, *, favourite: bool) -> list[str]:
        """Make them favourites, or no longer; returns the keys of those that are."""
        with self._store.writing() as connection:
            pictures = [found for key in keys if (found := self._one(connection, key, visitor))]
            for picture in pictures:
                connection.execute("UPDATE pictures SET favourite = ? WHERE id = ?", [favourite, picture.id])
                index_words(connection, self._store.words, picture.id)
        return [picture.key for picture in pictures]

    def trash(self, keys: Sequence[str], visitor: str) -> tuple[list[str], list[str]]:
        """Move pictures to the trash. Returns the keys of those that are there now, and why others are not."""
        return self._move(keys, visitor, self._throw)

    def restore(self, keys: Sequence[str], visitor: str) -> tuple[list[str], list[str]]:
        """Put pictures back from the trash to where they were. Returns the keys of those, and why others are not."""
        return self._move(keys, visitor, self._put_back)

    def empty_trash(self, visitor: str) -> int:
        """Delete for good what of `visitor`'s lies in the trash; how many pictures that were."""
        mine, values = self._visible(visitor)
        with self._store.writing() as connection:
            rows = connection.execute(f"{SELECT} WHERE home != '' AND {mine}", values).fetchall()
            for picture in map(picture_of, rows):
                try:
                    thrown_away(self.file(picture), self.outputs / TRASH)
                except OSError as problem:
                    raise HistoryError(f"{picture.name} cannot be deleted: {problem.strerror}.") from problem
                forget(connection, self._store.words, picture.id)
        for picture in map(picture_of, rows):
            self.thumbnails.forget(picture.fingerprint)
        return len(rows)

    def _move(
        self, keys: Sequence[str], visitor: str, move: Callable[[Picture], tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        done, remarks = [], []
        for key in keys:
            with self._store.writing() as connection:
                picture = self._one(connection, key, visitor)
                if picture is None:
                    continue
                try:
                    path, home = move(picture)
                except FileNotFoundError:
                    forget(connection, self._store.words, picture.id)
                    remarks.append(f"{picture.name} is gone: something else deleted it.")
                    continue
                except (OSError, HistoryError) as problem:
                    remarks.append(f"{picture.name} stays where it is: {problem}")
                    continue
                connection.execute("UPDATE pictures SET path = ?, home = ? WHERE id = ?", [path, home, picture.id])
                index_words(connection, self._store.words, picture.id)
                done.append(key)
        return done, remarks

    def _throw(self, picture: Picture) -> tuple[str, str]:
        if picture.foreign:
            raise HistoryError("it belongs to another program. Delete it there.")
        if picture.home:
            return picture.path, picture.home
        place = moved(self.file(picture), self.outputs / TRASH / picture.path)
        return place.relative_to(self.outputs).as_posix(), picture.path

    def _put_back(self, picture: Picture) -> tuple[str, str]:
        if not picture.home:
            return picture.path, ""
        place = moved(self.file(picture), self.outputs / picture.home)
        return place.relative_to(self.outputs).as_posix(), ""

    # ---- who may see what --------------------------------------------------------------------------------------------

    def _tags(self, visitor: str, trash: bool) -> list[str]:
        return ["trash" if trash else "live", *([owner_tag(owner_mark(visitor))] if self.private else [])]

    def _visible(self, visitor: str) -> tuple[str, list[str]]:
        """An SQL condition, and its parameters."""
        return ("owner = ? AND owner != ''", [owner_mark(visitor)]) if self.private else ("TRUE", [])

    def _one(self, connection: Connection, key: str, visitor: str) -> Picture | None:
        mine, values = self._visible(visitor)
        row = connection.execute(f"{SELECT} WHERE key = ? AND {mine}", [key, *values]).fetchone()
        return picture_of(row) if row else None

    def _look_through(self) -> None:
        again = True
        while again:
            self._look()
            with self._starting:
                again = self._looking = self._again and not self._closing.is_set()
                self._again = False

    def _look(self) -> None:
        try:
            self._store.check()
            self.sync()
        except HistoryError as problem:  # if it was damage, a new database is there and the next look fills it
            log.warning("%s", problem)
        except Exception:
            log.exception("The folders of pictures could not be looked through")


def _ids(since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """The first id of a span of time, and the first one after it."""
    return first_id(since) if since else 0, first_id(until) if until else END
