"""Stages: each model's part in a picture, from its network, the texts and the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from core.conditions import Conditions, refiner_condition, sdxl_condition
from core.device import Device
from core.diffusion import Stage
from core.models.clip import CLIPText
from core.models.freeu import FreeU, Joint
from core.models.latent_format import PLAYGROUND, SDXL, LatentSpace, preview_in
from core.models.unet import TextKeys, UNet
from core.sampling.denoiser import Condition, Denoiser, network_denoiser
from core.sampling.guidance import guided, rescale_with
from core.sampling.prediction import Prediction, sampling_for
from core.sampling.shortcuts import StepCache, Turns
from core.sampling.tables import Table
from core.settings import Settings
from core.weights.info import ModelInfo
from core.weights.memory import Memory, Way, sampling_bytes
from core.weights.refiner import Refiner

Understood: TypeAlias = Callable[[ModelInfo, Settings], tuple[Prediction, str]]
"""How a model is understood, and its schedule: `base_prediction` or `refiner_prediction`."""

ROW_BY_ROW = "Memory ran short: the two sides of guidance are now computed one after the other, which is slower."


@dataclass(frozen=True, eq=False)
class Workplace:
    """Where networks are asked, and what for. `check` is called between their blocks and may raise.

    `turns` says which steps of this one picture run the networks whole; None: all of them.
    """

    device: Device
    memory: Memory
    settings: Settings
    check: Callable[[], None] | None = None
    turns: Turns | None = None


def base_prediction(info: ModelInfo, settings: Settings) -> tuple[Prediction, str]:
    """How the base model is understood, and the schedule: as its file says, unless the settings say otherwise."""
    kind = info.prediction if settings.prediction == "auto" else settings.prediction
    zero = info.zero_terminal_snr if settings.zero_terminal_snr == "auto" else settings.zero_terminal_snr == "on"
    return sampling_for(settings.scheduler, kind, zero, strict=settings.strict_compatibility)


def refiner_prediction(info: ModelInfo, settings: Settings) -> tuple[Prediction, str]:
    """The same for a refiner; the settings' prediction type is about the base model."""
    strict = settings.strict_compatibility
    prediction, scheduler = sampling_for(settings.scheduler, info.prediction, info.zero_terminal_snr, strict=strict)
    if prediction.kind == "edm" and info.family in ("sd15", "sdxl-refiner"):  # no such model was trained so
        return sampling_for(scheduler, info.prediction, strict=strict)
    return prediction, scheduler


def own_table(understood: Understood, info: ModelInfo, settings: Settings) -> Table | None:
    """The table of a model that is `understood` so, whatever the scheduler brings; None: it is not needed."""
    if not settings.strict_compatibility:
        return None
    return understood(info, replace(settings, scheduler="normal"))[0].table


def sdxl_space(space: LatentSpace, prediction: Prediction) -> LatentSpace:
    """`space` at the scale that networks of SDXL's class work in."""
    if prediction.kind != "edm":
        return replace(space, format=SDXL)
    return replace(space, format=PLAYGROUND, preview=preview_in(PLAYGROUND, space.preview))


def base_stage(work: Workplace, unet: UNet, info: ModelInfo, conditions: Conditions, space: LatentSpace) -> Stage:
    """The base model's part."""
    prediction, scheduler = base_prediction(info, work.settings)
    told = conditions.told(partial(sdxl_condition, work.settings))
    denoiser = partial(model_denoiser, work, unet, prediction, *told, joint=freeu_of(work.settings, unet))
    table = own_table(base_prediction, info, work.settings)
    return Stage(denoiser=denoiser, prediction=prediction, scheduler=scheduler, space=space, own_table=table)


def refiner_stage(
    work: Workplace,
    refiner: Refiner,
    clip_l: CLIPText | None,
    conditions: Conditions,
    space: LatentSpace,
    *,
    synthetic: bool = False,
) -> Stage:
    """The refiner's part, told what the base model's encoders (of which `clip_l` is one) made of the texts.

    Nothing that is added to the base model's network alone acts on it: FreeU, say. `synthetic`: it is the base model.
    """
    understood = base_prediction if synthetic else refiner_prediction
    prediction, scheduler = understood(refiner.info, work.settings)
    width = refiner.unet.config.context_dim
    told = conditions.told(partial(refiner_condition, refiner.info.family, width, clip_l, work.settings))
    denoiser = partial(model_denoiser, work, refiner.unet, prediction, *told)
    sdxl = refiner.vae is None
    if sdxl:
        space = sdxl_space(space, prediction)
    table = own_table(understood, refiner.info, work.settings)
    return Stage(denoiser=denoiser, prediction=prediction, scheduler=scheduler, space=space, sdxl=sdxl, own_table=table)


def freeu_of(settings: Settings, unet: UNet) -> Joint | None:
    """FreeU as the settings say; None if it is off."""
    if not settings.freeu:
        return None
    b1, b2, s1, s2 = settings.freeu_b1, settings.freeu_b2, settings.freeu_s1, settings.freeu_s2
    return FreeU(unet.config.model_channels, b1, b2, s1, s2)


def model_denoiser(
    work: Workplace,
    unet: UNet,
    prediction: Prediction,
    positive: Condition,
    negative: Condition | None,
    joint: Joint | None = None,
) -> Denoiser:
    """Brings `unet` onto the device, and gives the guided denoiser over it. `joint` as in `UNet.forward`."""
    settings, memory, dtype = work.settings, work.memory, work.device.unet_dtype
    need = sampling_bytes(1, settings.height // 8, settings.width // 8, dtype.itemsize)
    memory.bring(unet, need, dtype)
    evaluate = partial(unet, joint=joint, check=work.check)
    # Elsewhere the memory is dearer than these products.
    kept = TextKeys() if work.device.torch_device.type == "cpu" else None
    cache = StepCache(work.turns) if work.turns else None

    def network(x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None) -> Tensor:
        inner = cache.of(context, x) if cache else None
        made: list[Tensor] = []
        keep = made.append if cache and inner is None else None

        def at_once() -> Tensor:
            made.clear()
            return evaluate(x, timestep, context, y, kept=kept, inner=inner, keep=keep)

        def singly() -> Tensor:
            made.clear()
            inputs = {"x": x, "timesteps": timestep, "context": context, "y": y, "inner": inner}
            parts = {name: each.split(1) for name, each in inputs.items() if each is not None}
            rows = (dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True))
            return torch.cat([evaluate(**row, keep=keep) for row in rows])

        ways = [Way("batch", len(x) * need, at_once)]
        if len(x) > 1:
            ways.append(Way("rows", need, singly, ROW_BY_ROW))
        output = memory.run(unet, ways, route=None if inner is None else "outer blocks")
        if cache and made:
            cache.keep(context, made)
        return output

    denoiser = guided(
        network_denoiser(network, prediction, dtype),
        positive,
        positive if negative is None else negative,
        scale=settings.guidance_scale,
        progress=prediction.table.progress,
        ramp=prediction.progress,
        sharpness=settings.sharpness,
        mimic_scale=settings.adaptive_cfg,
        rescale=rescale_with(prediction, settings.guidance_rescale),
        end=settings.guidance_end,
    )
    return cache.around(denoiser) if cache else denoiser
