"""presets: settings by name, one JSON file each, and where a request's settings come from before the user changes them:
defaults, checkpoint, configuration, preset, in this order.

A file holds Settings fields, only those it changes, and beside them what PARTS names. A preset of the reference works too.
The program's own presets are never written; the user's lie in a folder of their own and win over others of the same name.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from core.errors import BadSetting
from core.near import meant
from core.output.record import VERSION
from core.reference_keys import KEYS, meaning_of, read_reference
from core.settings import Settings
from core.there import is_file
from core.weights.info import PARTS as MODEL_PARTS
from core.weights.sources import HOSTS, Source, address_trouble, name_trouble

log = logging.getLogger(__name__)

DEFAULT = "default"
FIELDS = tuple(f.name for f in fields(Settings))
LARGEST_FILE = 2**20  # bytes
REFERENCE_NAMES = {
    "pony_v6": "pony",
    "playground_v2.5": "playground",
}  # of its presets -> what we call ours of the same facts
# What a preset of the reference has to no effect once a page is open.
OF_THE_PROGRAM = ("default_save_metadata_to_images",)
PARTS = {  # what a preset holds beside Settings fields
    "description": "a line for the person who chooses",
    "version": "of the program that wrote it",
    "previous": "older checkpoints that do if base_model is not there, the best first",
    "downloads": '{"checkpoints": {"file.safetensors": {"url": ..., "bytes": ..., "sha256": ...}}, "loras": ...}',
}
DOWNLOAD_KINDS = ("checkpoints", "loras", "vae", "embeddings", "text_encoders")

# What a checkpoint may recommend: how it samples best, never what is made, how often or where it goes.
RECOMMENDABLE = (
    "width", "height", "steps", "guidance_scale", "sampler", "scheduler", "sharpness", "adaptive_cfg",
    "adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end", "clip_skip", "prediction", "zero_terminal_snr",
)  # fmt: skip
USUAL_SIDE = 1024  # pixels; checkpoints of this size take the size of the defaults


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One preset. `settings` are checked fields and values, only those that it changes.

    `downloads` are sources by kind and file name; `notes` sentences on what in the file is not used.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    previous: tuple[str, ...] = ()
    downloads: Mapping[str, Mapping[str, Source]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file: Path = Path()


class Recommending(Protocol):
    """The side of `core.weights.files.ModelInfo` that matters here."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings fields and values that the checkpoint's header recommends."""

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height in pixels that the checkpoint was trained on."""


class Recommender(Protocol):
    """The side of `core.weights.files.Catalog` that matters here."""

    def default(self, chosen: Collection[str] = ()) -> str:
        """The name of the checkpoint that is taken when none is named, but the parts `chosen` may be. Raises BadModelFile."""

    def info(self, name: str) -> Recommending:
        """What the header of checkpoint `name` says."""


def list_presets(*folders: Path) -> list[str]:
    """The names of the presets in `folders`, the default one first."""
    files = (file for folder in folders for file in folder.glob("*.json") if is_file(file))
    names = sorted({_same(file.stem) for file in files if is_preset_name(file.stem)}, key=lambda n: (n.lower(), n))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_preset(name: str, *folders: Path, hosts: Collection[str] = HOSTS) -> Preset:
    """The preset `name` (or what we call it, see `our_name`) of the first of `folders` that has it; downloads only from `hosts`.

    Raises BadSetting naming the preset and what is wrong with it.
    """
    check_preset_name(name)
    name = our_name(name, *folders)
    file = next((file for folder in folders if (file := preset_file(name, folder))), None)
    if file is None:
        there = list_presets(*folders)
        listed = f"There are: {', '.join(there)}." if there else "There are none yet."
        raise BadSetting(f"There is no preset {name!r} in {' or '.join(map(str, folders))}. {listed}")
    return _read(_same(name), file, hosts)


def our_name(name: str, *folders: Path) -> str:
    """`name`, or what the reference's preset of that name is called here if none of `folders` has a file of the name itself."""
    if name in REFERENCE_NAMES and not any(preset_file(name, folder) for folder in folders):
        return REFERENCE_NAMES[name]
    return name


