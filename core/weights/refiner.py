"""Refiner files to networks: the part of a checkpoint that a second model needs, and the latent interposer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from core.device import Device
from core.errors import BadModelFile, ModelNotFound
from core.models.clip import CLIPText
from core.models.interposer import Interposer
from core.models.unet import UNet
from core.models.vae import VAE
from core.weights import checkpoint, layouts
from core.weights import info as parts
from core.weights.files import Files
from core.weights.header import read_header
from core.weights.info import ModelInfo, info_of
from core.weights.mapped import MappedFile
from core.weights.quantized import multiply_in_int8
from core.weights.sources import INTERPOSER, SOURCES


@dataclass(frozen=True, eq=False)
class Refiner:
    """The second model. `vae` is there only if its latents are of another kind than the base model's (SD 1.x)."""

    info: ModelInfo
    unet: UNet
    vae: VAE | None = None


def load_refiner(
    path: Path, *, device: Device, unet_room: int | None = None, check: Callable[[], None] | None = None
) -> Refiner:
    """The network of the checkpoint at `path`, and the VAE of an SD 1.x one; text encoders are not read.

    `unet_room` is as in `load_checkpoint`. Raises ModelNotFound, BadModelFile for a damaged file or one that can be no
    refiner, and what `check` raises, which is called between the tensors.
    """
    header = read_header(path)
    info = info_of(header, path.name)
    info.check_refiner()
    file = MappedFile(header, torch.device("cpu"))
    network, storage = parts.network(header), device.unet_storage
    dtype = checkpoint.type_in_room(network, device.unet_dtype, storage, unet_room)
    unet = checkpoint.load_part(file, "the network", network, checkpoint.build_unet, dtype, storage, check=check)
    if device.int8_linears:
        multiply_in_int8(unet)
    if info.family != "sd15":
        return Refiner(info, unet)
    entries = layouts.autoencoder(header.part(parts.VAE))
    vae = checkpoint.load_part(file, "the VAE", entries, checkpoint.build_vae, device.vae_dtype, check=check)
    checkpoint.check_latents(path.name, vae.config, unet.config)
    return Refiner(info, unet, vae)


def twin(unet: UNet) -> UNet:
    """Another network of the very same weights, which take no memory twice and move between devices together.

    Replacing a weight of one (by a new Parameter) leaves the other as it is.
    """
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    return copy.deepcopy(unet, shared)


def check_pair(refiner: Refiner, clip_l: CLIPText | None, clip_g: CLIPText | None) -> None:
    """Whether `refiner` understands what the base model's text encoders say. Raises BadModelFile with the widths."""
    width_l, width_g = (0 if clip is None else clip.config.width for clip in (clip_l, clip_g))
    given = {"sd15": width_l, "sdxl-refiner": width_g}.get(refiner.info.family, width_l + width_g)
    wanted = refiner.unet.config.context_dim
    if given != wanted:
        raise BadModelFile(
            f"{refiner.info.name} wants text conditions {wanted} wide, and those of the base model are {given} wide. "
            "Choose a refiner of the same kind and size as the base model, or none."
        )


def load_interposer(files: Files) -> Interposer:
    """The latent interposer, in float32, from the `vae_approx` folders. Raises ModelNotFound and BadModelFile."""
    try:
        path = files.find(INTERPOSER)
    except ModelNotFound:
        folders = ", ".join(str(folder) for folder in files.folders) or "no folder at all"
        raise ModelNotFound(
            f"A Stable Diffusion 1.5 refiner needs the latent interposer {INTERPOSER}, and it is not in {folders}. "
            f"Fetch it with `python launch.py download {INTERPOSER}`, or put it there (5.7 MB, from "
            f"{SOURCES[INTERPOSER].url}), or choose an SDXL refiner."
        ) from None
    header = read_header(path)
    entries = {name: entry for name, entry in header.tensors.items() if not name.endswith(".num_batches_tracked")}
    file = MappedFile(header, torch.device("cpu"))
    return checkpoint.load_part(file, "the interposer", entries, lambda _: Interposer(), torch.float32)
