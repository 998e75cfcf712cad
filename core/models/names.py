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


DIFFUSERS_UNET = "up_blocks.0.resnets.0.norm1.weight"  # the same of a network
_UNET_TOP = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_UNET_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")


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
    match = _UNET_BLOCK.match(name)
    if match is None:
        head = next((theirs for theirs in _UNET_TOP if name.startswith(theirs)), "")
        rest = name[len(head) :]
        return _UNET_TOP.get(head, "") + (_in_resnet(rest) if ".resnets." in head else rest)
    way, level, kind, i, rest = match[1], int(match[2]), match[3], int(match[4]), name[match.end() :]
    if kind == "resnets":
        rest = f"0.{_in_resnet(rest)}"
    elif kind == "attentions":
        rest = f"1.{rest}"
    elif kind == "downsamplers":
        i, rest = down[level], f"0.op.{rest.removeprefix('conv.')}"
    else:
        i, rest = up[level] - 1, f"{2 if level in attended else 1}.{rest}"
    if way == "down":  # each level ends with a downsampling, and the first convolution comes before all
        return f"input_blocks.{1 + sum(down[:level]) + level + i}.{rest}"
    return f"output_blocks.{sum(up[:level]) + i}.{rest}"


def _in_resnet(rest: str) -> str:
    return next((ours + rest[len(theirs) :] for theirs, ours in _UNET_RESNET.items() if rest.startswith(theirs)), rest)
