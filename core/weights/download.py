"""download: fetch model files, one after another, as a generator of how it stands. No torch.

A file comes in as NAME.part and gets its name only when it is whole: of the right size, with the right SHA-256 where that
is known, and, as a safetensors file, with a sound header; any other is no web page and not far too small. Ended at any
byte, the next download goes on from there.
"""

from __future__ import annotations

import errno
import logging
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx

from core.errors import BadModelFile, ModelNotFound, UserError
from core.output.files import move_to_free_name
from core.weights.damaged import damage, is_far_from_whole, is_web_page
from core.weights.header import is_safetensors, read_header
from core.weights.part_file import PartFile, Turn, Version
from core.weights.sources import Source, path_trouble, with_mirror, without_secrets
from core.weights.transport import Answer, Broken, DownloadFailed, make_client, opened

__all__ = ["DownloadFailed", "Patience", "Stopped", "Transfer", "announced_size", "download"]

log = logging.getLogger(__name__)

ROOM_LEFT = 2**28  # bytes that a download leaves free on the disk
SPEED_OVER = 3.0  # seconds
SIZE_WAIT = 10.0  # seconds that a server has to say how large a file is
DOWNLOADING = "Downloading"  # the text of a download while nothing else is to be told
STOP_LOOK = 0.2  # seconds between two looks at `Patience.stop` while a server is silent
AHEAD = 16  # pieces that a connection may bring before they are written

Piece: TypeAlias = tuple[Answer, bytes]


class Stopped(UserError):
    """The download was ended by `Patience.stop`."""

    def __init__(self) -> None:
        super().__init__("Stopped. The next download goes on from here.")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How a download stands. Sizes in bytes, `speed` in bytes a second (0 = not known yet).

    `file` of `files` counts from 1; `done` of `total` are this file's, `all_done` of `all_total` those of all files
    (a total is None where the size is not known). `path` is set once, when the file is there.
    """

    name: str
    text: str
    file: int
    files: int
    done: int
    total: int | None
    all_done: int
    all_total: int | None
    speed: float = 0.0
    path: Path | None = None

    @property
    def remark(self) -> str:
        """`text`, unless it says only that bytes are coming, which the numbers show."""
        return "" if self.text == DOWNLOADING else self.text

    @property
    def share(self) -> float | None:
        """Of all files, from 0 to 1; None if a size is not known."""
        return min(1.0, self.all_done / self.all_total) if self.all_total else None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for whom, in seconds, and how often to try without getting a byte further, or from the beginning.

    Once `stop` is set, no wait goes on, also not for a silent server: the download raises Stopped.
    """

    stall: float = 30.0
    tries: int = 5
    pause: float = 1.0  # before the second try; doubles with each
    longest_pause: float = 30.0
    report: float = 0.2  # between two events
    turn: float = 0.5  # between two looks whether another program is done
    sleep: Callable[[float], None] = time.sleep
    stop: threading.Event | None = None

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass. Raises Stopped."""
        if self.stop is None:
            self.sleep(seconds)
        elif self.stop.wait(seconds):
            raise Stopped


@dataclass(frozen=True)
class _State:
    """What of a Transfer is this file's own."""

    text: str
    done: int
    total: int | None
    speed: float = 0.0
    path: Path | None = None


def download(
    wanted: Sequence[tuple[Source, Path]],
    *,
    mirror: str = "",
    client: httpx.Client | None = None,
    patience: Patience | None = None,
) -> Iterator[Transfer]:
    """Fetch each source of `wanted` into its folder. Yields Transfer; to stop is to cease iterating (what has come stays).

    A file that is there is left alone, even a damaged one. `mirror` takes the place of the hub's address. Raises DownloadFailed at the first
    file that cannot be had, and Stopped.
    """
    patience = patience or Patience()
    sizes = [source.size for source, _ in wanted]
    before = 0
    for number, (source, folder) in enumerate(wanted, 1):
        if trouble := path_trouble(source.name):
            raise DownloadFailed(trouble)
        target = folder / source.name
        state = _State("Connecting", 0, source.size)
        for state in _fetched(client, source, target, with_mirror(source.url, mirror), patience):
            sizes[number - 1] = state.total
            known = [size for size in sizes if size is not None]
            yield Transfer(
                name=source.name,
                text=state.text,
                file=number,
                files=len(wanted),
                done=state.done,
                total=state.total,
                all_done=before + state.done,
                all_total=sum(known) if len(known) == len(sizes) else None,
                speed=state.speed,
                path=state.path,
            )
        before += state.done


def announced_size(source: Source, *, mirror: str = "", client: httpx.Client | None = None) -> int | None:
    """How many bytes the server says that the file of `source` has, without fetching it; None if it does not say."""
    with nullcontext(client) if client else make_client(SIZE_WAIT) as session:
        try:
            with opened(session, with_mirror(source.url, mirror), method="HEAD") as answer:
                return _version(answer).total or None
        except (Broken, DownloadFailed) as problem:
            log.info("The size of %s is not known: %s", source.name, problem)
            return None


