"""Checkpoint file -> networks, built on the meta device and filled from a memory map of the file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from core.device import Device
from core.errors import BadModelFile
from core.models.clip import CLIPText
from core.models.configs import CLIP_L, CLIPConfig, UNetConfig, VAEConfig
from core.models.unet import UNet
from core.models.vae import VAE
from core.weights import info as parts
from core.weights import layouts
from core.weights.header import Header, read_header
from core.weights.info import ModelInfo, info_of
from core.weights.layouts import Entries
from core.weights.mapped import MappedFile
from core.weights.plain import PlainWeights, remember
from core.weights.quantized import fill, multiply_in_int8

# What tools leave inside a part and no network of ours has.
HARMLESS = re.compile(
    r"(.*\.)?(position_ids|logit_scale|total_ops|total_params)|(model_ema|loss|visual|vision_model|visual_projection)\..*"
)

ENCODER_PREFIXES = {  # of text encoders in files that hold more than one of them
    "text_encoder_l": (parts.CLIP_L, "text_encoders.clip_l.transformer.", "text_encoder.", parts.SD1_CLIP_L),
    "text_encoder_g": (parts.CLIP_G, "text_encoders.clip_g.transformer.", "text_encoder_2.", parts.REFINER_CLIP_G),
}

RATIO = 8  # pixels a latent cell along a side, in every family

Shapes = dict[str, tuple[int, ...]]
Part = TypeVar("Part", bound=nn.Module)
Check = Callable[[], None]


@dataclass(frozen=True)
class Checkpoint:
    """The networks of one file, for inference: no gradients, and weights that may be views of the file."""

    info: ModelInfo
    unet: UNet
    vae: VAE
    clip_l: CLIPText | None  # None in the SDXL refiner
    clip_g: CLIPText | None  # None in SD 1.x


@dataclass(frozen=True, eq=False)
class EmptyPart(Generic[Part]):
    """A part on the meta device whose tensors have been checked name by name, and where its weights are."""

    module: Part
    file: MappedFile
    entries: Entries

    def load(self, dtype: torch.dtype | None, storage: torch.dtype | None = None, check: Check | None = None) -> Part:
        """The part with its weights in `dtype` (None: as stored), the large ones of a network in `storage` if that is given.

        `check` is called before each tensor and may raise; nothing but this part is then half done.
        """
        if storage is not None and isinstance(self.module, UNet):
            fill(self.module, self.file, self.entries, dtype, storage, check)
        else:
            self.module.load_state_dict(self._tensors(dtype, check), strict=True, assign=True)
        remember(self.module, PlainWeights(self.file, self.entries))
        self.module.eval()
        return self.module.requires_grad_(False)

    def _tensors(self, dtype: torch.dtype | None, check: Check | None) -> dict[str, Tensor]:
        """All tensors in `dtype`; of a text encoder in 8 bits the linear layers alone, tables, norms and biases as stored."""
        if dtype is None or dtype.itemsize > 1 or not isinstance(self.module, CLIPText):
            return self.file.tensors(self.entries, dtype, check)
        large = {f"{name}.weight" for name, layer in self.module.named_modules() if isinstance(layer, nn.Linear)}
        linear = {name: entry for name, entry in self.entries.items() if name in large}
        others = {name: entry for name, entry in self.entries.items() if name not in large}
        return self.file.tensors(linear, dtype, check) | self.file.tensors(others, None, check)


@dataclass(frozen=True, eq=False)
class OpenCheckpoint:
    """A checkpoint of which all is known to fit, and no weight has been read."""

    info: ModelInfo
    unet: EmptyPart[UNet]
    vae: EmptyPart[VAE]
    clip_l: EmptyPart[CLIPText] | None
    clip_g: EmptyPart[CLIPText] | None

    def load(
        self,
        *,
        unet_dtype: torch.dtype | None = None,
        text_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
        device: Device | None = None,
        unet_room: int | None = None,
        check: Check | None = None,
    ) -> Checkpoint:
        """Read the weights. The arguments are those of `load_checkpoint`; to be called once."""
        storage, in_int8 = None, False
        if device is not None:
            storage, in_int8 = device.unet_storage, device.int8_linears
            unet_dtype, vae_dtype = unet_dtype or device.unet_dtype, vae_dtype or device.vae_dtype
            text_dtype = text_dtype or device.text_dtype
        unet = self.unet.load(type_in_room(self.unet.entries, unet_dtype, storage, unet_room), storage, check)
        if in_int8:
            multiply_in_int8(unet)
        vae = self.vae.load(vae_dtype, check=check)
        clip_l, clip_g = (
            None if clip is None else clip.load(text_dtype, check=check) for clip in (self.clip_l, self.clip_g)
        )
        return Checkpoint(self.info, unet, vae, clip_l, clip_g)


def type_in_room(
    entries: Entries, dtype: torch.dtype | None, storage: torch.dtype | None, room: int | None
) -> torch.dtype | None:
    """`dtype`, or None, which leaves a network in its file, where its weights `entries` would take more than `room` bytes in it."""
    if dtype is None or storage is not None or room is None:
        return dtype
    return dtype if sum(math.prod(entry.shape) for entry in entries.values()) * dtype.itemsize <= room else None


def load_checkpoint(
    path: Path,
    *,
    unet_dtype: torch.dtype | None = None,
    text_dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype | None = None,
    device: Device | torch.device | str = "cpu",
    chosen: Mapping[str, Path] | None = None,
    unet_room: int | None = None,
    check: Check | None = None,
) -> Checkpoint:
    """All networks of the checkpoint at `path`, each in its type (None: as stored), on `device`.

    `chosen` are files that parts come from instead, by the names in `info.PARTS`; such a part need not be in the checkpoint.
    A `Device` stands for the types it has chosen; the weights then rest on the CPU until they are moved. A network that
    would take more than `unet_room` bytes is left in the file, in its own type, where networks can compute in that. `check`
    is called before each tensor and may raise. Raises as `open_checkpoint`.
    """
    types = device if isinstance(device, Device) else None
    opened = open_checkpoint(path, chosen=chosen, device="cpu" if isinstance(device, Device) else device)
    return opened.load(
        unet_dtype=unet_dtype,
        text_dtype=text_dtype,
        vae_dtype=vae_dtype,
        device=types,
        unet_room=unet_room,
        check=check,
    )


def open_checkpoint(
    path: Path, *, chosen: Mapping[str, Path] | None = None, device: torch.device | str = "cpu"
) -> OpenCheckpoint:
    """The checkpoint at `path`, with parts from the files `chosen`, as far as headers tell; `load` reads the weights.

    Raises ModelNotFound, and BadModelFile with a sentence for a pickle, a damaged file, another family, or missing parts.
    """
    header = read_header(path)
    info = info_of(header, path.name)
    chosen, device = chosen or {}, torch.device(device)
    if info.family not in ("sd15", "sdxl-refiner"):
        info.check_base(chosen.keys())
    elif info.missing:
        raise BadModelFile(f"{path.name} lacks {', '.join(info.missing)}; a whole checkpoint was wanted.")
    file = MappedFile(header, device)
    unet = empty_part(file, "the network", parts.network(header), build_unet)
    if "vae" in chosen:
        vae = _open_vae(chosen["vae"], device)
    else:
        vae = empty_part(file, "the VAE", layouts.autoencoder(header.part(parts.VAE)), build_vae)
    check_latents(chosen.get("vae", path).name, vae.module.config, unet.module.config)
    clip_l, clip_g = (
        _open_text_encoder(chosen[side], side, device)
        if side in chosen
        else empty_part(file, words, entries, build)
        if entries
        else None
        for side, (words, entries, build) in _text_encoders(header, info.family).items()
    )
    clips = [None if clip is None else clip.module for clip in (clip_l, clip_g)]
    _check_widths(path, chosen, unet.module.config, *clips)
    return OpenCheckpoint(info, unet, vae, clip_l, clip_g)


def check_tensors(path: Path) -> None:
    """Raise BadModelFile unless each part that is in the checkpoint at `path` is whole. Reads the header only."""
    header = read_header(path)
    name, family = path.name, info_of(header, path.name).family
    _built(name, "the network", _own(parts.network(header)), build_unet)
    if vae := layouts.autoencoder(header.part(parts.VAE)):
        _built(name, "the VAE", _own(vae), build_vae)
    for words, entries, build in _text_encoders(header, family).values():
        if entries:
            _built(name, words, _own(entries), build)


def load_vae(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    unet: UNetConfig | None = None,
    check: Check | None = None,
) -> VAE:
    """The autoencoder in a file of its own, in the single-file layout (with or without prefix) or diffusers'.

    `unet`: of the network whose latents it must make. `check` as in `EmptyPart.load`. Raises as `open_checkpoint`.
    """
    opened = _open_vae(path, torch.device(device))
    if unet is not None:
        check_latents(path.name, opened.module.config, unet)
    return opened.load(dtype, check=check)


def check_latents(name: str, vae: VAEConfig, unet: UNetConfig) -> None:
    """Raise BadModelFile unless the VAE in the file `name` makes latents of the network's kind."""
    if vae.ratio != RATIO or vae.z_channels != unet.in_channels:
        raise BadModelFile(
            f"{name}: the VAE makes latents of another kind, with {vae.z_channels} channels at 1/{vae.ratio} of the "
            f"picture's size; {unet.in_channels} channels at 1/{RATIO} were wanted. Choose a VAE made for this kind of model."
        )


