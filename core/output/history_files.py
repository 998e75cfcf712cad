"""history_files: the pictures that lie in a folder, and what one of them says of itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import BadMetadata
from core.output.embedded import open_picture
from core.output.fingerprint import fingerprint
from core.output.metadata import ReadMetadata, read_settings, with_recovered_styles
from core.output.record import Origin
from core.prompt.style_files import Style

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

_NAMED_BY_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[/_](\d\d-\d\d-\d\d)_[^/]*")


@dataclass(frozen=True)
class PictureFile:
    """A file that is called like a picture. `path` is relative to its folder, with `/`; `modified` in nanoseconds."""

    path: str
    modified: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a picture file says. `settings` holds only what was there; `source` is "" where it says nothing.

    `created` is in milliseconds since 1970.
    """

    width: int
    height: int
    fingerprint: str
    created: int
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    source: str = ""
    origin: Origin | None = None


def pictures_in(folder: Path, but: tuple[Path, ...] = ()) -> Iterator[PictureFile]:
    """The picture files in `folder` and below, in no order; not what is hidden, a link or in one of the folders `but`."""
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:  # a folder that vanished or may not be read
            for entry in entries:
                with suppress(OSError):  # one that vanished or may not be asked about takes no others with it
                    if entry.name.startswith(".") or entry.is_symlink():
                        continue
                    if not entry.is_dir():
                        yield from _called_like_a_picture(entry, folder)
                    elif Path(entry.path) not in but:
                        waiting.append(Path(entry.path))


def read_picture(file: Path, path: str, styles: Iterable[Style] = ()) -> Contents | None:
    """What `file` says, which its folder calls `path`. None if it is no picture or cannot be read.

    `styles` are those that a text which does not name its styles is searched for.
    """
    try:
        with open_picture(file) as image:
            width, height = image.size
        try:
            read = with_recovered_styles(read_settings(file), styles)
        except BadMetadata:
            read = None
        mark = fingerprint(file)
        modified = file.stat().st_mtime
    except Exception:  # Pillow answers damaged files with nearly every kind of exception
        return None
    about: dict[str, Any] = {"width": width, "height": height, "fingerprint": mark, "created": _created(path, modified)}
    if read is None:
        return Contents(**about)
    settings = _with_names(read)
    return Contents(
        **about, settings=settings, model=settings.get("base_model", ""), source=read.source, origin=read.origin
    )


def size_of(file: Path) -> tuple[int, int] | None:
    """Width and height of a picture in pixels; None if it cannot be read."""
    try:
        with open_picture(file) as image:
            return image.size
    except Exception:  # as above
        return None


def _called_like_a_picture(entry: os.DirEntry[str], folder: Path) -> Iterator[PictureFile]:
    """The file, or nothing. Raises OSError."""
    if entry.name.lower().endswith(ENDINGS):
        about = entry.stat()
        path = Path(entry.path).relative_to(folder).as_posix()
        with suppress(UnicodeEncodeError):  # a name that is no text cannot stand in a database
            path.encode("utf-8")
            yield PictureFile(path, about.st_mtime_ns, about.st_size)


def _with_names(read: ReadMetadata) -> dict[str, Any]:
    """The settings as JSON knows them, with the model files and styles that the picture names but cannot point to."""
    settings: dict[str, Any] = json.loads(json.dumps(read.settings, default=vars))
    for one in read.named:
        if not one.name or read.settings.get(one.field):
            continue
        if one.field == "loras":
            entry = {"name": one.name, "weight": one.weight, "enabled": one.enabled}
            settings["loras"] = [*settings.get("loras", ()), entry]
        elif one.field == "styles":
            settings["styles"] = [*settings.get("styles", ()), one.name]
        else:
            settings[one.field] = one.name
    return settings


def _created(path: str, modified: float) -> int:
    """When the picture was made, in milliseconds: as its name says, else as old as the file."""
    named = _NAMED_BY_TIME.fullmatch(path) or _NAMED_BY_TIME.fullmatch(path.rpartition("/")[2])
    with suppress(ValueError, OverflowError, OSError):
        if named:
            return round(datetime.strptime(" ".join(named.groups()), "%Y-%m-%d %H-%M-%S").timestamp() * 1000)
    return round(modified * 1000)
