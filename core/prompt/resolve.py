"""One picture's texts: wildcards, arrays, tags, styles, in the order that makes a seed the same picture everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from core.errors import BadSetting
from core.prompt.arrays import combinations, expand_arrays
from core.prompt.lines import clean_lines, tidy
from core.prompt.resources import Lookup
from core.prompt.styles import EXPANSION, RANDOM, Style, Text, style_key, styled
from core.prompt.tags import take_loras, take_styles, with_tags
from core.prompt.wildcards import LONGEST, Drawing
from core.settings import Lora, Settings

MOST_TEXTS = 500  # a side of a picture; each is encoded by itself


@dataclass(frozen=True)
class Choice:
    """A wildcard or array as it is written, and what it became."""

    written: str
    became: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the prompts of one picture become, part by part.

    `positive` and `negative` are encoded text by text in this order. `main` is what the expansion model continues if
    `expansion` is set; its text comes last and counts in no pooled vector. `prompt` and `negative_prompt` are the
    prompts without wildcards, arrays and tags; `combinations` is how many different texts the arrays make.
    """

    main: str
    prompt: str
    negative_prompt: str
    positive: tuple[Text, ...]
    negative: tuple[Text, ...]
    styles: tuple[str, ...]
    expansion: bool
    loras: tuple[Lora, ...]
    choices: tuple[Choice, ...]
    combinations: int
    notices: tuple[str, ...]
    as_typed: bool  # no wildcard, array or tag changed the prompts

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON."""
        return asdict(self)


def resolve(settings: Settings, index: int, seed: int, lookup: Lookup) -> Resolved:
    """The texts of picture `index` of a request. Raises BadSetting where they go round in circles or beyond bounds.

    The picture's own generator is seeded with `seed` and used for the wildcards of the main prompt, of the main negative
    prompt, of the other lines, of the other negative lines, then for random styles.
    """
    chance = Random(seed)
    lines = _expanded(settings, index, chance, lookup) if settings.prompt_syntax else _as_it_stands(settings)
    chosen = {style_key(name) for name in settings.styles}
    tagged = {style_key(name): name for name in lines.styles}
    names = (*settings.styles, *(name for key, name in tagged.items() if key not in chosen))
    expansion = any(style_key(name) == style_key(EXPANSION) for name in names)
    styles = _found(names, chance, lookup, lines.notices)
    loras, told = with_tags(settings.loras, lines.loras, lookup.resources.most_loras)
    positive, negative = styled(lines.positive[0], [style for style in styles if style])
    positive += _numbered(lines.positive)[1:]
    negative += _numbered(lines.negative)
    for side, texts in (("prompt", positive), ("negative prompt", negative)):
        if len(texts) > MOST_TEXTS:
            raise BadSetting(
                f"The {side} and the styles come to {len(texts)} lines; at most {MOST_TEXTS} are possible."
            )
    return Resolved(
        main=lines.positive[0],
        prompt="\n".join(lines.positive),
        negative_prompt="\n".join(lines.negative),
        positive=_full(positive) or (Text(lines.positive[0], "prompt"),),
        negative=_full(negative) or (Text(lines.negative[0], "prompt"),),
        styles=tuple(style.name if style else EXPANSION for style in styles),
        expansion=expansion and bool(lines.positive[0]),
        loras=loras,
        choices=tuple(lines.choices),
        combinations=lines.combinations,
        notices=tuple(dict.fromkeys((*lines.notices, *told))),
        as_typed=lines.as_typed,
    )


@dataclass
class _Lines:
    """The lines of both prompts on their way, the main one first, and what was met on it."""

    positive: list[str]
    negative: list[str]
    styles: list[str] = field(default_factory=list)
    loras: list[Lora] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    combinations: int = 1
    notices: list[str] = field(default_factory=list)
    as_typed: bool = True

    def take_tags(self, lines: list[str], lookup: Lookup, performance: str) -> None:
        """Take the tags out of `lines`, in place."""
        for number, line in enumerate(lines):
            if "<lora:" not in line.lower() and "<style:" not in line:
                continue
            text, styles = take_styles(line)
            self.styles += styles
            if "<lora:" in text.lower():
                text, loras, notices = take_loras(text, lookup.loras, performance)
                self.loras += loras
                self.notices += notices
            if text != line:
                lines[number] = tidy(text)
                self.as_typed = False


def _as_it_stands(settings: Settings) -> _Lines:
    return _Lines(settings.prompt.split("\n"), settings.negative_prompt.split("\n"))


def _expanded(settings: Settings, index: int, chance: Random, lookup: Lookup) -> _Lines:
    lines = _Lines(clean_lines(settings.prompt) or [""], clean_lines(settings.negative_prompt) or [""])
    lines.positive[0] = tidy(lines.positive[0])
    drawing = Drawing(
        lambda: lookup.wildcards,
        lookup.resources.wildcards.lines,
        chance=chance,
        index=index,
        in_order=settings.read_wildcards_in_order,
    )
    for side, part in (
        (lines.positive, slice(1)),
        (lines.negative, slice(1)),
        (lines.positive, slice(1, None)),
        (lines.negative, slice(1, None)),
    ):
        side[part] = [drawing.expand(line) for line in side[part]]
    lines.combinations = combinations(lines.positive[0])
    lines.positive[0], arrays = expand_arrays(lines.positive[0], index)
    lines.choices = [Choice(*pair) for pair in (*drawing.drawn, *arrays)]
    lines.notices = list(drawing.notices)
    lines.as_typed = not (lines.choices or drawing.notices)
    if any(combinations(line) > 1 for line in (*lines.positive[1:], *lines.negative)):
        lines.notices.append(
            "Arrays such as [[red, green]] act in the first line of the prompt; in others they are plain text."
        )
    lines.take_tags(lines.positive, lookup, settings.performance)
    acting = len(lines.styles), len(lines.loras)
    lines.take_tags(lines.negative, lookup, settings.performance)
    if (len(lines.styles), len(lines.loras)) != acting:
        del lines.styles[acting[0] :], lines.loras[acting[1] :]
        lines.notices.append(
            "Tags such as <lora:...> and <style:...> do nothing in the negative prompt; they were taken out."
        )
    longest = max(sum(map(len, side)) + len(side) - 1 for side in (lines.positive, lines.negative))
    if longest > LONGEST and not lines.as_typed:
        raise BadSetting(
            f"With its wildcards the prompt has {longest} characters; at most {LONGEST} are possible. Shorten it."
        )
    return lines


def _found(names: Iterable[str], chance: Random, lookup: Lookup, notices: list[str]) -> list[Style | None]:
    """The style of each name, None for the expansion; what is not in the library is left out, with a notice.

    Different names of one style count once. The same name twice is how a random draw that hit a chosen style is recorded.
    """
    found: list[Style | None] = []
    named: dict[Style | None, str] = {}
    for name in names:
        style = lookup.styles.find(name)
        if style_key(name) == style_key(RANDOM) and len(lookup.styles):
            found.append(chance.choice(list(lookup.styles)))
        elif style is not None or style_key(name) == style_key(EXPANSION):
            if named.setdefault(style, name) == name:
                found.append(style)
        else:
            notices.append(f"There is no style {name[:200]!r}, so it was left out.{lookup.styles.meant(name)}")
    return found


def _numbered(lines: list[str]) -> list[Text]:
    return [Text(line, f"line {number}" if number > 1 else "prompt") for number, line in enumerate(lines, 1)]


def _full(texts: Iterable[Text]) -> tuple[Text, ...]:
    return tuple(text for text in texts if text.text)
