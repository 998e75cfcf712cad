"""Wildcards: `__color__` becomes a line of the file color.txt, drawn with the picture's own chance. No torch."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from core.errors import BadSetting

OWN = Path(__file__).with_name("data") / "wildcards"

MOST_ROUNDS = 64  # how deep wildcards may stand in the lines of wildcards
MOST_DRAWS = 1000  # a picture
LONGEST = 20_000  # characters that a prompt may grow to; a recorded prompt must fit into Settings
LARGEST_FILE = 2**24  # bytes

_UNKNOWN = re.compile(r"__([^\W_][\w-]*?)__")


class Wildcards:
    """The text files in the configured folders and their sub-folders, one alternative a line, then the program's own.

    A name is the file's stem (`color`) or its path (`nature/color`); of several with one name the first folder's counts.
    Files are read when they are needed and again when they change. Several threads may use one.
    """

    def __init__(self, folders: Sequence[Path] = (), *, own: Path | None = OWN) -> None:
        self.folders = (*folders, *([own] if own else ()))
        self._lines: dict[Path, tuple[tuple[int, int], tuple[str, ...]]] = {}  # size and time of change, lines

    def names(self) -> list[str]:
        """The names to offer: stems, and paths where two files have the same stem; sorted without regard to case."""
        files = self.files()
        offered = {name for name, path in files.items() if "/" not in name or files[path.stem] != path}
        return sorted(offered, key=lambda name: (name.lower(), name))

    def files(self) -> dict[str, Path]:
        """The file of each name. A link that leads out of its folder is not followed."""
        files: dict[str, Path] = {}
        for folder in self.folders:
            for path in _text_files(folder):
                files.setdefault(path.stem, path)
                files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        return files

    def lines(self, path: Path) -> tuple[str, ...]:
        """The alternatives in the file at `path`; empty lines are none. Raises OSError, UnicodeDecodeError, ValueError."""
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
        known, lines = self._lines.get(path, (None, ()))
        if known != stamp:
            if status.st_size > LARGEST_FILE:
                raise ValueError(f"it has {status.st_size >> 20} MB; at most {LARGEST_FILE >> 20} MB are read")
            text = path.read_text(encoding="utf-8-sig")
            lines = tuple(line for line in text.splitlines() if line.strip())
            self._lines[path] = stamp, lines
        return lines


class Drawing:
    """The wildcards of one picture: what was drawn, and what the user should know, in the order in which it happened.

    `chance` is the picture's own generator; with `in_order` the line at `index` (modulo their number) is taken instead.
    """

    def __init__(
        self,
        files: Callable[[], Mapping[str, Path]],
        lines: Callable[[Path], Sequence[str]],
        *,
        chance: Random,
        index: int = 0,
        in_order: bool = False,
    ) -> None:
        self._find, self._read = files, lines
        self._files: Mapping[str, Path] = {}
        self._lengths: list[int] = []
        self._chance, self._index, self._in_order = chance, index, in_order
        self.drawn: list[tuple[str, str]] = []  # wildcard as written, what it became
        self.notices: list[str] = []

    def expand(self, text: str) -> str:
        """`text` without wildcards, those in the lines of wildcards included.

        Each round replaces what stands there from left to right. A name that is not known, or whose file is empty, is
        replaced by itself, with a notice. Raises BadSetting where wildcards go round in circles or grow without bounds.
        """
        if "__" not in text:
            return text
        if not self._lengths:
            self._files = self._find()
            self._lengths = sorted({len(name) for name in self._files}, reverse=True) or [0]
        for _ in range(MOST_ROUNDS):
            found = list(self._tokens(text))
            if not found:
                return text
            text = self._round(text, found)
        name = found[0][2]
        raise BadSetting(
            f"The wildcard __{name}__ leads to wildcards more than {MOST_ROUNDS} deep, perhaps back to itself. Look at the "
            "lines of its file."
        )

    def _round(self, text: str, found: list[tuple[int, int, str]]) -> str:
        parts, at, length = [], 0, len(text)
        for start, end, name in found:
            value = self._value(name)
            parts += [text[at:start], value]
            at = end
            length += len(value) - (end - start)
            if length > LONGEST:
                raise BadSetting(
                    f"With the wildcard __{name}__ the prompt grows beyond {LONGEST} characters. Use fewer wildcards or "
                    "shorter lines."
                )
        return "".join(parts) + text[at:]

    def _value(self, name: str) -> str:
        lines = self._alternatives(name)
        if not lines:
            return name
        if len(self.drawn) == MOST_DRAWS:
            raise BadSetting(
                f"The prompt has more than {MOST_DRAWS} wildcards, counting those in the lines of wildcards (the last: "
                f"__{name}__). Use fewer."
            )
        value = lines[self._index % len(lines)] if self._in_order else self._chance.choice(lines)
        self.drawn.append((f"__{name}__", value))
        return value

    def _alternatives(self, name: str) -> Sequence[str]:
        path = self._files.get(name)
        if path is None:
            near = difflib.get_close_matches(name, self._files, n=1, cutoff=0.7)
            meant = f" Did you mean __{near[0]}__?" if near else ""
            self._tell(f"There is no wildcard file {name}.txt, so the word {name!r} itself was used.{meant}")
            return ()
        try:
            lines = self._read(path)
        except UnicodeDecodeError:
            self._tell(f"The wildcard file {path} is no UTF-8 text, so the word {name!r} was used. Save it as UTF-8.")
            return ()
        except (OSError, ValueError) as problem:
            self._tell(f"The wildcard file {path} cannot be read ({problem}), so the word {name!r} was used.")
            return ()
        if not lines:
            self._tell(f"The wildcard file {path} is empty, so the word {name!r} was used.")
        return lines

    def _tell(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    def _tokens(self, text: str) -> Iterator[tuple[int, int, str]]:
        """From where to where each wildcard reaches, and its name: the longest one known, else the shortest possible.

        So `__color____flower__` is two wildcards, and a line of underscores is none.
        """
        at = 0
        while (start := text.find("__", at)) >= 0:
            name = self._known(text, start + 2)
            if not name and (unknown := _UNKNOWN.match(text, start)):
                name = unknown[1]
            at = start + len(name) + 4 if name else start + 1
            if name:
                yield start, at, name

    def _known(self, text: str, start: int) -> str:
        for length in self._lengths:
            end = start + length
            if length and text.startswith("__", end) and text[start:end] in self._files:
                return text[start:end]
        return ""


def _text_files(folder: Path) -> Iterator[Path]:
    """All .txt files below `folder`, in the order of their names, none of them outside it."""
    root = os.path.realpath(folder)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if not name.lower().endswith(".txt") or name.startswith("."):
                continue
            path = Path(place) / name
            real = os.path.realpath(path)
            if Path(real).is_relative_to(root):
                yield path
