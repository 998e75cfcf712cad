"""config_keys: every key of config.json: what it means, what it is by default, and how its value is read and checked."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from core.arguments import CLIP_PRECISIONS, PRECISIONS, UNET_PRECISIONS
from core.errors import BadConfig
from core.other_programs import PROGRAMS
from core.reference_keys import size_of
from core.settings import Settings, quoted

Reader: TypeAlias = Callable[[Any, str, Path], Any]  # (value, where it is from, folder that relative paths start at)

# Folders of files that the user may bring, below `models`; each is a field of config.json and may be a list of folders.
MODEL_KINDS = (
    "loras", "vae", "embeddings", "text_encoders", "vae_approx", "prompt_expansion", "upscale_models", "inpaint",
    "controlnet", "clip_vision", "safety_checker", "sam",
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """One key. `usual` and `help` are words for docs/configuration.md."""

    read: Reader
    usual: str
    help: str


def _folder(value: Any, origin: str, base: Path) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadConfig(f"{origin} is {quoted(value)}; it must be the path of a folder.")
    try:
        folder = base / Path(value).expanduser()
        if folder.exists() and not folder.is_dir():
            raise BadConfig(f"{origin} is {quoted(value)}, which is a file; it must be a folder.")
        return folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, nobody's home, half a letter
        raise BadConfig(f"{origin} is {quoted(value)}; that is no folder ({str(error)[:200]}).") from None


def _folders(value: Any, origin: str, base: Path) -> tuple[Path, ...]:
    several = value if isinstance(value, list) else [value]
    if not several:
        raise BadConfig(f"{origin} is an empty list; it must name at least one folder.")
    return tuple(_folder(each, origin, base) for each in several)


def _text(value: Any, origin: str, base: Path) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadConfig(f"{origin} is {quoted(value)}; it must be a line of text.")
    return value


def _host(value: Any, origin: str, base: Path) -> str:
    text = _text(value, origin, base).strip()
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not re.fullmatch(r"([\w-]{1,63}\.)*(?!\d+$)[\w-]{1,63}", text):
            raise BadConfig(
                f"{origin} is {quoted(value)}; it must be an address of this computer such as 127.0.0.1, or 0.0.0.0 for all "
                "of them."
            ) from None
    return text


def _line(value: Any, origin: str, base: Path) -> str:
    """One line of text, which may be empty."""
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise BadConfig(f"{origin} is {quoted(value)}; it must be one line of text, at most 200 characters long.")
    return value.strip()


def _address(value: Any, origin: str, base: Path) -> str:
    text = _text(value, origin, base).strip().rstrip("/")
    if not text.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise BadConfig(f"{origin} is {quoted(value)}; it must be an address that begins with https://.")
    return text


def _texts(value: Any, origin: str, base: Path) -> tuple[str, ...]:
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list) or not all(isinstance(each, str) and each.strip() for each in several):
        raise BadConfig(f"{origin} is {quoted(value)}; it must be a list of texts.")
    return tuple(each.strip() for each in several)


def _switch(value: Any, origin: str, base: Path) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise BadConfig(f"{origin} is {quoted(value)}; it must be true or false.")
    return words[value.lower()]


def _whole(low: int, high: int) -> Reader:
    def read(value: Any, origin: str, base: Path) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = low - 1
        if isinstance(value, (bool, float)) or not low <= number <= high:
            raise BadConfig(f"{origin} is {quoted(value)}; it must be a whole number from {low} to {high}.")
        return number

    return read


def _number(low: float, high: float) -> Reader:
    def read(value: Any, origin: str, base: Path) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not low <= number <= high:
            raise BadConfig(f"{origin} is {quoted(value)}; it must be a number from {low:g} to {high:g}.")
        return number

    return read


def _budget(value: Any, origin: str, base: Path) -> float | None:
    """GiB; None for "auto"."""
    if value == "auto":
        return None
    try:
        return float(_number(0.25, 4096)(value, origin, base))
    except BadConfig:
        raise BadConfig(
            f"{origin} is {quoted(value)}; it must be auto, or gibibytes of memory: a number from 0.25."
        ) from None


def _one_of(*choices: str) -> Reader:
    def read(value: Any, origin: str, base: Path) -> str:
        if value not in choices:
            raise BadConfig(f"{origin} is {quoted(value)}; it must be one of: {', '.join(choices)}.")
        return str(value)

    return read


def _sizes(value: Any, origin: str, base: Path) -> tuple[tuple[int, int], ...]:
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list) or not several:
        raise BadConfig(f'{origin} is {quoted(value, 100)}; it must be a list such as ["1152*896", "1024*1024"].')
    sizes = []
    for each in several:
        try:
            width, height = size_of(each)
            Settings(width=width, height=height)
        except Exception as error:  # ValueError or BadSetting, both with a sentence
            raise BadConfig(f"{origin}: {error}") from None
        sizes.append((width, height))
    return tuple(dict.fromkeys(sizes))


def _object(value: Any, origin: str, base: Path) -> dict[str, Any]:
    """An object; from an environment variable its JSON. What it holds is checked by who uses it."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadConfig(f'{origin} is {quoted(value, 100)}; it must be a JSON object such as {{"steps": 20}}.')
    return found


def _programs(value: Any, origin: str, base: Path) -> dict[str, tuple[Path | None, ...]]:
    """Program -> its folders; None stands for where the Hugging Face cache usually is."""
    found: dict[str, tuple[Path | None, ...]] = {}
    for program, places in _object(value, origin, base).items():
        if program not in PROGRAMS:
            raise BadConfig(f"{origin} names {quoted(program, 100)}; the programs are: {', '.join(PROGRAMS)}.")
        if places is True and program == "huggingface":
            found[program] = (None,)
        elif places is not False and places is not None:
            found[program] = _folders(places, f"{program} of {origin}", base)
    return found


