"""The page's words in other languages: one table a language, from the English text to its translation.

The page is written in English; `assets/texts.js` puts the translations in where a table has the very text. A `{}` in a key
stands for a number or a name; in a translation `{}` takes them in order, `{1}`, `{2}` by number (a `{}` after `{2}` is the
third), and `{=}`, `{=1}` take what has a translation of its own, which then stands there. Files of the reference's form,
`language/NAME.json` of the user, add a language or go over one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ENGLISH = "en"
# Each in its own words, as a person looks for it.
NAMES = {
    "de": "Deutsch", "es": "Español", "fr": "Français", "ja": "日本語", "ru": "Русский", "zh": "简体中文",
}  # fmt: skip
USUAL = "default"  # a file language/default.json is taken where nobody has chosen
RIGHT_TO_LEFT = "rtl"  # a key that says so, rather than a text
LARGEST_FILE = 2**22  # bytes


@dataclass(frozen=True)
class Language:
    """One language: what it calls itself, and its `texts` by the English ones."""

    name: str
    texts: Mapping[str, str]
    right_to_left: bool = False


@dataclass(frozen=True)
class Languages:
    """All languages by their codes (English needs no table); `usual` is the one for browsers that have chosen none.

    "" as `usual` means: as the browser prefers. `problems` are sentences on what of the user's is left out.
    """

    by_code: Mapping[str, Language] = field(default_factory=dict)
    usual: str = ""
    problems: tuple[str, ...] = ()

    def menu(self) -> dict[str, str]:
        """The languages' names by code, for the page's menu."""
        return {ENGLISH: "English"} | {code: language.name for code, language in self.by_code.items()}


def read_languages(folders: Sequence[Path] = (), usual: str = "") -> Languages:
    """Ours, and those in the user's `folders`, the first folder last. A file that cannot be read is left out.

    `usual` is a code or a file's name without its ending; one that there is not counts as "".
    """
    problems = []
    found = {code: Language(name, own_texts(code)) for code, name in NAMES.items()}
    for folder in reversed(folders):
        for file in sorted(folder.glob("*.json")):
            texts, problem = _read(file)
            problems += [problem] if problem else []
            if texts and file.stem != ENGLISH:  # en.json of the reference is a list of its own texts
                found[file.stem] = _over(found.get(file.stem), file.stem, texts)
    if usual and usual != ENGLISH and usual not in found:
        problems.append(f"There is no language {usual!r}. There are: {', '.join((ENGLISH, *found))}.")
        usual = ""
    return Languages(found, usual or (USUAL if USUAL in found else ""), tuple(problems))


def own_texts(code: str) -> dict[str, str]:
    """The table of one of NAMES."""
    text = (files("webui") / "assets" / "texts" / f"{code}.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    return table


def texts_route(languages: Languages) -> Route:
    """`GET /easel/texts/CODE`: that language's table."""

    def answer(request: Request) -> Response:
        language = languages.by_code.get(request.path_params["code"])
        if language is None:
            return JSONResponse({"error": "There is no such language."}, status_code=404)
        return JSONResponse(
            {"texts": dict(language.texts), "rightToLeft": language.right_to_left},
            headers={"Cache-Control": "no-cache"},
        )

    return Route("/easel/texts/{code}", answer)


def _over(own: Language | None, name: str, texts: Mapping[str, object]) -> Language:
    """A user's file over the language of that name. Keys that differ from ours in capitals alone count as ours."""
    table = dict(own.texts) if own else {}
    ours = {key.casefold(): key for key in own_keys()}
    for key, text in texts.items():
        if isinstance(text, str) and text and key != RIGHT_TO_LEFT:
            table[key] = text
            table[ours.get(key.casefold(), key)] = text
    return Language(own.name if own else name, table, bool(texts.get(RIGHT_TO_LEFT)))


def own_keys() -> tuple[str, ...]:
    """The English texts that our tables know."""
    return tuple(own_texts(next(iter(NAMES))))


def _read(file: Path) -> tuple[dict[str, object], str]:
    """What `file` holds, or a sentence on why it cannot be used."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE >> 20} MB")
        texts = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(texts, dict):
            raise ValueError("it is no JSON object of texts")
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"The language file {file} is left out: {error}."
    return texts, ""
