"""A small GPT-2 expander of seeded random weights, in the folder layout that the published one has."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import torch

WORDS = [consonant + vowel + "".join(end) for consonant, vowel, end in product("bdgklmnprt", "aeiou", ("", "s", "n"))]


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """GPT-2's byte letters in its order (a comma is number 11), then what the merges make; the end token is last."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    merges: dict[str, None] = {}
    for word in WORDS:
        token = "Ġ"
        for letter in word:
            merges[f"{token} {letter}"] = None
            token += letter
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, list(merges)


def write_gpt2_folder(folder: Path, *, seed: int = 0, positions: int = 400, one_file: bool = True) -> Path:
    """Write it to `folder`; `one_file`: with a tokenizer.json beside vocab.json and merges.txt."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True)
    ids, merges = vocabulary()
    config = GPT2Config(
        vocab_size=len(ids),
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=len(ids) - 1,
        eos_token_id=len(ids) - 1,
        initializer_range=0.3,  # so that it prefers some words to others
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    (folder / "positive.txt").write_text("\n".join(["Kas", "unheardof", "", *WORDS[1:]]))
    if one_file:
        pairs = [(left, right) for left, right in (merge.split() for merge in merges)]
        tokenizer = Tokenizer(BPE(ids, pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder
