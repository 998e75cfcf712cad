"""trash: a folder beside the pictures that deleted ones go to, each under the path that it came from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from core.output.files import move_to_free_name

TRASH = ".trash"


def moved(file: Path, place: Path) -> Path:
    """Move `file` to `place`, or to `place` with `_2`, `_3`, ... if something is there already. Raises OSError."""
    file.stat()  # the link of a file that is not there would be one too on some systems
    place.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    free = place
    while not move_to_free_name(file, free):
        number += 1
        free = place.with_name(f"{place.stem}_{number}{place.suffix}")
    file.unlink(missing_ok=True)
    return free


def thrown_away(file: Path, trash: Path) -> None:
    """Delete `file`, which lies in `trash`, and the folders that this leaves empty. Raises OSError."""
    if trash not in file.parents:
        raise ValueError(f"{file} is not in {trash}.")
    file.unlink(missing_ok=True)
    with suppress(OSError):  # a folder that is not empty stays
        for folder in file.parents:
            folder.rmdir()
            if folder == trash:
                return
