"""What is typed into the history's search box, and what it means."""

from datetime import datetime

import pytest

from core.output.history_words import LONGEST_QUERY, MOST_TERMS, Term, parse_query, plain_words

NOW = datetime(2026, 11, 23, 15, 30)


def parsed(text):
    return parse_query(text, NOW)


def days(text):
    query = parsed(text)
    return tuple(moment and moment.isoformat()[:10] for moment in (query.since, query.until))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Red-Fox, 8k", ["a", "red", "fox", "8k"]),
        ("Füchse über ÆON", ["fuchse", "uber", "æon"]),
        ("easel-emoji_256.safetensors", ["easel", "emoji", "256", "safetensors"]),
        ("红色的狐狸 fox", ["红", "色", "的", "狐", "狸", "fox"]),
        ("\U0001f98a (((", []),
    ],
)
def test_words_have_no_case_accents_or_marks_and_chinese_letters_stand_alone(text, words):
    assert plain_words(text) == words


def test_every_part_of_the_language_is_understood():
    query = parsed('fox model:easel date:2026-11 fav -blurry "red apple" seed:7 size:64x64')
    assert query.terms == (
        Term(("fox",)),
        Term(("easel",), ("model",)),
        Term(("fav",), ("tags",), exact=True),
        Term(("blurry",), without=True),
        Term(("red", "apple")),
        Term(("seedx7",), ("tags",), exact=True),
        Term(("sizex64x64",), ("tags",), exact=True),
    )
    assert (query.since, query.until) == (datetime(2026, 11, 1), datetime(2026, 12, 1))
    assert query.remarks == ()


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("date:2026", "2026-01-01", "2027-01-01"),
        ("date:2026-12", "2026-12-01", "2027-01-01"),
        ("date:2024-2-28", "2024-02-28", "2024-02-29"),
        ("2026-11", "2026-11-01", "2026-12-01"),
        ("date:today", "2026-11-23", "2026-11-24"),
        ("day:yesterday", "2026-11-22", "2026-11-23"),
        ("date:2026-11-01..2026-11-15", "2026-11-01", "2026-11-16"),
        ("date:2026-11..", "2026-11-01", None),
        ("date:..2025", None, "2026-01-01"),
        ("date:2026 date:2026-11-05", "2026-11-05", "2026-11-06"),
    ],
)
def test_dates_and_spans_of_dates(text, since, until):
    assert days(text) == (since, until)
    assert parsed(text).terms == ()


@pytest.mark.parametrize("text", ["date:2026-13", "date:soon", "date:2026-02-30", "2026-99"])
def test_what_is_no_date_is_told_and_looks_for_nothing_else(text):
    query = parsed(text)
    assert query.terms == () and query.since is None
    assert "2026-11-23" in query.remarks[0]


@pytest.mark.parametrize("text", ["", "   ", "model:", '"', "-", "date:", "((("])
def test_what_is_still_being_typed_asks_for_everything(text):
    assert parsed(text).terms == ()


def test_a_key_that_nobody_knows_is_only_a_word():
    assert parsed("artist:monet").terms == (Term(("artist", "monet")),)


def test_a_quoted_word_is_always_a_word():
    assert parsed('"fav"').terms == (Term(("fav",)),)


def test_a_novel_is_cut_and_that_is_told():
    query = parsed("fox " * LONGEST_QUERY)
    assert len(query.terms) == MOST_TERMS
    assert len(query.remarks) == 2
