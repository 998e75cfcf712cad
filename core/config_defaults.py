"""config_defaults: the settings under every preset: those of the reference's files, and over them `defaults` of config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.config_reference import UNUSED, Reference
from core.errors import BadConfig, BadSetting
from core.presets import Preset, preset_from
from core.prompt.styles import PSEUDO, StyleLibrary, style_key
from core.reference_keys import KINDS_OF_DOWNLOADS, is_setting, meaning_of, read_reference, size_of
from core.settings import quoted


@dataclass(frozen=True, kw_only=True)
class Offered:
    """What the installation offers, and so what its defaults may name."""

    max_image_number: int
    aspect_ratios: tuple[tuple[int, int], ...]
    styles: tuple[Path, ...]  # folders
    hosts: tuple[str, ...]


def read_defaults(reference: Reference, ours: Mapping[str, Any], file: Path, whose: str, offered: Offered) -> Preset:
    """The settings of `reference`, and over them `ours`, the object that `whose` names. Its notes are on `ours`.

    What of the reference does not fit is told there. Raises BadConfig for what of `ours` does not.
    """

    def read(values: Mapping[str, Any]) -> Preset:
        try:
            return preset_from(file.name, file, values, offered.hosts)
        except BadSetting as error:
            raise BadConfig(str(error).replace(f"The preset {file}", whose, 1)) from None

    def told(preset: Preset) -> list[str]:
        return [note.removeprefix(f"The preset {file.name!r}: ") for note in preset.notes]

    for key, sentence in list(_misfits(reference.values, offered)):
        reference.leave_out(key, f"{sentence} {UNUSED}")
    theirs = reference.settings()
    for key in KINDS_OF_DOWNLOADS:
        if key in theirs:
            for sentence in told(read({key: theirs[key]})):
                reference.tell(key, sentence)
    named = {key: value for key, value in ours.items() if meaning_of(key)}
    read({key: value for key, value in ours.items() if key not in named})
    refused = [*read_reference(named).problems, *(sentence for _, sentence in _misfits(ours, offered))]
    if refused:
        raise BadConfig(f"{whose}: {refused[0].removesuffix(UNUSED).rstrip()}")
    nothing = [key for key in named if not is_setting(key)]
    whole = read({**theirs, **{key: value for key, value in ours.items() if key not in nothing}})
    of_theirs = told(read(theirs))
    notes = [sentence for sentence in told(whole) if sentence not in of_theirs]
    if nothing:
        notes.append(f"these mean nothing here: {', '.join(nothing)}.")
    return replace(whole, notes=tuple(f"In {whose}: {sentence}" for sentence in notes))


def _misfits(values: Mapping[str, Any], offered: Offered) -> Iterator[tuple[str, str]]:
    """The keys of `values` that name what is not offered, and a sentence on each. Values of another type are for others."""
    for key in ("image_number", "default_image_number"):
        number = values.get(key)
        if isinstance(number, (int, float)) and number > offered.max_image_number:
            yield key, f"{key} is {number}; it must be at most max_image_number, which is {offered.max_image_number}."
    key = "default_aspect_ratio"
    size = values.get(key)
    if size and _size(size) not in (None, *offered.aspect_ratios):
        there = ", ".join(f"{width}*{height}" for width, height in offered.aspect_ratios)
        yield key, f"{key} is {quoted(size)}; it must be one of: {there}."
    for key in ("styles", "default_styles"):
        names = values.get(key)
        if isinstance(names, list) and names:
            styles = StyleLibrary(offered.styles).read()
            for name in names:
                if isinstance(name, str) and not styles.find(name) and style_key(name) not in map(style_key, PSEUDO):
                    yield key, f"{key} has {name[:200]!r}; there is no such style.{styles.meant(name)}"
                    break


def _size(text: Any) -> tuple[int, int] | None:
    try:
        return size_of(text)
    except ValueError:
        return None
