"""axes: one or two settings that go through several values: a grid of requests that differ in these alone. No torch."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from core.errors import BadSetting
from core.performance import MODES
from core.settings import Settings, check_setting, parse_setting
from core.weights.needs import names_meant

MOST_CELLS = 100
LONGEST_TEXT = 5000  # characters of an axis' values
NONE, ALL = "none", "all"  # no file or style; all choices of a field

# Fields that say nothing about one picture, or that a grid itself decides.
NO_AXIS = (
    "image_number", "image_grid", "preview", "output_format", "save_metadata", "seed_increment",
    "read_wildcards_in_order", "prompt_syntax",
)  # fmt: skip
# Fields that name a file, and the kind of files that it is among.
FILES = {
    "base_model": "checkpoints", "refiner_model": "checkpoints", "vae": "vae",
    "text_encoder_l": "text_encoders", "text_encoder_g": "text_encoders",
}  # fmt: skip
REPLACED = ("prompt", "negative_prompt")  # the first value is sought, and each value put in its place
# What a change of the setting costs before the next picture can begin: the dearest one changes least often.
COSTS = {"base_model": 3, "text_encoder_l": 3, "text_encoder_g": 3, "refiner_model": 3, "vae": 2, "loras": 1}

_FIELDS = {f.name: f for f in fields(Settings)}
_PLAIN = {name for name, f in _FIELDS.items() if f.type in ("int", "float", "bool") or "choices" in f.metadata}

SETTINGS: tuple[str, ...] = (
    *(n for n in _FIELDS if (n in _PLAIN and n not in NO_AXIS) or n in FILES or n in (*REPLACED, "styles", "loras")),
)

Names = Callable[[str], Sequence[str]]  # kind of file -> the names that there are

_NUMBER = r"([+-]?\d{1,20}(?:\.\d{1,6})?)"
_RANGE = re.compile(rf"{_NUMBER}\s*-\s*{_NUMBER}\s*(?:\(\s*{_NUMBER}\s*\)|\[\s*(\d{{1,4}})\s*\])?")


@dataclass(frozen=True)
class Axis:
    """A setting (one of SETTINGS) and its values as text, one for each column or row."""

    setting: str
    values: tuple[str, ...]

    @property
    def label(self) -> str:
        """The setting in words."""
        return self.setting.replace("_", " ")

    @property
    def text(self) -> str:
        """The values as `read_axis` reads them."""
        return ", ".join(
            f'"{v.replace(chr(34), chr(34) * 2)}"' if '"' in v or "," in v else v or NONE for v in self.values
        )

    def shown(self, index: int) -> str:
        """Value `index` as it stands on a sheet: a file without its folder and ending."""
        value = self.values[index]
        if self.setting in (*FILES, "loras"):
            value = value.rpartition("/")[2].removesuffix(".safetensors")
        return value or NONE


@dataclass(frozen=True)
class Cell:
    """One picture of a grid: where it stands on the sheet, and the request for it."""

    column: int
    row: int
    settings: Settings


@dataclass(frozen=True)
class Grid:
    """The columns of a sheet, and its rows if it has several."""

    x: Axis
    y: Axis | None = None

    def cells(self, settings: Settings) -> tuple[Cell, ...]:
        """The request for each cell, all alike but for the axes, in the order in which they are best made.

        Raises BadSetting where a value does not fit its setting, or where it could change nothing.
        """
        axes = [axis for axis in (self.x, self.y) if axis is not None]
        columns, rows = len(self.x.values), len(self.y.values) if self.y else 1
        if columns * rows > MOST_CELLS:
            raise BadSetting(
                f"{columns} x {rows} values are {columns * rows} pictures; at most {MOST_CELLS} are possible in one grid. "
                "Leave some out."
            )
        if len(axes) == 2 and axes[0].setting == axes[1].setting and axes[0].setting not in (*REPLACED, "loras"):
            raise BadSetting(f"Both axes vary {axes[0].label}. Choose another setting for one of them.")
        for axis in axes:
            _check_sought(axis, settings)
        _check_apart(axes, settings)
        places = [(column, row) for row in range(rows) for column in range(columns)]
        if self.y and COSTS.get(self.x.setting, 0) > COSTS.get(self.y.setting, 0):
            places.sort()
        base = replace(settings, image_number=1, image_grid=False)
        cells = []
        for column, row in places:
            request = _with(base, [(axis, axis.values[n]) for axis, n in zip(axes, (column, row), strict=False)])
            for axis in axes:
                _check_free(axis, request)
            cells.append(Cell(column, row, request))
        return tuple(cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grid:
        """What `to_dict` gave. Raises BadSetting for anything else."""
        try:
            x, y = (axis and Axis(str(axis["setting"]), tuple(map(str, axis["values"]))) for axis in _pair(values))
        except (KeyError, TypeError):
            raise BadSetting("The grid is damaged.") from None
        for axis in (x, y):
            if axis and (axis.setting not in SETTINGS or not axis.values):
                raise BadSetting(f"{axis.setting[:100]!r} cannot be an axis.")
        if not x:
            raise BadSetting("The grid is damaged: it has no columns.")
        return cls(x, y)


def read_axis(setting: str, text: str, names: Names) -> Axis:
    """The axis of `setting` with the values written in `text`: `1, 2, 3`, `1-9 (+2)`, `1-9 [3]`, names, words.

    Values are parted by commas or line ends; one that holds a comma stands in double quotes. `names` lists the files and
    styles there are; a part of a name is enough if it is in one name only. Raises BadSetting.
    """
    if setting not in SETTINGS:
        raise BadSetting(f"{setting[:100]!r} cannot be an axis. Choose one of: {', '.join(SETTINGS)}.")
    if len(text) > LONGEST_TEXT:
        raise BadSetting(f"The values have {len(text)} characters; at most {LONGEST_TEXT} are possible.")
    written = _parted(text)
    words = setting.replace("_", " ")
    if not written:
        raise BadSetting(f"There are no values for {words}. Write them like this: {example(setting)}")
    if setting in FILES:
        values = [_file(value, setting, names(FILES[setting])) for value in written]
    elif setting == "styles":
        values = [_styles(value, names("styles")) for value in written]
    elif setting in REPLACED:
        values = written
    elif setting == "loras":
        values = [number for value in written for number in _lora_weights(value)]
    else:
        values = [found for value in written for found in _plain(setting, value)]
    values = list(dict.fromkeys(values))
    if setting in REPLACED and len(values) < 2:
        raise BadSetting(f"{words} needs the words to seek and at least one to put there: {example(setting)}")
    if len(values) > MOST_CELLS:
        raise BadSetting(f"{words} has {len(values)} values; at most {MOST_CELLS} are possible.")
    return Axis(setting, tuple(values))


def example(setting: str) -> str:
    """How the values of `setting` may be written."""
    if setting in REPLACED:
        return "apple, pear, plum   (apple is sought, and stays in the first)"
    if setting == "loras":
        return "0.4, 0.6, 0.8   or   ink:0.4, ink:0.8 for one of them"
    if setting == "styles":
        return f"{NONE}, First style, Second style + Third style"
    if setting in FILES:
        return "parts of file names" if setting == "base_model" else f"{NONE}, parts of file names"
    limits = _FIELDS[setting].metadata
    if "choices" in limits:
        return f"{ALL}   or some of: {', '.join(limits['choices'])}"
    if _FIELDS[setting].type == "bool":
        return "true, false"
    if limits.get("multiple", 1) > 1:
        return "512, 768, 1024   or   512-1024 (+128)"
    if limits["high"] >= 9:
        return "2, 4, 8   or   1-9 (+2)"
    return "1, 2, 3   or   1-5 (+2)" if _FIELDS[setting].type == "int" else "0.2, 0.5, 0.8   or   0.2-0.8 (+0.2)"


def _pair(values: Mapping[str, Any]) -> tuple[Any, Any]:
    return values["x"], values.get("y")


def _parted(text: str) -> list[str]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        return [value.strip() for row in rows for value in row if value.strip()]
    except csv.Error as problem:
        raise BadSetting(f"The values cannot be read ({problem}). Part them by commas.") from None


def _plain(setting: str, value: str) -> list[str]:
    """The values that `value` stands for: itself, the numbers of a range, all choices."""
    limits = _FIELDS[setting].metadata
    if "choices" in limits:
        if value.lower() == ALL:
            return list(limits["choices"])
        value = value.lower().replace(" ", "_")
    elif _FIELDS[setting].type in ("int", "float"):
        numbers = _range(value, whole=_FIELDS[setting].type == "int")
        for number in numbers:
            check_setting(setting, parse_setting(setting, number))
        return numbers
    check_setting(setting, parse_setting(setting, value))
    return [value]


def _range(text: str, whole: bool) -> list[str]:
    found = _RANGE.fullmatch(text)
    if found is None:
        return [text]
    start, end = Decimal(found[1]), Decimal(found[2])
    if found[4]:
        count = int(found[4])
        if not 2 <= count <= MOST_CELLS:
            raise BadSetting(f"{text} has {count} values; 2 to {MOST_CELLS} are possible.")
        numbers = [start + (end - start) * n / (count - 1) for n in range(count)]
        unit = Decimal(1) if whole else Decimal("0.0001")
        return [_written(number.quantize(unit, ROUND_HALF_UP)) for number in numbers]
    step = Decimal(found[3]) if found[3] else Decimal(1 if end >= start else -1)
    if start != end and (not step or (end > start) != (step > 0) or abs(step) > abs(end - start)):
        raise BadSetting(f"{text} is no range. Write first, last and distance like this: 1-9 (+2) or 0.8-0.2 (-0.2).")
    count = int((end - start) / step) + 1 if step else 1
    if count > MOST_CELLS:
        raise BadSetting(f"{text} has {count} values; at most {MOST_CELLS} are possible.")
    return [_written(start + step * n) for n in range(count)]


def _written(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _lora_weights(value: str) -> list[str]:
    """`0.8`, `0.2-0.8 (+0.2)`, and either of them behind a part of a LoRA's name and a colon."""
    name, colon, numbers = value.rpartition(":")
    found = []
    for number in _range(numbers.strip(), whole=False):
        try:
            float(number)
        except ValueError:
            raise BadSetting(f"{value[:100]!r} is no weight. Write for example: {example('loras')}") from None
        found.append(f"{name.strip()}{colon}{number}")
    return found


