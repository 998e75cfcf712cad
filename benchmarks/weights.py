"""Random weights, made quickly: one block of random numbers, laid out again and again, in a module or in a file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from core.models.clip import CLIPText, to_open_clip
from core.models.configs import CLIP_G, CLIP_L, SDXL, TINY, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, VAEConfig
from core.models.unet import UNet
from core.models.vae import VAE

SPREAD = 0.04  # uniform in +- this: activations stay finite through the deepest of these networks
BLOCK = 2**22  # numbers
POSITION_IDS = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"


def random_block(dtype: torch.dtype, seed: int = 0) -> Tensor:
    """BLOCK numbers, uniform in +- SPREAD, of type `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(BLOCK).uniform_(-SPREAD, SPREAD, generator=generator).to(dtype)


@torch.no_grad()
def materialise(module: nn.Module, dtype: torch.dtype, device: str) -> nn.Module:
    """A module built on the meta device, with random weights of type `dtype` on `device`, ready for inference.

    Norms get weights about 1. No number exists in another type on the way, so that the peak is the module's own size.
    """
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    block = random_block(dtype).to(device)
    for name, parameter in module.named_parameters():
        flat = parameter.view(-1)
        for start in range(0, flat.numel(), BLOCK):
            part = flat[start : start + BLOCK]
            part.copy_(block[: part.numel()])
        if flat.shape == parameter.shape and name.endswith("weight"):
            flat += 1.0
    return module


def checkpoint_shapes(tiny: bool) -> dict[str, list[int]]:
    """Names and shapes of an SDXL single-file checkpoint, as in sd_xl_base_1.0 (2515 tensors); `tiny`: the same, smaller."""
    unet, vae, clip_l, clip_g = (
        (TINY, TINY_VAE, TINY_CLIP_L, TINY_CLIP_G) if tiny else (SDXL, VAEConfig(), CLIP_L, CLIP_G)
    )
    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": UNet(unet).state_dict(),
            "first_stage_model.": VAE(vae).state_dict(),
            "conditioner.embedders.0.transformer.": CLIPText(clip_l).state_dict(),
            "conditioner.embedders.1.model.": to_open_clip(CLIPText(clip_g).state_dict()),
        }
    shapes = {prefix + name: list(tensor.shape) for prefix, part in parts.items() for name, tensor in part.items()}
    return {**shapes, POSITION_IDS: [1, clip_l.positions], "conditioner.embedders.1.model.logit_scale": []}


def write_checkpoint(path: Path, *, tiny: bool, metadata: Mapping[str, str] | None = None) -> None:
    """Write such a checkpoint with random fp16 weights: 6.9 GB, or some 20 MB if `tiny`. Needs little memory.

    `metadata` goes into the file's header. Written to a temporary name and moved, so that a file at `path` is complete.
    """
    shapes = checkpoint_shapes(tiny)
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + math.prod(shape) * (8 if name == POSITION_IDS else 2)
        header[name] = {"dtype": "I64" if name == POSITION_IDS else "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    near_zero = random_block(torch.float16)
    near_one = near_zero + 1
    draft = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in sorted(shapes.items()):
            if name == POSITION_IDS:
                file.write(torch.arange(shape[1]).numpy().tobytes())
                continue
            block = near_one if len(shape) == 1 and name.endswith("weight") else near_zero
            left = math.prod(shape)
            while left > 0:
                file.write(block[:left].numpy().tobytes())
                left -= BLOCK
        file.flush()
        os.fsync(file.fileno())  # pages that are not yet on disk could not be dropped for a cold start
    draft.replace(path)
