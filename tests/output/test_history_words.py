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
        ("\U0001f98a (((", ["\U0001f98a"]),
        ("I\u2764\ufe0ffoxes \U0001f98a\U0001f98a", ["i", "\u2764", "foxes", "\U0001f98a", "\U0001f98a"]),
        ("\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea", ["\U0001f44d", "\U0001f3fd", "\U0001f1e9", "\U0001f1ea"]),
        ("\U0001fae9", ["\U0001fae9"]),  # of Unicode 16, which no Python of today knows
        ("red + blue: 50% (50)", ["red", "blue", "50", "50"]),
    ],
)
def test_words_have_no_case_accents_or_marks_and_chinese_letters_and_symbols_stand_alone(text, words):
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


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("-date:2026-11", [("2026-11-01", "2026-12-01")]),
        ("-day:today -2026-10", [("2026-11-23", "2026-11-24"), ("2026-10-01", "2026-11-01")]),
        ("-date:2026-11..", [("2026-11-01", None)]),
        ("-date:..2025", [(None, "2026-01-01")]),
    ],
)
def test_a_minus_leaves_out_a_span_of_dates(text, left_out):
    query = parsed(text)
    assert [tuple(moment and moment.isoformat()[:10] for moment in span) for span in query.left_out] == left_out
    assert (query.terms, query.since, query.until, query.remarks) == ((), None, None, ())


@pytest.mark.parametrize("text", ["date:9999-12-31", "9999-12-31", "date:9999-12", "date:9999", "-date:..9999-12-31"])
def test_a_date_at_the_end_of_all_dates_is_one(text):
    query = parsed(text)
    assert query.remarks == () and datetime.max in (query.until, *(end for _, end in query.left_out))


@pytest.mark.parametrize("text", ["date:2026-13", "date:soon", "date:2026-02-30", "2026-99"])
def test_what_is_no_date_is_told_and_looks_for_nothing_else(text):
    query = parsed(text)
    assert query.terms == () and query.since is None
    assert "2026-11-23" in query.remarks[0]


@pytest.mark.parametrize("text", ["", "   ", "model:", '"', "-", "date:", "((("])
def test_what_is_still_being_typed_asks_for_everything(text):
    assert parsed(text).terms == ()


@pytest.mark.parametrize("text", ["", "   ", "model:", "-model:", '"', "-", '-"', "date:"])
def test_what_is_still_being_typed_is_no_reason_for_a_remark(text):
    assert parsed(text).remarks == ()


@pytest.mark.parametrize("text", ["(((", "prompt:???", "-+", 'style:"..."'])
def test_what_has_no_words_is_told_of(text):
    query = parsed(text)
    assert query.terms == () and "has no words" in query.remarks[0]


def test_a_symbol_is_looked_for_where_its_key_says():
    assert parsed("prompt:\U0001f98a -\u2764").terms == (
        Term(("\U0001f98a",), ("prompt",)),
        Term(("\u2764",), without=True),
    )


def test_a_key_that_nobody_knows_is_only_a_word():
    assert parsed("artist:monet").terms == (Term(("artist", "monet")),)


def test_a_quoted_word_is_always_a_word():
    assert parsed('"fav"').terms == (Term(("fav",)),)


def test_a_novel_is_cut_and_that_is_told():
    query = parsed("fox " * LONGEST_QUERY)
    assert len(query.terms) == MOST_TERMS
    assert len(query.remarks) == 2
