"""history_folders: brings the database up to date with what lies in the folders of pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

from core.output.history_files import PictureFile, pictures_in, read_picture
from core.output.history_rows import enter, forget
from core.output.history_store import Store
from core.output.trash import TRASH
from core.prompt.style_files import Style

log = logging.getLogger(__name__)

BATCH = 50  # pictures read between two writes
MOST_FORGOTTEN = 1000  # pictures in one write

Place = tuple[str, str]  # folder and path


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
    """The outputs, called "", and the picture folders of other programs, called by their paths.

    `styles` gives those that a picture may have been made with.
    """

    def __init__(self, outputs: Path, others: tuple[Path, ...], styles: Callable[[], Iterable[Style]] = tuple) -> None:
        self.roots = {"": outputs, **{str(folder): folder for folder in others if folder != outputs}}
        self._others = {name: self._inside(name) for name in self.roots}
        self._styles = styles
        self.reading = Survey()

    def file(self, folder: str, path: str) -> Path:
        """The file of that path in that folder."""
        return Path(folder or self.roots[""], path)

    def sync(self, store: Store, closing: Event) -> None:
        """Take in what came, went or changed since the last time, the newest first, until `closing` is set.

        Another program's folder in which nothing is found (a disk that is not plugged in) is left as it was, and so is
        a file that cannot be asked about. Raises HistoryError.
        """
        started = time.monotonic()
        known = _known(store)
        present = {(name, file.path): file for name in self.roots for file in self._files(name)}
        fresh = [
            (name, file)
            for (name, path), file in present.items()
            if not (about := known.get((name, path))) or (about.modified, about.bytes) != (file.modified, file.bytes)
        ]
        missed = [place for place in known if place not in present]  # by id, as the index of words likes it
        gone = {place: known[place] for place in self._gone(missed, present.keys())}
        fresh.sort(key=lambda entry: entry[1].modified, reverse=True)
        self.reading = Survey(0, len(fresh), True)
        try:
            self._take_in(store, fresh, {about.fingerprint: about.row for about in gone.values()}, closing)
            self._drop(store, gone, closing)
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
        entries, styles = iter(fresh), list(self._styles()) if fresh else []
        while (batch := list(islice(entries, BATCH))) and not closing.is_set():
            read = [(name, file, read_picture(self.file(name, file.path), file.path, styles)) for name, file in batch]
            with store.writing() as connection:
                for name, file, contents in read:
                    if contents is not None:
                        enter(connection, store.words, name, file, contents, lost=lost)
            self.reading = Survey(self.reading.done + len(batch), len(fresh), True)

    def _gone(self, missed: Sequence[Place], present: Set[Place]) -> Iterator[Place]:
        """Those of the places that were `missed` where nothing is any more, rather than out of reach for the moment."""
        away = self.roots.keys() - {"", *(name for name, _ in present)}
        spelled = {(name, path.casefold()) for name, path in present} if missed else set()
        for name, path in missed:
            # Where case does not count, a file renamed in its case alone is still found by its old name.
            if (name, path.casefold()) in spelled or self._is_gone(name, path, away):
                yield name, path

    def _inside(self, name: str) -> tuple[str, ...]:
        """How the paths begin that lie in that folder, and in another one inside it."""
        root = self.roots[name]
        return tuple(f"{other.relative_to(root).as_posix()}/" for other in self.roots.values() if root in other.parents)

    def _is_gone(self, folder: str, path: str, away: Set[str] = frozenset()) -> bool:
        """Whether nothing lies there any more, or that folder is not looked through for it; not in a folder `away`."""
        if folder not in self.roots or path.startswith(self._others[folder]):
            return True
        if folder in away:
            return False
        try:
            self.file(folder, path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def _drop(self, store: Store, gone: dict[Place, Known], closing: Event) -> None:
        """Forget the files that are nowhere any more; one that was found in another place has another path by now."""
        entries = iter(gone.items())
        where = "SELECT 1 FROM pictures WHERE id = ? AND folder = ? AND path = ?"
        while (batch := list(islice(entries, MOST_FORGOTTEN))) and not closing.is_set():
            with store.writing() as connection:
                for place, about in batch:
                    if connection.execute(where, [about.row, *place]).fetchone() and self._is_gone(*place):
                        forget(connection, store.words, about.row)


def _known(store: Store) -> dict[Place, Known]:
    query = "SELECT folder, path, id, modified, bytes, fingerprint FROM pictures ORDER BY id"
    with store.reading() as connection:
        rows = connection.execute(query).fetchall()
    return {(folder, path): Known(*about) for folder, path, *about in rows}
