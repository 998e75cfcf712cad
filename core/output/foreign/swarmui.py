"""SwarmUI: a JSON object `sui_image_params`, and the hashes of its models in `sui_models`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.output.foreign.texts import one_line, with_embeddings
from core.output.reading import Reading, ReadMetadata, is_number, recogniser, text_of

NAMES = {
    "prompt": "prompt",
    "negativeprompt": "negative_prompt",
    "seed": "seed",
    "steps": "steps",
    "cfgscale": "guidance_scale",
    "width": "width",
    "height": "height",
}
TEXTS = ("prompt", "negativeprompt")
# Samplers and schedulers have ComfyUI's names, which are ours.
CHOICES = {"comfyuisampler": "sampler", "sampler": "sampler", "comfyuischeduler": "scheduler", "scheduler": "scheduler"}
NO_FILE = ("Automatic", "None", "(Use Base)", "", None)
# Said by other keys, or about the run and not the picture.
IGNORED = (
    "aspectratio", "swarm_version", "date", "generation_time", "images", "nopreviews", "imageformat", "automaticvae",
    "donotsave", "wildcardseed", "used_wildcards", "used_embeddings", "original_prompt", "original_negativeprompt",
)  # fmt: skip

_EMBEDDING = re.compile(r"<embed(?:ding)?:([^<>:]{1,300})>", re.IGNORECASE)

recognises = recogniser("sui_image_params")


def read(values: Mapping[str, Any]) -> ReadMetadata:
    """The settings in SwarmUI's JSON. Raises BadMetadata if nothing in it can be used."""
    params, models = values.get("sui_image_params"), values.get("sui_models")
    reading = Reading("swarmui")
    left = dict(params) if isinstance(params, dict) else {}
    models = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    hashes = {text_of(one.get("name")): text_of(one.get("hash")) for one in models}
    for key in TEXTS:
        if isinstance(left.get(key), str):
            left[key] = with_embeddings(one_line(left[key]), _EMBEDDING)
    reading.put_all(left, NAMES | CHOICES)
    reading.take_lora_tags("prompt")
    if "model" in left:
        name = left.pop("model")
        reading.name("base_model", name, _hash(name, hashes), key="model")
    if "vae" in left or left.get("automaticvae") is True:
        vae = left.pop("vae", None)
        if vae in NO_FILE:
            reading.put("vae", "vae", "")
        else:
            reading.name("vae", vae, _hash(vae, hashes), key="vae")
    if "clipstopatlayer" in left:
        layer = left.pop("clipstopatlayer")
        reading.put("clipstopatlayer", "clip_skip", _negated(layer))
    _put_refiner(reading, left, hashes)
    weights = _list(left.pop("loraweights", []))
    for i, name in enumerate(_list(left.pop("loras", []))[:50]):
        reading.name("loras", name, _hash(name, hashes), weight=weights[i] if i < len(weights) else 1.0, key="loras")
    reading.leave(left, IGNORED)
    return reading.done()


def _put_refiner(reading: Reading, left: dict[str, Any], hashes: Mapping[str, str]) -> None:
    name = left.pop("refinermodel", None)
    if name in NO_FILE:
        return
    reading.name("refiner_model", name, _hash(name, hashes), key="refinermodel")
    share = left.pop("refinercontrolpercentage", None)  # of the steps, that the refiner makes
    try:
        share = float(share) if isinstance(share, (str, int, float)) else None
    except (ValueError, OverflowError):
        share = None
    if share is not None and is_number(share) and share <= 1:
        reading.put("refinercontrolpercentage", "refiner_switch", round(1 - share, 10))


def _hash(name: Any, hashes: Mapping[str, str]) -> str:
    """A hash of the tensors alone begins with 0x there: it says nothing about the file, so it is not used."""
    return next((hashes[key] for key in (name, f"{name}.safetensors") if isinstance(name, str) and key in hashes), "")


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else []


def _negated(value: Any) -> Any:
    """The layer counted from the end, -2, as ours, 2."""
    if isinstance(value, str):
        return value.strip().removeprefix("-")
    return -value if is_number(value) and value < 0 else value