_KINDS_IN_WORDS: Mapping[str, str] = {
    "loras": "LoRAs",
    "vae": "VAEs that are chosen apart from a checkpoint",
    "embeddings": "embeddings (textual inversion)",
    "text_encoders": "text encoders for checkpoints that lack them",
    "vae_approx": "preview decoders and the latent interposer",
    "prompt_expansion": "prompt expansion models, a folder each",
    "upscale_models": "upscalers",
    "inpaint": "inpainting and mask models",
    "controlnet": "ControlNets and IP-Adapters",
    "clip_vision": "image encoders and describers",
    "safety_checker": "the safety checker",
    "sam": "Segment Anything models",
}

KEYS: dict[str, Key] = {
    "outputs": Key(_folder, "outputs", "where pictures go"),
    "models": Key(_folder, "models", "your models folder; each kind of file has a folder below it"),
    "checkpoints": Key(_folders, "checkpoints below models", "checkpoints; a list is searched in its order"),
    **{kind: Key(_folders, f"{kind} below models", _KINDS_IN_WORDS[kind]) for kind in MODEL_KINDS},
    "use_models_of": Key(_programs, "nothing", "folders of other programs whose models are used in place: see below"),
    "presets": Key(_folder, "presets", "the program's own presets; they are never written"),
    "user_presets": Key(_folder, "user_presets", "your presets; they win over the program's of the same name"),
    "wildcards": Key(_folders, "wildcards", "wildcard files"),
    "styles": Key(_folders, "styles", "style files of yours beside the program's own library"),
    "picture_folders": Key(
        _folders,
        "nothing",
        "folders of pictures that other programs made; without a password the history shows them where they are",
    ),
    "preset": Key(_text, "default", "the preset that the page and `generate` start with"),
    "defaults": Key(_object, "nothing", "settings to start with, by their names; a preset wins over them"),
    "older_models": Key(_switch, "true", "an older checkpoint that a preset names does where its own is missing"),
    "max_image_number": Key(_whole(1, 100), "32", "the most pictures of one press that the page offers"),
    "lora_rows": Key(
        _whole(1, 50), "5", "how many LoRA rows the page begins with; no limit: a picture may have 50 LoRAs"
    ),
    "lora_min_weight": Key(_number(-10, 10), "-2", "the least LoRA weight that the page offers"),
    "lora_max_weight": Key(_number(-10, 10), "2", "the greatest LoRA weight that the page offers"),
    "aspect_ratios": Key(_sizes, "the 26 sizes of SDXL", 'the sizes that the page offers: ["1152*896", ...]'),
    "created_by": Key(_line, "nothing", "who makes the pictures: a name that is written into each one's metadata"),
    "hf_mirror": Key(_address, "https://huggingface.co", "an address that serves the hub's files in its place"),
    "download_hosts": Key(
        _texts, "nothing", "hosts that presets may name beside huggingface.co, github.com, civitai.com"
    ),
    "host": Key(_host, "127.0.0.1", "the address that the page listens at; any other needs a user and password"),
    "port": Key(_whole(1, 65535), "7865", "the port of the page"),
    "share": Key(_switch, "false", "make a public address; needs a user and password"),
    "theme": Key(
        _one_of("auto", "light", "dark"), "auto", "colours: auto, light or dark; auto: as the browser prefers"
    ),
    "language": Key(
        _text, "as the browser prefers", "the page's language: de, en, es, fr, ja, ru, zh or a file's name in languages"
    ),
    "languages": Key(_folders, "language", "tables of the page's texts: NAME.json, from English to another language"),
    "in_browser": Key(_switch, "true", "open the browser at the start"),
    "device": Key(_one_of("auto", "cpu", "cuda", "mps"), "auto", "auto, cpu, cuda or mps"),
    "gpu_device_id": Key(_whole(0, 127), "the first", "which GPU, counted from 0"),
    "threads": Key(_whole(1, 1024), "as torch chooses", "threads of the processor"),
    "unet_precision": Key(
        _one_of("auto", *UNET_PRECISIONS),
        "auto",
        f"of the denoising network: auto, {', '.join(PRECISIONS)}; or fp8, fp8-e5m2, int8: weights of 8 bits, half the memory, "
        "pictures off by about 6, 7 and 2 % (docs/memory.md)",
    ),
    "int8_linears": Key(
        _switch,
        "false",
        "linear layers of the denoising network multiply in int8: faster, at a deviation that docs/memory.md states; keeps the "
        "weights in int8",
    ),
    "vae_precision": Key(
        _one_of("auto", *PRECISIONS),
        "auto",
        f"of the image decoder: auto, {', '.join(PRECISIONS)}; bf16 is about 52 dB from fp32, fp16 about 63 (docs/memory.md)",
    ),
    "clip_precision": Key(
        _one_of("auto", *CLIP_PRECISIONS),
        "auto",
        f"of the text encoders: auto, {', '.join(CLIP_PRECISIONS)}; pictures off by about 1 % in fp8, 2 % in fp8-e5m2 "
        "(docs/memory.md)",
    ),
    "vae_in_cpu": Key(_switch, "false", "the image decoder on the processor"),
    "memory_budget": Key(
        _budget, "auto", "gibibytes that the networks and their work may take on the device; auto: what is free"
    ),
    "offload": Key(_switch, "false", "give the device's memory back after each request, for other programs"),
}
READERS: dict[str, Reader] = {name: key.read for name, key in KEYS.items()}
