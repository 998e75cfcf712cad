"""Fooocus: its JSON scheme, what its log copies (with older label keys), and what it adds to the A1111 text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from core.errors import BadSetting
from core.output.literals import numbers, words
from core.output.reading import Reading, ReadMetadata, is_number, text_of
from core.output.resolve import stem_of
from core.performance import MODES
from core.reference_keys import PERFORMANCES, switch_share

# Our name where it differs; samplers and schedulers have the same names as ours.
NAMES = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "prompt_expansion": "prompt_expansion",
    "image_number": "image_number",
    "steps": "steps",
    "guidance_scale": "guidance_scale",
    "sharpness": "sharpness",
    "refiner_switch": "refiner_switch",
    "refiner_swap_method": "refiner_swap",
    "adaptive_cfg": "adaptive_cfg",
    "clip_skip": "clip_skip",
    "sampler": "sampler",
    "scheduler": "scheduler",
    "seed": "seed",
}
# What logs before 2.2 called the keys.
LABELS = {
    "Prompt": "prompt",
    "Negative Prompt": "negative_prompt",
    "Fooocus V2 Expansion": "prompt_expansion",
    "Styles": "styles",
    "Performance": "performance",
    "Steps": "steps",
    "Resolution": "resolution",
    "Guidance Scale": "guidance_scale",
    "Sharpness": "sharpness",
    "ADM Guidance": "adm_guidance",
    "Base Model": "base_model",
    "Refiner Model": "refiner_model",
    "Refiner Switch": "refiner_switch",
    "Overwrite Switch": "overwrite_switch",
    "Refiner Swap Method": "refiner_swap_method",
    "CFG Mimicking from TSNR": "adaptive_cfg",
    "CLIP Skip": "clip_skip",
    "Sampler": "sampler",
    "Scheduler": "scheduler",
    "VAE": "vae",
    "Seed": "seed",
    "FreeU": "freeu",
    "Image Number": "image_number",
    "Metadata Scheme": "metadata_scheme",
    "Version": "version",
    "Inpaint Engine Version": "inpaint_engine_version",
    "Inpaint Mode": "inpaint_method",
}
# Made from the other keys, or about the file and not the picture.
IGNORED = (
    "full_prompt", "full_negative_prompt", "metadata_scheme", "version", "created_by", "loras",
    "base_model_hash", "refiner_model_hash",
)  # fmt: skip
OWN_KEYS = (
    "metadata_scheme", "resolution", "adm_guidance", "lora_combined_1", "base_model_hash", "full_prompt",
    "refiner_swap_method", "overwrite_switch", "inpaint_engine_version", "inpaint_method",
)  # fmt: skip
NO_VAE = ("Default (model)", "None", "Automatic", "")

# Samplers that draw noise, which Fooocus does where it computes.
DRAWING = (
    "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "tcd", "restart",
)  # fmt: skip
# Schedulers with which Fooocus makes mistakes.
MISTAKEN = ("turbo", "align_your_steps", "lcm", "tcd", "edm_playground_v2.5")


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is Fooocus's: one of the keys or labels that only it has, or its way to write them."""
    return (
        any(key in values for key in OWN_KEYS)
        or any(label in values for label in LABELS)
        or text_of(values.get("version")).startswith("Fooocus")
        or isinstance(values.get("styles"), str)
        or text_of(values.get("performance")) in PERFORMANCES
    )


def read(values: Mapping[str, Any]) -> ReadMetadata:
    """The settings in Fooocus's JSON. Raises BadMetadata if nothing in it can be used."""
    left: dict[str, Any] = {}
    for key, value in values.items():
        lora = re.fullmatch(r"LoRA (\d{1,3})", key)
        left.setdefault(f"lora_combined_{lora[1]}" if lora else LABELS.get(key, key), value)
    reading = Reading("fooocus")
    reading.put_all(left, NAMES)
    if "styles" in left:
        put_styles(reading, "styles", left.pop("styles"))
    for key, names in GROUPS.items():
        if key in left:
            put_group(reading, key, left.pop(key), names)
    for name_of in ("base_model", "refiner_model"):
        if name_of in left:
            put_model(reading, name_of, left.pop(name_of), left.get(f"{name_of}_hash"))
    if "vae" in left:
        put_vae(reading, "vae", left.pop("vae"))
    if "overwrite_switch" in left:
        put_switch(reading, "overwrite_switch", left.pop("overwrite_switch"))
    elif mode := PERFORMANCES.get(text_of(left.get("performance"))):
        with suppress(BadSetting):
            reading.settings |= switch_share({**reading.settings, "performance": mode})
    _put_loras(reading, left)
    if "performance" in left:
        put_performance(reading, "performance", left.pop("performance"))
    put_as_it_was(reading)
    reading.leave(left, IGNORED)
    return reading.done()


GROUPS = {
    "resolution": ("width", "height"),
    "adm_guidance": ("adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end"),
    "freeu": ("freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2"),
}


