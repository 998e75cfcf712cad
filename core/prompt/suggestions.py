"""What may complete the word that is being typed in a prompt: wildcards, LoRAs, styles, embeddings. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from core.prompt.embedding_names import MARK, NAME, chosen, plain, said, written
from core.prompt.resources import Names

REACH = 200  # characters in front of the caret that are looked at


@dataclass(frozen=True)
class Suggestion:
    """Replace the text from `start` to `end` by `insert`; `label` is the name to show, `kind` what it is.

    `kind` is "wildcard", "lora", "style" or "embedding".
    """

    start: int
    end: int
    insert: str
    label: str
    kind: str


_OPEN = (
    ("lora", re.compile(r"<lora:([^:<>]*)$", re.IGNORECASE)),
    ("style", re.compile(r"<style:([^<>]*)$", re.IGNORECASE)),
    ("embedding", re.compile(rf"(?<![\w\\])(\(?){MARK}({NAME})$", re.IGNORECASE)),
    ("wildcard", re.compile(r"__([\w/. -]*)$")),
)
_REST = {
    "lora": re.compile(r"[^:<>,\n]*(:[^:<>\n]*)?>"),
    "style": re.compile(r"[^<>,\n]*>"),
    "embedding": re.compile(rf"{NAME}(:[0-9.]*\))?"),
    "wildcard": re.compile(r"[\w/-]*?__"),
}


def suggestions(text: str, caret: int, names: Names, limit: int = 20) -> list[Suggestion]:
    """At most `limit` completions of what stands in front of `caret` (a position in `text`), the best first.

    A name that begins with what was typed comes before one with a word that does, then one that contains it. What is
    left of the tag behind the caret is replaced too; a weight in it stays.
    """
    head = text[max(0, caret - REACH) : caret].rpartition("\n")[2]
    tail = text[caret : caret + REACH]
    for name in names.wildcards:  # closed ones: their second `__` opens nothing
        if f"__{name}__" in head:
            head = head.replace(f"__{name}__", " " * (len(name) + 4))
    for kind, pattern in _OPEN:
        if not (found := pattern.search(head)):
            continue
        typed = found[found.re.groups]
        typed = plain(typed) if kind == "embedding" else typed.strip()
        rest = _REST[kind].match(tail)
        start = caret - (len(found[0]))
        end = caret + (rest.end() if rest else 0)
        weight = (rest[1] or "") if rest and rest.re.groups else ""
        return [
            Suggestion(start, end, _written(kind, name, found, weight), name, kind)
            for name in _matching(_offered(kind, names), typed, limit, said if kind == "embedding" else str)
            if kind != "embedding" or _means_itself(name, names.embeddings)
        ]
    return []


def _offered(kind: str, names: Names) -> Sequence[str]:
    if kind == "wildcard":
        return names.wildcards
    if kind == "style":
        return names.styles
    return _short(names.loras if kind == "lora" else names.embeddings)


def _short(files: Sequence[str]) -> list[str]:
    """File names as short as they may be: the stem, or the path without ending where two files share a stem."""
    paths = [PurePosixPath(file.replace("\\", "/")) for file in files]
    times = Counter(path.stem for path in paths)
    return [str(path.with_suffix("")) if times[path.stem] > 1 else path.stem for path in paths]


def _means_itself(name: str, files: Sequence[str]) -> bool:
    """Whether what is written for `name`, as `_short` calls one of `files`, leads to that file and not to another."""
    found = chosen(said(name), files)
    return found is not None and dict(zip(files, _short(files), strict=True))[found] == name


def _matching(names: Sequence[str], typed: str, limit: int, spelled: Callable[[str], str]) -> list[str]:
    typed = typed.casefold()
    ranked = []
    for place, name in enumerate(names):
        folded = spelled(name).casefold()
        at = folded.find(typed)
        if at >= 0:
            inside = re.search(rf"(?<![^\W_]){re.escape(typed)}", folded) if at else None
            ranked.append((0 if at == 0 else 1 if inside else 2, place, name))
    return [name for _, _, name in sorted(ranked)[:limit]]


def _written(kind: str, name: str, found: re.Match[str], weight: str) -> str:
    if kind == "wildcard":
        return f"__{name}__"
    if kind == "style":
        return f"<style:{name}>"
    if kind == "lora":
        return f"<lora:{name}{weight or ':1'}>"
    word = f"{MARK}{written(name)}"
    return f"({word}{weight or ':1)'}" if found[1] else f"{word}{weight}"
