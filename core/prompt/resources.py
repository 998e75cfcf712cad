"""PromptResources: the libraries that a prompt may name things of: styles, wildcards, LoRAs, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from core.prompt.styles import PSEUDO, StyleLibrary, Styles
from core.prompt.tags import MOST_LORAS, LoraNames
from core.prompt.wildcards import Wildcards


def _none() -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class PromptResources:
    """Where names in prompts are looked up. `loras` and `embeddings` list file names relative to their folders."""

    styles: StyleLibrary = field(default_factory=StyleLibrary)
    wildcards: Wildcards = field(default_factory=Wildcards)
    loras: Callable[[], Sequence[str]] = _none
    embeddings: Callable[[], Sequence[str]] = _none
    most_loras: int = MOST_LORAS  # of a picture, rows and tags together

    def names(self) -> Names:
        """All names, for completing what is being typed."""
        return Names(
            styles=(*self.styles.read().names(),),
            wildcards=(*self.wildcards.names(),),
            loras=(*self.loras(),),
            embeddings=(*self.embeddings(),),
        )


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names that a prompt may use, in the order in which they are offered."""

    styles: tuple[str, ...] = PSEUDO
    wildcards: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()


class Lookup:
    """The resources as they are during one request: each is read when it is first needed, and only once."""

    def __init__(self, resources: PromptResources) -> None:
        self.resources = resources

    @cached_property
    def styles(self) -> Styles:
        return self.resources.styles.read()

    @cached_property
    def wildcards(self) -> Mapping[str, Path]:
        return self.resources.wildcards.files()

    @cached_property
    def loras(self) -> LoraNames:
        return LoraNames(self.resources.loras())
