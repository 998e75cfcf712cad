"""Styles: the library of looks that may be put around a prompt, and how they are put there."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadSetting
from core.prompt.style_files import PLACE, Style, read_styles, style_files, style_name

__all__ = [
    "EXPANSION",
    "PSEUDO",
    "RANDOM",
    "Style",
    "StyleLibrary",
    "Styles",
    "Text",
    "style_key",
    "styled",
]

log = logging.getLogger(__name__)

EXPANSION = "Fooocus V2"  # no style: asks for the prompt to be continued by the expansion model
RANDOM = "Random Style"  # a style drawn for each picture
PSEUDO = (EXPANSION, RANDOM)

OWN = Path(__file__).with_name("data") / "styles"
ALIASES = Path(__file__).with_name("data") / "style_aliases.json"

LONGEST = 200_000  # characters of all texts of a picture; the templates repeat the prompt


@dataclass(frozen=True)
class Text:
    """One text that is encoded by itself: `source` says where it is from: "prompt", "line 2" or a style's name."""

    text: str
    source: str


@dataclass(frozen=True)
class Styles:
    """The styles of the library as its files are at one moment, in the order of loading.

    `problems` has a sentence for each file, or entry of one, that cannot be used.
    """

    by_key: Mapping[str, Style]
    aliases: Mapping[str, str]  # keys of the reference's styles -> keys of ours that stand in for them
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Style]:
        return iter(self.by_key.values())

    def __len__(self) -> int:
        return len(self.by_key)

    def names(self) -> list[str]:
        """What may be chosen: "Fooocus V2", "Random Style", then all styles."""
        return [*PSEUDO, *(style.name for style in self)]

    def find(self, name: str) -> Style | None:
        """The style called `name`, in any spelling that comes to the same, or our counterpart of a reference's style."""
        key = style_key(name)
        return self.by_key.get(key) or self.by_key.get(self.aliases.get(key, ""))

    def near(self, name: str) -> str:
        """The name that comes closest to `name`, or ""."""
        near = difflib.get_close_matches(style_key(name), self.by_key, n=1, cutoff=0.7)
        return self.by_key[near[0]].name if near else ""

    def meant(self, name: str) -> str:
        """A sentence with a space before it that suggests the nearest name, or ""."""
        near = self.near(name)
        return f" Did you mean {near!r}?" if near else ""


class StyleLibrary:
    """The program's own style files and those in the user's folders.

    A later definition of a name wins: the user's over ours. Several threads may use one.
    """

    def __init__(self, folders: Sequence[Path] = (), *, own: Path | None = OWN) -> None:
        self._folders = (*([own] if own else ()), *folders)
        self._read: tuple[tuple[object, ...], Styles] | None = None

    def read(self) -> Styles:
        """The styles as the files are now; files are read only when one of them has changed, come or gone."""
        files = [file for folder in self._folders for file in style_files(folder)]
        state = tuple(_stamp(file) for file in files)
        if self._read is None or self._read[0] != state:
            styles = _read_all(files)
            self._read = state, styles
            for problem in styles.problems:
                log.warning("%s", problem)
        return self._read[1]


def styled(prompt: str, styles: Iterable[Style]) -> tuple[list[Text], list[Text]]:
    """The positive and negative texts that `styles` make of the main `prompt`, in the order in which they are encoded.

    Each line of a template is a text. If no template has a place for the prompt, the prompt is a text in front of them.
    Raises BadSetting if they come to more than LONGEST characters.
    """
    positive: list[Text] = []
    negative: list[Text] = []
    placed, length = False, len(prompt)
    for style in styles:
        placed = placed or PLACE in style.prompt
        length += len(style.prompt) + style.prompt.count(PLACE) * len(prompt) + len(style.negative_prompt)
        if length > LONGEST:
            raise BadSetting(
                f"With the style {style.name!r} the texts come to more than {LONGEST} characters. Choose fewer styles or "
                "a shorter prompt."
            )
        positive += [Text(line, style.name) for line in style.prompt.replace(PLACE, prompt).splitlines()]
        negative += [Text(line, style.name) for line in style.negative_prompt.splitlines()]
    if not placed:
        positive.insert(0, Text(prompt, "prompt"))
    return positive, negative


def _read_all(files: Sequence[Path]) -> Styles:
    styles: dict[str, Style] = {}
    problems: list[str] = []
    for file in files:
        found, wrong = read_styles(file)
        problems += wrong
        for style in found:
            if style_key(style.name) in map(style_key, PSEUDO):
                problems.append(f"The style file {file}: no style can be called {style.name!r}; it is left out.")
            else:
                styles[style_key(style.name)] = style
    table = json.loads(ALIASES.read_text(encoding="utf-8"))
    return Styles(
        styles, {style_key(old): style_key(name) for name, olds in table.items() for old in olds}, tuple(problems)
    )


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:  # gone since it was listed; reading it says so
        return str(file), -1, -1
    return str(file), status.st_size, status.st_mtime_ns


def style_key(name: str) -> str:
    """What all spellings of a style's name have in common."""
    return style_name(name).casefold()
