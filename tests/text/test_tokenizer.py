"""The tokenizer against recorded ids and against transformers' CLIPTokenizer built from the same merges."""

import hashlib
import lzma
import random

import pytest

from core.text.tokenizer import END, MERGES, START, ClipTokenizer, vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return ClipTokenizer()


@pytest.fixture(scope="module")
def peer():
    from transformers import CLIPTokenizer

    text = lzma.decompress(MERGES.read_bytes()).decode("utf-8")
    merges = [tuple(line.split(" ")) for line in text.splitlines()]
    return CLIPTokenizer(vocab=vocabulary(text), merges=merges, model_max_length=77)


def test_the_shipped_merges_are_openai_clips():
    text = lzma.decompress(MERGES.read_bytes())
    assert hashlib.sha256(text).hexdigest() == "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02"
    assert text.startswith(b"i n\n") and text.endswith(b"jeky ll</w>\n")
    assert MERGES.with_name("LICENSE-CLIP.txt").read_text().startswith("MIT License")


def test_the_vocabulary_has_49408_tokens_and_ends_with_start_and_end():
    tokens = vocabulary(lzma.decompress(MERGES.read_bytes()).decode("utf-8"))
    assert len(tokens) == 49_408
    assert (tokens["<|startoftext|>"], tokens["<|endoftext|>"]) == (START, END) == (49406, 49407)
    assert (tokens["!"], tokens["!</w>"], tokens["cat</w>"]) == (0, 256, 2368)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a cat", [320, 2368]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A RED apple", [320, 736, 3055]),
        ("it's 3.14", [585, 568, 274, 269, 272, 275]),
        ("日本", [39121, 19277, 361]),
        ("na\u00efve", [1097, 35689, 563]),
        ("nai\u0308ve", [1097, 35689, 563]),
        ("😀", [7334]),
        ("(x:1.2)", [263, 343, 281, 272, 269, 273, 264]),
        ("!", [256]),
        ("", []),
        ("<|endoftext|> <|startoftext|>", [49407, 49406]),
    ],
)
def test_recorded_ids(tokenizer, text, ids):
    assert tokenizer.ids(text) == ids


def test_ids_equal_those_of_transformers_on_random_text(tokenizer, peer):
    chance = random.Random(0)
    letters = "aaabcdeehilnorst  ''-_.,:;()[]!?0123éßøñİıſ中文字日本😀👩‍👩‍👧ﬁ\u0301\u200b\t\n\x00\u00a0&<|>"
    words = [
        "a",
        "photo",
        "of",
        "masterpiece",
        "don't",
        "<|endoftext|>",
        "we're",
        "8k",
        "ultra-detailed",
        "  ",
        "ＦＵＬＬ",
    ]
    for _ in range(1500):
        text = " ".join(
            chance.choice(words) if chance.random() < 0.5 else "".join(chance.choices(letters, k=chance.randrange(9)))
            for _ in range(chance.randrange(12))
        )
        assert tokenizer.ids(text) == peer(text, add_special_tokens=False)["input_ids"], repr(text)


def test_a_lone_surrogate_is_no_error(tokenizer):
    assert tokenizer.ids("a \ud800 cat") == tokenizer.ids("a ? cat")
