"""Foreign names of tensors, as tables: open_clip's text encoder, diffusers' autoencoder and network. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

OPEN_CLIP = {  # open_clip -> transformers, names outside the layers
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection",
}
OPEN_CLIP_LAYER = {  # the same inside a layer, beginnings of names
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}
QKV = ("q_proj", "k_proj", "v_proj")  # in the order in which open_clip packs them

DIFFUSERS_VAE = "decoder.up_blocks.0.resnets.0.norm1.weight"  # a file with this tensor is in diffusers' layout
_DIFFUSERS_VAE = (
    (r"\bdown_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2."),
    (r"\bdown_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"\bup_blocks\.(\d+)\.resnets\.(\d+)\.", r"up.\1.block.\2."),
    (r"\bup_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
    (r"\bmid_block\.resnets\.0\.", r"mid.block_1."),
    (r"\bmid_block\.resnets\.1\.", r"mid.block_2."),
    (r"\bmid_block\.attentions\.0\.", r"mid.attn_1."),
    (r"\bconv_shortcut\.", r"nin_shortcut."),
    (r"\bconv_norm_out\.", r"norm_out."),
    (r"\bgroup_norm\.", r"norm."),
    (r"\b(query|to_q)\.", r"q."),
    (r"\b(key|to_k)\.", r"k."),
    (r"\b(value|to_v)\.", r"v."),
    (r"\b(to_out\.0|proj_attn)\.", r"proj_out."),
)

DIFFUSERS_UNET = "up_blocks.0.resnets.0.norm1.weight"  # a file with this tensor is a network in diffusers' layout
DIFFUSERS_RESNET = {  # inside a residual block of a network: ours -> diffusers'
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
DIFFUSERS_TOP = {  # outside its blocks; several where its models differ
    "input_blocks.0.0": ("conv_in",), "out.0": ("conv_norm_out",), "out.2": ("conv_out",),
    "time_embed.0": ("time_embedding.linear_1",), "time_embed.2": ("time_embedding.linear_2",),
    "label_emb.0.0": ("add_embedding.linear_1", "class_embedding.linear_1"),
    "label_emb.0.2": ("add_embedding.linear_2", "class_embedding.linear_2"),
}  # fmt: skip
_RESNET = {theirs: ours for ours, theirs in DIFFUSERS_RESNET.items()}
_TOP = {theirs: ours for ours, names in DIFFUSERS_TOP.items() for theirs in names}
_BLOCK = re.compile(
    r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)\.(weight|bias)"
)


def open_clip_names(name: str) -> list[str]:
    """What transformers calls the open_clip tensor `name`: one name, three for a packed q, k, v, none if unknown.

    `text_projection.weight` is output x input, so whoever renames it must transpose it as well.
    """
    if name in OPEN_CLIP:
        return [OPEN_CLIP[name]]
    if name == "text_projection.weight":
        return ["text_projection"]
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if match is None:
        return []
    layer, rest = f"text_model.encoder.layers.{match[1]}.", match[2]
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        return [f"{layer}self_attn.{part}.{rest.rpartition('_')[2]}" for part in QKV]
    return [layer + new + rest[len(old) :] for old, new in OPEN_CLIP_LAYER.items() if rest.startswith(old)]


def ldm_vae_name(name: str, levels: int) -> str:
    """The single-file name of diffusers' autoencoder tensor `name`; its decoder counts the levels the other way round."""
    for pattern, replacement in _DIFFUSERS_VAE:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\bup\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)


def ldm_unet_name(name: str, down: Sequence[int], up: Sequence[int], attended: Collection[int]) -> str:
    """What a single-file checkpoint calls the network's tensor that diffusers calls `name`; an unknown name stays as it is.

    `down` and `up` are how many residual blocks each level has on its way, `attended` the levels of the way up with attention.
    """
    module, _, ending = name.rpartition(".")
    if module in _TOP:
        return f"{_TOP[module]}.{ending}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name
    way, level, kind, i, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    place = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 2 if level in attended else 1}[kind]
    if kind == "resnets":
        rest = _RESNET.get(rest, rest)
    elif kind == "downsamplers":
        i, rest = down[level], "op"
    elif kind == "upsamplers":
        i = up[level] - 1
    if way == "mid":
        return f"middle_block.{place + 2 * i}.{rest}.{ending}"
    if way == "down":  # each level ends with a downsampling, and the first convolution comes before all
        return f"input_blocks.{1 + sum(down[:level]) + level + i}.{place}.{rest}.{ending}"
    return f"output_blocks.{sum(up[:level]) + i}.{place}.{rest}.{ending}"
