"""Which model a checkpoint file holds, from its header alone; no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadModelFile
from core.models.configs import UNetConfig
from core.weights import distilled, layouts
from core.weights.header import Header, TensorEntry, read_header

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer."
CLIP_G = "conditioner.embedders.1.model."
REFINER_CLIP_G = "conditioner.embedders.0.model."
SD1_CLIP_L = "cond_stage_model.transformer."

FAMILIES = {  # family -> what to call it
    "sdxl": "an SDXL checkpoint",
    "ssd-1b": "an SSD-1B checkpoint",
    "vega": "a Segmind Vega checkpoint",
    "sdxl-refiner": "an SDXL refiner checkpoint",
    "sd15": "a Stable Diffusion 1.5 checkpoint",
    "sd15-inpaint": "a Stable Diffusion 1.5 inpainting checkpoint",
    "zero123": "a Zero123 checkpoint",
    "sd2": "a Stable Diffusion 2 checkpoint",
    "unclip": "a Stable Diffusion 2.1 unCLIP checkpoint",
    "x4-upscaler": "a Stable Diffusion x4 upscaler",
    "svd": "a Stable Video Diffusion checkpoint",
    "sdxl-inpaint": "an SDXL inpainting checkpoint",
    "unknown": "a diffusion checkpoint of an unknown family",
}
BASES = frozenset({"sdxl", "ssd-1b", "vega"})
REFINERS = ("sdxl", "ssd-1b", "vega", "sdxl-refiner", "sd15")
VAE_WORDS = "the autoencoder (VAE)"
_PARTS = {  # family -> {prefix -> what to call the part}
    "sd15": {SD1_CLIP_L: "the text encoder (CLIP-L)"},
    "sdxl-refiner": {REFINER_CLIP_G: "the text encoder (CLIP-G)"},
}
_SDXL_PARTS = {CLIP_L: "the text encoder CLIP-L", CLIP_G: "the text encoder CLIP-G"}

PARTS = {"vae": "vae", "text_encoder_l": "text_encoders", "text_encoder_g": "text_encoders"}
"""Parts that a request can take from files of their own: the Settings field -> the kind of file (and folder)."""
_CHOSEN_BY = {VAE_WORDS: "vae", **dict(zip(_SDXL_PARTS.values(), ("text_encoder_l", "text_encoder_g"), strict=True))}

_MARKERS = re.compile("v_pred|ztsnr|edm_.*")  # tensors that say how a model is to be used, and are no weights

_OTHER_FILES = (  # a piece of a tensor's name -> what the file is
    ("double_blocks.", "a Flux model"),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("lora_up.", "a LoRA"),
    ("lora_down.", "a LoRA"),
    ("lora_A.", "a LoRA"),
    ("lora_B.", "a LoRA"),
    ("ip_adapter.", "an IP-Adapter"),
    ("encoder.down", "an autoencoder (VAE)"),
    ("down_blocks.0.", "a network in diffusers' layout"),
    ("first_stage_model.", "an autoencoder (VAE)"),
    ("text_model.", "a text encoder"),
    ("emb_params", "a textual-inversion embedding"),
)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A checkpoint as its header tells. `name` is relative to its folder, `size` in bytes."""

    name: str
    path: Path
    size: int
    family: str  # a key of FAMILIES
    missing: tuple[str, ...] = ()  # parts that the family has and the file lacks, in words
    prediction: str = "epsilon"  # "epsilon", "v" or "edm"
    zero_terminal_snr: bool = False
    native_size: tuple[int, int] = (1024, 1024)  # width and height in pixels; what the model was trained on
    settings: Mapping[str, Any] = field(default_factory=dict)  # recommended ones, by Settings field name; unchecked
    note: str = ""  # what else the user should know

    @property
    def problem(self) -> str:
        """Why this file cannot be the base model by itself, as a sentence; "" if it can."""
        return self.problem_with(())

    def problem_with(self, chosen: Collection[str]) -> str:
        """The same if the parts `chosen` (Settings fields, keys of PARTS) come from files of their own."""
        if self.family not in BASES:
            return f"{self.name} is {FAMILIES[self.family]}; Easel needs an SDXL checkpoint as base model."
        missing = [words for words in self.missing if _CHOSEN_BY[words] not in chosen]
        if not missing:
            return ""
        lacks = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
        how = ", ".join(f"{_CHOSEN_BY[words]} (a file in {PARTS[_CHOSEN_BY[words]]}/)" for words in missing)
        return f"{self.name} lacks {lacks}. Choose {how}, or take a whole SDXL checkpoint as base model."

    @property
    def refiner_problem(self) -> str:
        """Why this file cannot be the refiner, as a sentence; "" if it can. Nobody needs a refiner's text encoders."""
        if self.family not in REFINERS:
            return f"{self.name} is {FAMILIES[self.family]}; a refiner can be {_either(REFINERS)}."
        if self.family == "sd15" and VAE_WORDS in self.missing:
            return f"{self.name} lacks {VAE_WORDS}, which a Stable Diffusion 1.5 refiner must bring along."
        return ""

    def check_refiner(self) -> None:
        """Raise BadModelFile unless this file can be the refiner."""
        if self.refiner_problem:
            raise BadModelFile(self.refiner_problem)

    def check_base(self, chosen: Collection[str] = ()) -> None:
        """Raises BadModelFile with `problem_with(chosen)` if there is one."""
        if problem := self.problem_with(chosen):
            raise BadModelFile(problem)


