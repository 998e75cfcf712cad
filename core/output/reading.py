"""What a picture or text says of how it was made: the values that can be used, the files it names, and the rest, listed.

Every reader fills a `Reading` by its own table of names and gives back a `ReadMetadata`. No torch, no Pillow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from core.errors import BadMetadata, BadSetting
from core.output.record import Origin
from core.settings import Settings, check_setting

MOST_UNKNOWN = 200  # entries; more are not listed
MOST_LORAS = 50

_TYPES = {f.name: str(f.type) for f in fields(Settings)}
_NUMBER = re.compile(r"\s*[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?\s*")
_LORA_TAG = re.compile(r"<(?:lora|lyco):([^<>:]{1,300})(?::([^<>]{0,100}))?>")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model file or a style as a picture names it: perhaps without folder or ending, perhaps by its hash alone."""

    field: str  # of Settings: base_model, refiner_model, vae, loras, styles, ...
    name: str = ""
    hash: str = ""  # the first hex digits of a SHA-256, in small letters
    weight: float = 1.0  # of a LoRA
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class ReadMetadata:
    """What a picture or a text says of how it was made.

    `settings` holds only fields that were there and are valid; `unknown` what could not be used, by its own name; `named`
    the model files and styles that it names: `core.output.resolve.resolve` looks for them in what is installed here.
    `source` is the program: "easel", "a1111" (and all that write its text), "fooocus", "comfyui", "invokeai", "novelai",
    "swarmui". `origin` is the picture that this one was made from. `typed` has the settings that were typed otherwise: prompts
    with the wildcards, arrays and tags in them that chance has settled in `settings`. `embedded` are the positive and the
    negative text as they were encoded, with styles that are named nowhere: see `core.output.foreign.fooocus_styles`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    named: tuple[Named, ...] = ()
    source: str
    origin: Origin | None = None
    typed: dict[str, Any] = field(default_factory=dict)
    embedded: tuple[str, str] | None = None

    @property
    def model(self) -> str:
        """The checkpoint's name as it was written, "" if there is none."""
        return next((one.name for one in self.named if one.field == "base_model"), "")

    @property
    def model_hash(self) -> str:
        """The first digits of the checkpoint's SHA-256, "" if unknown."""
        return next((one.hash for one in self.named if one.field == "base_model"), "")


