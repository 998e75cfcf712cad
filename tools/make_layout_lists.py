"""Writes tests/data/layouts.json.xz: names and shapes of the full-size checkpoints, from an independent source.

diffusers and transformers build the published sizes on the meta device; their names are turned into the single-file ones
by the general rule between the two layouts. Nothing of `core` is used, so that the tests compare two truths. Run it with
`python -m tools.make_layout_lists`; it needs diffusers and transformers, no weights and no network.
"""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OUTPUT = Path(__file__).parents[1] / "tests" / "data" / "layouts.json.xz"

Shapes = dict[str, list[int]]

_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_COMMON_SDXL: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "use_linear_projection": True,
}
SDXL: dict[str, Any] = {
    **_COMMON_SDXL,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", _CROSS_DOWN, _CROSS_DOWN),
    "up_block_types": (_CROSS_UP, _CROSS_UP, "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 2816,
}
SSD_1B: dict[str, Any] = {
    **SDXL,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
VEGA: dict[str, Any] = {
    **SDXL,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, 1, 2],
    "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
}
REFINER: dict[str, Any] = {
    **_COMMON_SDXL,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", _CROSS_DOWN, _CROSS_DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", _CROSS_UP, _CROSS_UP, "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}
SD15: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", _CROSS_UP, _CROSS_UP, _CROSS_UP),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
}
CLIP_G: dict[str, Any] = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}

_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_VAE = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_to_ldm(tensors: dict[str, Tensor], blocks: int = 2) -> dict[str, Tensor]:
    """A diffusers UNet's tensors under the single-file names; `blocks` residual blocks a level on the way down."""
    attended = {name.split(".attentions.")[0] for name in tensors if ".attentions." in name}
    return {_unet_name(name, blocks, attended): tensor for name, tensor in tensors.items()}


def _unet_name(name: str, blocks: int, attended: set[str]) -> str:
    for old, new in _TOP.items():
        if name.startswith(f"{old}."):
            return new + name[len(old) :]
    side, _, rest = name.partition("_block")
    if side == "mid":
        kind, i, rest = rest.removeprefix(".").split(".", 2)
        block = f"middle_block.{2 * int(i) if kind == 'resnets' else 1}"
    else:
        _, level, kind, i, rest = rest.split(".", 4)
        if kind == "downsamplers":
            return f"input_blocks.{(blocks + 1) * (int(level) + 1)}.0.{rest.replace('conv', 'op', 1)}"
        if kind == "upsamplers":
            place = 2 if f"up_blocks.{level}" in attended else 1
            return f"output_blocks.{(blocks + 1) * int(level) + blocks}.{place}.{rest}"
        number = (blocks + 1) * int(level) + int(i) + (1 if side == "down" else 0)
        block = f"{'input' if side == 'down' else 'output'}_blocks.{number}.{0 if kind == 'resnets' else 1}"
    if kind == "resnets":
        first, _, last = rest.partition(".")
        rest = f"{_IN_RESNET[first]}.{last}"
    return f"{block}.{rest}"


def vae_to_ldm(tensors: dict[str, Tensor], levels: int = 4) -> dict[str, Tensor]:
    """A diffusers AutoencoderKL's tensors under the single-file names, attention as 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _IN_VAE.items():
            name = name.replace(f".{old}.", f".{new}.")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", name)
        renamed[name] = tensor[..., None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
    return renamed


def clip_to_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformers text model with projection under open_clip's names: packed q, k, v; projection input x output."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("text_model.").replace("encoder.layers.", "transformer.resblocks.")
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            twins = [tensors[f"text_model.{name}".replace("transformer.resblocks", "encoder.layers")]]
            twins += [tensors[twin] for twin in _twins(f"text_model.{name}")]
            name, tensor = name.replace("self_attn.q_proj.", "attn.in_proj_"), torch.cat(twins)
        for old, new in (
            ("self_attn.", "attn."),
            ("layer_norm", "ln_"),
            ("final_ln_", "ln_final"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("embeddings.token_embedding", "token_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
        ):
            name = name.replace(old, new)
        if name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T
        renamed[name] = tensor
    return renamed


def _twins(name: str) -> list[str]:
    name = name.replace("transformer.resblocks", "encoder.layers")
    return [name.replace("q_proj", "k_proj"), name.replace("q_proj", "v_proj")]


def _state(model: Any) -> dict[str, Tensor]:
    return dict(model.state_dict())


def _text(model: nn.Module) -> dict[str, Tensor]:
    """A text model's tensors, named with `text_model.` in front as in published files."""
    return {n if n.startswith("text_") else f"text_model.{n}": t for n, t in model.state_dict().items()}


def main() -> None:
    """Write the lists."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        vae = vae_to_ldm(_state(AutoencoderKL(**VAE)))
        clip_l = _text(CLIPTextModel(CLIPTextConfig(**CLIP_L)))
        clip_g = clip_to_open_clip(_text(CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G))))
        two = {"conditioner.embedders.0.transformer.": clip_l, "conditioner.embedders.1.model.": clip_g}
        texts = {
            "sdxl": two,
            "ssd-1b": two,
            "vega": two,
            "sdxl-refiner": {"conditioner.embedders.0.model.": clip_g},
            "sd15": {"cond_stage_model.transformer.": clip_l},
        }
        unets = {"sdxl": SDXL, "ssd-1b": SSD_1B, "vega": VEGA, "sdxl-refiner": REFINER, "sd15": SD15}
        files: dict[str, Shapes] = {}
        for family, config in unets.items():
            unet = unet_to_ldm(_state(UNet2DConditionModel(**config)))
            parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, **texts[family]}
            files[family] = {
                prefix + name: list(tensor.shape)
                for prefix, part in parts.items()
                for name, tensor in sorted(part.items())
            }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_bytes(lzma.compress(json.dumps(files, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME))
    for family, shapes in files.items():
        print(f"{family}: {len(shapes)} tensors")
    print(f"{OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
