"""presets: where a request's settings come from before the user changes them: defaults, checkpoint, preset, in this order."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from core.errors import BadSetting
from core.settings import Settings

log = logging.getLogger(__name__)

DEFAULT = "default"
FIELDS = tuple(field.name for field in fields(Settings))

# What a checkpoint may recommend: how it samples best, never what is made, how often or where it goes.
RECOMMENDABLE = (
    "width", "height", "steps", "guidance_scale", "sampler", "scheduler", "sharpness", "adaptive_cfg",
    "adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end", "clip_skip", "prediction", "zero_terminal_snr",
)  # fmt: skip
USUAL_SIDE = 1024  # pixels; checkpoints of this size take the size of the defaults


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

    def default(self) -> str:
        """The name of the checkpoint that is taken when none is named."""

    def info(self, name: str) -> Recommending:
        """What the header of checkpoint `name` says."""


def list_presets(folder: Path) -> list[str]:
    """The names of the presets in `folder`, the default one first."""
    names = sorted(file.stem for file in folder.glob("*.json") if _is_name(file.stem))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_preset(name: str, folder: Path) -> dict[str, Any]:
    """The fields and values of preset `name`, checked. Raises BadSetting naming the preset and what is wrong with it."""
    if not _is_name(name):
        raise BadSetting(
            f"A preset cannot be called {name!r}: a name has letters, digits, '_', '-' and '.' and no path."
        )
    file = folder / f"{name}.json"
    if not file.is_file():
        raise BadSetting(f"There is no preset {name!r} in {folder}. {_there_are(list_presets(folder))}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSetting(f"The preset {file} cannot be read ({error}). Mend it or choose another.") from None
    if not isinstance(values, dict):
        raise BadSetting(f'The preset {file} must be a JSON object such as {{"steps": 20}}.')
    for key in values:
        if key not in FIELDS:
            raise BadSetting(f"The preset {file}: there is no setting called {key!r}. {_meant(key)}")
    try:
        Settings(**values)
    except BadSetting as error:
        raise BadSetting(f"The preset {file}: {error}") from None
    return values


def settings_for(info: Recommending | None, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings whose fields come from `given`, else `preset`, else the checkpoint `info`, else the defaults.

    A checkpoint of another size than 1024 x 1024 that recommends no size gets its own. Raises BadSetting.
    """
    return Settings.from_dict({**recommended(info), **preset, **given})


def settings_of(catalog: Recommender, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings for the checkpoint that `given` or `preset` names, else the catalogue's default, filled in as `base_model`.

    Raises BadSetting, ModelNotFound, BadModelFile.
    """
    name = given.get("base_model") or preset.get("base_model") or catalog.default()
    return settings_for(catalog.info(name), preset, {**given, "base_model": name})


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


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", name) is not None


def _meant(key: str) -> str:
    near = difflib.get_close_matches(key, FIELDS, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"The settings are: {', '.join(FIELDS)}."


def _there_are(names: list[str]) -> str:
    return f"There are: {', '.join(names)}." if names else "There are none yet."