class Reading:
    """Collects what one file says; of two values for a field the later one counts."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.settings: dict[str, Any] = {}
        self.unknown: dict[str, str] = {}
        self.named: list[Named] = []
        self.embedded: tuple[str, str] | None = None

    def put(self, key: str, name: str, value: Any) -> bool:
        """Take `value` for the Settings field `name`, or list it under the file's own `key`. Text is read as a number."""
        try:
            self.settings[name] = checked(name, _typed(name, value))
        except BadSetting:
            self.reject(key, value)
            return False
        return True

    def put_all(self, values: dict[str, Any], table: Mapping[str, str]) -> None:
        """Move each key of `table` from `values` to the Settings field that the table names."""
        for key, name in table.items():
            if key in values:
                self.put(key, name, values.pop(key))

    def choose(self, key: str, name: str, value: Any, choices: Mapping[str, str]) -> bool:
        """Take for field `name` what the table says of the foreign word `value`, or list it."""
        if isinstance(value, str) and value in choices:
            return self.put(key, name, choices[value])
        self.reject(key, value)
        return False

    def name(
        self, name_of: str, name: Any, hash_: Any = "", *, weight: Any = 1.0, enabled: bool = True, key: str = ""
    ) -> None:
        """Note that the file names a model file or style for the field `name_of`."""
        name, hash_ = _file_name(name), hex_digits(hash_)
        strength = _typed("guidance_scale", weight)
        if not is_number(strength) or not -10 <= strength <= 10:
            self.reject(key or name_of, f"{name}: {shown(weight)}")
            return
        if (name or hash_) and len(self.named) < 4 * MOST_LORAS:
            named = Named(field=name_of, name=name, hash=hash_, weight=float(strength), enabled=enabled)
            if named not in self.named:
                self.named.append(named)

    def reject(self, key: str, value: Any) -> None:
        """List what cannot be used."""
        if len(self.unknown) < MOST_UNKNOWN:
            self.unknown[str(whole_text(key))[:200]] = shown(value)

    def leave(self, values: Mapping[str, Any], ignored: Iterable[str] = ()) -> None:
        """List all that is left in `values`, but for what is empty and what says nothing about the picture."""
        for key, value in values.items():
            if key not in ignored and value not in (None, "", [], {}):
                self.reject(key, value)

    def take_lora_tags(self, key: str) -> None:
        """Take `<lora:name:weight>` out of a prompt that was read, as the program that wrote it does."""
        text = self.settings.get(key)
        if not isinstance(text, str) or "<" not in text:
            return

        def taken(tag: re.Match[str]) -> str:
            weights = [part.rpartition("=")[2] for part in (tag[2] or "1").split(":")]
            self.name("loras", tag[1], weight=weights[0], key=tag[0])
            others = [other for other in weights[1:] if other != weights[0]]
            if others:  # only the first weight is used
                self.reject(tag[0], ", ".join(others))
            return ""

        text = _LORA_TAG.sub(taken, text)
        self.settings[key] = "\n".join(line.strip() for line in text.split("\n")).strip()

    def done(self) -> ReadMetadata:
        """Raises BadMetadata if nothing was understood."""
        if not self.settings and not self.named:
            raise BadMetadata("There is no setting in it that this program knows.")
        if self.source != "easel" and any(sign in str(self.settings.get("prompt")) for sign in ("[[", "__")):
            self.settings.setdefault("prompt_syntax", False)  # what looks like our syntax there is meant as it stands
        return ReadMetadata(
            settings=self.settings,
            unknown=self.unknown,
            named=tuple(self.named),
            source=self.source,
            embedded=self.embedded,
        )


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises BadMetadata, however deep it is nested and however long its numbers are."""
    try:
        values = json.loads(text, parse_int=_whole, parse_float=_real)
    except (ValueError, RecursionError) as problem:
        raise BadMetadata(f"The settings are damaged: they are no JSON ({type(problem).__name__}).") from None
    if not isinstance(values, dict):
        raise BadMetadata("The settings are damaged: they are no JSON object.")
    return values


def shown(value: Any) -> str:
    """A value that cannot be used, short enough to be shown."""
    if isinstance(value, (dict, list)):
        return "[...]" if isinstance(value, list) else "{...}"
    text = str(whole_text(str(value)))
    return text if len(text) <= 200 else f"{text[:200]}..."


def checked(name: str, value: Any) -> Any:
    """`value` as the Settings field `name` holds it. Raises BadSetting."""
    try:
        return check_setting(name, whole_text(value))
    except (OverflowError, RecursionError):  # a number beyond what a float can hold, lists in lists in lists
        raise BadSetting(f"{name} is of a size that no setting can have.") from None


def whole_text(value: Any) -> Any:
    """`value`; if it is text, without lone surrogates, which no file can hold (they become U+FFFD)."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def hex_digits(value: Any) -> str:
    """The start of a SHA-256 in small letters, "" for what is none (other kinds of hashes have a name in front)."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if re.fullmatch(r"[0-9a-f]{8,64}", text) else ""


def text_of(value: Any) -> str:
    """`value` if it is text, else ""."""
    return value if isinstance(value, str) else ""


def recogniser(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    """A test for an object that has one of the `keys`."""
    return lambda values: any(key in values for key in keys)


def _typed(name: str, value: Any) -> Any:
    """Text as the type that the field has, where it is that; lone words for true and false too."""
    if not isinstance(value, str):
        return value
    kind = _TYPES[name]
    if kind == "bool":
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    if kind in ("int", "float") and _NUMBER.fullmatch(value):
        try:
            return int(value)
        except ValueError:
            return float(value)
    return value


def _file_name(value: Any) -> str:
    name = str(whole_text(value)).strip() if isinstance(value, str) else ""
    return "" if name.lower() == "none" else name[:500]


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 40 else math.inf  # no setting takes an infinity


def _real(digits: str) -> float:
    return float(digits) if len(digits) <= 400 else math.inf
