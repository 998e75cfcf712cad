"""CONTROLS: every setting that the page shows, and how to make its control. A control's name is its Settings field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import gradio as gr

from core.errors import BadSetting
from core.performance import MODES, forced
from core.settings import (
    AUTO_ON_OFF,
    EXPANDERS,
    FINAL_DECODERS,
    MAX_SEED,
    NOISE_DEVICES,
    OUTPUT_FORMATS,
    PREDICTIONS,
    REFINER_SWAPS,
    SAMPLERS,
    SCHEDULERS,
    Settings,
    check_setting,
    parse_setting,
    quoted,
    random_seed,
    written_setting,
)

LIMITS = {field.name: field.metadata for field in fields(Settings)}
LISTS = tuple(field.name for field in fields(Settings) if str(field.type).startswith("tuple"))  # shown as JSON text
LONGEST_SEED = 100  # digits; Python itself refuses to read numbers of thousands
FREEU_HELP = "1 is off"


def _slider(
    name: str, step: float, label: str, info: str | None = None, highest: float | None = None
) -> Callable[..., Any]:
    limits = LIMITS[name]
    return partial(
        gr.Slider,
        minimum=limits["low"],
        maximum=highest or limits["high"],
        step=step,
        label=label,
        info=info,
        buttons=[],
        elem_id=name,
    )


def _dropdown(name: str, choices: tuple[str, ...], label: str, info: str | None = None) -> Callable[..., Any]:
    return partial(gr.Dropdown, choices=list(choices), label=label, info=info, elem_id=name)


def _files(name: str, label: str, none: str, info: str | None = None) -> Callable[..., Any]:
    """A list of files of which one may be chosen; `none` says what choosing none means."""
    return partial(_file_list, none=none, label=label, info=info, elem_id=name)


def _file_list(choices: list[tuple[str, str]], *, none: str, **options: Any) -> Any:
    return gr.Dropdown([(none, ""), *choices], **options)


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
    "sampler": _dropdown("sampler", SAMPLERS, "Sampler", "The method that turns noise into a picture"),
    "scheduler": _dropdown("scheduler", SCHEDULERS, "Scheduler", "How the steps are spread over the noise levels"),
    "sharpness": _slider("sharpness", 0.1, "Sharpness", "Of fine texture; 0 is off"),
    "output_format": partial(gr.Radio, list(OUTPUT_FORMATS), label="Output format", elem_id="output_format"),
    "clip_skip": _slider("clip_skip", 1, "CLIP skip", "Layer of the text encoders, counted from the end; SDXL: 2"),
    "adaptive_cfg": _slider("adaptive_cfg", 0.1, "Adaptive guidance", "Tames guidance scales above this value"),
    "adm_scaler_positive": _slider("adm_scaler_positive", 0.1, "Size hint, prompt", "1 is plain SDXL"),
    "adm_scaler_negative": _slider("adm_scaler_negative", 0.1, "Size hint, negative prompt", "1 is plain SDXL"),
    "adm_scaler_end": _slider("adm_scaler_end", 0.05, "Size hints until", "Share of the run; 0 is off"),
    "prediction": _dropdown("prediction", PREDICTIONS, "Prediction type", "auto: as the checkpoint says"),
    "zero_terminal_snr": _dropdown("zero_terminal_snr", AUTO_ON_OFF, "Zero terminal SNR", "auto: as the checkpoint says"),
    "styles": partial(gr.Textbox, label="Styles", elem_id="styles", visible="hidden"),
    "prompt_syntax": partial(
        gr.Checkbox, label="Wildcards, arrays and tags", elem_id="prompt_syntax",
        info="Off: the prompts are taken as they stand",
    ),
    "read_wildcards_in_order": partial(
        gr.Checkbox, label="Read wildcards in order", elem_id="read_wildcards_in_order",
        info="Picture by picture the next line of the file, instead of one by chance",
    ),
    "seed_increment": partial(
        gr.Checkbox, label="A new seed for each picture", elem_id="seed_increment",
        info="Off: all pictures of a request have the same seed",
    ),
    "image_grid": partial(
        gr.Checkbox, label="One more picture that shows all", elem_id="image_grid",
        info="Of a request for several images, when they are done",
    ),
    "performance": partial(
        gr.Dropdown, [(mode.label, name) for name, mode in MODES.items()], label="Performance", elem_id="performance",
        info="How much time a picture may take",
    ),
    "loras": partial(gr.Textbox, label="LoRAs", elem_id="loras", visible="hidden"),
    "refiner_model": _files("refiner_model", "Refiner", "None", "Takes over for the last steps"),
    "refiner_switch": _slider("refiner_switch", 0.05, "Refiner takes over at", "Share of the steps that the base model makes"),
    "refiner_swap": _dropdown("refiner_swap", REFINER_SWAPS, "How the refiner takes over", "joint: in one run; separate: in two; vae: through a clean picture"),
    "vae": _files("vae", "VAE", "The checkpoint's own", "Turns the finished latent into pixels"),
    "text_encoder_l": _files("text_encoder_l", "Text encoder CLIP-L", "The checkpoint's own", "For files that hold the network alone"),
    "text_encoder_g": _files("text_encoder_g", "Text encoder CLIP-G", "The checkpoint's own", "For files that hold the network alone"),
    "guidance_rescale": _slider("guidance_rescale", 0.05, "Guidance rescale", "Against washed-out or burnt pictures of v-prediction models; 0 is off"),
    "guidance_end": _slider("guidance_end", 0.05, "Guidance until", "Share of the run; then the negative prompt rests. 0.7: 1.2 to 1.3 x as fast, 9 % different; 0.5: 1.3 to 1.4 x, 11 % different; 1 is off"),
    "step_cache": _slider("step_cache", 1, "Whole network every so many steps", "DeepCache: the steps between reuse most of it. 2: 1.8 x as fast, 3 % different; 3: 2.6 x, 6 % different; 1 is off"),
    "final_decoder": _dropdown("final_decoder", FINAL_DECODERS, "Final decoder", "preview: a draft by the small decoder that makes previews; softer, and about ten times sooner"),
    "expander": _dropdown("expander", EXPANDERS, "What continues prompts", "For the style Fooocus V2; auto: a GPT-2 if there is one, else phrases"),
    "prompt_expansion": partial(
        gr.Textbox, label="Continued prompt", info="What the style Fooocus V2 made of the prompt; empty: anew for each seed",
        lines=2, max_lines=6, elem_id="prompt_expansion",
    ),
    "freeu": partial(gr.Checkbox, label="FreeU", info="More contrast between shapes and ground, without training", elem_id="freeu"),
    "freeu_b1": _slider("freeu_b1", 0.01, "Backbone, deep", FREEU_HELP),
    "freeu_b2": _slider("freeu_b2", 0.01, "Backbone, middle", FREEU_HELP),
    "freeu_s1": _slider("freeu_s1", 0.01, "Skips, deep", FREEU_HELP),
    "freeu_s2": _slider("freeu_s2", 0.01, "Skips, middle", FREEU_HELP),
    "noise_device": _dropdown("noise_device", NOISE_DEVICES, "Where noise is made", "cpu: a seed is the same picture on every machine"),
    "strict_compatibility": partial(
        gr.Checkbox, label="Strict compatibility", elem_id="strict_compatibility",
        info="Fooocus's mistakes in schedules, noise and size hints are made again, so that its pictures come out as they did there",
    ),
    "preview": partial(gr.Checkbox, label="Previews", info="Show the picture while it forms", elem_id="preview"),
    "save_metadata": partial(gr.Checkbox, label="Write the settings into the picture", info="So that it can be made again", elem_id="save_metadata"),
}  # fmt: skip

# What Fooocus's page and config.txt, and some others, call a setting, beside what is said of it here: for those who search.
ALSO_CALLED = {
    "base_model": ("checkpoint",),
    "width": ("aspect_ratio", "forced_overwrite_of_generating_width"),
    "height": ("aspect_ratio", "forced_overwrite_of_generating_height"),
    "steps": ("overwrite_step", "forced_overwrite_of_sampling_step"),
    "guidance_scale": ("cfg_scale",),
    "sampler": ("sampler_name", "sampling_method", "dpm++", "unipc"),
    "scheduler": ("scheduler_name", "schedule_type"),
    "sharpness": ("sample_sharpness", "image_sharpness"),
    "adaptive_cfg": ("cfg_tsnr", "cfg_mimicking_from_tsnr"),
    "guidance_rescale": ("cfg_rescale",),
    "adm_scaler_positive": ("positive_adm_guidance_scaler",),
    "adm_scaler_negative": ("negative_adm_guidance_scaler",),
    "adm_scaler_end": ("adm_guidance_end_at_step",),
    "zero_terminal_snr": ("ztsnr",),
    "refiner_switch": ("overwrite_switch", "refiner_switch_at", "forced_overwrite_of_refiner_switch_step"),
    "refiner_swap": ("refiner_swap_method",),
    "seed_increment": ("disable_seed_increment",),
    "image_grid": ("generate_image_grid_for_each_batch",),
    "expander": ("fooocus_expansion",),
    "prompt_expansion": ("fooocus_v2_expansion",),
    "freeu": ("freeu_enabled",),
    "preview": ("disable_preview", "disable_intermediate_results"),
    "save_metadata": ("save_metadata_to_images",),
}

# What a person brings along from one base model to the next; everything else follows the model's recommendation.
OWN = (
    "prompt", "negative_prompt", "base_model", "image_number", "image_grid", "seed", "output_format", "save_metadata", "performance",
    "loras", "styles", "prompt_syntax", "read_wildcards_in_order", "seed_increment", "refiner_model", "refiner_switch",
    "refiner_swap", "vae", "text_encoder_l", "text_encoder_g", "expander", "prompt_expansion", "preview", "noise_device", "strict_compatibility", "guidance_end", "step_cache", "final_decoder", "freeu", "freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2",
)  # fmt: skip
RECOMMENDED = tuple(name for name in CONTROLS if name not in OWN)

# Settings that some performance mode decides.
FORCEABLE = tuple(name for name in CONTROLS if any(name in mode.forced for mode in MODES.values()))


def label_of(name: str) -> str:
    """What the setting `name` is called in the page."""
    return _said(name, "label") or name.replace("_", " ").capitalize()


def names_of(name: str) -> list[str]:
    """What people call the setting `name`, other than by its label, and what it may be set to."""
    choices = LIMITS[name].get("choices", ())
    labels = [MODES[one].label for one in choices] if name == "performance" else []
    return [name, *ALSO_CALLED.get(name, ()), *choices, *labels]


def search_words(name: str) -> list[str]:
    """What a search finds the setting `name` by: its label and help, and its other names."""
    return [word for word in (label_of(name), _said(name, "info"), *names_of(name)) if word]


def _said(name: str, what: str) -> str:
    """The "label" or "info" that the control of the setting `name` is made with; "" if it is made with none."""
    return str(getattr(CONTROLS.get(name), "keywords", {}).get(what) or "")


def shown(settings: Settings) -> dict[str, Any]:
    """The value that each control shows for `settings`. The seed is text: 64 bits exceed a browser's numbers; lists are JSON."""
    values = {name: getattr(settings, name) for name in CONTROLS}
    texts = {name: written_setting(values[name]) for name in ("seed", *LISTS) if name in values}
    return values | texts


