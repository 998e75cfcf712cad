"""Encode placed pictures to latents once: `python tools/embedded_model/encode.py --side 256`. Needs a trained VAE.

train_unet.py does it by itself if the pool is not there.

Writes `latents_SIDE.npz` to the work folder: `latents` float16 (N, 4, side/8, side/8) of zero mean and unit variance in
each channel, `thing` and `colour` (N,). The first run also writes `latent_scale.npz`, the mean and spread that were
divided out; export.py folds them into the file's quant_conv, so that the file is an ordinary SDXL-layout VAE.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from data import COLOURS, THINGS, WHITE, WORK, held_out, random_place
from torch import Tensor
from train_vae import CONFIG
from training import images_to_tensor, load

from core.models.vae import VAE

log = logging.getLogger(__name__)


def trained_vae(folder: Path, device: str = "cpu") -> VAE:
    """The autoencoder with its averaged weights; with the refined decoder if there is one."""
    vae = VAE(CONFIG)
    state = load(folder / "vae_decoder.safetensors", "cpu") or load(folder / "vae.safetensors", "cpu")
    if state is None:
        raise SystemExit(f"There is no vae.safetensors in {folder}. Run train_vae.py first.")
    vae.load_state_dict(state["ema"])
    return vae.to(device).eval()


def latent_scale(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the raw latents, each (1, 4, 1, 1)."""
    with np.load(folder / "latent_scale.npz") as stored:
        return torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"])


@torch.inference_mode()
def encode_pool(folder: Path, side: int, *, variants: int, spread: float, device: str) -> Path:
    """Encode every trained pair `variants` times (white thrice as often) and write the pool. Gives its path."""
    pictures = np.load(folder / "data" / "pictures.npy", mmap_mode="r")
    vae = trained_vae(folder, device)
    rng = np.random.default_rng(side)

    def encode(pairs: list[tuple[int, int]], side: int) -> Tensor:
        placed = np.stack([random_place(pictures[t], c, rng, side, spread) for t, c in pairs])
        with torch.autocast(device, torch.bfloat16):
            return vae.encode(images_to_tensor(placed, device)).float().cpu()

    skipped = held_out()
    pairs = [(t, c) for t in range(len(THINGS)) for c in range(len(COLOURS)) if (t, c) not in skipped]
    if not (folder / "latent_scale.npz").exists():
        some = encode([pairs[i] for i in rng.choice(len(pairs), 200, replace=False)], 256)
        mean, std = some.mean((0, 2, 3), keepdim=True).numpy(), some.std((0, 2, 3), keepdim=True).numpy()
        np.savez(folder / "latent_scale.npz", mean=mean, std=std)
        log.info("latent mean %s, spread %s", mean.ravel().round(3), std.ravel().round(3))
    mean_of, std_of = latent_scale(folder)
    many = [pair for pair in pairs for _ in range(variants * (3 if pair[1] == WHITE else 1))]
    latents = np.empty((len(many), 4, side // 8, side // 8), np.float16)
    for i in range(0, len(many), 32):
        latents[i : i + 32] = ((encode(many[i : i + 32], side) - mean_of) / std_of).numpy()
    thing, colour = np.asarray(many, np.int16).T
    path = folder / f"latents_{side}.npz"
    np.savez(path, latents=latents, thing=thing, colour=colour)
    log.info("%d latents of %d px", len(latents), side)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Encode placed pictures to latents.")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--side", type=int, default=256, help="pixels (%(default)s)")
    parser.add_argument(
        "--variants", type=int, default=4, help="places per pair; white has thrice as many (%(default)s)"
    )
    parser.add_argument(
        "--spread", type=float, default=0.2, help="0: always the same place; 1: scale 0.82 to 0.92 (%(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encode_pool(args.work, args.side, variants=args.variants, spread=args.spread, device=args.device)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
