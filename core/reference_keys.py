"""reference_keys: the one table that reads the configuration and preset files of Fooocus into our own names.

Every key that such a file may hold is here: what it is called with us, or why it means nothing here. Nothing of a file is
ever changed. A value that does not fit is told and left out, as the reference does, so that an old file never stops a start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from core.errors import BadSetting
from core.near import meant
from core.performance import MODES, forced, overruled
from core.settings import Lora, Settings

Values: TypeAlias = dict[str, Any]

PERFORMANCES = {
    "Quality": "quality",
    "Speed": "speed",
    "Extreme Speed": "extreme_speed",
    "Lightning": "lightning",
    "Hyper-SD": "hyper_sd",
}
KINDS_OF_DOWNLOADS = {
    "checkpoint_downloads": "checkpoints",
    "lora_downloads": "loras",
    "embeddings_downloads": "embeddings",
    "vae_downloads": "vae",
}
NOT_YET = "Easel has no such feature yet"
ALWAYS_THERE = "the page always shows it"
NO_TEMPORARY_FILES = "Easel keeps no pictures in a temporary folder and never empties a folder"


@dataclass(frozen=True)
class Meaning:
    """What a key is with us: a field of Settings, of Config or of a preset, or nothing, with the reason.

    `read` gives our names and values, which may be several or none; it raises ValueError with a sentence. `is_text`: an
    environment variable of that name is taken as it stands, a number or True in it is text too.
    """

    place: Literal["settings", "config", "preset", "nothing"]
    to: str  # our name, or the reason
    read: Callable[[Any], Values] = lambda value: {}
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a file of the reference says in our names, and what of it is not used."""

    settings: Values = field(default_factory=dict)  # checked
    config: Values = field(default_factory=dict)  # not checked yet
    preset: Values = field(default_factory=dict)  # previous, downloads
    unused: tuple[str, ...] = ()  # keys that are known and mean nothing here
    refused: Mapping[str, str] = field(default_factory=dict)  # key -> a sentence: unknown, or its value does not fit

    @property
    def problems(self) -> tuple[str, ...]:
        """The sentences of `refused`."""
        return tuple(self.refused.values())


def read_reference(values: Mapping[str, Any]) -> Reading:
    """Read the keys and values of a config.txt or a preset. Raises nothing."""
    found: dict[str, Values] = {"settings": {}, "config": {}, "preset": {}}
    unused: list[str] = []
    refused: dict[str, str] = {}
    for key, value in values.items():
        meaning = meaning_of(key)
        if meaning is None:
            near = meant(key, KEYS, "The names are listed in docs/configuration.md.")
            refused[key] = f"There is no key {key[:100]!r}. {near}"
        elif meaning.place == "nothing":
            unused.append(key)
        elif value is not None and value != "":
            try:
                new = meaning.read(value)
                if meaning.place == "settings" and "switch_step" not in new:
                    new = {name: getattr(Settings(**{name: entry}), name) for name, entry in new.items()}
            except (ValueError, BadSetting) as error:
                refused[key] = f"{key}: {error} It is not used."
            else:
                for name, entry in new.items():
                    both = isinstance(entry, dict) and name in found[meaning.place]
                    found[meaning.place][name] = found[meaning.place][name] | entry if both else entry
    settings = found["settings"]
    overwritten = settings.pop("switch_step", 0)
    try:
        settings |= switch_share(settings, overwritten)
    except BadSetting as error:
        key = "default_overwrite_switch" if overwritten > 0 else "default_refiner_switch"
        refused[key] = f"{key}: {error} It is not used."
        settings.pop("refiner_switch", None)
    settings |= _with_its_steps(settings)
    return Reading(
        settings=settings,
        config=found["config"],
        preset=found["preset"],
        unused=tuple(unused),
        refused=refused,
    )


def meaning_of(key: str) -> Meaning | None:
    """The entry for `key`; None if the reference has no such key."""
    if re.fullmatch(r"default_ip_(image|type|stop_at|weight)_\d{1,3}", key):
        return Meaning("nothing", NOT_YET)
    return KEYS.get(key)


def is_setting(key: str) -> bool:
    """Whether `key` means something in a preset."""
    meaning = meaning_of(key)
    return meaning is not None and meaning.place in ("settings", "preset")


