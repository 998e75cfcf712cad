"""presets_choice: what a preset comes to with the files that are there, and what changes when it is chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import BadSetting
from core.performance import MODES
from core.presets import DEFAULT, RECOMMENDABLE, Preset, load_preset
from core.settings import Lora, Settings
from core.weights.needs import FIELDS as NEED_FIELDS
from core.weights.needs import FilesByKind, Need, find_name, needed, told_total

TYPED = ("prompt", "negative_prompt")  # what a person writes; no preset takes it away
SIZE = ("width", "height")
OF_A_MODEL = (*NEED_FIELDS, "loras", "performance", "refiner_switch", "refiner_swap")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A preset as it can be used now. `settings` name only files that are there; `notes` say what had to be done for it."""

    preset: Preset
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    missing: tuple[Need, ...] = ()  # files of the preset that are not there


def choose(
    preset: Preset,
    files: FilesByKind,
    folders: Sequence[Path],
    defaults: Preset | None = None,
    *,
    stand_in: str = DEFAULT,
    older_models: bool = True,
) -> Choice:
    """Fit `preset`, over the installation's `defaults`, to the files that are there.

    If its checkpoint is absent, the best of its previous ones is taken (unless `older_models` is False), else the preset
    `stand_in` of `folders` takes its place; if a refiner, VAE, text encoder, LoRA or a fast mode's LoRA is absent, it goes
    without. Each is told.
    """
    under = defaults or Preset(name="")
    wanted = {**under.settings, **preset.settings}
    missing = tuple(need for need in needed(wanted, files, preset.downloads, under.downloads) if not need.present)
    settings, notes = dict(wanted), []
    base = wanted.get("base_model", "")
    there = files.files("checkpoints").names()
    if base and not find_name(base, there):
        its_own = "base_model" in preset.settings
        who = f"The preset {preset.name!r}" if its_own else "The configuration"
        previous = preset.previous if its_own else under.previous
        older = next((found for name in previous if older_models and (found := find_name(name, there))), "")
        if not older:
            return _stand_in(stand_in, preset, who, base, missing, files, folders, under)
        settings["base_model"] = older
        notes.append(f"{who} wants {base}, which is not there. The older {older} is used. {_how(preset, missing)}")
    settings, dropped = _with_files_that_are_there(settings, files)
    if dropped:
        notes.append(
            f"The preset {preset.name!r} goes without {', '.join(dropped)}: not there. {_how(preset, missing)}"
        )
    return Choice(preset=preset, settings=settings, notes=(*preset.notes, *notes), missing=missing)


def diff(settings: Settings, base: Settings) -> dict[str, tuple[Any, Any]]:
    """What `settings` changes against `base`: field -> (value there, value here), in the order of the fields."""
    pairs = {f.name: (getattr(base, f.name), getattr(settings, f.name)) for f in fields(Settings)}
    return {name: (there, here) for name, (there, here) in pairs.items() if there != here}


def switched(current: Settings, before: Settings, after: Settings, contained: Mapping[str, Any]) -> Settings:
    """`current` after the change from one preset to another, whose plain settings are `before` and `after`.

    What nobody has touched becomes what the new preset says. What the user has changed stays, unless the new preset
    speaks of it (`contained`: its own fields); what the user has typed stays in any case. A size goes with its model.
    """
    changes = {}
    new_model = before.base_model != after.base_model
    for name, (new, now) in diff(current, after).items():
        touched = now != getattr(before, name)
        speaks = name in contained or (new_model and name in SIZE)
        if not touched or (speaks and (name not in TYPED or not now)):
            changes[name] = new
    return replace(current, **changes)


def _stand_in(
    stand_in: str,
    preset: Preset,
    who: str,
    base: str,
    missing: tuple[Need, ...],
    files: FilesByKind,
    folders: Sequence[Path],
    under: Preset,
) -> Choice:
    """The preset `stand_in` in place of `preset`; of the defaults, what has to do with no model stays."""
    try:
        other = load_preset(stand_in, *folders)
    except BadSetting:
        other = Preset(name=stand_in)
    kept = {name: value for name, value in under.settings.items() if name not in (*RECOMMENDABLE, *OF_A_MODEL)}
    settings, _ = _with_files_that_are_there({**kept, **other.settings}, files)
    name = settings.get("base_model", "")
    instead = f"the preset {stand_in!r} with {name}" if name else "the checkpoint that is there"
    note = f"{who} wants {base}, which is not there. Until it is, {instead} is used. {_how(preset, missing)}"
    return Choice(preset=other, settings=settings, notes=(*preset.notes, note), missing=missing)


def _with_files_that_are_there(settings: dict[str, Any], files: FilesByKind) -> tuple[dict[str, Any], list[str]]:
    """`settings` with the names that the files have here, and the names that had to be left out."""
    dropped = []
    for field, kind in NEED_FIELDS.items():
        if settings.get(field):
            found = find_name(settings[field], files.files(kind).names())
            if not found:
                dropped.append(settings.pop(field))
            else:
                settings[field] = found
    names = files.files("loras").names()
    if "loras" in settings:
        loras = []
        for entry in settings["loras"]:
            lora = entry if isinstance(entry, Lora) else Lora(**entry)
            found = find_name(lora.name, names)
            if found:
                loras.append(replace(lora, name=found))
            else:
                dropped.append(lora.name)
        settings["loras"] = tuple(loras)
    mode = MODES.get(settings.get("performance", "custom"))
    if mode and mode.lora and not find_name(mode.lora.file, names):
        dropped.append(f"the mode {mode.label} with its {mode.lora.file}")
        del settings["performance"]
    return settings, dropped


def _how(preset: Preset, missing: Sequence[Need]) -> str:
    """How to get what is missing: what it is, how large, and the command."""
    known = [need for need in missing if need.url]
    if not known:
        names = ", ".join(PurePosixPath(need.name).name for need in missing)
        return f"Put {names} into your models folder."
    return (
        f"To download what is missing ({told_total(known)}): python launch.py download --preset {quoted(preset.name)}"
    )


def quoted(name: str) -> str:
    """`name` as one word of a command line."""
    return name if re.fullmatch(r"[\w.-]+", name) else f'"{name}"'
