"""Paint scenes and encode them to latents once: `python tools/embedded_model/encode.py --side 256`. With the work folder's VAE, or the checkpoint's.

Writes shards `pool_SIDE/NNN.npz` to the work folder, each of pictures of one shape: `latents` float16 (N, 4, h/8, w/8) of
zero mean and unit variance in each channel, `scenes` (N, 7) and `sizes` (N, 6). Shards that are there stay; more can be
written while a training run goes on. With a VAE of the work folder the first run also writes `latent_scale.npz`, the mean and
spread that were divided out; export.py folds them into the file's quant_conv, so that the file is an ordinary SDXL-layout VAE.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from data import CHECKPOINT, STAGES, STYLES, THINGS, WORK, held_out, pictures_of
from scene import SHAPES, Mix, Scene, draw_scene, paint
from torch import Tensor
from train_vae import CONFIG
from training import images_to_tensor, load

from core.models.vae import SDXL_SCALE, VAE
from core.weights.checkpoint import load_vae

log = logging.getLogger(__name__)

SHAPE_ORDER = (0, 1, 0, 2, 0, 3, 0, 4, 0, 0)  # of SHAPES: shard n has the n-th of these
SHARD = 1024


def encoder_of_its_own(folder: Path) -> bool:
    """Whether the work folder's autoencoder has another encoder than the checkpoint that ships."""
    return (folder / "vae.safetensors").exists()


def trained_vae(folder: Path, device: str = "cpu") -> VAE:
    """The work folder's autoencoder with its averaged weights, with the refined decoder if there is one; else that of the
    checkpoint that ships."""
    state = load(folder / "vae_decoder.safetensors", "cpu") or load(folder / "vae.safetensors", "cpu")
    if state is None:
        return load_vae(CHECKPOINT, dtype=torch.float32).to(device).eval()
    vae = VAE(CONFIG)
    vae.load_state_dict(state["ema"])
    return vae.to(device).eval()


def latent_scale(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the raw latents of `trained_vae`, each (1, 4, 1, 1).

    Those of a checkpoint are what export.py folded in: 0 and 1 / 0.13025.
    """
    if not encoder_of_its_own(folder):
        return torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), 1 / SDXL_SCALE)
    with np.load(folder / "latent_scale.npz") as stored:
        return torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"])


@torch.inference_mode()
def encode(vae: VAE, pixels: np.ndarray, device: str) -> Tensor:
    """Raw latents of uint8 pictures (N, H, W, 3), 32 at a time."""
    with torch.autocast(device, torch.bfloat16):
        parts = [
            vae.encode(images_to_tensor(pixels[i : i + 32], device)).float().cpu() for i in range(0, len(pixels), 32)
        ]
    return torch.cat(parts)


def shares(text: str) -> dict[int, float]:
    """`3d=2,flat=1` as style and weight."""
    given = dict(part.split("=") for part in text.split(","))
    return {STYLES.index(name): float(weight) for name, weight in given.items()}


class Deck:
    """Things and styles in an order of chance that comes round to each equally often, styles by their weights."""

    def __init__(self, things: int, weights: dict[int, float], folder: Path, rng: np.random.Generator) -> None:
        self.rng, self.things = rng, things
        self.weights = np.asarray(list(weights.values())) / sum(weights.values())
        self.pictures = {style: pictures_of(folder, style) for style in weights}
        self.there: dict[int, np.ndarray] = {
            style: np.asarray(rows[:things, :, :, 3].any(axis=(1, 2))) for style, rows in self.pictures.items()
        }
        self.cards: list[int] = []

    def draw(self) -> tuple[int, int]:
        """A thing and a style that has a picture of it."""
        while True:
            self.cards = self.cards or [int(t) for t in self.rng.permutation(self.things)]
            thing = self.cards.pop()
            style = list(self.pictures)[int(self.rng.choice(len(self.weights), p=self.weights))]
            if self.there[style][thing]:
                return thing, style

    def scene(self, mix: Mix) -> Scene:
        """A scene with the next thing; a second one that has no picture in its style is left out."""
        thing, style = self.draw()
        scene = draw_scene(thing, style, self.things, held_out(), mix, self.rng)
        while scene.second >= 0 and not self.there[style][[scene.thing, scene.second]].all():
            scene = replace(scene, thing=thing, second=-1)
        return scene


def write_shard(folder: Path, side: int, number: int, deck: Deck, vae: VAE, mix: Mix, device: str) -> None:
    """Paint and encode shard `number`."""
    eighths = SHAPES[SHAPE_ORDER[number % len(SHAPE_ORDER)]]
    size = (side * eighths[0] // 8, side * eighths[1] // 8)
    pixels, scenes, sizes = np.empty((SHARD, *size, 3), np.uint8), [], []
    for i in range(SHARD):
        scene = deck.scene(mix)
        pixels[i], conditions = paint(scene, deck.pictures[scene.style], deck.rng, size, mix)
        scenes.append(scene.row())
        sizes.append(conditions)
    mean, std = latent_scale(folder)
    latents = ((encode(vae, pixels, device) - mean) / std).half().numpy()
    path = folder / f"pool_{side}" / f"{number:03d}.npz"
    temporary = path.with_name(f"{number:03d}.tmp.npz")
    np.savez(temporary, latents=latents, scenes=np.asarray(scenes, np.int16), sizes=np.asarray(sizes, np.int16))
    temporary.replace(path)


def measure_scale(folder: Path, deck: Deck, vae: VAE, device: str) -> None:
    """Write latent_scale.npz from 200 pictures of 256 px."""
    pixels = []
    for _ in range(200):
        scene = deck.scene(Mix(two=0))
        pixels.append(paint(scene, deck.pictures[scene.style], deck.rng, (256, 256), Mix())[0])
    some = encode(vae, np.stack(pixels), device)
    mean, std = some.mean((0, 2, 3), keepdim=True).numpy(), some.std((0, 2, 3), keepdim=True).numpy()
    np.savez(folder / "latent_scale.npz", mean=mean, std=std)
    log.info("latent mean %s, spread %s", mean.ravel().round(3), std.ravel().round(3))


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint scenes and encode them to latents.")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--side", type=int, default=256, help="pixels (%(default)s)")
    parser.add_argument("--shards", type=int, default=20, help=f"of {SHARD} pictures each (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard (%(default)s)")
    parser.add_argument("--things", type=int, default=STAGES[1], help="the first so many (%(default)s)")
    parser.add_argument("--all-things", action="store_const", dest="things", const=len(THINGS))
    parser.add_argument("--styles", type=shares, default="3d=2,flat=1,line=1", help="and their weights (%(default)s)")
    parser.add_argument("--spread", type=float, default=1.0, help="how much places and sizes differ (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder, mix = args.work, Mix(spread=args.spread)
    (folder / f"pool_{args.side}").mkdir(parents=True, exist_ok=True)
    vae = trained_vae(folder, args.device)
    if encoder_of_its_own(folder) and not (folder / "latent_scale.npz").exists():
        measure_scale(folder, Deck(args.things, args.styles, folder, np.random.default_rng(0)), vae, args.device)
    for number in range(args.first, args.first + args.shards):
        if (folder / f"pool_{args.side}" / f"{number:03d}.npz").exists():
            continue
        deck = Deck(args.things, args.styles, folder, np.random.default_rng([args.side, number]))
        write_shard(folder, args.side, number, deck, vae, mix, args.device)
        log.info("shard %d of %d px", number, args.side)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
