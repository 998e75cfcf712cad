"""LoRA files of seeded random numbers for the tiny checkpoint, in each of the spellings that are about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.models.clip import CLIPText
from core.models.configs import TINY, TINY_CLIP_G, TINY_CLIP_L, UNetConfig
from core.models.unet import UNet

# Of the network and of the text encoders; names as in the single-file checkpoint and in transformers.
ATTENTIONS = ("attn1.to_q", "attn1.to_k", "attn2.to_v", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
TEXT_MODULES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def modules(config: UNetConfig = TINY, *, text: bool = True) -> dict[str, dict[str, tuple[int, ...]]]:
    """Part -> path of a module -> shape of its weight, for what LoRAs are usually trained on."""
    with torch.device("meta"):
        parts = {"unet": UNet(config), "clip_l": CLIPText(TINY_CLIP_L), "clip_g": CLIPText(TINY_CLIP_G)}
    wanted = {"unet": ATTENTIONS, "clip_l": TEXT_MODULES, "clip_g": TEXT_MODULES}
    return {
        part: {
            path: tuple(module.weight.shape)
            for path, module in parts[part].named_modules()
            if path.endswith(endings) and hasattr(module, "weight")
        }
        for part, endings in wanted.items()
        if text or part == "unet"
    }


def low_rank(shape: tuple[int, ...], rank: int, generator: torch.Generator, size: float = 0.3) -> tuple[Tensor, Tensor]:
    """Up and down for a weight of `shape`, such that their product is about `size` large."""
    spread = (size / rank**0.5) ** 0.5
    up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator) * spread
    down = torch.randn(rank, *shape[1:], generator=generator) * spread
    return up, down


def kohya(part: str, path: str) -> str:
    """kohya's key of a module."""
    return {"unet": "lora_unet_", "clip_l": "lora_te1_", "clip_g": "lora_te2_"}[part] + path.replace(".", "_")


def write_lora(
    path: Path,
    *,
    rank: int = 4,
    alpha: float | None = 2.0,
    seed: int = 0,
    text: bool = True,
    config: UNetConfig = TINY,
    dtype: torch.dtype = torch.float32,
    size: float = 0.3,
    extra: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A LoRA in kohya's spelling on all of `modules`."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = dict(extra or {})
    for part, shapes in modules(config, text=text).items():
        for module, shape in shapes.items():
            key = kohya(part, module)
            up, down = low_rank(shape, rank, generator, size)
            tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"] = up.to(dtype), down.to(dtype)
            if alpha is not None:
                tensors[f"{key}.alpha"] = torch.tensor(alpha, dtype=dtype)
    return write(path, tensors, metadata)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Any tensors as a file."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, dict(metadata or {}))
    return path
