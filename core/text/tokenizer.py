"""CLIP's tokenizer: text to the ids that SDXL was trained with, from the merges this program ships. No torch."""

from __future__ import annotations

import lzma
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

START, END = 49406, 49407
MERGES = Path(__file__).with_name("data") / "clip_merges.txt.xz"

_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Text to token ids, equal to Hugging Face's CLIPTokenizer (what SDXL, diffusers and ComfyUI go by).

    Lower-cases, composes accents (NFC), and reads `<|startoftext|>` and `<|endoftext|>` in a text as the real tokens.
    """

    def __init__(self, merges: Path = MERGES) -> None:
        self._tokenizer = _build(lzma.decompress(merges.read_bytes()).decode("utf-8"))

    def ids(self, text: str) -> list[int]:
        """The ids of `text` without start and end. Lone surrogates, which no text file can hold, count as `?`."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(clean, add_special_tokens=False).ids)


def vocabulary(merges: str) -> dict[str, int]:
    """All 49,408 tokens in the order of their ids: byte letters, the same at a word's end, merges, start and end."""
    letters = _byte_letters()
    pairs = merges.splitlines()
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokens = letters + [letter + "</w>" for letter in letters] + [pair.replace(" ", "") for pair in pairs] + ends
    return {token: number for number, token in enumerate(tokens)}


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes: those that print stand for themselves, the others follow U+0100."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def _build(merges: str) -> Tokenizer:
    pairs = [(left, right) for left, right in (line.split(" ") for line in merges.splitlines())]
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary(merges),
            merges=pairs,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return tokenizer
