"""The latents to train on: shards that encode.py wrote, and batches of one shape from them with captions and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import caption
from data import STYLES
from scene import Scene
from torch import Tensor
from words import Words

UNSHADED = (STYLES.index("flat"), STYLES.index("line"))
NO_CAPTION, HIDDEN_WORD, MORE_WORDS = (
    0.1,
    0.01,
    0.04,
)  # shares of captions, of words, of captions with unknown words added


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    latents: Tensor  # (B, 4, h, w) float32
    contents: list[list[int]]  # captions as rows of words
    sizes: Tensor  # (B, 6) float32
    flat: Tensor  # (B,) bool: the picture has no shading


class Shape:
    """All pictures of one shape, dealt in an order of chance, each once before any comes again."""

    def __init__(self, latents: np.ndarray, scenes: np.ndarray, sizes: np.ndarray) -> None:
        self.latents, self.scenes, self.sizes = torch.from_numpy(latents), scenes, torch.from_numpy(sizes)
        self.deck: list[int] = []

    def deal(self, n: int, rng: np.random.Generator) -> list[int]:
        cards: list[int] = []
        while len(cards) < n:
            self.deck = self.deck or [int(i) for i in rng.permutation(len(self.scenes))]
            cards.append(self.deck.pop())
        return cards


class Pool:
    """The shards of one side."""

    def __init__(self, folder: Path, words: Words, seed: int) -> None:
        self.folder, self.words, self.rng = folder, words, np.random.default_rng(seed)
        self.shapes: list[Shape] = []
        self.read: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read all shards again if there are more than before."""
        files = sorted(self.folder.glob("[0-9]*[0-9].npz"))
        if set(files) == self.read:
            return
        by_size: dict[tuple[int, ...], list[dict[str, np.ndarray]]] = {}
        for path in files:
            with np.load(path) as stored:
                shard = dict(stored)
            by_size.setdefault(shard["latents"].shape[2:], []).append(shard)
        if not by_size:
            raise SystemExit(f"There are no shards in {self.folder}. Run encode.py first.")
        columns = ("latents", "scenes", "sizes")
        self.shapes = [
            Shape(*(np.concatenate([shard[name] for shard in shards]) for name in columns))
            for shards in by_size.values()
        ]
        self.read = set(files)

    def batch(self, n: int, chance: float) -> Batch:
        """`n` pictures of the shape that `chance` (0 to 1) falls on."""
        counts = np.cumsum([len(shape.scenes) for shape in self.shapes])
        shape = self.shapes[int(np.searchsorted(counts / counts[-1], chance, side="right"))]
        high = shape.latents.shape[2] > shape.latents.shape[3]
        cards = shape.deal(n, self.rng)
        scenes = [Scene(*map(int, shape.scenes[i])) for i in cards]
        contents = [self.content(scene, high) for scene in scenes]
        flat = torch.tensor([scene.style in UNSHADED for scene in scenes])
        return Batch(shape.latents[cards].float(), contents, shape.sizes[cards].float(), flat)

    def content(self, scene: Scene, high: bool) -> list[int]:
        """A caption as rows: sometimes none at all, sometimes with words that the network does not know."""
        if self.rng.random() < NO_CAPTION:
            return []
        unknown = self.words.unknown
        content = self.words.content(caption(scene, self.rng, high=high))
        content = [unknown if self.rng.random() < HIDDEN_WORD else row for row in content]
        if self.rng.random() < MORE_WORDS:
            content += [unknown] * int(self.rng.integers(1, 12))
        return content[:75]
