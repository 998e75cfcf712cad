"""A small classifier of styles, trained on real pictures of things that the model has no names for.

What it says about generated pictures is evaluate.py's figure for style. It looks at no shapes, only at how colours and their
changes from pixel to pixel are spread over the thing: shading is many small changes, flat colour is none, line art is two
colours. The real pictures go through the autoencoder first, at full size, as every generated one does, with latents that are
uneven by up to a tenth of their spread, so that it learns what shading is and not that real pictures are free of noise.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import COLOURS, STYLES, pictures_of
from PIL import Image
from safetensors.torch import load_file, save_file
from scene import Mix, Scene, compose
from torch import Tensor, nn
from train_vae import uneven
from training import images_to_tensor, tensor_to_images

from core.models.vae import VAE

log = logging.getLogger(__name__)

SIDE = 256  # pixels, of the pictures
SEEN = 128  # pixels, of what is looked at
UNEVEN = 0.1  # of the latents' spread, at most
GROUND = 18  # of 255: what differs less from the corner is ground
CHANGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)  # of a colour, from a pixel to the next
SATURATIONS = (0, 10, 30, 60, 100, 150, 200, 256)
VALUES = (0, 40, 80, 120, 160, 200, 230, 250, 256)
LEVELS = 11  # of a channel, for counting colours
COMMONEST = 8  # colours
HIDDEN = 48


class StyleJudge(nn.Module):
    """Logits (B, styles) of `features` (B, n)."""

    def __init__(self, features: int, styles: int) -> None:
        super().__init__()
        self.mean, self.spread = (nn.Parameter(torch.zeros(features), requires_grad=False) for _ in range(2))
        self.layers = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, styles))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers((x - self.mean) / self.spread)
        return logits


def features(pixels: np.ndarray) -> Tensor:
    """How colours and their changes are spread over the things on pictures uint8 (N, H, W, 3), as rows of shares."""
    return torch.stack([_features(picture) for picture in pixels])


def _features(picture: np.ndarray) -> Tensor:
    small = Image.fromarray(picture).resize((SEEN, SEEN), Image.Resampling.BOX)
    whole = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()
    found = [
        share for x in (whole, F.avg_pool2d(whole, 2)) for share in _shares(_changes(x), _thing(x)[1:, 1:], CHANGES)
    ]
    thing, value = _thing(whole), whole.amax(0)
    found += _shares(value - whole.amin(0), thing, SATURATIONS) + _shares(value, thing, VALUES)
    red, green, blue = (whole[:, thing] * LEVELS / 256).long()
    counts = torch.bincount((red * LEVELS + green) * LEVELS + blue, minlength=LEVELS**3)
    shares = counts / counts.sum().clamp(min=1)
    variety = -(shares * (shares + 1e-9).log()).sum()
    return torch.stack([*found, variety, *shares.topk(COMMONEST).values])


def _thing(x: Tensor) -> Tensor:
    """Where (H, W) the picture (3, H, W) is not as in its corner."""
    return (x - x[:, :3, :3].mean((1, 2))[:, None, None]).abs().amax(0) > GROUND


def _changes(x: Tensor) -> Tensor:
    """The larger of a pixel's differences to the pixels left of it and above it (H - 1, W - 1)."""
    across, down = (x[:, :, 1:] - x[:, :, :-1]).abs().amax(0)[1:], (x[:, 1:] - x[:, :-1]).abs().amax(0)[:, 1:]
    return torch.maximum(across, down)


def _shares(values: Tensor, where: Tensor, edges: tuple[int, ...]) -> list[Tensor]:
    """The shares of the values between neighbouring `edges` among those `where`."""
    chosen = values[where]
    return [((chosen >= low) & (chosen < high)).sum() / max(1, len(chosen)) for low, high in pairwise(edges)]


@torch.inference_mode()
def through(vae: VAE, pixels: np.ndarray, most: float = 0.0) -> np.ndarray:
    """Pictures as the autoencoder gives them back, with latents that are uneven by up to `most` of their spread."""
    parts = []
    for start in range(0, len(pixels), 20):
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(images_to_tensor(pixels[start : start + 20])).float()
            images = vae.decode(latents + uneven(latents, most))
        parts.append(tensor_to_images(images))
    return np.concatenate(parts)


def examples(
    folder: Path, styles: list[int], rows: range, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, Tensor]:
    """`n` pictures of real emoji of `rows` on grounds, uint8 (n, 256, 256, 3), and which of `styles` they are."""
    sets = [pictures_of(folder, style) for style in styles]
    pixels, labels = np.empty((n, SIDE, SIDE, 3), np.uint8), rng.integers(len(styles), size=n)
    for i, label in enumerate(labels):
        row = int(rng.choice(rows))
        while not sets[label][row, ..., 3].any():
            row = int(rng.choice(rows))
        scene = Scene(row, style=styles[label], ground=int(rng.integers(len(COLOURS))) if rng.random() < 0.7 else 0)
        pixels[i] = np.asarray(compose(scene, sets[label], rng, (SIDE, SIDE), Mix().spread))
    return pixels, torch.from_numpy(labels)


def train_judge(folder: Path, styles: list[int], things: int, vae: VAE, *, steps: int = 600) -> StyleJudge:
    """A judge of `styles`, kept in the work folder. Real pictures of the model's `things` were not shown to it."""
    path = folder / f"style_judge_{'_'.join(STYLES[style] for style in styles)}.safetensors"
    if path.exists():
        state = load_file(path)
        judge = StyleJudge(len(state["mean"]), len(styles))
        judge.load_state_dict(state)
        return judge.eval()
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    pixels, labels = examples(folder, styles, range(things, len(pictures_of(folder, styles[0]))), 1500, rng)
    known = features(through(vae, pixels, UNEVEN))
    judge = StyleJudge(known.shape[1], len(styles))
    judge.mean.copy_(known.mean(0))
    judge.spread.copy_(known.std(0) + 1e-6)
    optimizer = torch.optim.AdamW(judge.layers.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(steps):
        chosen = torch.from_numpy(rng.integers(len(known), size=256))
        loss = F.cross_entropy(judge(known[chosen]), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    save_file(judge.state_dict(), path)
    return judge.eval()


@torch.inference_mode()
def styles_of(judge: StyleJudge, pixels: np.ndarray) -> np.ndarray:
    """Which style (index into the judge's own) each picture (N, H, W, 3) has."""
    found: np.ndarray = judge(features(pixels)).argmax(1).numpy()
    return found
