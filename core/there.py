"""there: whether a file or a folder is there. One that may not be looked at, or whose disk fails, is an answer, no error.

Path.is_file and Path.is_dir raise for anything but "not there" before Python 3.14.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether `path` is known to be a file."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether `path` is known to be a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def why_unreadable(folder: Path) -> str:
    """Why it cannot be seen what is in `folder`, in the system's words; "" if it can, or if there is no such folder."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    except OSError as problem:
        return problem.strerror or str(problem)
    return ""