def switch_share(settings: Values, overwritten: float = 0) -> Values:
    """`refiner_switch` as the share of the steps after which the reference has the refiner take over; {} where it stands as it is.

    It computes that step from the mode's own steps, also where others are forced: Speed (30), 50 forced, 0.5: after 15.
    Where the forced steps end before it, the refiner would never run; the share is taken of them then. `overwritten` is a step
    and wins. Raises BadSetting if our share cannot say it.
    """
    mode = MODES[settings.get("performance", "speed")]
    of_mode = mode.forced.get("steps", Settings.steps)
    steps = settings.get("steps", of_mode)
    if overwritten > 0:
        share = min(overwritten, steps) / steps
    elif "refiner_switch" not in settings or steps == of_mode:
        return {}
    else:
        share = round(of_mode * settings["refiner_switch"]) / steps
        if share >= 1:
            return {}
    return {"refiner_switch": Settings(refiner_switch=share).refiner_switch}


def legacy_paths(values: Mapping[str, Any]) -> Values:
    """A `user_path_config.txt`, the form before config.txt, in the names of config.txt. Other keys are kept."""
    return {LEGACY_PATHS.get(key, key): value for key, value in values.items()}


def _none(value: Any) -> str:
    """A file name, where the reference writes None for no file."""
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:60]!r} is no file name.")
    return "" if value in ("None", "Default (model)") else value.replace("\\", "/")


def _same(value: Any) -> Any:
    return value


def _setting(name: str, change: Callable[[Any], Any] = _same) -> Meaning:
    return Meaning(
        "settings", name, lambda value: {name: change(value)}, is_text=isinstance(getattr(Settings, name), str)
    )


def _config(name: str, change: Callable[[Any], Any] = _same, *, is_text: bool = False) -> Meaning:
    return Meaning("config", name, lambda value: {name: change(value)}, is_text=is_text)


def _loras(value: Any) -> list[Values]:
    wanted = "a list of [on, file, weight] was wanted."
    if not isinstance(value, list):
        raise ValueError(wanted)
    loras = []
    for row in value:
        entry = [True, *row] if isinstance(row, list) and len(row) == 2 else row
        if not isinstance(entry, list) or len(entry) != 3:
            raise ValueError(wanted)
        enabled, name, weight = entry
        if _none(name):
            loras.append({"name": _none(name), "weight": weight, "enabled": enabled})
    return loras


def _performance(value: Any) -> str:
    if not isinstance(value, str) or value not in PERFORMANCES:
        raise ValueError(f"{str(value)[:60]!r} must be one of: {', '.join(PERFORMANCES)}.")
    return PERFORMANCES[value]


