"""Settings: one generation request, checked when it is made. No torch here: the page imports this module."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from core.errors import BadSetting

MAX_SEED = 2**63 - 1
MOST_QUOTED = 200  # characters of a wrong value that a message shows

SAMPLERS = (
    "euler", "euler_ancestral", "heun", "heunpp2", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive",
    "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu",
    "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "tcd", "restart", "ddim", "uni_pc", "uni_pc_bh2",
)  # fmt: skip
SCHEDULERS = (
    "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "lcm", "turbo", "align_your_steps",
    "tcd", "edm_playground_v2.5",
)  # fmt: skip
OUTPUT_FORMATS = ("png", "jpeg", "webp")
PREDICTIONS = ("auto", "epsilon", "v", "edm")
AUTO_ON_OFF = ("auto", "on", "off")
NOISE_DEVICES = ("cpu", "device")
PERFORMANCES = ("custom", "quality", "speed", "extreme_speed", "lightning", "hyper_sd", "dmd2")
REFINER_SWAPS = ("joint", "separate", "vae")
EXPANDERS = ("auto", "gpt2", "phrases")
FINAL_DECODERS = ("vae", "preview")

# Width and height of the sizes that SDXL was trained on (about 1024 x 1024 pixels each), from tall to wide.
ASPECT_RATIOS = (
    (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088),
    (960, 1088), (960, 1024), (1024, 1024), (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832),
    (1216, 832), (1280, 768), (1344, 768), (1344, 704), (1408, 704), (1472, 704), (1536, 640), (1600, 640),
    (1664, 576), (1728, 576),
)  # fmt: skip


def _ranged(default: Any, low: float, high: float, multiple: int = 1) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "multiple": multiple})


def _choice(default: str, choices: tuple[str, ...]) -> Any:
    return field(default=default, metadata={"choices": choices})


def _text(default: str, longest: int) -> Any:
    return field(default=default, metadata={"longest": longest})


def _several(most: int) -> Any:
    return field(default=(), metadata={"most": most, "longest": 500})


@dataclass(frozen=True)
class Lora:
    """One LoRA of a request: its file's name relative to a loras folder, and how strongly it acts (below 0 too)."""

    name: str
    weight: float = 1.0
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One generation request: all that the page says, and all that a saved picture remembers.

    Every field is checked on construction; whole floats pass as integers. Raises BadSetting naming the field, what was
    found and what was wanted.
    """

    prompt: str = _text("", 20_000)
    negative_prompt: str = _text("", 20_000)
    base_model: str = _text("", 500)  # file name relative to a checkpoints folder; "" = the installation's default
    width: int = _ranged(1152, 64, 4096, multiple=8)  # pixels
    height: int = _ranged(896, 64, 4096, multiple=8)
    image_number: int = _ranged(1, 1, 100)
    seed: int = _ranged(0, 0, MAX_SEED)  # of the first picture; picture n has seed + n
    steps: int = _ranged(30, 1, 200)
    guidance_scale: float = _ranged(4.0, 1.0, 30.0)  # 1 = no guidance: the negative prompt is not evaluated
    sampler: str = _choice("dpmpp_2m_sde_gpu", SAMPLERS)
    scheduler: str = _choice("karras", SCHEDULERS)
    sharpness: float = _ranged(2.0, 0.0, 30.0)  # 0 = off
    adaptive_cfg: float = _ranged(7.0, 1.0, 30.0)  # acts only when guidance_scale is larger
    adm_scaler_positive: float = _ranged(1.5, 0.1, 3.0)  # 1 = plain SDXL size conditioning
    adm_scaler_negative: float = _ranged(0.8, 0.1, 3.0)
    adm_scaler_end: float = _ranged(0.3, 0.0, 1.0)  # share of the run with the scaled sizes; 0 = off
    clip_skip: int = _ranged(2, 1, 12)  # hidden layer counted from the end; 2 is what SDXL was trained with
    prediction: str = _choice("auto", PREDICTIONS)  # auto = as the checkpoint says
    zero_terminal_snr: str = _choice("auto", AUTO_ON_OFF)
    noise_device: str = _choice("cpu", NOISE_DEVICES)  # cpu = a seed is the same picture on any device
    strict_compatibility: bool = False  # True: those mistakes of the reference that change pictures are made again
    performance: str = _choice("custom", PERFORMANCES)  # all but custom force some of the fields above
    loras: tuple[Lora, ...] = _several(50)
    refiner_model: str = _text("", 500)  # file name as base_model; "" = none
    refiner_switch: float = _ranged(0.8, 0.1, 1.0)  # share of the steps that the base model makes
    refiner_swap: str = _choice("joint", REFINER_SWAPS)
    vae: str = _text("", 500)  # file name relative to a VAE folder; "" = the checkpoint's own
    text_encoder_l: str = _text("", 500)  # file name relative to a text encoder folder; "" = the checkpoint's own
    text_encoder_g: str = _text("", 500)
    guidance_rescale: float = _ranged(0.0, 0.0, 1.0)  # of v-prediction models; 0 = off
    guidance_end: float = _ranged(1.0, 0.0, 1.0)  # share of the run (as of adm_scaler_end); then the scale is 1
    step_cache: int = _ranged(1, 1, 5)  # every so many steps the whole network runs; 1 = every step
    final_decoder: str = _choice("vae", FINAL_DECODERS)  # preview = a draft by the small decoder, if one fits
    freeu: bool = False
    freeu_b1: float = _ranged(1.01, 0.0, 2.0)
    freeu_b2: float = _ranged(1.02, 0.0, 2.0)
    freeu_s1: float = _ranged(0.99, 0.0, 4.0)
    freeu_s2: float = _ranged(0.95, 0.0, 4.0)
    styles: tuple[str, ...] = _several(100)  # names of the style library, merged in this order
    expander: str = _choice("auto", EXPANDERS)  # what continues the prompt where the style Fooocus V2 asks for it
    prompt_expansion: str = _text("", 30_000)  # the prompt as it was continued; "" or of another prompt = anew
    read_wildcards_in_order: bool = False
    prompt_syntax: bool = True  # False: no wildcards, arrays and tags, the prompts are taken as they stand
    seed_increment: bool = True  # False: every picture of the request has the same seed
    image_grid: bool = False  # at the end one more picture that shows all of the request
    preview: bool = True
    output_format: str = _choice("png", OUTPUT_FORMATS)
    save_metadata: bool = True

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f.name, getattr(self, f.name), f.type, f.metadata))

    @property
    def switch_step(self) -> int:
        """After how many steps the refiner takes over; halves round to even."""
        return round(self.steps * self.refiner_switch)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from field names and values. Raises BadSetting for a name that is no field."""
        for name in sorted(set(values) - {f.name for f in fields(cls)}):
            raise _unknown(name)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, ready for JSON."""
        return asdict(self)


def random_seed() -> int:
    """A seed from 0 to MAX_SEED, every one equally likely."""
    return secrets.randbelow(MAX_SEED + 1)


_FIELDS = {f.name: f for f in fields(Settings)}


def check_setting(name: str, value: Any) -> Any:
    """`value` as the field `name` holds it. Raises BadSetting."""
    if name not in _FIELDS:
        raise _unknown(name)
    return _checked(name, value, _FIELDS[name].type, _FIELDS[name].metadata)


def parse_setting(name: str, text: str) -> Any:
    """The value of field `name` written as `text` on a command line. Raises BadSetting if it does not fit the field."""
    if name not in _FIELDS:
        raise _unknown(name)
    kind: Any = _FIELDS[name].type
    if kind == "bool":
        words = {
            "true": True,
            "on": True,
            "yes": True,
            "1": True,
            "false": False,
            "off": False,
            "no": False,
            "0": False,
        }
        if text.lower() not in words:
            raise BadSetting(f"{name} is {quoted(text)}; it must be true or false.")
        return words[text.lower()]
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            wanted = "a whole number" if kind == "int" else "a number"
            raise BadSetting(f"{name} is {quoted(text)}; it must be {wanted}.") from None
    if kind.startswith("tuple"):
        return _parsed_list(name, text)
    return text


def written_setting(value: Any) -> str:
    """A field's value as text that `parse_setting` reads back."""
    if isinstance(value, tuple):
        plain = [asdict(entry) if isinstance(entry, Lora) else entry for entry in value]
        return json.dumps(plain, ensure_ascii=False)
    if isinstance(value, float) and float(f"{value:.15g}") == value:
        return f"{value:.15g}"
    return str(value)


