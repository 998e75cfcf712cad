"""Writing files that are whole or not there: under a temporary name first, then moved to a name nobody has."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_new(path: Path, data: bytes) -> None:
    """Write `data` to the disk itself under a name that must be free. Raises OSError."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def move_to_free_name(part: Path, path: Path) -> bool:
    """Move `part` to `path` unless something is there, in one step even if others try the same. False if it is taken.

    `part` may stay behind as a second name of the file: the caller removes it in any case. Raises OSError.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: take the name with an empty file, then replace that
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        try:
            part.replace(path)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise
    return True


def explained(problem: OSError) -> str:
    """What went wrong with a file, and what to do about it, in two sentences that fit after a colon."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Make room, or choose another folder with --output-path."
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "the folder is not writable. Give this user the right to write there, or choose another with --output-path."
        )
    if problem.errno == errno.ENAMETOOLONG:
        return "the path is too long. Choose a shorter folder with --output-path."
    if problem.errno in (errno.ENOTDIR, errno.EEXIST):
        return "there is a file where a folder should be. Move it away, or choose another folder with --output-path."
    return f"{problem.strerror or problem}. If this stays so, choose another folder with --output-path."