def size_of(value: Any) -> tuple[int, int]:
    """Width and height of `W*H` (or with the multiplication sign, as the reference's page writes it)."""
    match = re.match(r"\s*(\d{2,5})\s*[*×xX]\s*(\d{2,5})", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{str(value)[:60]!r} is no size such as 1152*896.")
    return int(match[1]), int(match[2])


def _size(value: Any) -> Values:
    width, height = size_of(value)
    return {"width": width, "height": height}


def _forced_steps(value: Any) -> Values:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{str(value)[:60]!r} is no number.")
    return {"steps": value} if value > 0 else {}


def _with_its_steps(settings: Values) -> Values:
    """What of `settings` becomes another where steps are forced over a mode: all that the mode does, but by itself."""
    mode = settings.get("performance", "custom")
    if "steps" not in overruled(mode, settings):
        return {}
    changes = {**forced(mode), "steps": settings["steps"], "performance": "custom"}
    if own := MODES[mode].lora:
        others = (lora for lora in settings.get("loras", ()) if lora.name.rpartition("/")[2] != own.file)
        changes["loras"] = (*others, Lora(own.file, own.weight))
    return changes


def _switch_step(value: Any) -> Values:
    """A step, not a setting yet: which share of the steps it is, is known when the steps are."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{str(value)[:60]!r} is no whole number.")
    return {"switch_step": value}


def _sizes(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError("a list of two or more sizes was wanted.")
    return value


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("a list of file names was wanted.")
    return [name.replace("\\", "/") for name in value]


def _downloads(kind: str) -> Meaning:
    def read(value: Any) -> Values:
        if not isinstance(value, dict):
            raise ValueError("an object of file names and addresses was wanted.")
        return {"downloads": {kind: {name: {"url": url} for name, url in value.items()}}}

    return Meaning("preset", f"downloads, {kind}", read)


def _nothing(why: str = NOT_YET) -> Meaning:
    return Meaning("nothing", why)


PATHS = {
    "path_checkpoints": "checkpoints",
    "path_loras": "loras",
    "path_embeddings": "embeddings",
    "path_vae_approx": "vae_approx",
    "path_vae": "vae",
    "path_upscale_models": "upscale_models",
    "path_inpaint": "inpaint",
    "path_controlnet": "controlnet",
    "path_clip_vision": "clip_vision",
    "path_fooocus_expansion": "prompt_expansion",
    "path_wildcards": "wildcards",
    "path_safety_checker": "safety_checker",
    "path_sam": "sam",
    "path_outputs": "outputs",
}
LEGACY_PATHS = {
    "modelfile_path": "path_checkpoints",
    "lorafile_path": "path_loras",
    "embeddings_path": "path_embeddings",
    "vae_approx_path": "path_vae_approx",
    "upscale_models_path": "path_upscale_models",
    "inpaint_models_path": "path_inpaint",
    "controlnet_models_path": "path_controlnet",
    "clip_vision_models_path": "path_clip_vision",
    "fooocus_expansion_path": "path_fooocus_expansion",
    "temp_outputs_path": "path_outputs",
}
KEYS: dict[str, Meaning] = {
    **{key: _config(name, is_text=True) for key, name in PATHS.items()},
    "temp_path": _nothing(NO_TEMPORARY_FILES),
    "temp_path_cleanup_on_launch": _nothing(NO_TEMPORARY_FILES),
    "default_model": _setting("base_model", _none),
    "previous_default_models": Meaning("preset", "previous", lambda value: {"previous": _names(value)}),
    "default_refiner": _setting("refiner_model", _none),
    "default_refiner_switch": _setting("refiner_switch"),
    "default_loras_min_weight": _config("lora_min_weight"),
    "default_loras_max_weight": _config("lora_max_weight"),
    "default_loras": _setting("loras", _loras),
    "default_max_lora_number": _config("lora_rows"),
    "default_cfg_scale": _setting("guidance_scale"),
    "default_sample_sharpness": _setting("sharpness"),
    "default_sampler": _setting("sampler"),
    "default_scheduler": _setting("scheduler"),
    "default_vae": _setting("vae", _none),
    "default_styles": _setting("styles"),
    "default_prompt_negative": _setting("negative_prompt"),
    "default_prompt": _setting("prompt"),
    "default_performance": _setting("performance", _performance),
    "default_image_prompt_checkbox": _nothing(),
    "default_enhance_checkbox": _nothing(),
    "default_advanced_checkbox": _nothing(ALWAYS_THERE),
    "default_developer_debug_mode_checkbox": _nothing(ALWAYS_THERE),
    "default_image_prompt_advanced_checkbox": _nothing(),
    "default_max_image_number": _config("max_image_number"),
    "default_output_format": _setting("output_format"),
    "default_image_number": _setting("image_number"),
    **{key: _downloads(kind) for key, kind in KINDS_OF_DOWNLOADS.items()},
    "available_aspect_ratios": _config("aspect_ratios", _sizes),
    "default_aspect_ratio": Meaning("settings", "width, height", _size, is_text=True),
    "default_inpaint_engine_version": _nothing(),
    "default_selected_image_input_tab_id": _nothing(),
    "default_uov_method": _nothing(),
    "default_controlnet_image_count": _nothing(),
    "default_inpaint_advanced_masking_checkbox": _nothing(),
    "default_inpaint_method": _nothing(),
    "default_cfg_tsnr": _setting("adaptive_cfg"),
    "default_clip_skip": _setting("clip_skip"),
    "default_overwrite_step": Meaning("settings", "steps", _forced_steps),
    "default_overwrite_switch": Meaning("settings", "refiner_switch", _switch_step),
    "default_overwrite_upscale": _nothing(),
    "example_inpaint_prompts": _nothing(),
    "example_enhance_detection_prompts": _nothing(),
    "default_enhance_tabs": _nothing(),
    "default_enhance_uov_method": _nothing(),
    "default_enhance_uov_processing_order": _nothing(),
    "default_enhance_uov_prompt_type": _nothing(),
    "default_sam_max_detections": _nothing(),
    "default_black_out_nsfw": _nothing(),
    "default_save_only_final_enhanced_image": _nothing(),
    "default_save_metadata_to_images": _setting("save_metadata"),
    "default_metadata_scheme": _nothing("pictures carry their settings in our form and in the A1111 text"),
    "metadata_created_by": _config("created_by", is_text=True),
    "default_invert_mask_checkbox": _nothing(),
    "default_inpaint_mask_model": _nothing(),
    "default_enhance_inpaint_mask_model": _nothing(),
    "default_inpaint_mask_cloth_category": _nothing(),
    "default_inpaint_mask_sam_model": _nothing(),
    "default_describe_apply_prompts_checkbox": _nothing(),
    "default_describe_content_type": _nothing(),
}