def network(header: Header) -> dict[str, TensorEntry]:
    """The denoising network's tensors, prefix cut off; those of a file that has nothing else have none, and may be named
    as diffusers names them."""
    named = layouts.network(header.tensors)
    if not ("input_blocks.0.0.weight" in named and "out.2.weight" in named):
        return header.part(UNET)
    return {name: entry for name, entry in named.items() if not _MARKERS.fullmatch(name)}


def model_info(path: Path, name: str = "") -> ModelInfo:
    """What the checkpoint at `path` is. Raises BadModelFile for what is no checkpoint, with what it is instead."""
    return info_of(read_header(path), name or path.name)


def info_of(header: Header, name: str) -> ModelInfo:
    """As `model_info`, for a header already read."""
    shapes = {key: entry.shape for key, entry in network(header).items()}
    if not shapes:
        raise BadModelFile(
            f"{name} is {_other_file(header)}; a checkpoint with network, text encoders and VAE was wanted."
        )
    try:
        family = _family(UNetConfig.from_shapes(shapes), header)
    except BadModelFile as error:
        raise BadModelFile(f"{name} holds a network that Easel cannot read: {error}.") from None
    parts = {VAE: VAE_WORDS} | _PARTS.get(family, _SDXL_PARTS if family in BASES else {})
    prediction, note = _prediction(header)
    title = header.metadata.get("modelspec.title", "")
    if kind := distilled.kind_of(name, title):
        note = f"{note} By its name it is a {kind.name} checkpoint: a few steps, little or no guidance.".strip()
    return ModelInfo(
        name=name,
        path=header.path,
        size=header.size,
        family=family,
        missing=tuple(words for prefix, words in parts.items() if not header.part(prefix)),
        prediction=prediction,
        zero_terminal_snr="ztsnr" in header.tensors,
        native_size=_native_size(header),
        settings={**distilled.settings_of(name, title), **_settings(header)},
        note=note,
    )


def _family(unet: UNetConfig, header: Header) -> str:
    """Which family `unet` is of; SDXL at any size is told by how the widths of its conditions add up."""
    adm, context, channels = unet.adm_in_channels, unet.context_dim, unet.model_channels
    if any(".time_stack." in name or ".time_mix_blocks." in name for name in header.tensors):
        return "svd"
    if adm is None:
        if context == 1024 and unet.in_channels == 7:
            return "x4-upscaler"
        if not unet.linear_projections:
            return {4: "sd15", 9: "sd15-inpaint", 8: "zero123"}.get(unet.in_channels, "unknown")
        return "sd2" if context == 1024 else "unknown"
    if context == 1024 and adm in (1536, 2048):
        return "unclip"
    if not unet.linear_projections:
        return "unknown"
    refiner = header.part(REFINER_CLIP_G) or (channels == 384 and not header.part(CLIP_L))
    if refiner and adm == context + 5 * 256:
        return "sdxl-refiner"
    width_g = adm - 6 * 256
    if not 0 < width_g < context:
        return "unknown"
    if unet.in_channels != 4:
        return "sdxl-inpaint"
    if channels != 320:
        return "sdxl"
    return (
        "ssd-1b" if unet.depth_in == (0, 0, 2, 2, 4, 4) else "vega" if unet.depth_in == (0, 0, 1, 1, 2, 2) else "sdxl"
    )


def _either(families: Sequence[str]) -> str:
    """What `families` are called, as a list with `or`."""
    *first, last = (FAMILIES[family] for family in families)
    return f"{', '.join(first)} or {last}"


def _other_file(header: Header) -> str:
    for piece, words in _OTHER_FILES:
        if any(piece in name for name in header.tensors):
            return words
    return "no model that Easel knows" if header.tensors else "empty"


def _prediction(header: Header) -> tuple[str, str]:
    """What the network predicts, and a note if that is unusual."""
    tensors = header.tensors
    if "edm_mean" in tensors and "edm_std" in tensors:
        return "edm", "The model was trained with the EDM formulation (as Playground v2.5)."
    if any(name.startswith("edm_vpred") for name in tensors):
        return "v", "The model was trained with v-prediction on EDM noise levels, which Easel does not have yet."
    if "v_pred" in tensors or header.metadata.get("modelspec.prediction_type", "").lower().startswith("v"):
        return "v", ""
    return "epsilon", ""


def _native_size(header: Header) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{2,4})\s*x\s*(\d{2,4})\s*", header.metadata.get("modelspec.resolution", ""))
    if match is None:
        return 1024, 1024
    width, height = (min(4096, max(64, int(side) // 8 * 8)) for side in match.groups())
    return width, height


def _settings(header: Header) -> dict[str, Any]:
    try:
        settings = json.loads(header.metadata.get("easel.settings", "{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
