"""other_programs: where Fooocus, A1111, Forge, ComfyUI and the Hugging Face cache keep their files, so that they can be used in place.

Nothing there is ever written, moved or renamed; downloads go to Easel's own folders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from core.errors import BadConfig, BadModelFile, ModelNotFound
from core.reference_keys import read_reference
from core.there import is_file, is_folder, why_unreadable
from core.weights.header import Header, is_safetensors, read_header

_A1111 = {
    "checkpoints": ("models/Stable-diffusion",),
    "loras": ("models/Lora", "models/LyCORIS"),
    "vae": ("models/VAE",),
    "embeddings": ("embeddings",),
    "text_encoders": ("models/text_encoder",),
    "vae_approx": ("models/VAE-approx",),
    "upscale_models": ("models/ESRGAN", "models/RealESRGAN"),
    "controlnet": ("models/ControlNet", "extensions/sd-webui-controlnet/models"),
}
LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # program -> kind -> folders below the program's
    "fooocus": {
        "checkpoints": ("models/checkpoints",),
        "loras": ("models/loras",),
        "vae": ("models/vae",),
        "embeddings": ("models/embeddings",),
        "vae_approx": ("models/vae_approx",),
        "prompt_expansion": ("models/prompt_expansion",),
        "upscale_models": ("models/upscale_models",),
        "inpaint": ("models/inpaint",),
        "controlnet": ("models/controlnet",),
        "clip_vision": ("models/clip_vision",),
        "safety_checker": ("models/safety_checker",),
        "sam": ("models/sam",),
        "wildcards": ("wildcards",),
        "styles": ("sdxl_styles",),
    },
    "a1111": _A1111,
    "forge": _A1111,
    "comfyui": {
        "checkpoints": ("models/checkpoints", "models/diffusion_models", "models/unet"),
        "loras": ("models/loras",),
        "vae": ("models/vae",),
        "embeddings": ("models/embeddings",),
        "text_encoders": ("models/text_encoders", "models/clip"),
        "vae_approx": ("models/vae_approx",),
        "upscale_models": ("models/upscale_models",),
        "inpaint": ("models/inpaint",),
        "controlnet": ("models/controlnet",),
        "clip_vision": ("models/clip_vision",),
        "sam": ("models/sams",),
    },
}
HUGGING_FACE = "huggingface"
PROGRAMS = (*LAYOUTS, HUGGING_FACE)
CONFIG_FILES = {"fooocus": "config.txt"}  # in which a program's user may have named other folders

# A piece of a tensor's name -> the kind of file that has it. The first that fits counts.
_KINDS = (
    ("model.diffusion_model.", "checkpoints"),
    ("lora_", "loras"),
    (".lora.", "loras"),
    ("first_stage_model.", "vae"),
    ("decoder.up_blocks.", "vae"),
    ("decoder.up.", "vae"),
    ("text_model.", "text_encoders"),
    ("emb_params", "embeddings"),
    ("clip_g", "embeddings"),
    ("input_blocks.0.0.weight", "checkpoints"),  # the network alone
    ("up_blocks.0.resnets.", "checkpoints"),
)
# Folders of a diffusers model, each with one part of it.
_PARTS = ("unet*", "vae*", "text_encoder*", "transformer*", "image_encoder*", "safety_checker*", "prior*")


def folders_of(program: str, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The folders of `program` at `folder` that are there, by kind; of the Hugging Face cache the files themselves.

    Those that cannot be read now are among them: the disk may come back, or the right to read it.
    Raises BadConfig if there is nothing of the kind.
    """
    if program == HUGGING_FACE:
        return hub_files(folder)
    layout = LAYOUTS[program]
    found = {
        kind: tuple(folder / place for place in places if _is_place(folder / place)) for kind, places in layout.items()
    }
    if program in CONFIG_FILES:
        for kind, places in _configured(folder / CONFIG_FILES[program], folder).items():
            found[kind] = tuple(dict.fromkeys((*places, *found.get(kind, ()))))
    found = {kind: places for kind, places in found.items() if places}
    if not found:
        wanted = ", ".join(place for places in layout.values() for place in places[:1])
        raise BadConfig(f"use_models_of: {folder} is no folder of {program}; it has none of: {wanted}.")
    return found


def hub_folder(environ: Mapping[str, str]) -> Path:
    """Where the Hugging Face cache is on this machine."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118
    return Path(home).expanduser() / "hub"


def hub_files(cache: Path) -> dict[str, tuple[Path, ...]]:
    """Whole models in one file that lie in the cache, by kind, told by their tensors' names.

    Networks in diffusers' layout (a folder of parts) are passed over. Raises BadConfig if `cache` is no such cache.
    """
    if why := why_unreadable(cache):
        raise BadConfig(f"use_models_of: the Hugging Face cache at {cache} cannot be read ({why}).")
    if not is_folder(cache):
        raise BadConfig(f"use_models_of: there is no Hugging Face cache at {cache}. Name its folder `hub`.")
    found: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for file in _snapshot_files(cache):
        real = file.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            kind = _kind(read_header(file))
        except (BadModelFile, ModelNotFound, OSError):
            continue
        if kind:
            found.setdefault(kind, []).append(file)
    return {kind: tuple(files) for kind, files in found.items()}


def _snapshot_files(cache: Path) -> Iterator[Path]:
    """Files in a snapshot, also in folders of it that are no diffusers model's; the newest snapshot of each repository first."""
    for repository in _folders_in(cache):
        if not repository.name.startswith("models--"):
            continue
        for snapshot in sorted(_folders_in(repository / "snapshots"), key=_changed, reverse=True):
            walked = os.walk(snapshot)
            below = (Path(place) / name for place, _, names in walked for name in names if is_safetensors(name))
            for file in sorted(filter(is_file, below)):
                folders = file.relative_to(snapshot).parts[:-1]
                if not any(fnmatch(folder, part) for folder in folders for part in _PARTS):
                    yield file


def _folders_in(place: Path) -> list[Path]:
    """The folders in `place`, and links to folders, in the order of their names; none if it cannot be read."""
    try:
        return sorted(filter(is_folder, place.iterdir()))
    except OSError:
        return []


def _changed(place: Path) -> float:
    """When `place` was changed last, in seconds since 1970; 0 if that cannot be seen."""
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _is_place(folder: Path) -> bool:
    return is_folder(folder) or bool(why_unreadable(folder))


def _kind(header: Header) -> str:
    return next((kind for piece, kind in _KINDS if any(piece in name for name in header.tensors)), "")


def _configured(file: Path, root: Path) -> dict[str, tuple[Path, ...]]:
    """The folders that a config.txt names, as far as they are there."""
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {}
    for kind, places in read_reference(
        {key: value for key, value in values.items() if key.startswith("path_")}
    ).config.items():
        listed = places if isinstance(places, list) else [places]
        found[kind] = tuple(folder for place in listed if isinstance(place, str) and (folder := _there(root, place)))
    found.pop("outputs", None)
    return found


def _there(root: Path, place: str) -> Path | None:
    """The folder `place`, from `root` on; None if there is none."""
    try:
        folder = root / Path(place).expanduser()
        return folder if _is_place(folder) else None
    except RuntimeError:  # a home that nobody has
        return None
