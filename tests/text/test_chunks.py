"""Chunks of 77 tokens."""

import random

import pytest

from core.text.chunks import chunks, tokenize, weighted_words
from core.text.emphasis import parse_weights
from core.text.tokenizer import END, START, ClipTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return ClipTokenizer()


def test_an_empty_text_is_one_chunk_of_start_end_and_padding(tokenizer):
    (chunk,) = tokenize("", tokenizer)
    assert chunk.padded_ids(END) == [START] + [END] * 76
    assert chunk.padded_ids(0) == [START, END] + [0] * 75
    assert chunk.padded_weights() == [1.0] * 77


@pytest.mark.parametrize(("words", "count"), [(1, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_75_words_fit_in_a_chunk(tokenizer, words, count):
    found = tokenize("cat " * words, tokenizer)
    assert len(found) == count
    assert [token for chunk in found for token in chunk.ids[1:-1]] == [2368] * words
    assert all(len(chunk.ids) <= 77 and chunk.ids[0] == START and chunk.ids[-1] == END for chunk in found)


def test_a_word_of_less_than_8_tokens_moves_to_the_next_chunk_as_a_whole():
    found = chunks([([5], 1.0)] * 70 + [(list(range(10, 17)), 1.3)])
    assert [len(chunk.ids) for chunk in found] == [72, 9]
    assert found[1].ids == (START, 10, 11, 12, 13, 14, 15, 16, END)
    assert found[1].weights == (1.0, *[1.3] * 7, 1.0)


def test_a_word_of_8_tokens_is_cut_where_the_chunk_is_full():
    found = chunks([([5], 1.0)] * 70 + [(list(range(10, 18)), 0.9)])
    assert [len(chunk.ids) for chunk in found] == [77, 5]
    assert found[0].ids[71:] == (10, 11, 12, 13, 14, END)
    assert found[1].ids == (START, 15, 16, 17, END)
    assert found[1].weights == (1.0, 0.9, 0.9, 0.9, 1.0)


def test_a_word_longer_than_a_chunk_goes_over_several():
    found = chunks([(list(range(1000, 1200)), 1.0)])
    assert [len(chunk.ids) for chunk in found] == [77, 77, 52]
    assert [token for chunk in found for token in chunk.ids[1:-1]] == list(range(1000, 1200))


def test_every_token_of_a_weighted_piece_carries_its_weight(tokenizer):
    (chunk,) = tokenize("a (red apple:1.3)\non wood", tokenizer)
    assert chunk.ids[1:-1] == (320, 736, 3055, *tokenizer.ids("on"), *tokenizer.ids("wood"))
    assert chunk.weights == (1.0, 1.0, 1.3, 1.3, 1.0, 1.0, 1.0)


def test_words_are_tokenized_one_by_one_so_that_parentheses_do_not_join_them(tokenizer):
    (chunk,) = tokenize("cat(s)", tokenizer)
    assert chunk.ids[1:-1] == (*tokenizer.ids("cat"), *tokenizer.ids("s"))


def words_named(text, tokenizer):
    """What `text` asks of the embeddings, and the ids of the rest."""
    asked = []

    def insert(word):
        asked.append(word)
        return [], ""

    return asked, [i for word, _ in weighted_words(text, tokenizer, insert) for i in word]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("bad,embedding:none", "bad,"),
        ("a red\tembedding:none apple", "a red apple"),
        ("a red\u00a0embedding:none\r\napple", "a red apple"),
        ("a Embedding:none apple", "a apple"),
        ("(bad,EMBEDDING:none:1.2)", "bad,"),
        ("(bad,embedding:1)", "bad,"),
        ("embedding:none\tapple", "apple"),
    ],
)
def test_an_embedding_is_named_behind_any_white_space_and_behind_a_comma(text, plain, tokenizer):
    asked, ids = words_named(text, tokenizer)
    assert asked == ["1" if "1)" in text and ":none" not in text else "none"]
    assert ids == [i for word in plain.split() for i in tokenizer.ids(word)]


def test_two_embeddings_with_nothing_but_a_comma_between_them(tokenizer):
    assert words_named("embedding:a,embedding:b", tokenizer)[0] == ["a,", "b"]


def test_a_text_that_names_no_embedding_has_the_tokens_that_it_had(tokenizer):
    """Words end at blanks and line feeds alone there: other white space would part chunks, and `!\\x1c!`, elsewhere."""
    parts = [
        "a", "red ", "\t", "\u00a0", "\x1c", "\n", "\r\n", "  ", ",", "!", "embedding", "embeddings:", "word-", ":", "(", ")", "1.5",
        "\\(", "'s", "日本", "é", "<|endoftext|>", "\u3000", "\ud800",
    ]  # fmt: skip
    chance = random.Random(3)
    for _ in range(3000):
        text = "".join(chance.choices(parts, k=chance.randrange(12)))
        if "embedding:" not in text:
            asked, ids = words_named(text, tokenizer)
            pieces = [word for piece, _ in parse_weights(text) for word in piece.replace("\n", " ").split(" ") if word]
            assert (asked, ids) == ([], [i for word in pieces for i in tokenizer.ids(word)])
