"""history_rows: one picture as a row of the database: reading it, entering it, keeping its words in step."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from core.output.history_database import LATEST, PER_MILLISECOND, WITH_SECRETS, WORDS
from core.output.history_files import Contents, PictureFile
from core.output.history_words import COLUMNS, row_words, tag
from core.output.trash import TRASH
from core.owner import owner_mark

NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture as the history knows it.

    `key` is its name towards the page: 128 random bits. `folder` is "" for the outputs, else one of the picture folders;
    `path` leads from there to the file; a picture in the trash goes back to `home`, "" for all others. `owner` is a mark
    (see `core.owner`), "" where nobody is known. `parent` is the fingerprint of the picture it was made from, `kind` says
    how. `modified` (ns) and `bytes` are the file's.
    """

    id: int
    key: str
    folder: str
    path: str
    home: str
    prompt: str
    negative: str
    model: str
    styles: str  # one a line, as the loras
    loras: str
    seed: int | None
    width: int
    height: int
    source: str
    owner: str
    favourite: bool
    fingerprint: str
    parent: str
    kind: str
    modified: int
    bytes: int

    @property
    def created(self) -> datetime:
        """Local time."""
        return datetime.fromtimestamp(self.id // PER_MILLISECOND / 1000).astimezone()

    @property
    def foreign(self) -> bool:
        """Whether another program made it: it is shown in its place and never touched."""
        return self.folder != ""

    @property
    def name(self) -> str:
        """Of the file."""
        return (self.home or self.path).rpartition("/")[2]


NAMES = tuple(f.name for f in fields(Picture))
SELECT = f"SELECT {', '.join(f'pictures.{name}' for name in NAMES)} FROM pictures"


def picture_of(row: tuple[Any, ...]) -> Picture:
    """The picture in a row of SELECT."""
    values = dict(zip(NAMES, row, strict=True))
    return Picture(**{**values, "favourite": bool(values["favourite"])})


def first_id(moment: datetime) -> int:
    """The lowest id of pictures made at `moment` (local time) or later."""
    if moment.year < 1970:
        return 0
    with suppress(OverflowError, OSError, ValueError):
        return min(LATEST, max(0, round(moment.timestamp() * 1000))) * PER_MILLISECOND
    return LATEST * PER_MILLISECOND


def owner_tag(mark: str) -> str:
    """The word that stands for the owner of that mark in the index."""
    return f"o{mark[:32]}"


def enter(
    connection: sqlite3.Connection,
    words: str,
    folder: str,
    file: PictureFile,
    contents: Contents,
    *,
    owner: str = "",
    lost: Mapping[str, int] = NOTHING,
) -> None:
    """Enter the picture `file` of `folder`, or bring its row up to date.

    `lost` are the rows, by fingerprint, whose files are no longer where they were: one of them may have been moved here.
    What a file no longer says of itself, the row goes on saying. Of `owner` only the mark is kept.
    """
    where = "SELECT id FROM pictures WHERE folder = ? AND path = ?"
    row = connection.execute(where, [folder, file.path]).fetchone()
    known: int | None = row[0] if row else lost.get(contents.fingerprint)
    place = {"folder": folder, "path": file.path, "home": _home(folder, file.path)}
    about = {"fingerprint": contents.fingerprint, "modified": file.modified, "bytes": file.bytes}
    size = {"width": contents.width, "height": contents.height}
    values: dict[str, Any] = {**place, **about, **size, **({"owner": owner_mark(owner)} if owner else {})}
    saved = _rescued(connection, folder, file.path) if known is None else {}
    kept = saved.pop("json", "{}")
    settings = contents.settings or json.loads(kept)
    if settings or known is None:
        values |= _told(settings, contents)
    if contents.origin:
        values |= {"parent": contents.origin.fingerprint, "kind": contents.origin.kind}
    if known is None:
        values = {"id": _free_id(connection, contents.created), "key": secrets.token_urlsafe(16), **saved, **values}
        values = {"owner": "", **values}
        names = ", ".join(values)
        connection.execute(
            f"INSERT INTO pictures ({names}) VALUES ({', '.join('?' * len(values))})", list(values.values())
        )
        known = values["id"]
    else:
        changes = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE pictures SET {changes} WHERE id = ?", [*values.values(), known])
    if settings:
        connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [known, json.dumps(settings)])
    index_words(connection, words, known)


