"""A minimal sampler for looking at a run while it trains: DPM-Solver++(2M) on the Karras schedule, v-prediction."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from model import Painter, embed_sizes
from PIL import Image
from torch import Tensor
from training import tensor_to_images
from words import Words

from core.models.unet import UNet
from core.models.vae import VAE

SIGMA_MIN, SIGMA_MAX = 0.0291672, 14.6146


def sigma_table() -> Tensor:
    """The 1000 noise levels of SDXL, ascending."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    signal = (1 - betas).cumprod(0)
    return ((1 - signal) / signal).sqrt().float()


def karras(steps: int, rho: float = 7.0) -> list[float]:
    """Noise levels from the highest to the lowest, and 0."""
    high, low = SIGMA_MAX ** (1 / rho), SIGMA_MIN ** (1 / rho)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


@torch.inference_mode()
def sample(
    unet: UNet,
    context: Tensor,
    pooled: Tensor,
    *,
    size: tuple[int, int],
    seeds: list[int],
    steps: int = 16,
    guidance: float = 3.0,
) -> Tensor:
    """Latents (B, 4, h/8, w/8) of zero mean and unit variance, for pictures of `size` (h, w) pixels.

    `context` (2B, T, C) and `pooled` (2B, P) hold the conditions of the B prompts first, then those of the B negative prompts.
    """
    n, device = len(seeds), context.device
    sizes = torch.tensor([[*size, 0, 0, *size]] * 2 * n, dtype=torch.float32, device=device)
    y = torch.cat([pooled, embed_sizes(sizes)], dim=1)
    table = sigma_table().log()
    shape = (4, size[0] // 8, size[1] // 8)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    sigmas = karras(steps)
    x = noise.to(device) * sigmas[0]
    old, last = torch.zeros_like(x), 0.0
    for sigma, after in pairwise(sigmas):
        t = (table - math.log(sigma)).abs().argmin().float().to(device).expand(2 * n)
        power = 1 + sigma**2
        with torch.autocast(device.type, torch.bfloat16):
            v = unet((x / power**0.5).repeat(2, 1, 1, 1), t, context, y).float()
        v = v[n:] + guidance * (v[:n] - v[n:])
        x0 = x / power - v * sigma / power**0.5
        if after == 0:
            return x0
        h = math.log(sigma / after)
        guess = x0 + (x0 - old) * h / (2 * last) if last else x0
        x = x * (after / sigma) - math.expm1(-h) * guess
        old, last = x0, h
    return x


@torch.inference_mode()
def sample_painter(
    painter: Painter,
    words: Words,
    prompts: list[str],
    *,
    size: tuple[int, int],
    steps: int,
    guidance: float = 3.0,
    seeds: list[int] | None = None,
    negative: str = "",
) -> Tensor:
    """`sample` for a network in training; without `seeds` picture n starts from seed n."""
    device = next(painter.parameters()).device
    left, right = words.batch([words.content(p) for p in [*prompts, *[negative] * len(prompts)]])
    context, pooled = painter.read((left.to(device), right.to(device)))
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return sample(painter.unet, context, pooled, size=size, seeds=seeds, steps=steps, guidance=guidance)


@torch.inference_mode()
def decode(vae: VAE, latents: Tensor, scale: tuple[Tensor, Tensor]) -> np.ndarray:
    """Normed latents to uint8 pixels (B, H, W, 3)."""
    mean, std = (s.to(latents.device) for s in scale)
    images = torch.cat([vae.decode(z * std + mean) for z in latents.split(8)])
    return tensor_to_images(images)


def sheet(pixels: np.ndarray, columns: int) -> Image.Image:
    """Pictures (N, H, W, 3) in a grid."""
    n, high, wide = pixels.shape[:3]
    grid = Image.new("RGB", (columns * wide, -(-n // columns) * high), "white")
    for i, picture in enumerate(pixels):
        grid.paste(Image.fromarray(picture), (i % columns * wide, i // columns * high))
    return grid