def quoted(value: object, most: int = MOST_QUOTED) -> str:
    """A wrong value as a message shows it, in at most `most` characters, whatever it is."""
    try:
        return repr(value[:most] if isinstance(value, str) else value)[:most]
    except (ValueError, RecursionError):  # Python writes no number of thousands of digits, and nothing nested too deep
        return f"<{type(value).__name__}>"


def _parsed_list(name: str, text: str) -> Any:
    """A JSON list, or short forms for a command line: `First style, Second style` and `file.safetensors:0.8, other`."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise BadSetting(f"{name} is {quoted(text)}; it must be a JSON list.") from None
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if name != "loras":
        return entries
    loras = []
    for entry in entries:
        file, _, weight = entry.rpartition(":")
        try:
            loras.append({"name": file, "weight": float(weight)} if file else {"name": weight})
        except ValueError:
            raise BadSetting(f"{name} has {quoted(entry)}; it must be FILE or FILE:WEIGHT.") from None
    return loras


def _unknown(name: str) -> BadSetting:
    known = ", ".join(f.name for f in fields(Settings))
    return BadSetting(f"There is no setting called {quoted(name)}. The settings are: {known}.")


def _checked(name: str, value: Any, kind: Any, limits: Mapping[str, Any]) -> Any:
    if kind == "bool":
        if not isinstance(value, bool):
            raise BadSetting(f"{name} is {quoted(value)}; it must be true or false.")
        return value
    if kind == "str":
        if not isinstance(value, str):
            raise BadSetting(f"{name} is {quoted(value)}; it must be text.")
        if "choices" in limits and value not in limits["choices"]:
            raise BadSetting(f"{name} is {quoted(value)}; it must be one of: {', '.join(limits['choices'])}.")
        if "longest" in limits and len(value) > limits["longest"]:
            raise BadSetting(
                f"{name} has {len(value)} characters; at most {limits['longest']} are possible. Shorten it."
            )
        _check_whole(name, value)
        return value
    if kind.startswith("tuple"):
        return _checked_list(name, value, kind, limits)
    return _checked_number(name, value, kind, limits)


def _check_whole(name: str, value: str) -> None:
    """Refuse the halves of characters that JSON and a command line can hold: no file, database or page takes them."""
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise BadSetting(
            f"{name} has {value[problem.start]!r} as character {problem.start + 1}, which is only part of one. "
            "Delete it, or type it anew."
        ) from None


def _checked_list(name: str, value: Any, kind: str, limits: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise BadSetting(f"{name} is {quoted(value)}; it must be a list.")
    if len(value) > limits["most"]:
        raise BadSetting(f"{name} has {len(value)} entries; at most {limits['most']} are possible.")
    one = _checked_lora if "Lora" in kind else _checked
    return tuple(one(f"{name}, entry {i}", entry, "str", limits) for i, entry in enumerate(value, 1))


def _checked_lora(name: str, value: Any, kind: str, limits: Mapping[str, Any]) -> Lora:
    if isinstance(value, Lora):
        value = asdict(value)
    if not isinstance(value, dict) or "name" not in value or value.keys() - {"name", "weight", "enabled"}:
        raise BadSetting(f'{name} is {quoted(value)}; it must be like {{"name": "file.safetensors", "weight": 0.8}}.')
    return Lora(
        _checked(f"{name}, name", value["name"], kind, limits),
        float(_checked_number(f"{name}, weight", value.get("weight", 1.0), "float", {"low": -10.0, "high": 10.0})),
        bool(_checked(f"{name}, enabled", value.get("enabled", True), "bool", {})),
    )


def _checked_number(name: str, value: Any, kind: str, limits: Mapping[str, Any]) -> int | float:
    whole = kind == "int"
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not is_number:
        raise BadSetting(f"{name} is {quoted(value)}; it must be {'a whole number' if whole else 'a number'}.")
    if whole and isinstance(value, float) and not value.is_integer():
        raise BadSetting(f"{name} is {quoted(value)}; it must be a whole number.")
    if not limits["low"] <= value <= limits["high"]:
        raise BadSetting(f"{name} is {quoted(value, 40)}; it must be from {limits['low']} to {limits['high']}.")
    number = int(value) if whole else float(value)
    if whole and number % limits["multiple"]:
        nearest = max(int(limits["low"]), round(number / limits["multiple"]) * limits["multiple"])
        raise BadSetting(f"{name} is {number}; it must be a multiple of {limits['multiple']}, for example {nearest}.")
    return number