def _is_cut_off(target: Path, part: PartFile) -> bool:
    """Whether a download ended just when its file had taken its name, on a disk without hard links: an empty one is there."""
    return target.is_file() and target.stat().st_size == 0 and part.path.exists()


def _fetched(
    client: httpx.Client | None, source: Source, target: Path, url: str, patience: Patience
) -> Iterator[_State]:
    """One file, until it is at `target`. The last state has its path."""
    part, turn = PartFile(target), Turn(target)
    try:
        if target.exists() and not _is_cut_off(target, part):
            yield _there(source, target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            while not turn.take():
                yield _State("Another program is fetching this file", part.size, source.size)
                patience.wait(patience.turn)
            if _is_cut_off(target, part):
                target.unlink()
            if target.exists():
                yield _there(source, target)
                return
            started = time.monotonic()
            yield from _received(client, source, part, url, patience)
            part.settle()
            if not move_to_free_name(part.path, target):
                raise DownloadFailed(f"Another file {target} has come meanwhile; it is left as it is.")
            part.discard()
            size = target.stat().st_size
            log.info("Fetched %s: %.1f MB in %.1f s", source.name, size / 1e6, time.monotonic() - started)
            yield _State("Done", size, size, path=target)
        finally:
            turn.end()
    except OSError as problem:
        raise DownloadFailed(f"{source.name} cannot be stored: {_told(problem, target.parent)}") from problem


def _there(source: Source, target: Path) -> _State:
    if wrong := damage(target, source.exact_size, source.size):
        raise DownloadFailed(wrong)
    size = target.stat().st_size
    return _State("Already there", size, size, path=target)


def _received(
    client: httpx.Client | None, source: Source, part: PartFile, url: str, patience: Patience
) -> Iterator[_State]:
    """Try until the part is the whole file and has passed its checks."""
    had, fruitless, anew, damaged = part.size, 0, 0, ""
    while True:
        try:
            yield from _asked(client, source, part, url, patience)
            problem = yield from _checked(source, part)
        except Broken as broken:
            fruitless = 0 if part.size > had else fruitless + 1
            anew += part.size < had  # never forgiven: a server that breaks off and starts over would be asked for ever
            had = part.size
            if max(fruitless, anew) >= patience.tries:
                kept = f"{part.size} bytes are kept: start the download again to go on from there." if part.size else ""
                raise DownloadFailed(
                    f"{source.name} cannot be fetched: {broken}. {kept or 'Try again later.'}"
                ) from None
            pause = max(broken.wait, min(patience.longest_pause, patience.pause * 2 ** max(0, fruitless - 1)))
            log.info("%s: %s; trying again in %.0f s", source.name, broken, pause)
            yield _State(f"Trying again: {broken}", part.size, _total(source, part))
            patience.wait(pause)
            continue
        if not problem:
            return
        part.discard()
        if damaged:
            raise DownloadFailed(
                f"{source.name} came damaged twice from {without_secrets(url)}: {problem} Nothing of it is kept."
            )
        damaged, had = problem, 0
        log.warning("%s came damaged: %s Fetching it again", source.name, problem)
        yield _State("Came damaged; fetching it again", 0, _total(source, part))


def _asked(
    client: httpx.Client | None, source: Source, part: PartFile, url: str, patience: Patience
) -> Iterator[_State]:
    """One connection. Ends when the part has as many bytes as were announced; raises Broken before that."""
    start, version = part.size, part.version
    if version is None or not (version.etag or version.sha256 or source.sha256):
        start = 0  # nothing says that the bytes to come would fit those that are there
    total = _total(source, part)
    if start and total is not None and start >= total:
        if start == total:
            return
        start = 0
    yield _State("Connecting", start, total)
    pieces = _pieces(client, patience.stall, url, start, version.etag if version and start else "")
    with closing(pieces if patience.stop is None else _left_at(patience.stop, pieces)) as coming:
        answer, _ = next(coming)
        if answer.past_the_end:
            part.discard()
            raise Broken("the file on the server is shorter than what has come")
        before, version = version, _version(answer)
        _insist(source, url, version)
        if answer.start:
            if answer.start != start or (before is not None and _are_two_files(before, version)):
                part.discard()
                raise Broken("the server sends another part or another file than was asked for")
        else:
            part.begin(version)
            start = 0
        total = source.exact_size or version.total
        _room(part.target.parent, (total or 0) - start)
        yield from _written(coming, part, start, total, patience)


def _pieces(client: httpx.Client | None, stall: float, url: str, start: int, etag: str) -> Generator[Piece, None, None]:
    """One connection, which nobody else uses or closes: its answer, first with no bytes, then with each of its chunks."""
    with nullcontext(client) if client else make_client(stall) as session:
        with opened(session, url, start=start, etag=etag) as answer:
            yield answer, b""
            for chunk in answer.chunks():
                yield answer, chunk


def _left_at(stop: threading.Event, pieces: Generator[Piece, None, None]) -> Generator[Piece, None, None]:
    """`pieces`, which a thread of their own waits for. Raises Stopped soon after `stop` is set.

    A thread that waits for a silent connection cannot be woken safely on every system. It is left alone with what it
    has opened, writes nothing, and ends when the server says something or `Patience.stall` is over.
    """
    brought: queue.Queue[Piece | Exception | None] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(piece: Piece | Exception | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                brought.put(piece, timeout=STOP_LOOK)
                return

    def bring() -> None:
        try:
            with closing(pieces):
                for piece in pieces:
                    put(piece)
                    if left.is_set():
                        return
            put(None)
        except Exception as problem:
            put(problem)

    threading.Thread(target=bring, name="connection", daemon=True).start()
    try:
        while (piece := _next(brought, stop)) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        left.set()


def _next(brought: queue.Queue[Piece | Exception | None], stop: threading.Event) -> Piece | Exception | None:
    while not stop.is_set():
        with suppress(queue.Empty):
            return brought.get(timeout=STOP_LOOK)
    raise Stopped


def _version(answer: Answer) -> Version:
    total = answer.total if answer.size is None else answer.size
    if answer.size is not None and answer.total not in (None, answer.size):
        raise Broken(f"the server announces {answer.total} bytes of {answer.size}")
    return Version(answer.etag, total, answer.sha256)


def _are_two_files(before: Version, now: Version) -> bool:
    """Whether a server goes on with another file than the one it began with, as some do that ignore If-Range."""
    other_total = before.total is not None and before.total != now.total
    other_etag = bool(before.etag and now.etag) and before.etag != now.etag
    other_sha256 = bool(before.sha256 and now.sha256) and before.sha256 != now.sha256
    return other_total or other_etag or other_sha256


def _insist(source: Source, url: str, version: Version) -> None:
    """Don't begin to fetch gigabytes that cannot be right. Raises DownloadFailed."""
    found, wanted = version.total, source.exact_size
    if wanted is not None and found is not None and found != wanted:
        raise DownloadFailed(
            f"{without_secrets(url)} holds another file than the one that is known as {source.name}: it has {found} bytes, and "
            f"{wanted} were wanted. It is not fetched. If you trust it, fetch it in the browser and put it into the folder yourself."
        )


def _written(
    coming: Iterator[Piece], part: PartFile, start: int, total: int | None, patience: Patience
) -> Iterator[_State]:
    done, reported = start, 0.0
    marks: deque[tuple[float, int]] = deque([(time.monotonic(), start)])
    with part.append() as file:
        for _, chunk in coming:
            file.write(chunk)
            done += len(chunk)
            if total is not None and done > total:
                break
            now = time.monotonic()
            if now - reported >= patience.report:
                reported = now
                marks.append((now, done))
                while len(marks) > 2 and now - marks[0][0] > SPEED_OVER:
                    marks.popleft()
                elapsed = now - marks[0][0]
                yield _State(DOWNLOADING, done, total, (done - marks[0][1]) / elapsed if elapsed > 0 else 0.0)
    if total is not None and done < total:
        raise Broken(f"the server ended the file at byte {done} of {total}")


def _checked(source: Source, part: PartFile) -> Generator[_State, None, str]:
    """Yields states while the file is read; returns what is wrong with it as a sentence, "" if nothing is."""
    size, total = part.size, _total(source, part)
    if total is not None and size != total:
        return f"it has {size} bytes, and {total} were wanted."
    version = part.version
    wanted = source.sha256 or (version.sha256 if version else "")
    if wanted:
        found: int | str = ""
        for found in part.hashed():
            if isinstance(found, int):
                yield _State("Checking", found, size)
        if found != wanted:
            return f"its SHA-256 is {found}, and {wanted} was wanted."
    if is_safetensors(source.name):
        try:
            read_header(part.path)
        except (BadModelFile, ModelNotFound) as problem:
            return str(problem)
    elif is_web_page(part.path):
        return f"{source.name} is a web page, not a model."
    elif is_far_from_whole(size, source.size):
        return f"it has {size} bytes, and {source.size} were wanted."
    return ""


def _total(source: Source, part: PartFile) -> int | None:
    """The size to expect: the known file's, else what the server announced."""
    version = part.version
    return source.exact_size or (version.total if version else None)


def _room(folder: Path, more: int) -> None:
    free = shutil.disk_usage(folder).free
    if more > 0 and more + ROOM_LEFT > free:
        raise OSError(errno.ENOSPC, f"{more / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free")


def _told(problem: OSError, folder: Path) -> str:
    """What is wrong with the disk and what to do, as a sentence or two."""
    words = problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {folder} is full ({words}). Make room and start the download again; what has come is kept."
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the folder {folder} is not writable. Give this user the right to write there, or name another in config.json."
    return f"{words} (in {folder}). Start the download again; what has come is kept."
