"""Diffusion: one picture's sampling put together, by one model or by two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.errors import BadSetting
from core.goals.text import Start
from core.models.latent_format import LatentSpace
from core.sampling.denoiser import Denoiser
from core.sampling.noise import BROWNIAN_SAMPLERS, NoiseSource, add_noise, noise_for
from core.sampling.prediction import Prediction
from core.sampling.refiner import NOISIER, OWN_STEPS, NoiseRecord, Relay, choose_swap, with_mean_of
from core.sampling.samplers import SAMPLERS, Step
from core.sampling.samplers.dpm_solver import fast_orders
from core.sampling.schedules import AS_NORMAL, calculate_sigmas, slice_sigmas
from core.sampling.tables import Table
from core.settings import MAX_SEED, Settings


@dataclass(frozen=True)
class DiffusionStep:
    """Step `index` (from 0) of about `total`: the latent `x` after it and the clean guess `x0` in it, both of `space`."""

    index: int
    total: int
    x: Tensor
    x0: Tensor
    space: LatentSpace


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """One model's part in a picture. `denoiser` makes it ready (on the device) when its turn comes, and no earlier.

    `own_table` is the checkpoint's, where the scheduler brings another one: what strict compatibility foresees levels with.
    """

    denoiser: Callable[[], Denoiser]
    prediction: Prediction
    scheduler: str
    space: LatentSpace
    sdxl: bool = True  # else SD 1.x: levels of its own for align_your_steps
    own_table: Table | None = None

    def sigmas(self, settings: Settings, strength: float) -> Tensor:
        """The noise levels of a run of `strength` (0 to 1), as this model's schedule has them."""
        table, scheduler = self.prediction.table, self.scheduler
        if settings.strict_compatibility and scheduler in AS_NORMAL:
            scheduler = "normal"
        return calculate_sigmas(settings.sampler, table, scheduler, settings.steps, strength, sdxl=self.sdxl)

    def foreseen_sigmas(self, settings: Settings, strength: float) -> Tensor:
        """The same as it is known before the run; in the reference, and with strict compatibility, these may be others."""
        if not settings.strict_compatibility:
            return self.sigmas(settings, strength)
        return calculate_sigmas(
            settings.sampler,
            self.own_table or self.prediction.table,
            self.scheduler,
            settings.steps,
            strength,
            sdxl=self.sdxl,
            foreseen=True,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """All that decides one picture's latents. `convert` takes raw latents of the base model to raw ones of the refiner."""

    settings: Settings
    seed: int
    start: Start
    device: torch.device
    base: Stage
    refiner: Stage | None = None
    convert: Callable[[Tensor], Tensor] | None = None  # None: they are the same

    @property
    def swap(self) -> str:
        """How the two models share the run; see `choose_swap`."""
        if self.refiner is None:
            return "base"
        settings, own_vae = self.settings, self.convert is not None
        return choose_swap(
            settings.refiner_swap, settings.steps, settings.switch_step, self.start.strength, own_vae=own_vae
        )


def diffuse(job: Job) -> Iterator[DiffusionStep]:
    """Sample the picture, step by step. Raises BadSetting for settings or models that do not go together."""
    swap, refiner = job.swap, job.refiner
    if refiner is None or swap == "base":
        return _alone(job, job.base)
    if swap == "refiner":
        return _alone(job, refiner)
    if swap == "vae":
        return _vae(job, refiner)
    if job.base.space.format != refiner.space.format:
        raise BadSetting(
            "The base model and the refiner scale their latents differently (one of them is of the EDM kind), so one "
            "cannot go on with the other's. Set the refiner swap to vae, or choose another refiner."
        )
    return _joint(job, refiner) if swap == "joint" else _separate(job, refiner)


@dataclass(frozen=True, eq=False)
class _Run:
    """The sampler's way from `x` down `sigmas`."""

    sampler: str
    x: Tensor
    sigmas: Tensor
    noise: NoiseSource
    prediction: Prediction

    @property
    def total(self) -> int:
        """How many steps it reports, unless that depends on the picture."""
        steps = len(self.sigmas) - 1
        return len(fast_orders(steps)) if self.sampler == "dpm_fast" else steps

    def steps(self, denoise: Denoiser) -> Iterator[Step]:
        return SAMPLERS[self.sampler](denoise, self.x, self.sigmas, noise=self.noise, table=self.prediction.table)


def _whole_run(job: Job, stage: Stage) -> _Run:
    """From the start's latent under noise, down all levels."""
    settings, start = job.settings, job.start
    sigmas = stage.sigmas(settings, start.strength)
    shape = tuple(start.latent.shape)
    levels = job.base.foreseen_sigmas(settings, start.strength) if settings.strict_compatibility else sigmas
    initial, noise = noise_for(settings.sampler, job.seed, shape, levels, job.device, settings.noise_device)
    sigmas = slice_sigmas(sigmas, last=settings.steps)  # ddim_uniform gives more steps than were asked for
    x = add_noise(start.latent.to(job.device), initial, sigmas[0], stage.prediction.table.sigma_max)
    return _Run(settings.sampler, x, sigmas, noise, stage.prediction)


def _reported(steps: Iterator[Step], space: LatentSpace, *, first: int = 0, total: int) -> Iterator[DiffusionStep]:
    for step in steps:
        index = first + step.index
        yield DiffusionStep(index, max(total, index + 1), step.x, step.x0, space)


def _alone(job: Job, stage: Stage) -> Iterator[DiffusionStep]:
    run = _whole_run(job, stage)
    yield from _reported(run.steps(job.start.wrap(stage.denoiser())), stage.space, total=run.total)


def _joint(job: Job, refiner: Stage) -> Iterator[DiffusionStep]:
    """One run; the refiner takes over between two evaluations, and the sampler's history goes on."""
    run, settings = _whole_run(job, job.base), job.settings
    level = run.sigmas[settings.switch_step] if settings.sampler in OWN_STEPS else None
    relay = Relay(job.base.denoiser(), refiner.denoiser, settings.switch_step, level)
    steps = run.steps(job.start.wrap(relay))
    for step in _reported(steps, job.base.space, total=run.total):
        relay.done(step.index)
        yield step


def _separate(job: Job, refiner: Stage) -> Iterator[DiffusionStep]:
    """Two runs over the two parts of one schedule. The second adds no noise to begin with; its history starts anew."""
    whole, switch = _whole_run(job, job.base), job.settings.switch_step
    x = whole.x
    first = replace(whole, sigmas=slice_sigmas(whole.sigmas, last=switch, to_zero=False))
    second = replace(whole, sigmas=slice_sigmas(whole.sigmas, switch), prediction=refiner.prediction)
    total = first.total + second.total
    for step in _reported(first.steps(job.start.wrap(job.base.denoiser())), job.base.space, total=total):
        x = step.x
        yield step
    steps = replace(second, x=x).steps(job.start.wrap(refiner.denoiser()))
    yield from _reported(steps, refiner.space, first=first.total, total=total)


def _vae(job: Job, refiner: Stage) -> Iterator[DiffusionStep]:
    """A clean picture after the base model's part, noised again for the refiner with noise of another seed.

    The noise's mean over the channels is what the base model saw last, so that light and colour stay.
    """
    settings, start, base = job.settings, job.start, job.base
    switch = max(1, settings.switch_step)  # without any step there would be no picture to go on from
    whole = _whole_run(job, base)
    levels = NOISIER * refiner.foreseen_sigmas(settings, start.strength)[switch:]
    if len(levels) < 2:
        raise BadSetting(
            f"The scheduler {settings.scheduler} has no noise levels left for a refiner that takes over after step {switch}. "
            "Let it take over earlier, or turn strict compatibility off."
        )
    first = replace(whole, sigmas=slice_sigmas(whole.sigmas, last=switch))
    total = first.total + replace(first, sigmas=levels).total
    record = NoiseRecord(base.denoiser())
    clean = whole.x
    for step in _reported(first.steps(start.wrap(record)), base.space, total=total):
        clean = step.x0 if settings.sampler in OWN_STEPS else step.x  # those leave the noise of their last level
        yield step
    raw = base.space.format.to_raw(clean)
    latent = refiner.space.format.to_network(job.convert(raw) if job.convert else raw)

    seed = (job.seed + 1) % (MAX_SEED + 1)
    shape = tuple(latent.shape)
    initial, noise = noise_for(settings.sampler, seed, shape, levels, job.device, settings.noise_device)
    if settings.sampler in BROWNIAN_SAMPLERS:
        noise = whole.noise  # one path for the whole picture
    if record.epsilon is not None:
        initial = with_mean_of(initial, record.epsilon)
    x = add_noise(latent, initial, levels[0], refiner.prediction.table.sigma_max)
    second = _Run(settings.sampler, x, levels, noise, refiner.prediction)
    wrap = (job.convert and start.wrap_swapped) or start.wrap
    yield from _reported(second.steps(wrap(refiner.denoiser())), refiner.space, first=first.total, total=total)
