"""history_folders: brings the database up to date with what lies in the folders of pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

from core.output.history_files import PictureFile, pictures_in, read_picture
from core.output.history_rows import enter, forget
from core.output.history_store import Store
from core.output.trash import TRASH

log = logging.getLogger(__name__)

BATCH = 50  # pictures read between two writes


@dataclass(frozen=True)
class Survey:
    """How far the folders have been read: `done` of `total` pictures that are new or changed."""

    done: int = 0
    total: int = 0
    busy: bool = False


@dataclass(frozen=True)
class Known:
    """What the database says of a file."""

    row: int
    modified: int
    bytes: int
    fingerprint: str


class Folders:
    """The outputs, called "", and the picture folders of other programs, called by their paths."""

    def __init__(self, outputs: Path, others: tuple[Path, ...]) -> None:
        self.roots = {"": outputs, **{str(folder): folder for folder in others if folder != outputs}}
        self.reading = Survey()

    def file(self, folder: str, path: str) -> Path:
        """The file of that path in that folder."""
        return Path(folder or self.roots[""], path)

    def sync(self, store: Store, closing: Event) -> None:
        """Take in what came, went or changed since the last time, the newest first, until `closing` is set.

        A folder that cannot be found (a disk that is not plugged in) is left as it was. Raises HistoryError.
        """
        started = time.monotonic()
        known = _known(store)
        away = {name for name, root in self.roots.items() if name and not root.is_dir()}
        present = {(name, file.path): file for name in self.roots.keys() - away for file in self._files(name)}
        fresh = [
            (name, file)
            for (name, path), file in present.items()
            if not (about := known.get((name, path))) or (about.modified, about.bytes) != (file.modified, file.bytes)
        ]
        gone = {place: about for place, about in known.items() if place not in present and place[0] not in away}
        fresh.sort(key=lambda entry: entry[1].modified, reverse=True)
        self.reading = Survey(0, len(fresh), True)
        try:
            self._take_in(store, fresh, {about.fingerprint: about.row for about in gone.values()}, closing)
            if not closing.is_set():
                _drop(store, gone)
        finally:
            self.reading = Survey(self.reading.done, len(fresh))
        if fresh or gone:
            seconds = time.monotonic() - started
            log.info("History: %d pictures new or changed, %d moved or gone, %.1f s", len(fresh), len(gone), seconds)

    def _files(self, name: str) -> Iterator[PictureFile]:
        root = self.roots[name]
        yield from pictures_in(root, but=tuple(other for other in self.roots.values() if other != root))
        if not name:
            for file in pictures_in(root / TRASH):
                yield PictureFile(f"{TRASH}/{file.path}", file.modified, file.bytes)

    def _take_in(
        self, store: Store, fresh: list[tuple[str, PictureFile]], lost: dict[str, int], closing: Event
    ) -> None:
        entries = iter(fresh)
        while (batch := list(islice(entries, BATCH))) and not closing.is_set():
            read = [(name, file, read_picture(self.file(name, file.path), file.path)) for name, file in batch]
            with store.writing() as connection:
                for name, file, contents in read:
                    if contents is not None:
                        enter(connection, store.words, name, file, contents, lost=lost)
            self.reading = Survey(self.reading.done + len(batch), len(fresh), True)


def _known(store: Store) -> dict[tuple[str, str], Known]:
    with store.reading() as connection:
        rows = connection.execute("SELECT folder, path, id, modified, bytes, fingerprint FROM pictures").fetchall()
    return {(folder, path): Known(*about) for folder, path, *about in rows}


def _drop(store: Store, gone: dict[tuple[str, str], Known]) -> None:
    """Forget the files that are nowhere any more; one that was found in another place has another path by now."""
    with store.writing() as connection:
        for (folder, path), about in gone.items():
            where = "SELECT 1 FROM pictures WHERE id = ? AND folder = ? AND path = ?"
            if connection.execute(where, [about.row, folder, path]).fetchone():
                forget(connection, store.words, about.row)
