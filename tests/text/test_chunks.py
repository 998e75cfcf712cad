"""Chunks of 77 tokens."""

import pytest

from core.text.chunks import chunks, tokenize
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
