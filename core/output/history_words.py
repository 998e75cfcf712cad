"""history_words: what is searched for and what is found by it, as plain words: no case, no accents, no marks.

    fox model:easel date:2026-11 fav -blurry "red apple"

Each word is found at the beginning of words of the prompt, the model, the styles and the LoRAs. `model:`, `style:`,
`lora:`, `prompt:`, `negative:` look in one of them; `date:` takes 2026, 2026-11, 2026-11-23, today, yesterday, A..B;
`seed:`, `size:`, `source:` and `kind:` compare; `fav` means favourites; a minus in front means without. A symbol or an
emoji is a word, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

LONGEST_QUERY = 1000  # characters
MOST_TERMS = 30
BARE = ("prompt", "model", "styles", "loras")  # where a word without a key is looked for
COLUMNS = (*BARE, "negative", "tags")
KEYS = {
    "prompt": "prompt", "model": "model", "style": "styles", "styles": "styles", "lora": "loras", "loras": "loras",
    "negative": "negative", "neg": "negative",
}  # fmt: skip
TAGS = {"seed": "seed", "size": "size", "source": "source", "kind": "kind"}
DATES = ("date", "day")
FAVOURITE = ("fav", "favourite", "favorite", "is:fav")

# Scripts that put no blanks between words: each letter is a word of its own.
_LONE = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_APART = re.compile(r"[\W_]+")
_TERM = re.compile(r'(-?)(?:([A-Za-z]+):)?(?:"([^"]*)"?|(\S+))')
_DAY = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?")
_EMOJI = ("\U0001f000", "\U0001faff")  # the first and the last; newer ones than this Python's have no category yet

Span = tuple[datetime | None, datetime | None]  # its first moment and the first one after it; None: it has none


@dataclass(frozen=True)
class Term:
    """Words one after another, the last one perhaps only begun, in one of `columns`. `exact`: a tag, not begun."""

    words: tuple[str, ...]
    columns: tuple[str, ...] = BARE
    without: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Query:
    """What somebody looks for. `since` and `until` are local times, the second one not included.

    `left_out` are spans of time like that one, without which it is; `remarks` tell what was not understood.
    """

    terms: tuple[Term, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    left_out: tuple[Span, ...] = ()
    remarks: tuple[str, ...] = ()


def plain_words(text: str) -> list[str]:
    """`text` as words in small letters without accents; each Chinese, Japanese or Thai letter and symbol is a word."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return _APART.sub(" " if bare.isascii() else _symbols, _LONE.sub(r" \1 ", bare)).split()


def plain_text(text: str) -> str:
    """The words of `text` with one blank before, between and behind them."""
    return f" {' '.join(plain_words(text))} "


def tag(kind: str, value: object) -> str:
    """`value` as one word that only a comparison finds: `seed:7` is `seedx7`."""
    return f"{kind}x{''.join(plain_words(str(value)))}"


def parse_query(text: str, now: datetime | None = None) -> Query:
    """What `text` asks for. Takes any text: what cannot be understood is named in `remarks`."""
    terms: list[Term] = []
    spans: list[Span] = []
    left_out: list[Span] = []
    remarks = [f"Only the first {LONGEST_QUERY} characters were looked for."] if len(text) > LONGEST_QUERY else []
    for minus, key, quoted, bare in _TERM.findall(text[:LONGEST_QUERY]):
        name, value = key.lower(), quoted or bare
        if name in DATES or (not key and not quoted and _DAY.fullmatch(value) and "-" in value):
            try:
                (left_out if minus else spans).append(_span(value, now or datetime.now()))
            except ValueError:
                remarks.append(
                    f"{value!r} is no date. Write it as 2026, 2026-11, 2026-11-23 or 2026-11-01..2026-11-15."
                )
            continue
        if _only_begun(name, value, quoted != ""):
            continue
        term = _term(name, value, quoted != "", minus != "")
        if term.words:
            terms.append(term)
        else:
            remarks.append(f"{value!r} has no words and was not looked for.")
    if len(terms) > MOST_TERMS:
        remarks.append(f"Only the first {MOST_TERMS} words were looked for.")
    since = max((start for start, _ in spans if start), default=None)
    until = min((end for _, end in spans if end), default=None)
    return Query(tuple(terms[:MOST_TERMS]), since, until, tuple(left_out), tuple(remarks))


