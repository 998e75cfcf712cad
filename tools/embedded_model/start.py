"""Weights to start a run from: another run's state, or a checkpoint such as the one that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from model import Painter
from torch import Tensor
from training import load
from words import Words

from core.text.tokenizer import END, START
from core.weights.checkpoint import load_checkpoint

TABLES = [f"clip_{side}.text_model.embeddings.token_embedding.weight" for side in "lg"]


def adopt(painter: Painter, words: Words, state: dict[str, Any]) -> dict[str, Any]:
    """`state` with the tables of its weights laid out for `words`: words that it lacks are as in `painter`."""
    if state["tokens"] == words.known:
        return state
    fresh = painter.state_dict()
    tables = {
        part: {name: words.adopt(state[part][name], state["tokens"], fresh[name]) for name in TABLES}
        for part in ("model", "ema")
    }
    return {**state, **{part: {**state[part], **tables[part]} for part in tables}}


def from_checkpoint(painter: Painter, words: Words, path: Path) -> dict[str, Any]:
    """The weights of a checkpoint of `painter`'s sizes as a state. Words that it did not know start from `painter`'s rows."""
    found = load_checkpoint(path, unet_dtype=torch.float32, text_dtype=torch.float32)
    assert found.clip_l is not None and found.clip_g is not None
    parts = {"unet": found.unet, "clip_l": found.clip_l, "clip_g": found.clip_g}
    weights: dict[str, Tensor] = {
        f"{part}.{name}": p.clone() for part, module in parts.items() for name, p in module.state_dict().items()
    }
    fresh = painter.state_dict()
    for name in TABLES:
        table = weights[name]
        unknown = table.mode(dim=0).values  # the row that all words without one of their own share
        rows = fresh[name].clone()
        for token, row in words.rows.items():
            if token in (START, END) or not torch.equal(table[token], unknown):
                rows[row] = table[token]
        rows[words.unknown] = unknown
        weights[name] = rows
    return {"model": weights, "ema": weights, "tokens": words.known}


def start(painter: Painter, words: Words, folder: Path, name: str) -> dict[str, Any]:
    """`name` is a state in `folder` or a checkpoint's path. Raises SystemExit if it is none."""
    state = None if Path(name).is_absolute() else load(folder / name, "cpu")
    if state is not None:
        return adopt(painter, words, state)
    if Path(name).exists():
        return from_checkpoint(painter, words, Path(name))
    raise SystemExit(f"{name} is no state in {folder} and no checkpoint's path.")
