"""Train the autoencoder: `python tools/embedded_model/train_vae.py`. Needs prepare.py's output; resumes where it stopped.

The start decides (LOG.md): at step 0 the network already is an average-pooling encoder and a bilinear decoder, all
residual branches are zero, and training only adds what is missing.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import torch
from data import CHECKPOINT, STYLES, THINGS, WHITE, WORK, pictures_of
from scene import Mix, draw_scene, paint, plain
from torch import Tensor, nn
from training import Average, Budget, Team, arguments, due, images_to_tensor, load, mixed_noise, save

from core.models.configs import VAEConfig
from core.models.vae import VAE, AttnBlock, Downsample, ResBlock, Upsample
from core.weights.checkpoint import load_vae

log = logging.getLogger(__name__)

CONFIG = VAEConfig(channels=32, channel_mult=(1, 1, 2, 4), num_res_blocks=1)
STEADY = 4.0  # constant channels beside r, g, b: large enough to make a GroupNorm nearly linear
HELD_OUT = 100  # rows at the end of the set, never trained on


def identity_start(vae: VAE) -> None:
    """Set the weights so that decode(encode(image)) is the picture, pooled 8 x 8 and enlarged bilinearly.

    Colour c is carried by the group of channels 4c .. 4c+3 as (c, -c, k, -k): its GroupNorm divides by about k / sqrt 2,
    whatever c is, and SiLU(x) - SiLU(-x) = x gives the colour back. The other channels start at random.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResBlock):
                _zero(module.conv2)
                if isinstance(module.nin_shortcut, nn.Conv2d):
                    n = min(module.nin_shortcut.weight.shape[:2])
                    _clear(module.nin_shortcut, n)
                    module.nin_shortcut.weight[range(n), range(n)] = 1.0
            elif isinstance(module, AttnBlock):
                _zero(module.proj_out)
            elif isinstance(module, Downsample):
                _spread(module.conv, torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]) / 4)
            elif isinstance(module, Upsample):
                _spread(module.conv, torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16)
        encoder, decoder = vae.encoder, vae.decoder
        for first in (encoder.conv_in, decoder.conv_in):
            bias = _clear(first, 12)
            for c in range(3):
                first.weight[4 * c, c, 1, 1], first.weight[4 * c + 1, c, 1, 1] = 1.0, -1.0
                bias[4 * c + 2], bias[4 * c + 3] = STEADY, -STEADY
        for norm, last in ((encoder.norm_out, encoder.conv_out), (decoder.norm_out, decoder.conv_out)):
            norm.weight[:12] = STEADY / math.sqrt(2)
            _clear(last, 3).zero_()
            for c in range(3):
                last.weight[c, 4 * c, 1, 1], last.weight[c, 4 * c + 1, 1, 1] = 1.0, -1.0
        _clear(encoder.conv_out, 8, first=4)[4:] = -6.0  # log-variance: nearly no noise
        for conv in (vae.quant_conv, vae.post_quant_conv):
            _zero(conv)
            n = conv.weight.shape[0]
            conv.weight[range(n), range(n)] = 1.0


def _clear(conv: nn.Conv2d, rows: int, *, first: int = 0) -> Tensor:
    """Zero the output channels `first` to `rows` - 1. Gives the bias."""
    assert conv.bias is not None
    conv.weight[first:rows] = 0
    conv.bias[first:rows] = 0
    return conv.bias


def _zero(conv: nn.Conv2d) -> None:
    _clear(conv, conv.weight.shape[0])


