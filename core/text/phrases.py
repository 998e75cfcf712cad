"""The program's own expander: a few phrases on what the prompt leaves open, drawn with the seed. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, Protocol

from core.prompt.continuation import cleaned

PHRASES = Path(__file__).with_name("data") / "phrases.json"
CHUNK = 75  # tokens that a text encoder reads at once
KNOWN_SHARE = 0.5  # of the general phrases: a model that knows fewer is told about its own few subjects
SMALL_WORDS = frozenset({"a", "and", "in", "of", "the", "with"})


class Words(Protocol):
    """The side of `core.text.vocabulary.Vocabulary` that matters here."""

    def knows(self, text: str) -> bool:
        """Whether the model knows every word of `text`."""

    def length(self, text: str) -> int:
        """How many tokens `text` has."""


@dataclass(frozen=True)
class Group:
    """Phrases of one subject, of which `least` to `most` are taken; none if the texts hold a word of `unless`."""

    of: str
    phrases: tuple[str, ...]
    least: int
    most: int
    unless: re.Pattern[str]


@dataclass(frozen=True)
class Clash:
    """Phrases that do not go with texts that hold a word of `with_`."""

    phrases: frozenset[str]
    with_: re.Pattern[str]


class Phrases:
    """Continues prompts by phrases from a table: `general` ones, or for models that know few words `small` ones.

    Left out is a phrase that repeats a word of the prompt or its styles, speaks of what they speak of already, has a word of
    the negative prompt, or is not known to the model. The same prompt, seed and model give the same text everywhere.
    """

    def __init__(self, table: Path = PHRASES) -> None:
        self._table = table

    def __call__(self, prompt: str, seed: int, words: Words, *, said: str = "", unwanted: str = "") -> str:
        """`prompt` and what is added to it, or `prompt` alone where there is nothing to add; "" for an empty one.

        `said` are all other texts that describe the picture, `unwanted` the negative ones. The text needs no more chunks of
        tokens than the prompt does, as with the GPT-2 expander.
        """
        text = cleaned(prompt)
        if not text:
            return ""
        chance = Random(seed)
        texts = f"{text}, {said}"
        room = -(-words.length(f"{text},") // CHUNK) * CHUNK
        taken: list[str] = []
        for group in self._groups(words):
            number = chance.randint(group.least, group.most)
            order = chance.sample(group.phrases, len(group.phrases))  # drawn in any case: what follows stays the same
            if group.unless.search(texts):
                continue
            for phrase in order:
                if not number:
                    break
                if self._fits(phrase, [texts, *taken], unwanted) and words.knows(phrase):
                    if words.length(", ".join([text, *taken, phrase])) > room:
                        return ", ".join([text, *taken])
                    taken.append(phrase)
                    number -= 1
        return ", ".join([text, *taken])

    def _groups(self, words: Words) -> Sequence[Group]:
        phrases = [phrase for group in self._of["general"] for phrase in group.phrases]
        known = sum(words.knows(phrase) for phrase in phrases)
        return self._of["general" if known >= KNOWN_SHARE * len(phrases) else "small"]

    def _fits(self, phrase: str, said: Sequence[str], unwanted: str) -> bool:
        own = _words([phrase])
        if own & (_words(said) | _words([unwanted])):
            return False
        return not any(phrase in clash.phrases and clash.with_.search(" ".join(said)) for clash in self._clashes)

    @cached_property
    def _tables(self) -> Mapping[str, Any]:
        tables: Mapping[str, Any] = json.loads(self._table.read_text(encoding="utf-8"))
        return tables

    @cached_property
    def _of(self) -> Mapping[str, tuple[Group, ...]]:
        return {
            kind: tuple(
                Group(entry["of"], tuple(entry["phrases"]), entry["least"], entry["most"], _any_of(entry["unless"]))
                for entry in self._tables[kind]
            )
            for kind in ("general", "small")
        }

    @cached_property
    def _clashes(self) -> tuple[Clash, ...]:
        return tuple(Clash(frozenset(entry["phrases"]), _any_of(entry["with"])) for entry in self._tables["clashes"])


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[^\W_]+", text.lower())} - SMALL_WORDS
