"""CONTROLS: every setting that the page shows, and how to make its control. A control's name is its Settings field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

import gradio as gr

from core.errors import BadSetting
from core.settings import (
    AUTO_ON_OFF,
    MAX_SEED,
    OUTPUT_FORMATS,
    PREDICTIONS,
    SAMPLERS,
    SCHEDULERS,
    Settings,
    random_seed,
)

LIMITS = {field.name: field.metadata for field in fields(Settings)}


def _slider(
    name: str, step: float, label: str, info: str | None = None, highest: float | None = None
) -> Callable[..., Any]:
    limits = LIMITS[name]
    return partial(
        gr.Slider, limits["low"], highest or limits["high"], step=step, label=label, info=info, buttons=[], elem_id=name
    )


def _dropdown(name: str, choices: tuple[str, ...], label: str, info: str | None = None) -> Callable[..., Any]:
    return partial(gr.Dropdown, choices=list(choices), label=label, info=info, elem_id=name)


CONTROLS: dict[str, Callable[..., Any]] = {
    "prompt": partial(
        gr.Textbox, label="Prompt", lines=3, max_lines=12, autofocus=True, elem_id="positive_prompt",
        placeholder="What shall the picture show?",
    ),
    "negative_prompt": partial(
        gr.Textbox, label="Negative prompt", lines=2, max_lines=8, elem_id="negative_prompt",
        placeholder="What should not be in it",
    ),
    "base_model": partial(gr.Dropdown, label="Base model", elem_id="base_model", scale=8, min_width=120),
    "width": partial(gr.Number, label="Width", precision=0, step=8, elem_id="width", min_width=90),
    "height": partial(gr.Number, label="Height", precision=0, step=8, elem_id="height", min_width=90),
    "image_number": _slider("image_number", 1, "Number of images", highest=32),
    "seed": partial(gr.Textbox, label="Seed", lines=1, max_lines=1, elem_id="seed", min_width=140),
    "steps": _slider("steps", 1, "Steps", "More steps: finer, and slower"),
    "guidance_scale": _slider("guidance_scale", 0.1, "Guidance scale", "How strictly the prompt is followed"),
    "sampler": _dropdown("sampler", SAMPLERS, "Sampler"),
    "scheduler": _dropdown("scheduler", SCHEDULERS, "Scheduler"),
    "sharpness": _slider("sharpness", 0.1, "Sharpness", "Of fine texture; 0 is off"),
    "output_format": partial(gr.Radio, list(OUTPUT_FORMATS), label="Output format", elem_id="output_format"),
    "clip_skip": _slider("clip_skip", 1, "CLIP skip", "Layer of the text encoders, counted from the end; SDXL: 2"),
    "adaptive_cfg": _slider("adaptive_cfg", 0.1, "Adaptive guidance", "Tames guidance scales above this value"),
    "adm_scaler_positive": _slider("adm_scaler_positive", 0.1, "Size hint, prompt", "1 is plain SDXL"),
    "adm_scaler_negative": _slider("adm_scaler_negative", 0.1, "Size hint, negative prompt", "1 is plain SDXL"),
    "adm_scaler_end": _slider("adm_scaler_end", 0.05, "Size hints until", "Share of the run; 0 is off"),
    "prediction": _dropdown("prediction", PREDICTIONS, "Prediction type", "auto: as the checkpoint says"),
    "zero_terminal_snr": _dropdown("zero_terminal_snr", AUTO_ON_OFF, "Zero terminal SNR", "auto: as the checkpoint says"),
    "save_metadata": partial(gr.Checkbox, label="Write the settings into the picture", elem_id="save_metadata"),
}  # fmt: skip

# What a person brings along from one base model to the next; everything else follows the model's recommendation.
OWN = ("prompt", "negative_prompt", "base_model", "image_number", "seed", "output_format", "save_metadata")
RECOMMENDED = tuple(name for name in CONTROLS if name not in OWN)


def shown(settings: Settings) -> dict[str, Any]:
    """The value that each control shows for `settings`. The seed is text: 64 bits exceed a browser's numbers."""
    return {name: getattr(settings, name) for name in CONTROLS} | {"seed": str(settings.seed)}


def remembered_values(text: str) -> dict[str, Any]:
    """What the browser remembers of its last visit: the controls' values by name, those that are still possible.

    The text comes from the browser's own store and may hold anything.
    """
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    kept: dict[str, Any] = {n: values[n] for n in ("any_seed",) if isinstance(values.get(n), bool)}
    for name in CONTROLS:
        with suppress(BadSetting, OverflowError, RecursionError):
            if name == "seed":
                kept |= {name: str(parse_seed(str(values[name])))} if name in values else {}
            elif name in values:
                kept[name] = getattr(Settings.from_dict({name: values[name]}), name)
    return kept


def settings_from(values: Mapping[str, Any], recommended: Settings, any_seed: bool) -> Settings:
    """Settings from the controls' values by name; what the page does not show is taken from `recommended`.

    Raises BadSetting. `any_seed` draws a seed and ignores the one in the box.
    """
    given = {name: value for name, value in values.items() if name in CONTROLS}
    given["seed"] = random_seed() if any_seed else parse_seed(str(given.get("seed") or ""))
    given["base_model"] = given.get("base_model") or recommended.base_model
    for name in ("width", "height"):
        if given.get(name, 0) is None:
            raise BadSetting(
                f"{name} is empty; it must be a number of pixels, a multiple of {LIMITS[name]['multiple']}."
            )
    return replace(recommended, **given)


def parse_seed(text: str) -> int:
    """The seed written in `text`. Raises BadSetting."""
    if not text.strip().isdecimal():
        raise BadSetting(
            f"The seed is {text!r}; it must be a whole number from 0 to {MAX_SEED}, or choose a random seed."
        )
    return int(text)
