"""part_file: a file on its way in: the bytes so far, which version of the file they are of, and who is at work on it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Version:
    """Which file the server was sending: a strong ETag, its size, and the hub's SHA-256, as far as it said."""

    etag: str = ""
    total: int | None = None
    sha256: str = ""


class PartFile:
    """`target` while it is fetched: TARGET.part beside it holds the first bytes, TARGET.part.json their Version.

    Survives the end of the program at any moment: what is there is the beginning of the file, or is found out when the
    whole is checked.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def version(self) -> Version | None:
        """What the bytes are of; None if that is not known."""
        try:
            values = json.loads(self._note.read_text(encoding="utf-8"))
            version = Version(str(values["etag"]), values["total"], str(values["sha256"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return version if version.total is None or type(version.total) is int else None

    def begin(self, version: Version) -> None:
        """Drop what is there: bytes of `version` come next. Raises OSError."""
        self.path.open("wb").close()
        temporary = self._note.with_name(f"{self._note.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(version)), encoding="utf-8")
        temporary.replace(self._note)

    def append(self) -> BinaryIO:
        """The file, open for more bytes. Raises OSError."""
        return self.path.open("ab")

    def hashed(self) -> Iterator[int | str]:
        """Reads the whole file: yields the bytes read so far, and at the end the SHA-256 in hex digits. Raises OSError."""
        digest, done = hashlib.sha256(), 0
        with self.path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                yield done
        yield digest.hexdigest()

    def settle(self) -> None:
        """Put the bytes on the disk itself. Raises OSError."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove both files, as far as that can be done."""
        for path in (self.path, self._note):
            with suppress(OSError):
                path.unlink()


class Turn:
    """Whose turn it is to fetch a file. The system ends it with the process, so no dead program holds anybody up."""

    def __init__(self, target: Path) -> None:
        self._path = target.with_name(f"{target.name}.lock")
        self._file: BinaryIO | None = None

    def take(self) -> bool:
        """Try to begin a turn, at once. False if another program has it. Raises OSError if the folder is not writable."""
        file = self._path.open("a+b")
        try:
            _lock(file)
            mine = os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except OSError as problem:
            file.close()
            if problem.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.ENOENT):
                raise
            return False
        if not mine:  # the one before us has just ended its turn and removed the file that we have open
            file.close()
            return False
        self._file = file
        return True

    def end(self) -> None:
        """Let the next one in. Does nothing if it is not our turn."""
        if self._file is None:
            return
        if os.name == "nt":  # an open file cannot be removed there
            self._file.close()
        with suppress(OSError):
            self._path.unlink()
        self._file.close()
        self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # some network disks know no locks
                raise
