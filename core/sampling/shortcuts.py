"""Shortcuts: evaluations of a network that reuse what an earlier one of the same picture made (DeepCache, Ma et al. 2023).

From one step to the next the picture's coarse content changes little. So only every n-th step runs the whole network, and
keeps the feature map that enters its last block; the steps between compute the outermost blocks anew, around that map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.sampling.denoiser import Denoiser


class Turns:
    """Which steps of one picture run the whole network: the first one, then every `every`-th, and the last one.

    Counted are steps rather than evaluations: in a sampler with two evaluations a step both run whole or neither, and the
    first one of a step finds what the last one of the step before left at the same noise level.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._since = 0  # the step that ran whole: 0 = this one

    @property
    def whole(self) -> bool:
        """Whether the step under way runs the whole network."""
        return self._since == 0

    def done(self, step: int, total: int) -> None:
        """Step `step` (from 0) of about `total` is finished."""
        self._since = 0 if step + 2 >= total else (self._since + 1) % self._every


@dataclass(frozen=True, eq=False)
class _Kept:
    """A feature map (B, C, h, w), and the noise level of the evaluation that made it."""

    feature: Tensor
    level: float


class StepCache:
    """The feature maps that one network left in one picture, each by the text that it was asked about.

    A text is known by its tensor, the same object at every call; the two sides of guidance, if they are not in one batch,
    have one map each. What there is no map for runs whole: the first evaluation, the first one after the network took over
    from another, one of other shape. So does one at a higher noise level than the map's (a sampler that goes back up).
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._level = 0.0  # of the evaluation under way
        self._kept: dict[Tensor, _Kept] = {}

    def around(self, denoise: Denoiser) -> Denoiser:
        """`denoise`, whose network asks this cache; it is told the noise level of each evaluation."""

        def told(x: Tensor, sigma: Tensor) -> Tensor:
            self._level = float(sigma)
            return denoise(x, sigma)

        return told

    def of(self, text: Tensor, x: Tensor) -> Tensor | None:
        """What stands in for the inner blocks in an evaluation of `x` (B, 4, h, w); None: they are to run."""
        kept = self._kept.get(text)
        if kept is None or self._turns.whole or self._level > kept.level:
            return None
        fits = kept.feature.shape[2:] == x.shape[2:] and len(kept.feature) == len(x)
        return kept.feature if fits else None

    def keep(self, text: Tensor, features: list[Tensor]) -> None:
        """Keep what the inner blocks made of the evaluation under way, in pieces along the batch."""
        self._kept[text] = _Kept(features[0] if len(features) == 1 else torch.cat(features), self._level)
