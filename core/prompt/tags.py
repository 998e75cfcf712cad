"""Tags in a prompt: `<lora:NAME:WEIGHT>` adds a LoRA, `<style:NAME>` a style, to the pictures of this prompt only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from core.errors import BadSetting
from core.performance import MODES
from core.settings import Lora

MOST_LORAS = 50  # of a picture; as many as Settings holds
HEAVIEST = 10.0  # as in Settings

_LORA = re.compile(r"<lora:([^:<>]+):([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))>")
_NEARLY_LORA = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)
_STYLE = re.compile(r"<style:([^<>]*)>")


class LoraNames:
    """Finds LoRA files by the names that people type: path or stem, with or without ending, in any case.

    A file's whole path comes first, then the file that is in the fewest folders.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._exact: dict[str, str] = {}
        paths = [(PurePosixPath(file.replace("\\", "/")), file) for file in files]
        for path, file in paths:
            for name in (str(path), str(path.with_suffix(""))):
                self._exact.setdefault(name, file)
        for path, file in sorted(paths, key=lambda pair: len(pair[0].parts)):
            for name in (path.name, path.stem):
                self._exact.setdefault(name, file)
        self._any_case: dict[str, str] = {}
        for name, file in self._exact.items():
            self._any_case.setdefault(name.casefold(), file)

    def find(self, name: str) -> str | None:
        """The file called `name`, the first if there are several; None if there is none."""
        name = name.strip().replace("\\", "/")
        return self._exact.get(name) or self._any_case.get(name.casefold())

    def near(self, name: str) -> str:
        """A hint at the file that was meant, or at what a tag takes."""
        near = difflib.get_close_matches(name.casefold(), self._any_case, n=1, cutoff=0.7)
        return (
            f"Did you mean {PurePosixPath(self._any_case[near[0]]).stem!r}?" if near else "Is its file in the folder?"
        )


def take_loras(text: str, names: LoraNames, performance: str = "custom") -> tuple[str, list[Lora], list[str]]:
    """`text` without its LoRA tags, the LoRAs, and what the user should know.

    What only looks like a tag (no weight, say) stays in the text. Raises BadSetting for a weight beyond HEAVIEST.
    """
    loras: list[Lora] = []
    notices: list[str] = []
    own = MODES[performance].lora

    def take(tag: re.Match[str]) -> str:
        name, weight = tag[1], float(tag[2])
        file = names.find(name)
        if abs(weight) > HEAVIEST:
            raise BadSetting(f"{tag[0][:200]} has the weight {tag[2][:20]}; it must be from -{HEAVIEST} to {HEAVIEST}.")
        if file is None:
            notices.append(f"There is no LoRA {name[:200]!r}, so its tag does nothing. {names.near(name[:200])}")
        elif own is not None and PurePosixPath(file).name == own.file:
            notices.append(f"{tag[0]} does nothing: the mode {MODES[performance].label} brings this LoRA along.")
        else:
            loras.append(Lora(file, weight))
        return ""

    left = _LORA.sub(take, text)
    notices += [
        f"{found[:200]} is no tag; one is written <lora:NAME:WEIGHT>, such as <lora:film:0.8>."
        for found in _NEARLY_LORA.findall(left)
    ]
    return left, loras, notices


def with_tags(rows: Sequence[Lora], inline: Sequence[Lora], most: int) -> tuple[tuple[Lora, ...], list[str]]:
    """The LoRAs of a picture, at most `most`: enabled `rows`, then those of tags, and notices of what was left out.

    A tag does not act on a file that is among the rows; the same file twice in tags acts twice unless the weight is
    the same too. Without new ones the rows stay as they are, however many.
    """
    enabled = tuple(row for row in rows if row.enabled and row.name not in ("", "None"))
    taken = {_same(row.name) for row in enabled}
    new = [lora for lora in dict.fromkeys(inline) if _same(lora.name) not in taken]
    notices = [
        f"The LoRA {lora.name} is chosen already; its tag with the weight {lora.weight:g} does nothing."
        for lora in dict.fromkeys(inline)
        if _same(lora.name) in taken
    ]
    if not new:
        return enabled, notices
    left_out = [lora.name for lora in (*enabled, *new)[most:]]
    if left_out:
        notices.append(f"At most {most} LoRAs are possible; these were left out: {', '.join(left_out)}.")
    return (*enabled, *new)[:most], notices


def take_styles(text: str) -> tuple[str, list[str]]:
    """`text` without its style tags, and the styles that they name, in order."""
    return _STYLE.sub("", text), [name.strip() for name in _STYLE.findall(text)]


def _same(name: str) -> str:
    return name.replace("\\", "/").casefold()