def index_words(connection: sqlite3.Connection, words: str, row: int) -> None:
    """Bring the words of one picture up to date."""
    picture = picture_of(connection.execute(f"{SELECT} WHERE id = ?", [row]).fetchone())
    connection.execute(f"DELETE FROM {words} WHERE rowid = ?", [row])
    _insert_words(connection, words, picture)


def index_all(connection: sqlite3.Connection, words: str) -> None:
    """Make the index of words anew."""
    connection.execute(f"DROP TABLE IF EXISTS {words}")
    connection.execute(WORDS[words])
    for row in connection.execute(SELECT).fetchall():
        _insert_words(connection, words, picture_of(row))


def forget(connection: sqlite3.Connection, words: str, row: int) -> None:
    """Take a picture out."""
    connection.execute("DELETE FROM pictures WHERE id = ?", [row])
    connection.execute("DELETE FROM settings WHERE id = ?", [row])
    connection.execute(f"DELETE FROM {words} WHERE rowid = ?", [row])


def rescue(damaged: Path, connection: sqlite3.Connection) -> int:
    """Take over what a damaged database still tells and no picture does; how many rows could be read.

    Kept until the pictures are entered again: whose they are, favourites, lineage, settings of files without metadata.
    """
    wanted = (
        "SELECT folder, path, owner, favourite, parent, kind, COALESCE(json, '{}') "
        "FROM pictures LEFT JOIN settings ON settings.id = pictures.id"
    )
    count = 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(damaged)) as old:
        with_secrets = old.execute("PRAGMA user_version").fetchone() == (WITH_SECRETS,)
        for order in ("", " ORDER BY pictures.id DESC"):  # from both ends, up to where it is broken
            with suppress(sqlite3.Error):
                for folder, path, owner, *rest in old.execute(wanted + order):
                    row = [folder, path, owner_mark(str(owner)) if owner and with_secrets else owner, *rest]
                    new = connection.execute("INSERT OR IGNORE INTO rescued VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                    count += new.rowcount
                return count
    return count


def _rescued(connection: sqlite3.Connection, folder: str, path: str) -> dict[str, Any]:
    names = ("owner", "favourite", "parent", "kind", "json")
    at = "FROM rescued WHERE folder = ? AND path = ?"
    row = connection.execute(f"SELECT {', '.join(names)} {at}", [folder, path]).fetchone()
    if row is None:
        return {}
    connection.execute(f"DELETE {at}", [folder, path])
    return dict(zip(names, row, strict=True))


def _insert_words(connection: sqlite3.Connection, words: str, picture: Picture) -> None:
    tags = ["trash" if picture.home else "live", *(["fav"] if picture.favourite else [])]
    tags += [owner_tag(picture.owner)] if picture.owner else []
    tags += [tag("size", f"{picture.width}x{picture.height}"), tag("source", picture.source)]
    tags += [tag("seed", picture.seed)] if picture.seed is not None else []
    tags += [tag("kind", picture.kind)] if picture.kind else []
    texts = {name: getattr(picture, name) for name in COLUMNS if name != "tags"}
    names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    values = [picture.id, *row_words(texts, tags)]
    connection.execute(f"INSERT INTO {words} (rowid, {names}) VALUES (?, {marks})", values)


def _told(settings: Mapping[str, Any], contents: Contents) -> dict[str, Any]:
    """What the columns say of `settings`."""
    loras = [entry["name"] for entry in settings.get("loras", ()) if entry.get("enabled", True)]
    return {
        "prompt": settings.get("prompt", ""),
        "negative": settings.get("negative_prompt", ""),
        "model": contents.model or settings.get("base_model", ""),
        "styles": "\n".join(settings.get("styles", ())),
        "loras": "\n".join(loras),
        "seed": settings.get("seed"),
        "source": contents.source,
    }


def _home(folder: str, path: str) -> str:
    """Where a picture that lies in the trash came from; "" if it lies elsewhere."""
    return path.removeprefix(f"{TRASH}/") if not folder and path.startswith(f"{TRASH}/") else ""


def _free_id(connection: sqlite3.Connection, created: int) -> int:
    first = min(LATEST, max(0, created)) * PER_MILLISECOND
    while True:
        last = first + PER_MILLISECOND - 1
        (highest,) = connection.execute(
            "SELECT MAX(id) FROM pictures WHERE id BETWEEN ? AND ?", [first, last]
        ).fetchone()
        if highest is None:
            return first
        if highest < last:
            return int(highest) + 1
        first += PER_MILLISECOND
