"""The styles of a Fooocus picture whose text does not name them, found by what they put around the prompt.

Such a text has the prompts as they were typed, and as they were encoded: the texts of all styles in the order of the
styles, then further lines of the prompt, then the prompt as the style Fooocus V2 continued it, joined by comma and blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from core.output.reading import Named, ReadMetadata, shown
from core.prompt.style_files import PLACE, Style
from core.prompt.styles import EXPANSION

_DONE = "\0"  # takes the place of what is explained, so that everything else stays where it is
_LORA_TAG = re.compile(r"<lora:[^<>]{1,400}>")


class _Found(NamedTuple):
    name: str
    positive: int  # where its texts begin, -1 if it has none
    negative: int


def with_recovered_styles(read: ReadMetadata, styles: Iterable[Style]) -> ReadMetadata:
    """`read` with those of `styles` named whose texts stand in its `embedded` ones; the rest of these in `unknown`.

    A reading without `embedded` stays as it is.
    """
    if read.embedded is None:
        return read
    main, *more = _lines(read.settings.get("prompt", "")) or [""]
    negative_lines = _lines(read.settings.get("negative_prompt", ""))
    positive, negative = (_Embedded(text) for text in read.embedded)
    acting = [style for style in styles if style.prompt.strip() not in ("", PLACE) or style.negative_prompt.strip()]
    acting.sort(key=lambda style: len(style.prompt) + len(style.negative_prompt), reverse=True)
    if main not in positive.left:
        main = _inferred(positive.left, acting) or main

    def taken(style: Style) -> _Found | None:
        parts = (positive, _filled(style.prompt, main, len(positive.left))), (negative, _filled(style.negative_prompt))
        places = [text.find(part) if part else -1 for text, part in parts]
        if any(part and place < 0 for (_, part), place in zip(parts, places, strict=True)):
            return None
        for (text, part), place in zip(parts, places, strict=True):
            text.take(place, len(part))
        return _Found(style.name, *places)

    found = [one for style in acting if PLACE in style.prompt and (one := taken(style))]
    if not found and positive.find(main) == 0:  # else that is where the continued prompt begins
        positive.take(0, len(main))
    for line in more:
        positive.take(positive.find(line), len(line))
    expansion = positive.take_continued(main)
    found += [one for style in acting if PLACE not in style.prompt and (one := taken(style))]
    for line in negative_lines:
        negative.take(negative.find(line), len(line))

    names = [*([EXPANSION] if expansion else []), *_in_order(found)]
    settings = (
        read.settings | ({"prompt_expansion": expansion} if expansion else {}) | ({} if names else {"styles": ()})
    )
    rest = {"Raw prompt with styles": positive.rest(), "Raw negative prompt with styles": negative.rest()}
    return replace(
        read,
        settings=settings,
        named=(*read.named, *(Named(field="styles", name=name) for name in names)),
        unknown=read.unknown | {key: shown(text) for key, text in rest.items() if text},
        embedded=None,
    )


class _Embedded:
    """A text of several that were joined; `left` is what of it is not explained yet."""

    def __init__(self, text: str) -> None:
        self.left = text

    def find(self, part: str) -> int:
        """Where `part` stands as one or more whole texts, -1 for nowhere."""
        if not part or part not in self.left:
            return -1
        found = re.search(rf"(?:^|, )\s*({re.escape(part)})(?=\s*(?:, |$))", self.left)
        return found.start(1) if found else -1

    def take(self, place: int, length: int) -> None:
        """Explain what stands at `place`; -1 is nothing."""
        if place >= 0:
            self.left = self.left[:place] + _DONE * length + self.left[place + length :]

    def take_continued(self, main: str) -> str:
        """Explain the `main` prompt and all that follows it at the end, and return it; "" if it is not there."""
        begin = self.left.rfind(_DONE) + 1
        found = re.search(rf"(?:^|, )({re.escape(main)}(?!\w).*)$", self.left[begin:], re.DOTALL) if main else None
        if not found:
            return ""
        self.take(begin + found.start(1), len(found[1]))
        return found[1].strip()

    def rest(self) -> str:
        """What is not explained."""
        return ", ".join(part.strip() for part in re.split(rf", |{_DONE}+", self.left) if part.strip(" ,."))


def _lines(text: str) -> list[str]:
    """The lines of a prompt as Fooocus encodes them: without LoRA tags, with single blanks and commas."""
    lines = [_LORA_TAG.sub("", line) for line in text.split("\n")]
    items = [[" ".join(item.split()) for item in line.strip(" ,.\r").split(",")] for line in lines]
    return [line for line in (", ".join(filter(None, parts)) for parts in items) if line]


def _filled(template: str, main: str = "", longest: int = 0) -> str:
    """What a template becomes in a text; what is in no text if that would be longer than `longest` characters."""
    if template.count(PLACE) * len(main) > max(longest, len(template)):
        return _DONE
    return ", ".join(line for line in template.replace(PLACE, main).splitlines() if line.strip()).strip()


def _inferred(text: str, styles: Iterable[Style]) -> str:
    """The prompt that stands in a style's place, where wildcards or arrays made another of what was typed; "" if none."""
    for style in styles:
        head, place, tail = next((line for line in style.prompt.splitlines() if PLACE in line), "").partition(PLACE)
        begin = text.find(head) + len(head) if place and tail and head in text else -1
        end = text.find(tail, begin) if begin >= 0 else -1
        if end > begin:
            return text[begin:end]
    return ""


def _in_order(found: Iterable[_Found]) -> list[str]:
    """The names in the order in which their texts stand; a style with a negative text alone goes by that one."""
    found = list(found)
    placed = sorted((one for one in found if one.positive >= 0), key=lambda one: one.positive)
    for one in sorted((one for one in found if one.positive < 0), key=lambda one: one.negative):
        after = (i for i, other in enumerate(placed) if other.negative > one.negative)
        placed.insert(next(after, len(placed)), one)
    return [one.name for one in placed]