def preset_file(name: str, folder: Path) -> Path | None:
    """The file of preset `name` in `folder`; None if it has none."""
    return next((file for file in sorted(folder.glob("*.json")) if _same(file.stem) == _same(name)), None)


def left_out(folder: Path) -> list[str]:
    """A sentence for each preset file in `folder` that is not listed, because no preset can be called so."""
    files = (file for file in sorted(folder.glob("*.json")) if not file.name.startswith("."))
    return [
        f"The preset file {file.name[:100]!r} is left out: a name has up to 60 letters, digits, spaces and _ - . , ' + & ( )."
        for file in files
        if not is_preset_name(file.stem)
    ]


def check_preset_name(name: str) -> None:
    """Raises BadSetting if no preset can be called so."""
    if not is_preset_name(name):
        raise BadSetting(
            f"A preset cannot be called {name[:100]!r}: a name has up to 60 letters, digits, spaces and _ - . , ' + & ( ) and no path."
        )


def is_preset_name(name: str) -> bool:
    """Whether a preset can be called so: what every file system stores and nobody takes for a path."""
    plain = re.fullmatch(r"[\w-][\w .,'+&()-]{0,59}", _same(name)) is not None and name[-1] not in ". "
    return plain and not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE)


def settings_for(info: Recommending | None, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings whose fields come from `given`, else `preset`, else the checkpoint `info`, else the defaults.

    A checkpoint of another size than 1024 x 1024 that recommends no size gets its own. Raises BadSetting.
    """
    return Settings.from_dict({**recommended(info), **preset, **given})


def settings_of(catalog: Recommender, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings for the checkpoint that `given` or `preset` names, else the catalogue's default, filled in as `base_model`.

    Raises BadSetting, ModelNotFound, BadModelFile.
    """
    name = given.get("base_model") or preset.get("base_model") or catalog.default(chosen_parts({**preset, **given}))
    return settings_for(catalog.info(name), preset, {**given, "base_model": name})


def chosen_parts(settings: Mapping[str, Any]) -> list[str]:
    """Which parts of a checkpoint (keys of PARTS in core.weights.info) `settings` take from files of their own."""
    return [part for part in MODEL_PARTS if settings.get(part)]


def recommended(info: Recommending | None) -> dict[str, Any]:
    """What a checkpoint recommends, less what it has no say in or what no Settings would take."""
    if info is None:
        return {}
    values = {}
    for name, value in info.settings.items():
        try:
            if name in RECOMMENDABLE:
                Settings(**{name: value})
                values[name] = value
        except BadSetting as error:
            log.warning("The checkpoint recommends a setting that cannot be used: %s", error)
    width, height = info.native_size
    if not values.keys() & {"width", "height"} and (width, height) != (USUAL_SIDE, USUAL_SIDE):
        values |= {"width": width, "height": height}
    return values


def _read(name: str, file: Path, hosts: Collection[str]) -> Preset:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE >> 20} MB")
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSetting(f"The preset {file} cannot be read ({error}). Mend it or choose another.") from None
    if not isinstance(values, dict):
        raise BadSetting(f'The preset {file} must be a JSON object such as {{"steps": 20}}.')
    return preset_from(name, file, values, hosts, passed_over=OF_THE_PROGRAM)


