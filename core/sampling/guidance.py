"""Guidance: from the clean guesses with and without the prompt to the one that the sampler follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from core.sampling.denoiser import Condition, Denoiser, Predict
from core.sampling.prediction import Prediction

RADIUS = 6  # of the filter's window, 13 x 13
SPREAD = 3.0  # of its two Gaussians: latent pixels in space, units of the normalised guide in colour

Rescale: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x, sigma, guided guess, guess with the prompt) -> guess: what `rescale_with` gives."""


def guided(
    predict: Predict,
    positive: Condition,
    negative: Condition,
    *,
    scale: float,
    progress: Callable[[Tensor], float],
    sharpness: float = 0.0,
    mimic_scale: float = math.inf,
    rescale: Rescale | None = None,
    batched: bool = True,
    end: float = 1.0,
    ramp: Callable[[Tensor], float] | None = None,
) -> Denoiser:
    """The denoiser that follows `positive` and turns away from `negative` (Ho and Salimans 2022).

    `scale` 1 asks for `positive` alone, once, and leaves the answer as it is. Otherwise both are asked for: in one call of
    `predict` (`batched`) or, with half the memory, in two. `sharpness` (0 = off) keeps a little of the detail that the
    prompt's noise estimate adds; above `mimic_scale` the scale is reached only gradually; `rescale` has the last word.
    `progress` says how much of the run lies behind at a sigma: a table's method. Once that is `end` (1 = never), scale is 1.
    `ramp` says so in its place to `sharpness` and `mimic_scale`.
    """

    def unguided(x: Tensor, sigma: Tensor) -> Tensor:
        return predict(x, sigma, [positive])[0]

    if math.isclose(scale, 1):
        return unguided

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if end < 1 and progress(sigma) >= end:
            return unguided(x, sigma)
        if batched:
            without, with_prompt = predict(x, sigma, [negative, positive])
        else:
            without, with_prompt = predict(x, sigma, [negative])[0], predict(x, sigma, [positive])[0]
        share = (ramp or progress)(sigma)
        sharp = sharpened(x, with_prompt, amount=0.001 * sharpness * share) if sharpness > 0 else with_prompt
        x0 = without + adaptive_scale(scale, mimic_scale, share) * (sharp - without)
        return rescale(x, sigma, x0, with_prompt) if rescale else x0

    return denoise


def adaptive_scale(scale: float, mimic_scale: float, progress: float) -> float:
    """The guidance scale when `progress` (0 to 1) of the run lies behind.

    A scale above `mimic_scale` begins there and grows to its full size: mixing the two guided guesses in the ratio of
    `progress` is the same as guiding once with the mixed scale.
    """
    return scale if scale <= mimic_scale else mimic_scale + progress * (scale - mimic_scale)


def rescale_with(prediction: Prediction, amount: float) -> Rescale | None:
    """Against washed-out and burnt pictures of v-prediction models (Lin et al. 2024, section 3.4). `amount` 0 is None.

    Guidance makes the network's output spread wider than any output it gives by itself. The share `amount` (0 to 1) of
    the guided output is brought back to the standard deviation that the output for the prompt has.
    """
    if amount == 0:
        return None

    def rescale(x: Tensor, sigma: Tensor, x0: Tensor, with_prompt: Tensor) -> Tensor:
        output, wanted = prediction.output_of(x, x0, sigma), prediction.output_of(x, with_prompt, sigma)
        ratio = wanted.std(dim=(1, 2, 3), keepdim=True) / output.std(dim=(1, 2, 3), keepdim=True)
        return prediction.denoised(x, output * torch.lerp(torch.ones_like(ratio), ratio, amount), sigma)

    return rescale


def sharpened(x: Tensor, x0: Tensor, amount: float) -> Tensor:
    """x0 with the share `amount` (0 to 1) of its noise estimate x - x0 smoothed where x0 itself is smooth.

    Latents (B, C, h, w); those with a side of at most RADIUS are too small for the window and stay as they are.
    """
    if amount <= 0 or min(x0.shape[-2:]) <= RADIUS:
        return x0
    noise = x - x0
    return x - torch.lerp(noise, joint_bilateral(noise, guide=x0), amount)


def joint_bilateral(values: Tensor, guide: Tensor) -> Tensor:
    """`values` (B, C, h, w), averaged over neighbours that are near in space and alike in `guide` (Petschnigg et al. 2004).

    Window 13 x 13 with mirrored edges: h and w must be above 6. Likeness is the sum over the channels of absolute
    differences in the guide, itself brought to mean 0 and standard deviation 1.
    """
    height, width = guide.shape[-2:]
    std, mean = torch.std_mean(guide, dim=(1, 2, 3), keepdim=True)
    centre = (guide - mean) / (std + 1e-5)
    around_guide, around_values = (pad(t, (RADIUS,) * 4, mode="reflect") for t in (centre, values))
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=guide.dtype, device=guide.device)
    nearness = torch.exp(-(offsets**2) / (2 * SPREAD**2))

    total, weights = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    for row in range(2 * RADIUS + 1):  # a row of the window at once: (B, C, h, 13, w), 13 latents in memory
        neighbours = around_guide[:, :, row : row + height].unfold(3, width, 1)
        distance = (neighbours - centre.unsqueeze(3)).abs_().sum(1, keepdim=True)
        weight = distance.square_().mul_(-1 / (2 * SPREAD**2)).exp_() * (nearness[row] * nearness).view(-1, 1)
        weights += weight.sum(3)
        total += (around_values[:, :, row : row + height].unfold(3, width, 1) * weight).sum(3)
    return total / weights
