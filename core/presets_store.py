"""presets_store: keeping presets: save what the page holds now, rename, delete with a way back. Nothing is ever overwritten unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import BadSetting
from core.output.files import move_to_free_name
from core.output.record import VERSION
from core.presets import check_preset_name, is_preset_name, preset_file
from core.presets_choice import diff
from core.reference_keys import read_reference
from core.settings import Lora, Settings

TRASH = ".trash"
KEPT = ("description", "previous", "downloads")  # of a preset that is replaced
NOT_SAVED = ("seed", "prompt")  # the look is saved, not the picture


@dataclass(frozen=True)
class Trashed:
    """A preset that was put away: its name, and where the file lies now."""

    name: str
    path: Path


def preset_diff(settings: Settings, *bases: Settings, with_prompt: bool = False) -> dict[str, tuple[Any, Any]]:
    """What a preset made of `settings` would hold: field -> (value in the first of `bases` that differs, value here).

    It holds what differs from any of `bases`, so that it comes to the same on top of each of them; never the seed.
    """
    left_out = set(NOT_SAVED) - ({"prompt"} if with_prompt else set())
    found: dict[str, tuple[Any, Any]] = {}
    for base in reversed(bases):
        found |= diff(settings, base)
    return {f.name: found[f.name] for f in fields(Settings) if f.name in found and f.name not in left_out}


def save_preset(
    name: str,
    settings: Settings,
    folder: Path,
    *,
    bases: Sequence[Settings] = (Settings(),),
    description: str = "",
    with_prompt: bool = False,
    replace: bool = False,
    taken: Sequence[Path] = (),
) -> Path:
    """Write `settings` as preset `name` into the user's `folder`: what differs from any of `bases`.

    Raises BadSetting if the name cannot be, or exists there or in the folders `taken` and `replace` is False. With
    `replace` the old file goes to the trash, and its description and downloads live on.
    """
    check_preset_name(name)
    if not replace:
        for place in (folder, *taken):
            _check_free(name, place)
    values: dict[str, Any] = {"version": VERSION}
    old = preset_file(name, folder)
    if old:
        values |= _kept(old)
    if description:
        values["description"] = description
    held = preset_diff(settings, *bases, with_prompt=with_prompt)
    values |= {field: _plain(here) for field, (_, here) in held.items()}
    text = json.dumps(values, indent=4, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            if old:
                _put_away(old, folder, copy=True)
                temporary.replace(old)
                return old
            target = folder / f"{name}.json"
            if not move_to_free_name(temporary, target):
                raise BadSetting(f"There is a preset {name!r} by now. Choose another name.")
            return target
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as problem:
        raise _not_stored(name, folder, problem) from problem


def rename_preset(name: str, new_name: str, folder: Path, *, taken: Sequence[Path] = ()) -> Path:
    """Give the user's preset `name` another name. Raises BadSetting if it is not there or the other name is taken."""
    check_preset_name(new_name)
    file = _own(name, folder)
    if name.casefold() != new_name.casefold():
        for place in (folder, *taken):
            _check_free(new_name, place)
    target = folder / f"{new_name}.json"
    try:
        if name.casefold() == new_name.casefold():  # only the case: the same file on some systems
            file.replace(target)
        elif move_to_free_name(file, target):
            with suppress(FileNotFoundError):
                file.unlink()
        else:
            raise BadSetting(f"There is a preset {new_name!r} by now. Choose another name.")
    except OSError as problem:
        raise _not_stored(new_name, folder, problem) from problem
    return target


def delete_preset(name: str, folder: Path) -> Trashed:
    """Put the user's preset `name` into the trash below `folder`; `restore_preset` brings it back. Raises BadSetting."""
    file = _own(name, folder)
    try:
        return Trashed(name, _put_away(file, folder))
    except OSError as problem:
        raise _not_stored(name, folder, problem) from problem


def restore_preset(trashed: Trashed, folder: Path, *, taken: Sequence[Path] = ()) -> Path:
    """Undo `delete_preset`; if the name is taken by now, there or in the folders `taken`, it gets a number behind it.

    Raises BadSetting if the trash was emptied.
    """
    check_preset_name(trashed.name)
    if trashed.path.parent != folder / TRASH or not trashed.path.is_file():
        raise BadSetting(f"The preset {trashed.name!r} is not in the trash any more.")
    used = {file.stem.casefold() for place in (folder, *taken) for file in place.glob("*.json")}
    name, number = trashed.name, 2
    try:
        while name.casefold() in used or not move_to_free_name(trashed.path, folder / f"{name}.json"):
            name, number = f"{trashed.name[:50]} {number}", number + 1
        with suppress(FileNotFoundError):
            trashed.path.unlink()
    except OSError as problem:
        raise _not_stored(trashed.name, folder, problem) from problem
    return folder / f"{name}.json"


def trashed_presets(folder: Path) -> list[Trashed]:
    """What lies in the trash below `folder`, the newest first."""
    files = sorted((folder / TRASH).glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return [Trashed(file.stem.rsplit("~", 1)[0], file) for file in files]


def _put_away(file: Path, folder: Path, *, copy: bool = False) -> Path:
    """Move `file` (or a copy of it) to a free name in the trash; its time there is now."""
    trash = folder / TRASH
    trash.mkdir(exist_ok=True)
    number = 1
    while (target := trash / f"{file.stem}~{number}.json").exists():
        number += 1
    if copy:
        target.write_bytes(file.read_bytes())
    else:
        file.replace(target)
        os.utime(target)
    return target


def _own(name: str, folder: Path) -> Path:
    file = preset_file(name, folder) if is_preset_name(name) else None
    if file is None:
        raise BadSetting(
            f"There is no preset of yours called {name[:100]!r} in {folder}; the program's own are never changed."
        )
    return file


def _check_free(name: str, folder: Path) -> None:
    if any(file.stem.casefold() == name.casefold() for file in folder.glob("*.json")):
        raise BadSetting(f"There is a preset {name!r} already in {folder}. Choose another name.")


def _kept(file: Path) -> dict[str, Any]:
    """What lives on of a preset that is replaced, in our form; {} if it cannot be read."""
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {**read_reference(values).preset, **{key: values[key] for key in KEPT if key in values}}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [asdict(entry) if isinstance(entry, Lora) else entry for entry in value]
    return value


def _not_stored(name: str, folder: Path, problem: OSError) -> BadSetting:
    return BadSetting(f"The preset {name!r} cannot be stored in {folder}: {problem.strerror or problem}.")