def _file(value: str, setting: str, there: Sequence[str]) -> str:
    if value.lower() == NONE and setting != "base_model":
        return ""
    found = names_meant(value, there) or [name for name in there if value.casefold() in name.casefold()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadSetting(
            f"No file for {setting.replace('_', ' ')} is called {value[:100]!r}. There are: {_some(there)}."
        )
    raise BadSetting(f"{value[:100]!r} could be {_some(found)}. Write more of the name.")


def _styles(value: str, there: Sequence[str]) -> str:
    if value.lower() == NONE:
        return ""
    by_name = {name.lower(): name for name in there}
    chosen = [one.strip() for one in value.split(" + ")]
    for one in chosen:
        if there and one.lower() not in by_name:
            raise BadSetting(f"There is no style {one[:100]!r}. There are: {_some(there)}.")
    return " + ".join(by_name.get(one.lower(), one) for one in chosen)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _check_sought(axis: Axis, settings: Settings) -> None:
    if axis.setting in REPLACED and axis.values[0] not in getattr(settings, axis.setting):
        raise BadSetting(
            f"{axis.values[0][:100]!r} is not in the {axis.label}. The first value is what the others take the place of."
        )
    if axis.setting == "loras" and not any(lora.enabled for lora in settings.loras):
        raise BadSetting("No LoRA is chosen, so there is no weight to vary. Choose one first.")


def _check_apart(axes: Sequence[Axis], settings: Settings) -> None:
    """Raises BadSetting where what one axis seeks stands only in what the other one seeks."""
    if len(axes) == 2 and axes[0].setting == axes[1].setting and axes[0].setting in REPLACED:
        text = getattr(settings, axes[0].setting)
        if len(set(_sought([axis.values[0] for axis in axes]).findall(text))) < 2:
            raise BadSetting(f"Both axes vary {axes[0].label}. Choose another setting for one of them.")


def _check_free(axis: Axis, request: Settings) -> None:
    mode = MODES[request.performance]
    if axis.setting in mode.forced or axis.setting in mode.idle:
        raise BadSetting(
            f"The performance mode {mode.label} decides over {axis.label} itself. Choose the mode "
            f"{MODES['custom'].label} to vary it."
        )


def _with(settings: Settings, chosen: Sequence[tuple[Axis, str]]) -> Settings:
    """`settings` with one value of each axis."""
    for setting in REPLACED:
        words = {axis.values[0]: value for axis, value in chosen if axis.setting == setting}
        if words:
            text: Any = _exchanged(getattr(settings, setting), words)
            settings = replace(settings, **{setting: text})
    for axis, value in chosen:
        if axis.setting not in REPLACED:
            settings = _changed(settings, axis, value)
    return settings


def _exchanged(text: str, words: Mapping[str, str]) -> str:
    """`text` with each of `words` replaced, all at once: none is sought in what took the place of another one."""
    return _sought(words).sub(lambda found: words[found[0]], text)


def _sought(words: Iterable[str]) -> re.Pattern[str]:
    """Any of `words`, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))


def _changed(settings: Settings, axis: Axis, value: str) -> Settings:
    """`settings` with one value of an axis that replaces no words."""
    if axis.setting == "styles":
        return replace(settings, styles=tuple(value.split(" + ")) if value else ())
    if axis.setting == "loras":
        name, _, weight = value.rpartition(":")
        chosen = [lora for lora in settings.loras if lora.enabled]
        meant = [lora for lora in chosen if name.lower() in lora.name.lower()]
        if not meant:
            there = ", ".join(lora.name for lora in chosen)
            raise BadSetting(f"No chosen LoRA is called {name[:100]!r}. Chosen are: {there}.")
        loras = [replace(lora, weight=float(weight)) if lora in meant else lora for lora in settings.loras]
        return replace(settings, loras=tuple(loras))
    return replace(settings, **{axis.setting: parse_setting(axis.setting, value)})
