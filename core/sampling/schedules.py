"""Schedules: the list of noise levels that a sampler walks down, largest first, 0 last, float32 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from core.errors import BadSetting
from core.sampling.tables import Table

TURBO_STEPS = 10  # what SDXL Turbo was distilled on: every hundredth training step
MOST_STEPS = 10_000  # beyond this a strength is too close to 0 to mean anything

# Sabour et al. 2024, "Align Your Steps", for ten steps.
ALIGN_YOUR_STEPS_SD1 = (
    14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
    0.3977456272, 0.1515232662, 0.0291671582,
)  # fmt: skip
ALIGN_YOUR_STEPS_SDXL = (
    14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
    0.2332364134, 0.1114188177, 0.0291671582,
)  # fmt: skip

# These get a schedule of one step more without its smallest level: they would spend an evaluation there for nothing.
SKIPS_SMALLEST = ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")

# The reference has two calculators of schedules. The one in its sampling driver takes "normal" for these; the other one,
# which foresees the noise and makes a vae swap's second run, knows them, but not all of SKIPS_SMALLEST.
AS_NORMAL = ("turbo", "align_your_steps")
SKIPS_FORESEEN = ("dpm_2", "dpm_2_ancestral")


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Even spacing of sigma to the power 1/7 (Karras et al. 2022, equation 5): n levels, then 0."""
    low, high = sigma_min ** (1 / 7), sigma_max ** (1 / 7)
    return _end_at_zero((high + torch.linspace(0, 1, n, dtype=dtype) * (low - high)) ** 7)


def karras(table: Table, n: int) -> Tensor:
    """`karras_sigmas` over the whole table."""
    return karras_sigmas(n, table.sigma_min, table.sigma_max)


def exponential(table: Table, n: int) -> Tensor:
    """Even spacing of ln sigma."""
    return _end_at_zero(torch.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n).exp())


def normal(table: Table, n: int) -> Tensor:
    """Even spacing of the timestep, both ends of the table included."""
    return _end_at_zero(table.sigma(_timesteps(table, n)))


def sgm_uniform(table: Table, n: int) -> Tensor:
    """Even spacing of the timestep, without the last one (Stability's generative-models)."""
    return _end_at_zero(table.sigma(_timesteps(table, n + 1)[:-1]))


def simple(table: Table, n: int) -> Tensor:
    """Every (length / n)th entry of the table, from its end."""
    length = len(table.sigmas)
    return _end_at_zero(table.sigmas[[length - 1 - int(i * length / n) for i in range(n)]])


