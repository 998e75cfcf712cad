"""The text form of a picture's settings that AUTOMATIC1111's web UI began and most programs and sites can read.

    a red apple, studio light
    Negative prompt: blurry
    Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 1152x896, ...

What this vocabulary cannot say exactly follows under our own names (`Easel sampler: dpmpp_2m_sde_gpu`), so that reading
the text gives the very settings back. Reading is linear in the length of the text. No torch, no Pillow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from core.errors import BadMetadata, BadSetting
from core.output.record import PROGRAM, Record
from core.settings import Settings, parse_setting, written_setting

SAMPLER_NAMES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "lcm": "LCM",
    "tcd": "TCD",
    "restart": "Restart",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
}
SCHEDULER_NAMES = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "turbo": "Turbo",
    "align_your_steps": "Align Your Steps",
}
# What says nothing about the picture itself.
NOT_OF_THE_PICTURE = ("image_number", "preview", "output_format", "save_metadata")

MOST_PAIRS = 500  # more are not looked at

_OWN = f"{PROGRAM} "
_NEGATIVE = "Negative prompt:"
_PLAIN = {"Steps": "steps", "CFG scale": "guidance_scale", "Seed": "seed", "Clip skip": "clip_skip"}
_KEY = re.compile(r"\w[\w \-/]{0,60}(?=:)")


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """What a text says: checked values by Settings field, and what could not be used by the text's own keys."""

    settings: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    model: str = ""  # a checkpoint's name without folder and ending
    model_hash: str = ""  # the first ten hex digits of its SHA-256


def to_text(record: Record) -> str:
    """The text form of `record`."""
    settings = record.settings
    pairs: list[tuple[str, Any]] = [
        ("Steps", settings.steps),
        ("Sampler", SAMPLER_NAMES.get(settings.sampler, settings.sampler)),
        ("Schedule type", SCHEDULER_NAMES.get(settings.scheduler, settings.scheduler)),
        ("CFG scale", settings.guidance_scale),
        ("Seed", settings.seed),
        ("Size", f"{settings.width}x{settings.height}"),
        ("Clip skip", settings.clip_skip),
    ]
    if settings.base_model:
        pairs += [("Model hash", record.base_model_sha256[:10])] if record.base_model_sha256 else []
        pairs += [("Model", PurePosixPath(settings.base_model.replace("\\", "/")).stem)]
    told = from_text(_join(settings, pairs)).settings
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name not in NOT_OF_THE_PICTURE and (f.name not in told or told[f.name] != value):
            pairs.append((_OWN + f.name, value))
    return _join(settings, [*pairs, ("Version", f"{PROGRAM} {record.version}")])


def from_text(text: str) -> TextForm:
    """Read a text form, ours or another program's. Raises BadMetadata if there is no line of parameters."""
    *lines, last = text.strip().split("\n")
    pairs = dict(islice(_pairs(last), MOST_PAIRS))
    if len(pairs) < 3:
        raise BadMetadata('The text has no line of parameters such as "Steps: 30, Sampler: Euler, Seed: 1".')
    settings: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    model, model_hash = pairs.pop("Model", ""), pairs.pop("Model hash", "")
    pairs.pop("Version", None)
    for key, value in sorted(pairs.items(), key=lambda pair: pair[0].startswith(_OWN)):  # ours last: they are exact
        for name, written in _translated(key, value):
            try:
                settings[name] = checked(name, parse_setting(name, written))
            except BadSetting:
                unknown[key] = shown(value)
    if not settings:
        raise BadMetadata("The text has parameters, but none that this program knows.")
    for name, prompt in zip(("prompt", "negative_prompt"), _prompts(lines), strict=True):
        try:
            settings.setdefault(name, checked(name, prompt))
        except BadSetting:
            unknown[name] = shown(prompt)
    return TextForm(settings=settings, unknown=unknown, model=model, model_hash=model_hash)


def shown(value: Any) -> str:
    """A value that cannot be used, short enough to be shown."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    return str(value) if len(str(value)) <= 200 else f"{str(value)[:200]}..."


def checked(name: str, value: Any) -> Any:
    """`value` as the Settings field `name` holds it. Raises BadSetting."""
    try:
        return getattr(Settings.from_dict({name: whole_text(value)}), name)
    except (OverflowError, RecursionError):  # a number beyond what a float can hold, lists in lists in lists
        raise BadSetting(f"{name} is of a size that no setting can have.") from None


def whole_text(value: Any) -> Any:
    """`value`; if it is text, without lone surrogates, which no file can hold (they become U+FFFD)."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _join(settings: Settings, pairs: list[tuple[str, Any]]) -> str:
    lines = [settings.prompt] if settings.prompt else []
    lines += [f"{_NEGATIVE} {settings.negative_prompt}"] if settings.negative_prompt else []
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs))
    return str(whole_text("\n".join(lines))).replace("\0", "")


def _quoted(value: Any) -> str:
    text = written_setting(value)
    if text and not re.search(r'[,:"\x00-\x1f]', text) and text.strip() == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The `key: value` pairs of a line. A value may be quoted as JSON text; what is no pair is passed over."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(line):
        if line[at] in " ,\t\r":
            at += 1
            continue
        key = _KEY.match(line, at)
        comma = line.find(",", at)
        end = comma if comma >= 0 else len(line)
        if key is None:
            at = end
            continue
        start = key.end() + 1
        while start < len(line) and line[start] == " ":
            start += 1
        value = line[start:end].strip()
        if line.startswith('"', start):
            with suppress(ValueError):  # an unclosed quote: taken as it stands
                value, end = decoder.raw_decode(line, start)
        yield key.group(), value
        at = max(end, start)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """The prompt and the negative prompt in front of the line of parameters."""
    lines = [line.strip() for line in lines]
    cut = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = [line.removeprefix(_NEGATIVE).strip() for line in lines[cut:]]
    return "\n".join(lines[:cut]), "\n".join(negative)


def _translated(key: str, value: str) -> list[tuple[str, str]]:
    """A pair of the text as pairs of a Settings field and its value, still text. A field nobody has for what is unknown."""
    if key.startswith(_OWN):
        return [(key.removeprefix(_OWN), value)]
    if key in _PLAIN:
        return [(_PLAIN[key], value)]
    if key == "Size" and (size := re.fullmatch(r"(\d{1,6})x(\d{1,6})", value)):
        return [("width", size[1]), ("height", size[2])]
    if key == "Schedule type":
        return [("scheduler", _internal(SCHEDULER_NAMES, value))]
    if key == "Sampler":
        for scheduler in ("karras", "exponential"):  # how the sampler and the schedule were said in one before 2024
            if value.endswith(f" {SCHEDULER_NAMES[scheduler]}"):
                name = value.removesuffix(f" {SCHEDULER_NAMES[scheduler]}")
                return [("sampler", _internal(SAMPLER_NAMES, name)), ("scheduler", scheduler)]
        return [("sampler", _internal(SAMPLER_NAMES, value))]
    return [("", value)]


def _internal(names: dict[str, str], shown: str) -> str:
    return next((name for name, display in names.items() if display == shown), shown)
