"""Which words text encoders know."""

import torch

from core.text.tokenizer import ClipTokenizer
from core.text.vocabulary import Vocabulary, unknown_tokens


def table(known, width=8):
    rows = torch.randn(width, generator=torch.Generator().manual_seed(1)).expand(49408, -1).clone()
    rows[known] = torch.randn(len(known), width, generator=torch.Generator().manual_seed(2))
    return rows.half()


def test_tokens_that_share_a_vector_are_unknown_to_a_small_model():
    tokenizer = ClipTokenizer()
    vocabulary = Vocabulary.of(
        tokenizer, [table(tokenizer.ids("red apple , line art")), table(tokenizer.ids("red apple"))]
    )
    assert vocabulary.knows("Red apple") and vocabulary.knows("")
    assert not vocabulary.knows("red pear") and not vocabulary.knows("line art")  # one encoder alone knows it
    assert vocabulary.length("red apple,") == 3


def test_a_table_of_different_vectors_knows_every_word_even_with_some_twice():
    rows = torch.randn(49408, 4, generator=torch.Generator().manual_seed(0))
    rows[:900] = rows[0]
    assert unknown_tokens(rows) == []
    rows[:2000, 0] = 0.5  # the same first number is not the same vector
    assert unknown_tokens(rows) == []
    rows[:2000] = 0.5
    assert unknown_tokens(rows) == list(range(2000))
