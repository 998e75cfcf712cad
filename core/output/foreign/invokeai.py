"""InvokeAI: `invokeai_metadata` (since 3.0), `sd-metadata` and the command line `Dream` before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.output.foreign.compel import has_function, translated
from core.output.foreign.texts import one_line, with_embeddings
from core.output.reading import Reading, ReadMetadata, text_of

NAMES = {
    "width": "width",
    "height": "height",
    "seed": "seed",
    "cfg_scale": "guidance_scale",
    "cfg_rescale_multiplier": "guidance_rescale",
    "steps": "steps",
    "refiner_start": "refiner_switch",
}
TEXTS = {"positive_prompt": "prompt", "negative_prompt": "negative_prompt"}
OLD_NAMES = {"steps": "steps", "cfg_scale": "guidance_scale", "height": "height", "width": "width", "seed": "seed"}
DREAM_NAMES = {"s": "steps", "C": "guidance_scale", "H": "height", "W": "width", "S": "seed"}
# With _k behind it, a name means the same with Karras's schedule.
SAMPLERS = {
    "ddim": "ddim",
    "ddpm": "ddpm",
    "lms": "lms",
    "heun": "heun",
    "euler": "euler",
    "euler_a": "euler_ancestral",
    "kdpm_2": "dpm_2",
    "kdpm_2_a": "dpm_2_ancestral",
    "dpmpp_2m": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_sde": "dpmpp_sde",
    "unipc": "uni_pc",
    "lcm": "lcm",
    "tcd": "tcd",
    "k_lms": "lms",  # from here on those of version 2
    "k_heun": "heun",
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "k_dpm_2": "dpm_2",
    "k_dpm_2_a": "dpm_2_ancestral",
    "k_dpmpp_2": "dpmpp_2m",
    "k_dpmpp_2_a": "dpmpp_2s_ancestral",
}
NOISE_DEVICES = {"cpu": "cpu", "cuda": "device", "mps": "device"}
# What says nothing about the picture, or what version 3 writes for features that were off.
IGNORED = ("app_version", "app_id", "generation_mode", "type", "variations", "model_hash", "clip_skip")
OFF = (None, False, "", 0, "none")

_NEW = ("positive_prompt", "generation_mode", "cfg_rescale_multiplier", "rand_device")
_FLAG = re.compile(r"-(\w)\s*(\S+)")
_EMBEDDING = re.compile(r"<([a-zA-Z0-9., _-]{1,300})>")
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is InvokeAI's, of any version."""
    return any(key in values for key in _NEW) or text_of(values.get("app_id")).startswith("invoke-ai")


def read(values: Mapping[str, Any]) -> ReadMetadata:
    """The settings in InvokeAI's JSON. Raises BadMetadata if nothing in it can be used."""
    image = values.get("image")
    return _read_old(values, image) if isinstance(image, dict) else _read_new(values)


def read_dream(text: str) -> ReadMetadata:
    """The settings in a command line, `"a cat [dog]" -s 50 -S 123 -W 512 -H 512 -C 7.5 -A k_lms`. Raises BadMetadata."""
    reading = Reading("invokeai")
    parts = re.match(r'\s*"((?:[^"\\]|\\.)*)"(.*)', text, re.DOTALL)
    if parts is None:
        return reading.done()
    _put_old_prompt(reading, one_line(re.sub(r"\\(.)", r"\1", parts[1])))
    flags = dict(_FLAG.findall(parts[2]))
    reading.put_all(flags, DREAM_NAMES)
    if "A" in flags:
        _put_scheduler(reading, "A", flags.pop("A"))
    reading.leave({f"-{flag}": value for flag, value in flags.items()})
    return reading.done()