def _open_vae(path: Path, device: torch.device) -> EmptyPart[VAE]:
    header = read_header(path)
    entries = header.part(parts.VAE) or header.part("vae.") or dict(header.tensors)
    return empty_part(MappedFile(header, device), "the VAE", layouts.autoencoder(entries), build_vae)


def load_text_encoder(
    path: Path, side: str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> CLIPText:
    """The encoder `side` ("text_encoder_l" or "text_encoder_g") in a file of its own, or in another checkpoint.

    transformers' layout and open_clip's are read, with the prefixes that programs give them. Raises as `open_checkpoint`.
    """
    return _open_text_encoder(path, side, torch.device(device)).load(dtype)


def _open_text_encoder(path: Path, side: str, device: torch.device) -> EmptyPart[CLIPText]:
    header = read_header(path)
    entries = next(filter(None, (header.part(prefix) for prefix in ENCODER_PREFIXES[side])), dict(header.tensors))
    with_projection = side == "text_encoder_g"
    return empty_part(
        MappedFile(header, device),
        "CLIP-G" if with_projection else "CLIP-L",
        layouts.text_encoder(entries, projection=with_projection),
        _clip_g if with_projection else _clip_l,
    )


def _check_widths(
    path: Path, chosen: Mapping[str, Path], unet: UNetConfig, clip_l: CLIPText | None, clip_g: CLIPText | None
) -> None:
    """Whether the text encoders, those that were chosen apart first, give what the network was trained with."""
    width_g = 0 if unet.adm_in_channels is None else unet.adm_in_channels - 6 * 256
    for side, clip, wanted in (
        ("text_encoder_l", clip_l, unet.context_dim - width_g),
        ("text_encoder_g", clip_g, width_g),
    ):
        if unet.adm_in_channels is not None and side in chosen and clip is not None and clip.config.width != wanted:
            raise BadModelFile(
                f"{chosen[side].name} is a text encoder {clip.config.width} wide, and as {side} {path.name} wants one that "
                f"is {wanted} wide. Choose another file."
            )
    width = sum(clip.config.width for clip in (clip_l, clip_g) if clip is not None)
    if width != unet.context_dim:
        raise BadModelFile(
            f"{path.name}: the text encoders are {width} wide together, and the network wants {unet.context_dim}. "
            "The parts do not belong together."
        )
    if unet.adm_in_channels is not None and clip_g is not None and clip_g.config.projection is None:
        raise BadModelFile(
            f"{chosen.get('text_encoder_g', path).name} has no text_projection of {clip_g.config.width} x "
            f"{clip_g.config.width}, which SDXL needs of CLIP-G. Take a CLIP-G saved with its projection."
        )


def _text_encoders(header: Header, family: str) -> dict[str, tuple[str, Entries, Callable[[Shapes], CLIPText]]]:
    """CLIP-L and CLIP-G: what to call it, its tensors (none if the family has none), how to build it."""
    prefix_l = {"sd15": parts.SD1_CLIP_L, "sdxl-refiner": None}.get(family, parts.CLIP_L)
    prefix_g = {"sd15": None, "sdxl-refiner": parts.REFINER_CLIP_G}.get(family, parts.CLIP_G)
    return {
        "text_encoder_l": ("CLIP-L", layouts.text_encoder_l(header.part(prefix_l)) if prefix_l else {}, _clip_l),
        "text_encoder_g": ("CLIP-G", layouts.text_encoder_g(header.part(prefix_g)) if prefix_g else {}, _clip_g),
    }


def build_unet(shapes: Shapes) -> UNet:
    return UNet(UNetConfig.from_shapes(shapes))


def build_vae(shapes: Shapes) -> VAE:
    return VAE(VAEConfig.from_shapes(shapes))


def _clip_l(shapes: Shapes) -> CLIPText:
    return _clip(shapes, quick_gelu=True)


def _clip_g(shapes: Shapes) -> CLIPText:
    return _clip(shapes, quick_gelu=False)


def _clip(shapes: Shapes, *, quick_gelu: bool) -> CLIPText:
    config = CLIPConfig.from_shapes(shapes, quick_gelu=quick_gelu)
    if config.positions < CLIP_L.positions or config.vocabulary < CLIP_L.vocabulary:
        raise BadModelFile(
            f"a text encoder of {config.positions} positions and {config.vocabulary} tokens is too small; take one of at "
            f"least {CLIP_L.positions} and {CLIP_L.vocabulary}"
        )
    return CLIPText(config)


def load_part(
    file: MappedFile,
    words: str,
    entries: Entries,
    build: Callable[[Shapes], Part],
    dtype: torch.dtype | None,
    storage: torch.dtype | None = None,
    check: Check | None = None,
) -> Part:
    """One part of `file`, called `words` in errors: built from its shapes, checked name by name, filled.

    `storage`: the type of a network's large weights, if that is not the type it computes in. `check` as in
    `EmptyPart.load`. Raises as `empty_part`.
    """
    return empty_part(file, words, entries, build).load(dtype, storage, check)


def empty_part(file: MappedFile, words: str, entries: Entries, build: Callable[[Shapes], Part]) -> EmptyPart[Part]:
    """One part of `file` without its weights.

    Raises BadModelFile for what `build` cannot read, and for missing, unknown or misshapen tensors.
    """
    entries = _own(entries)
    return EmptyPart(_built(file.header.path.name, words, entries, build), file, entries)


def _own(entries: Entries) -> Entries:
    """What a network of ours has."""
    return {name: entry for name, entry in entries.items() if not HARMLESS.fullmatch(name)}


def _built(name: str, words: str, entries: Entries, build: Callable[[Shapes], Part]) -> Part:
    """The part `words` of the file `name`, on the meta device, with just the tensors of `entries`. Raises as `empty_part`."""
    shapes = {name: entry.shape for name, entry in entries.items()}
    try:
        with torch.device("meta"):
            module = build(shapes)
    except BadModelFile as error:
        raise BadModelFile(f"{name}: {words} cannot be read: {error}.") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if lacks := wanted.keys() - shapes.keys():
        raise BadModelFile(
            f"{name}: {words} lacks tensors, {len(lacks)} in all: {_some(lacks)}. "
            "Download the file again, or take another one."
        )
    if unknown := shapes.keys() - wanted.keys():
        raise BadModelFile(
            f"{name}: {words} has unknown tensors, {len(unknown)} in all: {_some(unknown)}. "
            "Download the file again, or take another one."
        )
    for tensor, shape in wanted.items():
        if shapes[tensor] != shape:
            raise BadModelFile(
                f"{name}: in {words} the tensor {tensor} has the shape {list(shapes[tensor])}; {list(shape)} was wanted. "
                "Download the file again, or take another one."
            )
    return module


def _some(names: Collection[str]) -> str:
    """The first three of `names`."""
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