def _spread(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Channels 0 .. 11 each through `kernel` (3, 3) alone; the others stay as they are."""
    _clear(conv, 12)
    conv.weight[range(12), range(12)] = kernel


def uneven(latents: Tensor, most: float) -> Tensor:
    """What to add to `latents` (B, 4, h, w), so that a decoder learns to smooth what a UNet leaves uneven.

    Fine and coarse noise in a mixture of chance, of up to `most` of the latents' spread.
    """
    strength = torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return most * strength * latents.std() * mixed_noise(latents, 2, "bilinear")


def loss_of(vae: VAE, image: Tensor, noise: Tensor, *, encoder: bool = True, most: float = 0.0) -> Tensor:
    """L1 + MSE + 0.5 gradient-L1 + 2e-4 KL of a batch (B, 3, H, W). `most`: see `uneven`."""
    mean, logvar = vae.moments(image)
    latents = mean + (0.5 * logvar).exp() * noise
    out = vae.decode(latents + uneven(latents, most) if most else latents)
    error = out - image
    rows, columns = error.diff(dim=2).abs().mean(), error.diff(dim=3).abs().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return error.abs().mean() + error.square().mean() + 0.5 * (rows + columns) + (2e-4 * kl if encoder else 0)


def painted_pictures(folder: Path) -> np.ndarray:
    """A pool (N, 256, 256, 3) of painted scenes: every thing four times in every style, all other pictures in one."""
    path = folder / "data" / "vae_pool.npy"
    if not path.exists():
        rng, mix = np.random.default_rng(1), Mix(larger=0, smaller=0, cropped=0.2)
        sets = [pictures_of(folder, style) for style in range(len(STYLES))]
        there = np.stack([pictures[..., 3].any(axis=(1, 2)) for pictures in sets])
        rows = [(t, s) for t in range(len(THINGS)) for s in range(len(STYLES)) if there[s, t] for _ in range(4)]
        others = range(len(THINGS), there.shape[1] - HELD_OUT)
        rows += [(t, int(rng.choice(np.flatnonzero(there[:, t])))) for t in others if there[:, t].any()]
        pool = np.empty((len(rows), 256, 256, 3), np.uint8)
        for i, (row, style) in enumerate(rows):
            things = max(row + 1, len(THINGS))
            scene = draw_scene(row, style, things, frozenset(), mix, rng)
            pool[i] = paint(scene, sets[style], rng, (256, 256), mix)[0]
        np.save(path, pool)
    stored: np.ndarray = np.load(path, mmap_mode="r")
    return stored


def held_pictures(folder: Path, style: int) -> np.ndarray:
    """Pictures (N, 256, 256, 3) of one style on white that are never trained on: those of the last rows."""
    pictures = pictures_of(folder, style)
    rows = [i for i in range(len(pictures) - HELD_OUT, len(pictures)) if pictures[i, ..., 3].any()]
    return np.stack([plain(i, WHITE, style, pictures, 256) for i in rows])


def crops(pool: np.ndarray, side: int, batch: int, rng: np.random.Generator) -> Tensor:
    """Random crops (B, 3, side, side), mostly from the middle, where the picture is; half of them mirrored."""
    out = np.empty((batch, side, side, 3), np.uint8)
    for i, row in enumerate(rng.integers(len(pool), size=batch)):
        y, x = (int(np.clip(rng.normal(0.5, 0.28), 0, 1) * (256 - side)) for _ in range(2))
        crop = pool[row, y : y + side, x : x + side]
        out[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return images_to_tensor(out)


@torch.no_grad()
def psnr(vae: VAE, pictures: np.ndarray, device: str) -> float:
    """Mean PSNR in dB over pictures (N, 256, 256, 3), with the posterior's mean."""
    total = 0.0
    for i in range(0, len(pictures), 10):
        image = images_to_tensor(pictures[i : i + 10], device)
        out = vae.decode(vae.encode(image)).clamp(-1, 1)
        mse = ((out - image) / 2).square().mean(dim=(1, 2, 3))
        total += float((-10 * mse.log10()).sum())
    return total / len(pictures)


def main() -> None:
    parser = arguments("Train the autoencoder.", WORK, minutes=15, batch=32, rate=4e-4)
    parser.add_argument(
        "--decoder-only",
        action="store_true",
        help="go on with a frozen encoder (crops of 128) from the work folder's autoencoder, else from the checkpoint's",
    )
    parser.add_argument(
        "--uneven",
        type=float,
        default=0.0,
        help="with --decoder-only: train it to smooth noise of up to this share of the latents' spread (%(default)s)",
    )
    parser.add_argument("--crop", type=int, default=0, help="side of the crops (default: 64, then 96, then 128)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    folder, device, team = args.work, args.device, Team()
    if team.rank == 0:
        painted_pictures(folder)
    team.sum(torch.zeros(1))  # the others wait for it
    pool = painted_pictures(folder)
    held = {style: held_pictures(folder, style) for style in range(len(STYLES))}

    vae, shadow = VAE(CONFIG).to(device), VAE(CONFIG).to(device)
    identity_start(vae)
    average = Average(vae, decay=0.998)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0)
    budget = Budget(args.minutes, args.samples, args.decay_from)
    step = 0
    path = folder / ("vae_decoder.safetensors" if args.decoder_only else "vae.safetensors")
    start = load(path, device) or (load(folder / "vae.safetensors", device) if args.decoder_only else None)
    if start is not None:
        vae.load_state_dict(start["model"] if path.exists() else start["ema"])
        average.weights = start["ema"]
        if path.exists():
            optimizer.load_state_dict(start["optimizer"])
            step, average.steps = start["step"], start["step"]
            budget.seconds, budget.seen = start["seconds"], start["seen"]
    elif args.decoder_only:
        vae.load_state_dict(load_vae(CHECKPOINT, dtype=torch.float32).state_dict())
        average = Average(vae, decay=0.998)
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    rng = np.random.default_rng([step, team.rank])
    budget.restart_clock()
    progress, evaluate = budget.progress, due(args.every)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    while True:
        done = progress >= 1
        if (next(evaluate) or done or step == 0) and team.rank == 0:
            shadow.load_state_dict(average.weights)
            line = {
                "step": step, "minutes": round(budget.seconds / 60, 2), "samples": budget.seen,
                **{
                    STYLES[style]: round(psnr(shadow, pictures[:: 1 if done else 5], device), 2)
                    for style, pictures in held.items()
                },
            }  # fmt: skip
            log.info(json.dumps(line))
            save(path, {"model": vae.state_dict(), "ema": average.weights, "optimizer": optimizer.state_dict(),
                        "step": step, "seconds": budget.seconds, "seen": budget.seen})  # fmt: skip
            budget.restart_clock()
        if done:
            return
        side = args.crop or (128 if args.decoder_only else 64 if progress < 0.5 else 96 if progress < 0.85 else 128)
        batch = max(4, args.batch * 64 * 64 // (side * side))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * budget.rate(step, warm_up=100, progress=progress)
        image = crops(pool, side, batch, rng).to(device)
        noise = torch.randn(batch, 4, side // 8, side // 8, device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(vae, image, noise, encoder=not args.decoder_only, most=args.uneven)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        progress = team.share(parameters, budget.progress)
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae)
        step += 1
        budget.add(batch * team.size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