def ddim_uniform(table: Table, n: int) -> Tensor:
    """Every floor(length / n)th entry from the second one on (Song et al. 2021); can be more than n levels."""
    stride = max(1, len(table.sigmas) // n)
    return _end_at_zero(table.sigmas[1::stride].flip(0))


def turbo(table: Table, n: int) -> Tensor:
    """Training steps 999, 899, ..., 99: the ones that SDXL Turbo knows. At most TURBO_STEPS of them."""
    length = len(table.sigmas)
    return _end_at_zero(table.sigmas[[length - 1 - i * length // TURBO_STEPS for i in range(min(n, TURBO_STEPS))]])


def align_your_steps(table: Table, n: int, *, sdxl: bool = True) -> Tensor:
    """Levels optimised for SDXL or (not `sdxl`) SD 1.5; for other than ten steps ln sigma is interpolated."""
    levels = torch.tensor(ALIGN_YOUR_STEPS_SDXL if sdxl else ALIGN_YOUR_STEPS_SD1, dtype=torch.float64)
    if n + 1 != len(levels):
        position = torch.linspace(0, len(levels) - 1, n + 1, dtype=torch.float64)
        low, high = position.floor().long(), position.ceil().long()
        levels = torch.lerp(levels.log()[low], levels.log()[high], position - low).exp()
    return _end_at_zero(levels[:-1].float())


def align_your_steps_sd1(table: Table, n: int) -> Tensor:
    """`align_your_steps` for SD 1.5."""
    return align_your_steps(table, n, sdxl=False)


# lcm, tcd and edm_playground_v2.5 name a table rather than a schedule: `sampling_for` gives the table.
SCHEDULERS: dict[str, Callable[[Table, int], Tensor]] = {
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "ddim_uniform": ddim_uniform,
    "lcm": sgm_uniform,
    "turbo": turbo,
    "align_your_steps": align_your_steps,
    "tcd": sgm_uniform,
    "edm_playground_v2.5": karras,
}


def calculate_sigmas_all(
    sampler: str, table: Table, scheduler: str, steps: int, *, sdxl: bool = True, foreseen: bool = False
) -> Tensor:
    """The noise levels for `steps` steps over the whole table, (steps + 1,) except for ddim_uniform, which may have more.

    `sdxl` False takes align_your_steps' levels for SD 1.5. `foreseen`: as the reference foresees them, where UniPC's smallest
    level stays and turbo may have fewer.
    Raises BadSetting if `scheduler` is unknown or cannot give so many steps.
    """
    if scheduler not in SCHEDULERS:
        raise BadSetting(f"There is no scheduler called {scheduler!r}. The schedulers are: {', '.join(SCHEDULERS)}.")
    if steps < 1:
        raise BadSetting(f"steps is {steps}; it must be at least 1.")
    skip = sampler in (SKIPS_FORESEEN if foreseen else SKIPS_SMALLEST)
    most = TURBO_STEPS - skip
    if scheduler == "turbo" and steps > most and not foreseen:
        raise BadSetting(
            f"The scheduler turbo has at most {most} steps with the sampler {sampler}, and {steps} are needed. "
            "Use fewer steps (with a denoising strength below 1, fewer still) or another scheduler."
        )
    schedule = SCHEDULERS[scheduler]
    if scheduler == "align_your_steps" and not sdxl:
        schedule = align_your_steps_sd1
    sigmas = schedule(table, steps + skip)
    if skip:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    if not (sigmas[:-1] > sigmas[1:]).all():
        raise BadSetting(
            f"The scheduler {scheduler} cannot tell {steps} steps apart. Use fewer steps, a larger denoising strength "
            "or another scheduler."
        )
    return sigmas


def calculate_sigmas(
    sampler: str,
    table: Table,
    scheduler: str,
    steps: int,
    denoise: float = 1.0,
    *,
    sdxl: bool = True,
    foreseen: bool = False,
) -> Tensor:
    """The last `steps` steps of a schedule long enough that they are the share `denoise` (above 0, to 1) of it.

    Raises BadSetting as `calculate_sigmas_all` does, and for a `denoise` outside its range.
    """
    if not 0 < denoise <= 1:
        raise BadSetting(f"The denoising strength is {denoise}; it must be above 0 and at most 1.")
    if denoise > 0.9999:
        return calculate_sigmas_all(sampler, table, scheduler, steps, sdxl=sdxl, foreseen=foreseen)
    total = int(steps / denoise)
    if total > MOST_STEPS:
        raise BadSetting(
            f"The denoising strength is {denoise}, too small for {steps} steps; it must be at least {steps / MOST_STEPS}."
        )
    return calculate_sigmas_all(sampler, table, scheduler, total, sdxl=sdxl, foreseen=foreseen)[-(steps + 1) :]


def slice_sigmas(sigmas: Tensor, start: int = 0, last: int | None = None, *, to_zero: bool = True) -> Tensor:
    """The part of a run from step `start` up to step `last`; `to_zero` makes the end of a shortened list 0.

    `slice_sigmas(sigmas, last=steps)` cuts ddim_uniform's surplus. Fewer than two entries: nothing to do.
    """
    if last is not None and last < len(sigmas) - 1:
        sigmas = sigmas[: last + 1].clone()
        if to_zero:
            sigmas[-1] = 0
    return sigmas[start:]


def _timesteps(table: Table, n: int) -> Tensor:
    first, last = table.timestep(torch.tensor([table.sigma_max, table.sigma_min])).tolist()
    return torch.linspace(first, last, n)


def _end_at_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])
