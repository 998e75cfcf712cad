"""A tiny SDXL-layout checkpoint of seeded random weights, for tests that run the whole path."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from core.models.clip import CLIPText, to_open_clip
from core.models.configs import TINY, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, UNetConfig, VAEConfig
from core.models.unet import UNet
from core.models.vae import VAE


def write_checkpoint(
    path: Path,
    *,
    unet: UNetConfig = TINY,
    vae: VAEConfig = TINY_VAE,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write it to `path`; 64 x 64 is what its header calls its native size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {
            "model.diffusion_model.": UNet(unet).state_dict(),
            "first_stage_model.": VAE(vae).state_dict(),
            "conditioner.embedders.0.transformer.": CLIPText(TINY_CLIP_L).state_dict(),
            "conditioner.embedders.1.model.": to_open_clip(CLIPText(TINY_CLIP_G).state_dict()),
        }
    tensors = {
        prefix + name: tensor.to(dtype).contiguous() for prefix, part in parts.items() for name, tensor in part.items()
    }
    save_file(tensors, path, {"modelspec.resolution": "64x64", **(metadata or {})})
    return path