def _read_new(values: Mapping[str, Any]) -> ReadMetadata:
    reading, left = Reading("invokeai"), dict(values)
    for key, name in TEXTS.items():
        if key in left:
            text = left.pop(key)
            _put_text(reading, key, name, one_line(text) if isinstance(text, str) else text)
    reading.put_all(left, NAMES)
    for key, same in (("positive_style_prompt", "positive_prompt"), ("negative_style_prompt", "negative_prompt")):
        style = left.pop(key, None)
        if style not in (None, "", values.get(same)):
            reading.reject(key, style)
    if "scheduler" in left:
        _put_scheduler(reading, "scheduler", left.pop("scheduler"))
    if "rand_device" in left:
        reading.choose("rand_device", "noise_device", left.pop("rand_device"), NOISE_DEVICES)
    for key, name_of in (("model", "base_model"), ("refiner_model", "refiner_model"), ("vae", "vae")):
        if key in left:
            _put_model(reading, name_of, left.pop(key), key=key)
    loras = left.pop("loras", None)
    for entry in loras[:50] if isinstance(loras, list) else []:
        if isinstance(entry, dict):
            _put_model(
                reading, "loras", entry.get("model", entry.get("lora")), weight=entry.get("weight", 1.0), key="loras"
            )
    if left.get("clip_skip"):
        reading.reject("clip_skip", left.pop("clip_skip"))  # counts other layers, and does not act on SDXL
    left = {key: value for key, value in left.items() if value not in OFF}
    reading.leave(left, IGNORED)
    return reading.done()


def _read_old(values: Mapping[str, Any], image: Mapping[str, Any]) -> ReadMetadata:
    reading, left = Reading("invokeai"), dict(image)
    prompt = left.pop("prompt", None)
    if isinstance(prompt, list):
        texts = [one_line(text_of(one.get("prompt"))) for one in prompt[:20] if isinstance(one, dict)]
        _put_old_prompt(reading, "\n".join(texts))
    elif isinstance(prompt, str):
        _put_old_prompt(reading, one_line(prompt))
    reading.put_all(left, OLD_NAMES)
    if "sampler" in left:
        _put_scheduler(reading, "sampler", left.pop("sampler"))
    reading.name("base_model", values.get("model_weights"), values.get("model_hash"), key="model_weights")
    reading.leave({key: value for key, value in left.items() if value not in OFF}, IGNORED)
    return reading.done()


def _put_old_prompt(reading: Reading, prompt: str) -> None:
    """Version 2 had the negative prompt inside the prompt, in square brackets."""
    negative = ", ".join(part.strip() for part in _NEGATIVE.findall(prompt))
    _put_text(reading, "prompt", "prompt", re.sub(r" {2,}", " ", _NEGATIVE.sub("", prompt)).strip())
    _put_text(reading, "prompt", "negative_prompt", negative)


def _put_text(reading: Reading, key: str, name: str, text: Any) -> None:
    """A prompt in our own way of weighing words and naming embeddings; one with functions stays as it is and is listed."""
    if isinstance(text, str) and has_function(text):
        reading.reject(f"function of {key}", text)
    elif isinstance(text, str):
        text = with_embeddings(translated(text), _EMBEDDING)
    reading.put(key, name, text)


def _put_scheduler(reading: Reading, key: str, value: Any) -> None:
    name = text_of(value)
    plain = name.removesuffix("_k")
    if reading.choose(key, "sampler", plain if plain in SAMPLERS else value, SAMPLERS):
        usual = "ddim_uniform" if plain == "ddim" else "normal"
        reading.put(key, "scheduler", "karras" if name.endswith("_k") else usual)


def _put_model(reading: Reading, name_of: str, value: Any, *, key: str, weight: Any = 1.0) -> None:
    """A model is an object with `name` (or `model_name`) and `hash`, once it was its name alone."""
    if isinstance(value, dict):
        name = value.get("name") or value.get("model_name")
        reading.name(name_of, name, text_of(value.get("hash")).removeprefix("sha256:"), weight=weight, key=key)
    elif isinstance(value, str):
        reading.name(name_of, value, weight=weight, key=key)