def performed(
    mode: str, values: Mapping[str, Any], own: Mapping[str, Any], usual: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What a change to performance `mode` does to the controls of FORCEABLE that show `values`.

    `own` are the user's values that an earlier mode replaced. Where none waits and what is shown is what `mode` forces, as
    it is of settings that a picture was made with, the value of `usual` is taken for the user's, if there is one. Returns
    the own values that wait now, and by control name what changes.
    """
    wanted = forced(mode)
    kept: dict[str, Any] = {}
    changes: dict[str, dict[str, Any]] = {}
    for name in FORCEABLE:
        if name in wanted:
            mine = own.get(name, values[name])
            kept[name] = usual.get(name, mine) if name not in own and mine == wanted[name] else mine
            changes[name] = {"value": wanted[name], "interactive": False}
        else:
            changes[name] = {"interactive": True, **({"value": own[name]} if name in own else {})}
    return kept, changes


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
            elif name in LISTS and name in values:
                value = getattr(Settings.from_dict({name: parse_setting(name, str(values[name] or "[]"))}), name)
                kept[name] = written_setting(value)
            elif name in values:
                kept[name] = getattr(Settings.from_dict({name: values[name]}), name)
    return kept


def settings_from(values: Mapping[str, Any], recommended: Settings, any_seed: bool) -> Settings:
    """Settings from the controls' values by name; what the page does not show is taken from `recommended`.

    The values come as a browser sent them, which may be anything. Raises BadSetting. `any_seed` draws a seed and ignores the one in the box.
    """
    given = {name: value for name, value in values.items() if name in CONTROLS}
    given["seed"] = random_seed() if any_seed else _asked_seed(given.get("seed"))
    given["base_model"] = asked_model(given) or recommended.base_model
    for name in LISTS:
        text = given.get(name, ())
        if text is None or isinstance(text, str):
            given[name] = parse_setting(name, text or "[]")
    for name in ("width", "height"):
        if given.get(name, 0) is None:
            raise BadSetting(
                f"{name} is empty; it must be a number of pixels, a multiple of {LIMITS[name]['multiple']}."
            )
    return replace(recommended, **given)


def asked_model(values: Mapping[str, Any]) -> str:
    """The base model that the controls' values name, "" for the recommended one. Raises BadSetting."""
    name = values.get("base_model")
    return "" if name is None else str(check_setting("base_model", name))


def _asked_seed(value: Any) -> int:
    """The seed of the box: its text, or a number from a page that was tampered with. Raises BadSetting."""
    return parse_seed(value or "") if value is None or isinstance(value, str) else int(check_setting("seed", value))


def parse_seed(text: str) -> int:
    """The seed written in `text`. Raises BadSetting."""
    if not text.strip().isdecimal() or len(text.strip()) > LONGEST_SEED:
        raise BadSetting(
            f"The seed is {quoted(text)}; it must be a whole number from 0 to {MAX_SEED}, or choose a random seed."
        )
    return int(text)
