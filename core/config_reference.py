"""config_reference: what the config.txt, the user_path_config.txt and the variables of Fooocus say of this installation.

None of it stops a start: what does not fit is told and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config_keys import READERS
from core.config_sources import list_or_text, read_object, value_of
from core.errors import BadConfig
from core.reference_keys import KEYS, PATHS, is_setting, legacy_paths, meaning_of, read_reference

FILES = ("config.txt", "user_path_config.txt")  # read, never written
UNUSED = "It is not used."


class Reference:
    """Its `values` by its keys, and in `notices` a sentence on each that is not used."""

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        self.values: dict[str, Any] = {}
        self.notices: list[str] = []
        self._origins: dict[str, str] = {}
        named = environ.get("config_path")
        for place in (named or root / FILES[0], root / FILES[1]):
            file = _file(place)
            if file:
                try:
                    self._take(legacy_paths(read_object(file)), file.name)
                except BadConfig as error:
                    self.notices.append(str(error))
            elif place == named:
                self.notices.append(f"config_path is {named!r}; there is no such file.")
        self._take({key: _of_variable(key, environ[key]) for key in KEYS if key in environ}, "the environment")

    def _take(self, values: Mapping[str, Any], origin: str) -> None:
        self.values |= values
        self._origins |= dict.fromkeys(values, origin)

    def tell(self, key: str, sentence: str) -> None:
        """Note `sentence` on `key`, with where the key is from."""
        self.notices.append(f"In {self._origins[key]}: {sentence}")

    def leave_out(self, key: str, sentence: str) -> None:
        """Drop the value of `key`, and note why."""
        self.tell(key, sentence)
        del self.values[key]

    def config(self, root: Path) -> dict[str, Any]:
        """The fields of Config among the values, checked."""
        reading = read_reference(self.values)
        for key, sentence in reading.refused.items():
            self.leave_out(key, sentence)
        unused: dict[str, list[str]] = {}
        for key in reading.unused:
            unused.setdefault(self._origins[key], []).append(key)
        for keys in unused.values():
            self.tell(keys[0], f"these mean nothing here: {', '.join(keys)}.")
        found = {}
        for key in list(self.values):
            meaning = meaning_of(key)
            if meaning and meaning.place == "config" and meaning.to in reading.config:
                try:
                    found[meaning.to] = READERS[meaning.to](reading.config[meaning.to], key, root)
                except BadConfig as error:
                    self.leave_out(key, f"{error} {UNUSED}")
        return found

    def settings(self) -> dict[str, Any]:
        """The values that belong into a preset, by the reference's keys."""
        return {key: value for key, value in self.values.items() if is_setting(key)}


def _file(place: str | Path) -> Path | None:
    try:
        file = Path(place).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError):  # too long a name, a home that nobody has
        return None


def _of_variable(key: str, text: str) -> Any:
    """The value of `key` that a variable of its name holds."""
    if key in PATHS:
        return list_or_text(text)
    return text if KEYS[key].is_text else value_of(text)