def put_group(reading: Reading, key: str, value: Any, names: tuple[str, ...]) -> None:
    """Several numbers in one, `(1.5, 0.8, 0.3)` or a JSON list: all of them are taken, or none."""
    try:
        parts = value if isinstance(value, list) else numbers(text_of(value), len(names))
    except BadSetting:
        parts = []
    trial = Reading("")
    if len(parts) == len(names) and all(trial.put(key, name, part) for name, part in zip(names, parts, strict=True)):
        reading.settings |= trial.settings
        if names == GROUPS["freeu"]:
            reading.settings["freeu"] = True
    else:
        reading.reject(key, str(value))


def put_styles(reading: Reading, key: str, value: Any) -> None:
    """A list of style names, as JSON or as Python writes it."""
    try:
        styles = value if isinstance(value, list) else words(text_of(value))
    except BadSetting:
        reading.reject(key, value)
        return
    for style in styles[:100]:
        reading.name("styles", style)
    if styles == []:
        reading.put(key, "styles", [])


def put_performance(reading: Reading, key: str, value: Any) -> None:
    """The performance mode, unless something that it forces was overruled; its own LoRA goes without saying then.

    Comes after what modes force, and after the LoRAs.
    """
    mode = PERFORMANCES.get(text_of(value), "custom" if value == "custom" else "")
    if not mode:
        reading.reject(key, value)
        return
    if any(reading.settings.get(name, usual) != usual for name, usual in MODES[mode].forced.items()):
        mode = "custom"
    reading.put(key, "performance", mode)
    if own := MODES[mode].lora:
        stem = stem_of(own.file)
        reading.named = [one for one in reading.named if one.field != "loras" or stem_of(one.name) != stem]


def put_as_it_was(reading: Reading) -> None:
    """What makes a picture of Fooocus come out as it did there. Comes after all settings and files."""
    refined = any(one.field == "refiner_model" for one in reading.named)
    reading.settings |= as_it_was(reading.settings, refined=refined)


def as_it_was(settings: Mapping[str, Any], *, refined: bool) -> dict[str, Any]:
    """What must be set beside the `settings` of one of Fooocus's pictures so that it is made again with the same noise and
    the same mistakes; `refined`: with a refiner.

    Nothing where they do not tell of a picture: without seed, sampler and scheduler. Whether embeddings fit is not known here.
    """
    if not settings.keys() >= {"seed", "sampler", "scheduler"}:
        return {}
    rounded = settings.get("adm_scaler_end") == 0 and any(settings.get(side, 0) % 64 for side in ("width", "height"))
    longer = refined and settings["sampler"] in ("uni_pc", "uni_pc_bh2")
    needed: dict[str, Any] = {}
    if settings["scheduler"] in MISTAKEN or rounded or longer:
        needed["strict_compatibility"] = True
    if settings["sampler"] in DRAWING:
        needed["noise_device"] = "device"
    return needed


def put_model(reading: Reading, name_of: str, value: Any, digits: Any) -> None:
    """A checkpoint by name and hash; the word None for no refiner."""
    if value == "None" and name_of == "refiner_model":
        reading.put(name_of, name_of, "")
    elif isinstance(value, str):
        reading.name(name_of, value, digits)
    elif value is not None:
        reading.reject(name_of, value)


def put_vae(reading: Reading, key: str, value: Any, digits: Any = "") -> None:
    """A VAE by name; "Default (model)" is the checkpoint's own."""
    if value in NO_VAE:
        reading.put(key, "vae", "")
    elif isinstance(value, str):
        reading.name("vae", value, digits)
    else:
        reading.reject(key, value)


def put_switch(reading: Reading, key: str, value: Any) -> None:
    """The step at which the refiner takes over, as a share of the steps. Comes after the steps."""
    steps = reading.settings.get("steps")
    try:
        step = float(value) if isinstance(value, (str, int, float)) and len(str(value)) < 40 else -1.0
    except ValueError:
        step = -1.0
    if steps and is_number(step) and step > 0:
        reading.put(key, "refiner_switch", min(1.0, step / steps))
    else:
        reading.reject(key, value)


def put_lora(reading: Reading, key: str, value: Any, hashes: Mapping[str, str]) -> None:
    """`name : weight`, or `True : name : weight` with whether it acts."""
    parts = [part.strip() for part in text_of(value).split(" : ")]
    enabled = parts[0] != "False"
    if len(parts) > 2 and parts[0] in ("True", "False"):
        parts = parts[1:]
    if len(parts) < 2:
        reading.reject(key, value)
        return
    name = " : ".join(parts[:-1])
    reading.name("loras", name, hashes.get(stem_of(name), ""), weight=parts[-1], enabled=enabled, key=key)


def _put_loras(reading: Reading, left: dict[str, Any]) -> None:
    array = left.get("loras")
    triples = [one for one in array if isinstance(one, list) and len(one) == 3] if isinstance(array, list) else []
    hashes = {text_of(one[0]): text_of(one[2]) for one in triples}
    rows = sorted((key for key in left if re.fullmatch(r"lora_combined_\d{1,3}", key)), key=lambda k: int(k[14:]))
    for key in rows:
        put_lora(reading, key, left.pop(key), hashes)
    if not rows:
        for name, weight, digits in triples[:50]:
            reading.name("loras", name, digits, weight=weight, key="loras")
