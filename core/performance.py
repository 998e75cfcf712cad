"""Performance: how much time a picture may take, as modes that force some of a request's settings. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from core.errors import BadSetting, ModelNotFound
from core.settings import Lora, Settings, written_setting
from core.weights.sources import source


class LoraFiles(Protocol):
    """The side of `core.weights.files.Files` that matters here."""

    @property
    def folders(self) -> Any:
        """Where LoRA files are looked for; the first folder is where a new one goes."""

    def names(self) -> list[str]:
        """The names of all LoRA files, relative to their folders, with `/`."""


@dataclass(frozen=True, kw_only=True)
class ModeLora:
    """The LoRA that a fast mode lives from: a file of `core.weights.sources` that the user fetches once."""

    file: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One mode. `forced` are settings and the values they have in it; `idle` settings that have no effect in it."""

    label: str
    help: str
    forced: Mapping[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    upscale_steps: int | None = None  # steps of Upscale and Vary; None: the setting `steps`
    lora: ModeLora | None = None


# A distilled network has its guidance inside: everything that leans on a second, unprompted guess is off.
WITHOUT_GUIDANCE: Mapping[str, Any] = {
    "guidance_scale": 1.0,
    "sharpness": 0.0,
    "adaptive_cfg": 1.0,
    "adm_scaler_positive": 1.0,
    "adm_scaler_negative": 1.0,
    "adm_scaler_end": 0.0,
}


def _fast(label: str, words: str, *, steps: int, sampler: str, scheduler: str, lora: ModeLora) -> Mode:
    own = {"steps": steps, "sampler": sampler, "scheduler": scheduler, "refiner_model": "", "refiner_switch": 1.0}
    return Mode(
        label=label,
        help=words,
        forced={**own, **WITHOUT_GUIDANCE},
        idle=("negative_prompt", "refiner_swap", "guidance_rescale", "guidance_end"),
        upscale_steps=steps,
        lora=lora,
    )


MODES: dict[str, Mode] = {
    "custom": Mode(label="Custom", help="Every setting is yours."),
    "quality": Mode(label="Quality", help="60 steps: the most detail.", forced={"steps": 60}, upscale_steps=36),
    "speed": Mode(
        label="Speed", help="30 steps: good pictures in half the time.", forced={"steps": 30}, upscale_steps=18
    ),
    "extreme_speed": _fast(
        "Extreme Speed",
        "8 steps without guidance, by the LCM LoRA.",
        steps=8,
        sampler="lcm",
        scheduler="lcm",
        lora=ModeLora(file="sdxl_lcm_lora.safetensors", weight=1.0),
    ),
    "lightning": _fast(
        "Lightning",
        "4 steps without guidance, by the SDXL Lightning LoRA.",
        steps=4,
        sampler="euler",
        scheduler="sgm_uniform",
        lora=ModeLora(file="sdxl_lightning_4step_lora.safetensors", weight=1.0),
    ),
    "hyper_sd": _fast(
        "Hyper-SD",
        "4 steps without guidance, by the Hyper-SD LoRA.",
        steps=4,
        sampler="dpmpp_sde_gpu",
        scheduler="karras",
        lora=ModeLora(file="sdxl_hyper_sd_4step_lora.safetensors", weight=0.8),
    ),
    "dmd2": _fast(
        "DMD2",
        "4 steps without guidance, by the DMD2 LoRA.",
        steps=4,
        sampler="lcm",
        scheduler="sgm_uniform",  # the four timesteps that it was distilled on, 999, 749, 499, 249, or the next one
        lora=ModeLora(file="dmd2_sdxl_4step_lora_fp16.safetensors", weight=1.0),
    ),
}


def forced(performance: str) -> dict[str, Any]:
    """The settings that the mode `performance` forces, with their values there: what a page shows and locks."""
    return dict(MODES[performance].forced)


def overruled(performance: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings `wanted` for which the mode `performance` has another value: name -> that value."""
    of_mode = forced(performance)
    return {name: of_mode[name] for name, value in wanted.items() if name in of_mode and value != of_mode[name]}


def as_wanted(settings: Settings, wanted: Mapping[str, Any]) -> Settings:
    """`settings`, so that each of the settings `wanted`, which are among them, has its effect.

    A mode that some of them contradict gives way to "custom", with what else it forces. Raises BadSetting if it is wanted
    itself, or lives from a LoRA, without which its values make no picture.
    """
    mode, lost = MODES[settings.performance], overruled(settings.performance, wanted)
    if not lost:
        return settings
    if "performance" in wanted or mode.lora:
        name, value = next(iter(lost.items()))
        raise BadSetting(
            f"{name}={written_setting(wanted[name])} would have no effect: the mode {settings.performance} sets {name} to "
            f"{written_setting(value) or 'nothing'}. Leave {name} out, or add performance=custom."
        )
    return replace(settings, **{**mode.forced, **wanted, "performance": "custom"})


def effective(settings: Settings) -> Settings:
    """The request as it is carried out: with what its mode forces. Doing it twice is doing it once."""
    return replace(settings, **forced(settings.performance))


def with_mode_lora(loras: Sequence[Lora], performance: str, files: LoraFiles) -> tuple[Lora, ...]:
    """The LoRAs that act on a picture: those of `loras` that are on, then the mode's own, which counts against no limit.

    A row of the user's that names the mode's own file is left out: it would act twice. Raises ModelNotFound, saying
    how to get it, if the mode's file is not there.
    """
    rows = tuple(lora for lora in loras if lora.enabled)
    mode = MODES[performance]
    if mode.lora is None:
        return rows
    file = mode.lora.file
    found = [name for name in files.names() if PurePosixPath(name).name == file]
    if not found:
        published = source(file)
        where = f" ({published.size // 10**6} MB, from {published.url})" if published and published.size else ""
        folder = next(iter(files.folders), "the loras folder")
        raise ModelNotFound(
            f"The mode {mode.label} needs the LoRA {file}, and it is not there. Fetch it with `python launch.py download "
            f"{file}`, or put it into {folder}{where}, or choose another mode."
        )
    others = (lora for lora in rows if PurePosixPath(lora.name).name != file)
    return (*others, Lora(found[0], mode.lora.weight))