def match_expression(terms: Sequence[Term], required: Sequence[str]) -> str:
    """The same as an FTS5 MATCH expression; every one of the tags `required` must be there too (at least one)."""
    wanted = [Term((word,), ("tags",), exact=True) for word in required]
    having = " AND ".join(_match(term) for term in [*wanted, *(term for term in terms if not term.without)])
    without = " OR ".join(_match(term) for term in terms if term.without)
    return f"({having}) NOT ({without})" if without else having


def like_condition(terms: Sequence[Term], required: Sequence[str]) -> tuple[str, list[str]]:
    """The same as an SQL condition over the columns of an ordinary table, and its parameters."""
    conditions, values = [], []
    for term in [*(Term((word,), ("tags",), exact=True) for word in required), *terms]:
        conditions.append(
            f"{'NOT ' if term.without else ''}({' OR '.join(f'words.{name} LIKE ?' for name in term.columns)})"
        )
        values += [f"% {' '.join(term.words)}{' ' if term.exact else ''}%"] * len(term.columns)
    return " AND ".join(conditions), values


def row_words(texts: Mapping[str, str], tags: Sequence[str]) -> tuple[str, ...]:
    """What stands in the COLUMNS of one picture. `texts` has all columns but `tags`, as they are shown."""
    return (*(plain_text(texts[name]) for name in COLUMNS[:-1]), f" {' '.join(tags)} ")


def _symbols(between: re.Match[str]) -> str:
    """What parts two words: blanks, and the symbols and emoji in it as words."""
    first, last = _EMOJI
    return f" {' '.join(sign for sign in between[0] if unicodedata.category(sign) == 'So' or first <= sign <= last)} "


def _only_begun(name: str, value: str, quoted: bool) -> bool:
    """Whether what matters is still to be typed: the value of a key, what is to be without, what stands in quotes."""
    key = value.endswith(":") and value.rstrip(":").lower() in {*KEYS, *TAGS, *DATES}
    return (key and not (quoted or name)) or not value.strip('-" ')


def _term(name: str, value: str, quoted: bool, without: bool) -> Term:
    if not quoted and ((value.lower() in FAVOURITE and not name) or f"{name}:{value.lower()}" in FAVOURITE):
        return Term(("fav",), ("tags",), without, exact=True)
    if name in TAGS:
        return Term((tag(TAGS[name], value),), ("tags",), without, exact=True)
    if name in KEYS:
        return Term(tuple(plain_words(value)), (KEYS[name],), without)
    return Term(tuple(plain_words(f"{name} {value}")), without=without)  # an unknown key is only a word with a colon


def _match(term: Term) -> str:
    return f'{{{" ".join(term.columns)}}} : "{" ".join(term.words)}"{"" if term.exact else " *"}'


def _span(text: str, now: datetime) -> Span:
    """The first moment of a date or a range of dates, and the first one after it. Raises ValueError."""
    first, dots, last = text.partition("..")
    if not dots:
        return _one_span(first, now)
    return (_one_span(first, now)[0] if first else None), (_one_span(last, now)[1] if last else None)


def _one_span(text: str, now: datetime) -> tuple[datetime, datetime]:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if text.lower() in ("today", "yesterday"):
        start = today - timedelta(days=text.lower() == "yesterday")
        return start, start + timedelta(days=1)
    found = _DAY.fullmatch(text.rstrip("-"))
    if found is None:
        raise ValueError(text)
    year, month, day = (int(part) if part else None for part in found.groups())
    start = datetime(year or 0, month or 1, day or 1)
    try:
        if day:
            return start, start + timedelta(days=1)
        if month:
            return start, datetime(start.year + month // 12, month % 12 + 1, 1)
        return start, datetime(start.year + 1, 1, 1)
    except (OverflowError, ValueError):  # after the last day of the year 9999 Python has none
        return start, datetime.max
