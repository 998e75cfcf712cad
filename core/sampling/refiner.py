"""Refiner: a second model that takes over part-way, in the same run (joint), in a run of its own (separate), or from a
clean picture that is noised again (vae)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from core.errors import BadSetting
from core.sampling.denoiser import Denoiser

NOISIER = 1.4  # the vae swap's second run starts from this much more noise than its first one reached
ALMOST_ALL = 0.9  # a denoising strength above this counts as a picture from nothing
FINE_SHARE = 0.834  # exponent: from a share of the steps to the denoising strength that reaches as far down
OWN_STEPS = frozenset({"dpm_fast", "dpm_adaptive"})  # samplers that take from the list of levels its ends only

Next = Callable[[], Denoiser]
"""Makes the second model ready (on the device) when its turn comes, and no earlier."""


def swap_threshold(steps: int, switch: int) -> float:
    """The denoising strength up to which a run of so few levels is the second model's alone.

    Raises BadSetting for a run without steps.
    """
    if steps < 1:
        raise BadSetting(f"steps is {steps}; it must be at least 1.")
    return ((steps - min(switch, steps)) / steps) ** FINE_SHARE


def choose_swap(asked: str, steps: int, switch: int, denoise: float, *, own_vae: bool) -> str:
    """How the two models share a run: "joint", "separate", "vae", or one alone: "base", "refiner".

    A second model with an autoencoder of its own cannot go on with the first one's latents: from (almost) nothing its turn
    comes by way of a clean picture, and a picture that is only changed a little is made by one of the two alone.
    """
    if switch >= steps:
        return "base"
    way = asked
    if own_vae and denoise > ALMOST_ALL:
        way = "vae"
    elif own_vae:
        way = "base" if denoise > swap_threshold(steps, switch) else "refiner"
    return "base" if way == "vae" and steps < 2 else way  # a clean picture takes a step, and one is left for the other


class Relay:
    """A denoiser that is `base` up to the first evaluation of step `switch`, and `refiner` from the next one on.

    The sampler does not notice, so its history and its noise go on; in a sampler with two evaluations a step the second
    one of step `switch` is the refiner's already. With `level` (for samplers that make steps of their own) the last
    evaluation of `base` is the first one at or below it, whatever the step.
    """

    def __init__(self, base: Denoiser, refiner: Next, switch: int, level: Tensor | None = None) -> None:
        self._denoise = base
        self._refiner: Next | None = refiner
        self._switch, self._level = switch, level
        self._step = 0  # the one under way
        self._due = False

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self._due and self._refiner is not None:
            self._denoise, self._refiner = self._refiner(), None
        if self._level is None:
            self._due = self._step >= self._switch
        else:
            self._due = self._due or bool(sigma <= self._level * (1 + 1e-6))
        return self._denoise(x, sigma)

    def done(self, step: int) -> None:
        """The sampler has finished step `step`."""
        self._step = step + 1


class NoiseRecord:
    """A denoiser that keeps the unit noise which its latest answer leaves: (x - x0) / sigma, on the CPU."""

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise
        self.epsilon: Tensor | None = None

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        x0 = self._denoise(x, sigma)
        self.epsilon = ((x - x0) / sigma).cpu()
        return x0


def with_mean_of(noise: Tensor, record: Tensor) -> Tensor:
    """`noise` (B, C, h, w) moved, cell by cell, so that its mean over the channels is that of `record`."""
    return noise + (record.to(noise) - noise).mean(dim=1, keepdim=True)