def preset_from(
    name: str,
    file: Path,
    values: Mapping[str, Any],
    hosts: Collection[str] = HOSTS,
    *,
    passed_over: Collection[str] = (),
) -> Preset:
    """A preset from what its file holds: our keys, the reference's but for those `passed_over`, comments ("$...").

    Raises BadSetting for unknown ones.
    """
    own = {key: value for key, value in values.items() if key in FIELDS}
    meanings = {key: meaning for key in values if key not in FIELDS and (meaning := meaning_of(key))}
    theirs = {key: values[key] for key in meanings if key not in passed_over}
    unknown = [key for key in values if not (key in own or key in meanings or key in PARTS or key.startswith("$"))]
    newer = _is_newer(values.get("version"))
    if unknown and not meanings and not newer:
        raise BadSetting(f"The preset {file}: there is no setting called {unknown[0]!r}. {_meant(unknown[0])}")
    try:
        Settings(**own)
        previous = _strings("previous", values.get("previous", []))
        description = _string("description", values.get("description", ""))
    except BadSetting as error:
        raise BadSetting(f"The preset {file}: {error}") from None
    reading = read_reference(theirs)
    notes = [f"The preset {name!r}: {problem}" for problem in reading.problems]
    if newer and unknown:
        notes.append(f"The preset {name!r} was written by Easel {values['version']}, this is {VERSION}.")
    notes += [f"The preset {name!r}: there is no {key!r}; it is left out. {_meant(key)}" for key in unknown]
    beside = [key for key, meaning in meanings.items() if key not in theirs or meaning.place in ("config", "nothing")]
    if beside:
        notes.append(f"The preset {name!r} also has what means nothing in a preset of Easel: {', '.join(beside)}.")
    asked = _merged(reading.preset.get("downloads", {}), values.get("downloads", {}))
    downloads, refused = _downloads(asked, hosts)
    return Preset(
        name=name,
        settings={**_without_empty_prompts(reading.settings), **own},
        description=description,
        previous=previous or tuple(reading.preset.get("previous", ())),
        downloads=downloads,
        notes=(*notes, *(f"The preset {name!r}: {words}" for words in refused)),
        file=file,
    )


def _downloads(asked: Any, hosts: Collection[str]) -> tuple[dict[str, dict[str, Source]], list[str]]:
    """The sources that can be trusted so far as to offer them, and a sentence for each other."""
    if not isinstance(asked, dict):
        return {}, [f"downloads must be like {PARTS['downloads']}; they are left out."]
    found: dict[str, dict[str, Source]] = {}
    refused = []
    for kind, files in asked.items():
        if kind not in DOWNLOAD_KINDS or not isinstance(files, dict):
            refused.append(
                f"downloads has {str(kind)[:60]!r}; the kinds are {', '.join(DOWNLOAD_KINDS)}. It is left out."
            )
            continue
        for name, entry in files.items():
            entry = {"url": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
            url, size, sha256 = entry.get("url"), entry.get("bytes"), entry.get("sha256", "")
            name = str(name).replace("\\", "/")
            trouble = name_trouble(name) or address_trouble(url, hosts)
            if not trouble and size is not None and (type(size) is not int or not 0 < size < 2**50):
                trouble = f"bytes of {name!r} must be a whole number."
            if not trouble and not re.fullmatch(r"([0-9a-fA-F]{64})?", str(sha256)):
                trouble = f"sha256 of {name!r} must have 64 hex digits."
            if trouble:
                refused.append(f"{trouble} This download is left out.")
            else:
                found.setdefault(kind, {})[name] = Source(name, kind, str(url), size, str(sha256).lower())
    return found, refused


def _merged(theirs: Any, ours: Any) -> Any:
    return {**theirs, **ours} if isinstance(ours, dict) else ours


def _without_empty_prompts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An empty prompt in a preset of the reference means that it has none."""
    return {key: value for key, value in settings.items() if value != "" or key not in ("prompt", "negative_prompt")}


def _is_newer(version: Any) -> bool:
    return isinstance(version, str) and _numbers(version) > _numbers(VERSION)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version[:40]))


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadSetting(f"{name} is {str(value)[:100]!r}; it must be a list of texts.")
    return tuple(value)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise BadSetting(f"{name} is {str(value)[:100]!r}; it must be a text of at most 1000 characters.")
    return value


def _same(name: str) -> str:
    """One spelling of a name with accents, which file systems store in two."""
    return unicodedata.normalize("NFC", name)


def _meant(key: str) -> str:
    return meant(key, (*FIELDS, *PARTS, *KEYS), f"The settings are: {', '.join(FIELDS)}.")
