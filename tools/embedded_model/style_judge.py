"""A small classifier of styles, trained on real pictures of things that the model has no names for.

What it says about generated pictures is evaluate.py's figure for style. Pictures are judged at 96 px; in training they
are softened and noised by chance, so that it looks at shading, outlines and colours rather than at crisp edges.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import COLOURS, STYLES, pictures_of
from PIL import Image, ImageFilter
from scene import Mix, Scene, compose
from torch import Tensor, nn

log = logging.getLogger(__name__)

SIDE = 96


class StyleJudge(nn.Sequential):
    """Logits (B, styles) of pictures (B, 3, 96, 96) in [-1, 1]."""

    def __init__(self, styles: int) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 24), (24, 48), (48, 64)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.GroupNorm(8, c_out), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
                         nn.Linear(64 * 9, styles))  # fmt: skip


def to_input(pixels: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to (N, 3, 96, 96)."""
    small = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX)) for p in pixels]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def examples(folder: Path, styles: list[int], rows: range, n: int, rng: np.random.Generator, *, soft: bool):  # type: ignore[no-untyped-def]
    """`n` pictures of real emoji of `rows` on grounds, uint8 (n, 128, 128, 3), and which of `styles` they are."""
    sets = [pictures_of(folder, style) for style in styles]
    pixels, labels = np.empty((n, 128, 128, 3), np.uint8), rng.integers(len(styles), size=n)
    for i, label in enumerate(labels):
        row = int(rng.choice(rows))
        while not sets[label][row, ..., 3].any():
            row = int(rng.choice(rows))
        scene = Scene(row, style=styles[label], ground=int(rng.integers(len(COLOURS))) if rng.random() < 0.7 else 0)
        picture = compose(scene, sets[label], rng, (128, 128), Mix().spread)
        if soft and rng.random() < 0.7:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
        noise = rng.normal(0, rng.uniform(0, 4), (128, 128, 3)) if soft else 0
        pixels[i] = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    return pixels, torch.from_numpy(labels)


def train_judge(folder: Path, styles: list[int], things: int, *, steps: int = 900, batch: int = 64) -> StyleJudge:
    """A judge of `styles`, kept in the work folder. Real pictures of the model's `things` were not shown to it."""
    path = folder / f"style_judge_{'_'.join(STYLES[style] for style in styles)}.safetensors"
    judge = StyleJudge(len(styles))
    if path.exists():
        from safetensors.torch import load_file

        judge.load_state_dict(load_file(path))
        return judge.eval()
    from safetensors.torch import save_file

    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    rows = range(things, len(pictures_of(folder, styles[0])))
    pixels, labels = examples(folder, styles, rows, 4096, rng, soft=True)
    inputs = to_input(pixels)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        chosen = torch.from_numpy(rng.integers(len(inputs), size=batch))
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        loss = F.cross_entropy(judge(inputs[chosen]), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    save_file(judge.state_dict(), path)
    return judge.eval()


@torch.inference_mode()
def styles_of(judge: StyleJudge, pixels: np.ndarray) -> np.ndarray:
    """Which style (index into the judge's own) each picture (N, H, W, 3) has."""
    found: np.ndarray = judge(to_input(pixels)).argmax(1).numpy()
    return found
