"""What the keys of the A1111 text mean, as AUTOMATIC1111, Forge, Fooocus and this program write them: one table of names each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.errors import BadSetting
from core.output.foreign import fooocus
from core.output.literals import words
from core.output.reading import Reading, hex_digits
from core.prompt.embedding_names import MARK, written

SAMPLER_NAMES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "lcm": "LCM",
    "tcd": "TCD",
    "restart": "Restart",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
}
SCHEDULER_NAMES = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "turbo": "Turbo",
    "align_your_steps": "Align Your Steps",
}
# Other names for schedules, and what "Automatic" stands for with a sampler (where it is not the model's own schedule).
OTHER_SCHEDULER_NAMES = {"Uniform": "normal", "Polyexponential": "exponential"}
AUTOMATIC_SCHEDULERS = {
    "dpm_2": "karras",
    "dpm_2_ancestral": "karras",
    "dpmpp_2s_ancestral": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
    "restart": "karras",
}
RAW = {"Raw prompt": "prompt", "Raw negative prompt": "negative_prompt"}
PLAIN = {
    **RAW,
    "Steps": "steps",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Clip skip": "clip_skip",
    "Sharpness": "sharpness",
    "Adaptive CFG": "adaptive_cfg",
    "Refiner Switch": "refiner_switch",
    "Refiner switch at": "refiner_switch",
    "Refiner Swap Method": "refiner_swap",
    "CFG rescale": "guidance_rescale",
    "CFG Rescale φ": "guidance_rescale",
    "freeu_enabled": "freeu",  # these as Forge writes them
    "freeu_b1": "freeu_b1",
    "freeu_b2": "freeu_b2",
    "freeu_s1": "freeu_s1",
    "freeu_s2": "freeu_s2",
}
GROUPS = {
    "Size": fooocus.GROUPS["resolution"],
    "ADM Guidance": fooocus.GROUPS["adm_guidance"],
    "FreeU": fooocus.GROUPS["freeu"],
}
MODELS = {"Model": "base_model", "Refiner": "refiner_model"}
NOISE_DEVICES = {"CPU": "cpu", "GPU": "device"}
NOISE_SCHEDULES = {"Zero Terminal SNR": "on"}
IGNORED = ("Version", "User", "App", "Parser", "VAE hash", "Model hash", "Refiner hash")  # no setting of the picture

_HASHED = re.compile(r"(.*) \[([0-9a-fA-F]{8,64})\]")


def put_pairs(reading: Reading, pairs: dict[str, str], *, ours: bool) -> None:
    """Take the pairs of a text (but for the keys of our own), and list those that mean nothing here."""
    left = dict(pairs)
    texts = {key: reading.settings.get(name, "") for key, name in RAW.items()}  # with styles
    if reading.source == "fooocus" and texts.keys() <= left.keys() and "Styles" not in left:
        reading.embedded = (texts["Raw prompt"], texts["Raw negative prompt"])
    else:
        for key, text in texts.items():
            if text and left.get(key, text) != text:
                reading.reject(f"{key} with styles", text)
    _put_sampler(reading, left, ours=ours)
    reading.put_all(left, PLAIN)
    left["Size"] = re.sub(r"^(\d{1,6})x(\d{1,6})$", r"(\1, \2)", left.get("Size", ""))
    for key, names in GROUPS.items():
        if left.get(key):
            fooocus.put_group(reading, key, left.pop(key), names)
    if "Size" in reading.unknown:
        reading.reject("Size", pairs["Size"])  # as it was written
    _put_files(reading, left)
    if "Styles" in left:
        _put_styles(reading, left.pop("Styles"), ours=ours)
    if "Overwrite Switch" in left:
        fooocus.put_switch(reading, "Overwrite Switch", left.pop("Overwrite Switch"))
    if "RNG" in left:
        reading.choose("RNG", "noise_device", left.pop("RNG"), NOISE_DEVICES)
    if "Noise Schedule" in left:
        reading.choose("Noise Schedule", "zero_terminal_snr", left.pop("Noise Schedule"), NOISE_SCHEDULES)
    if ours:
        left.pop("Lora weights", None)  # the key of our own is exact
        left.pop("Lora hashes", None)
    else:
        _put_loras(reading, left)
    if "Performance" in left:
        fooocus.put_performance(reading, "Performance", left.pop("Performance"))
    if reading.source == "fooocus":
        fooocus.put_as_it_was(reading)
    reading.leave(left, IGNORED)


def take_embeddings(pairs: dict[str, str]) -> dict[str, str]:
    """Take the embeddings, which stand as bare words in the prompts of AUTOMATIC1111: name -> hash."""
    text = pairs.pop("TI hashes", "")
    found = _object(text) or {name: parts[0] for name, parts in entries(text)}
    for key, digits in _object(pairs.get("Hashes", "")).items():
        if key.lower().startswith("embed:"):
            found.setdefault(key[6:], digits)
    return {name.strip(): str(digits) for name, digits in list(found.items())[:200] if 0 < len(name.strip()) <= 200}


def put_embeddings(reading: Reading, hashes: Mapping[str, str]) -> None:
    """Write the words in the prompts that name one of the embeddings in our way, and list those that no word names."""
    names = {_folded(name): name for name in sorted(hashes, key=len, reverse=True)}
    if not names:
        return
    word = re.compile(rf"(?<![\w:-])({MARK})?({'|'.join(map(_pattern, names.values()))})(?![\w-])", re.IGNORECASE)
    used = set()

    def ours(found: re.Match[str]) -> str:
        name = _folded(found[2])
        used.add(name)
        return found[0] if found[1] else MARK + written(names.get(name, found[2]))

    for prompt in ("prompt", "negative_prompt"):
        if text := reading.settings.get(prompt):
            reading.put(prompt, prompt, word.sub(ours, text))
    if unused := [f"{name}: {hashes[name]}" for folded, name in names.items() if folded not in used]:
        reading.reject("TI hashes", ", ".join(unused))


def _pattern(name: str) -> str:
    """A pattern for `name` as a prompt has it: its parentheses perhaps behind a backslash."""
    return r"\s+".join(re.sub(r"\\([()])", r"\\\\?\\\1", re.escape(part)) for part in name.split())


def _folded(name: str) -> str:
    return " ".join(name.replace("\\(", "(").replace("\\)", ")").casefold().split())


def _object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is, {} if it is none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def internal(names: dict[str, str], shown: str, *, last: bool = False) -> str:
    """The name of ours behind a shown one; of several the first (or the last), of none the shown one itself."""
    found = [name for name, display in names.items() if display == shown]
    return found[-1 if last else 0] if found else shown


def _put_sampler(reading: Reading, left: dict[str, str], *, ours: bool) -> None:
    shown, schedule = left.pop("Sampler", ""), left.pop("Schedule type", "")
    key = "Schedule type" if schedule else "Scheduler"
    schedule = left.pop("Scheduler", "") or schedule  # Fooocus's key has the internal name: exact
    name = shown
    for scheduler in ("karras", "exponential"):  # how both were said in one before 2024
        if shown.endswith(f" {SCHEDULER_NAMES[scheduler]}"):
            name = shown.removesuffix(f" {SCHEDULER_NAMES[scheduler]}")
            schedule = schedule or scheduler
    # Fooocus writes its default sampler and the one without _gpu under the same name.
    sampler = internal(SAMPLER_NAMES, name, last=reading.source == "fooocus")
    known = bool(shown) and reading.put("Sampler", "sampler", sampler)
    if known and not ours:
        if schedule == "Automatic":
            schedule = AUTOMATIC_SCHEDULERS.get(sampler, "normal")
        schedule = schedule or ("ddim_uniform" if sampler == "ddim" else "normal")
    if shown and not known:
        reading.reject("Sampler", shown)
    if schedule:
        scheduler = internal(SCHEDULER_NAMES, OTHER_SCHEDULER_NAMES.get(schedule, schedule))
        if not reading.put(key, "scheduler", scheduler):
            reading.reject(key, schedule)


def _put_files(reading: Reading, left: dict[str, str]) -> None:
    """Checkpoints and VAE. A hash stands behind the name in brackets, under a key of its own, or under `Hashes`."""
    hashes = _object(left.get("Hashes", ""))
    for key, name_of in MODELS.items():
        name, digits = left.pop(key, ""), left.get(f"{key} hash") or (hashes.get("model") if key == "Model" else "")
        if found := _HASHED.fullmatch(name[:600]):
            name, digits = found[1], found[2]
        if name or hex_digits(digits):
            fooocus.put_model(reading, name_of, name, digits)
    if "VAE" in left:
        fooocus.put_vae(reading, "VAE", left.pop("VAE"), left.get("VAE hash") or hashes.get("vae"))
    if hashes:  # those of LoRAs join the others'; the rest is used
        del left["Hashes"]
        more = [
            f"{key[5:]}: {value}"
            for key, value in hashes.items()
            if key.lower().startswith("lora:") and hex_digits(value)
        ]
        left["Lora hashes"] = ", ".join([*([left["Lora hashes"]] if "Lora hashes" in left else []), *more])


def _put_styles(reading: Reading, value: str, *, ours: bool) -> None:
    if not ours:
        fooocus.put_styles(reading, "Styles", value)
        return
    try:
        reading.put("Styles", "styles", words(value))
    except BadSetting:
        reading.reject("Styles", value)


def _put_loras(reading: Reading, left: dict[str, str]) -> None:
    """Weights are in tags of the prompt (A1111), in `Lora weights` or, formerly, in a third part of `Lora hashes` (Fooocus)."""
    hashes, weights, unused = {}, {}, []
    for name, parts in entries(left.pop("Lora hashes", "")):
        hashes[name] = parts[0]
        if len(parts) > 1:
            weights[name] = parts[1]
    weights |= {name: parts[0] for name, parts in entries(left.pop("Lora weights", ""))}
    if reading.source == "a1111":
        reading.take_lora_tags("prompt")
        reading.named = [
            replace(one, hash=hex_digits(hashes.get(one.name, ""))) if one.field == "loras" else one
            for one in reading.named
        ]
    tagged = {one.name for one in reading.named if one.field == "loras"}
    for name, weight in weights.items():
        reading.name("loras", name, hashes.get(name, ""), weight=weight, key="Lora weights")
    unused = [f"{name}: {digits}" for name, digits in hashes.items() if name not in tagged and name not in weights]
    if unused:
        reading.reject("Lora hashes", ", ".join(unused))


def entries(text: str) -> list[tuple[str, list[str]]]:
    """`name: part, name: part: part` as names and parts."""
    rows = [[part.strip() for part in entry.split(": ")] for entry in text[:50_000].split(",")]
    return [(name, parts) for name, *parts in rows if name and parts][:200]
