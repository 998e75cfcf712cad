"""Tiny second models of seeded random weights, one for each family that a refiner can be, and a tiny interposer's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from core.models.clip import CLIPText, to_open_clip
from core.models.configs import TINY, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, UNetConfig
from core.models.interposer import Interposer
from core.models.unet import UNet
from core.models.vae import VAE
from core.weights.sources import INTERPOSER

TINY_REFINER = replace(TINY, context_dim=96, adm_in_channels=96 + 5 * 256)
TINY_SD15 = replace(TINY, context_dim=64, adm_in_channels=None, linear_projections=False, heads=8)


def write_refiner(path: Path, *, unet: UNetConfig = TINY_REFINER, seed: int = 1) -> Path:
    """An SDXL refiner: bigG alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {
            "model.diffusion_model.": UNet(unet).state_dict(),
            "first_stage_model.": VAE(TINY_VAE).state_dict(),
            "conditioner.embedders.0.model.": to_open_clip(CLIPText(TINY_CLIP_G).state_dict()),
        }
    return _write(path, parts)


def write_sd15(path: Path, *, unet: UNetConfig = TINY_SD15, seed: int = 2, vae: bool = True) -> Path:
    """A Stable Diffusion 1.5 checkpoint."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {
            "model.diffusion_model.": UNet(unet).state_dict(),
            "first_stage_model.": VAE(TINY_VAE).state_dict() if vae else {},
            "cond_stage_model.transformer.": CLIPText(TINY_CLIP_L).state_dict(),
        }
    return _write(path, parts)


def write_interposer(folder: Path, seed: int = 3) -> Path:
    """The published file's names, random numbers; with the counters that training leaves in it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = Interposer().state_dict()
        for name in list(tensors):
            if name.endswith("running_mean"):
                tensors[name] = 0.1 * torch.randn(64)
                tensors[name.replace("running_mean", "running_var")] = 0.5 + torch.rand(64)
                tensors[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(1000)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / INTERPOSER)
    return folder / INTERPOSER


def _write(path: Path, parts: dict[str, dict[str, torch.Tensor]]) -> Path:
    tensors = {prefix + name: t.half().contiguous() for prefix, part in parts.items() for name, t in part.items()}
    save_file(tensors, path)
    return path
