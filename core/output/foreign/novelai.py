"""NovelAI: a JSON object in the PNG text `Comment`, with the prompt in `Description` too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.output.foreign.texts import one_line
from core.output.reading import Reading, ReadMetadata, json_object, text_of

NAMES = {
    "steps": "steps",
    "scale": "guidance_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "cfg_rescale": "guidance_rescale",
}
SAMPLERS = {
    "k_euler": "euler",
    "k_euler_ancestral": "euler_ancestral",
    "k_dpm_2": "dpm_2",
    "k_dpm_2_ancestral": "dpm_2_ancestral",
    "k_dpm_adaptive": "dpm_adaptive",
    "k_dpm_fast": "dpm_fast",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2m_sde": "dpmpp_2m_sde",
    "k_dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "k_dpmpp_sde": "dpmpp_sde",
    "k_heun": "heun",
    "k_lms": "lms",
    "ddim": "ddim",
    "ddim_v3": "ddim",
}
SCHEDULERS = {
    "native": "normal",
    "karras": "karras",
    "exponential": "exponential",
    "polyexponential": "exponential",
}
# About the service and not the picture.
IGNORED = (
    "request_type", "signed_hash", "hide_debug_overlay", "n_samples", "prompt", "uc", "version", "stream",
    "legacy_v3_extend", "legacy", "legacy_uc",
)  # fmt: skip
LONGEST = 20_000  # characters
STEP = 1.05  # what one pair of braces multiplies by

_MARK = re.compile(r"(-?\d{1,4}(?:\.\d{0,6})?)?::|[{}\[\]]")


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is NovelAI's: its comment, or all its texts."""
    return ("uc" in values and ("scale" in values or "sampler" in values)) or isinstance(
        values.get("Comment"), (str, dict)
    )


def read(values: Mapping[str, Any]) -> ReadMetadata:
    """The settings in NovelAI's comment, or in all its texts. Raises BadMetadata if nothing in it can be used."""
    left = dict(values)
    if "Comment" in left:
        comment = left.pop("Comment")
        inner = comment if isinstance(comment, dict) else json_object(text_of(comment))
        left = {"prompt": left.get("Description"), "Source": left.get("Source"), **inner}
    reading = Reading("novelai")
    for key, name, v4 in (("prompt", "prompt", "v4_prompt"), ("uc", "negative_prompt", "v4_negative_prompt")):
        texts = _texts(left.get(key), left.pop(v4, None))
        if texts:
            reading.put(key, name, "\n".join(emphasis(one_line(text)) for text in texts))
    reading.put_all(left, NAMES)
    if "sampler" in left:
        reading.choose("sampler", "sampler", left.pop("sampler"), SAMPLERS)
    if "noise_schedule" in left:
        reading.choose("noise_schedule", "scheduler", left.pop("noise_schedule"), SCHEDULERS)
    usual = (False, 0.0, 1.0)  # of features that were off
    reading.leave({key: value for key, value in left.items() if value is True or value not in usual}, IGNORED)
    return reading.done()


def emphasis(text: str) -> str:
    """`text` with NovelAI's emphasis in ours: `{a}` is (a:1.05), `[a]` (a:0.952), `1.3::a::` (a:1.3), parentheses are plain."""
    if len(text) > LONGEST:
        return text  # no prompt here
    pieces: list[tuple[str, int, float]] = []
    depth, factor, at = 0, 1.0, 0
    for mark in _MARK.finditer(text):
        pieces.append((text[at : mark.start()], depth, factor))
        at = mark.end()
        if mark[0].endswith("::"):
            factor = float(mark[1]) if mark[1] else 1.0
        else:
            depth += {"{": 1, "}": -1, "[": -1, "]": 1}[mark[0]]
    pieces.append((text[at:], depth, factor))
    return "".join(_weighted(*piece) for piece in pieces)


def _weighted(text: str, depth: int, factor: float) -> str:
    plain = text.replace("\\", "").replace("(", "\\(").replace(")", "\\)")
    weight = factor * STEP ** max(-60, min(60, depth))
    if abs(weight - 1) < 1e-9 or not plain.strip(" ,"):
        return plain
    inner = plain.strip()
    start = len(plain) - len(plain.lstrip())
    return f"{plain[:start]}({inner}:{weight:.4g}){plain[start + len(inner) :]}"


def _texts(plain: Any, v4: Any) -> list[str]:
    """The prompt, and behind it those of single figures (since version 4)."""
    caption = v4.get("caption") if isinstance(v4, dict) else None
    caption = caption if isinstance(caption, dict) else {}
    figures = caption.get("char_captions")
    figures = [one for one in figures if isinstance(one, dict)] if isinstance(figures, list) else []
    texts = [text_of(caption.get("base_caption")) or text_of(plain)]
    texts += [text_of(one.get("char_caption")) for one in figures[:20]]
    given = isinstance(plain, str) or bool(caption)
    return [text for text in texts if text] or ([""] if given else [])
