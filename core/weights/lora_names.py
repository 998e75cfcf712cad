"""How LoRA files name the places of a model, as tables from those names to our modules. No torch.

Networks are named in the single-file layout or in diffusers' (general rule: spec of the two layouts), with dots or
underscores; text encoders as in transformers, behind the prefixes of kohya, diffusers, OMI (which OneTrainer writes) and
ComfyUI's own parameters.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.models.configs import UNetConfig
from core.models.names import DIFFUSERS_RESNET, DIFFUSERS_TOP

TEXT_PROJECTION = "text_projection"  # a parameter of ours, input x output; in LoRA files a linear layer, output x input
_OLD_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def network_names(modules: Iterable[str], config: UNetConfig) -> dict[str, str]:
    """What a LoRA file may call each of the network's `modules` ("input_blocks.1.0.in_layers.2") -> that module."""
    names: dict[str, str] = {}
    blocks = _diffusers_blocks(config)
    for module in modules:
        theirs = _diffusers_names(module, blocks)
        for name in (module, *theirs):
            underscored = name.replace(".", "_")
            names[f"lora_unet_{underscored}"] = names[f"lycoris_{underscored}"] = module
        for name in (*theirs, *(_processor(name) for name in theirs), f"diffusion_model.{module}", module):
            names[name] = names[f"unet.{name}"] = module
        names[f"model.diffusion_model.{module}"] = module
    return names


def text_encoder_names(modules: Iterable[str], number: int, *, alone: bool) -> dict[str, str]:
    """The same for text encoder `number` (1: CLIP-L, 2: bigG); `alone`: there is no other one, so it needs no number."""
    short = {1: ("lora_te1_", "lora_te_"), 2: ("lora_te2_", "lora_te_") if alone else ("lora_te2_",)}[number]
    side = {1: "clip_l", 2: "clip_g"}[number]
    dotted = {
        1: ("text_encoder.", ""),
        2: ("text_encoder_2.", *(("text_encoder.", "") if alone else ())),
    }[number] + (f"{side}.", f"{side}.transformer.", f"text_encoders.{side}.transformer.")
    names: dict[str, str] = {}
    for module in modules:
        head, _, last = module.rpartition(".")
        spellings = [module, module.removeprefix("text_model.")]
        if last in _OLD_ATTENTION:
            spellings.append(f"{head}.{_OLD_ATTENTION[last]}")
        for spelling in spellings:
            names.update({prefix + spelling.replace(".", "_"): module for prefix in short})
            names.update({prefix + spelling: module for prefix in dotted})
    return names


def normal_key(key: str) -> str:
    """`key` without what PEFT puts in front of a model's names."""
    return key.replace("base_model.model.", "", 1)


def is_text_key(key: str) -> bool:
    """Whether `key` means a text encoder, ours or another model's."""
    return key.startswith(("lora_te", "text_encoder", "text_model", "clip_l", "clip_g", "te1", "te2", "t5xxl"))


def _processor(name: str) -> str:
    """The name of an attention's matrix where attention processors held the LoRA."""
    name = name.replace(".to_", ".processor.to_")
    return name.removesuffix(".0") if name.endswith(".to_out.0") else name


def _diffusers_blocks(config: UNetConfig) -> dict[str, str]:
    """Block of the single-file layout ("input_blocks.4") -> level, kind and number in diffusers' layout.

    A block "input_blocks.3" that halves the sides gives "down_blocks.0.downsamplers.0"; others give the level and, behind
    a "#", the number of the residual block and its transformer.
    """
    blocks: dict[str, str] = {}
    number, last = 1, len(config.num_res_blocks) - 1
    for level, n in enumerate(config.num_res_blocks):
        for i in range(n):
            blocks[f"input_blocks.{number}"] = f"down_blocks.{level}#{i}"
            number += 1
        if level < last:
            blocks[f"input_blocks.{number}"] = f"down_blocks.{level}.downsamplers.0"
            number += 1
    number = 0
    for level, n in enumerate(reversed(config.num_res_blocks)):
        for i in range(n + 1):
            blocks[f"output_blocks.{number}"] = f"up_blocks.{level}#{i}"
            number += 1
    return blocks


def _diffusers_names(module: str, blocks: dict[str, str]) -> tuple[str, ...]:
    """What diffusers calls `module`; several for what it calls differently in its models."""
    if module in DIFFUSERS_TOP:
        return DIFFUSERS_TOP[module]
    parts = module.split(".")
    if parts[0] == "middle_block" and len(parts) > 2:
        kind = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[parts[1]]
        return (f"mid_block.{kind}.{_inside('.'.join(parts[2:]))}",)
    block = blocks.get(".".join(parts[:2]))
    if block is None:
        return ()
    rest = ".".join(parts[3:])
    if "#" not in block:
        return (f"{block}.conv",)
    level, _, i = block.partition("#")
    if rest == "conv":
        return (f"{level}.upsamplers.0.conv",)
    return (f"{level}.{'resnets' if parts[2] == '0' else 'attentions'}.{i}.{_inside(rest)}",)


def _inside(rest: str) -> str:
    """Inside a residual block the names differ, inside a transformer they are the same."""
    return DIFFUSERS_RESNET.get(rest, rest)
