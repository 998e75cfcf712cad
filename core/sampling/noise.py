"""Noise: what a run starts from and what stochastic samplers add, all of it decided by the seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

NoiseSource: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) -> unit Gaussian noise, shaped like the latent, for the step between them."""

BROWNIAN_SAMPLERS = frozenset(
    ("dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu")
)
POOL_SIZE = 24  # of numpy's SeedSequence; torchsde's default for Brownian trees
DIGITS = 6  # times are rounded to this many decimals


def noise_for(
    sampler: str,
    seed: int,
    shape: tuple[int, ...],
    sigmas: Tensor,
    device: torch.device | str = "cpu",
    noise_device: str = "cpu",
) -> tuple[Tensor, NoiseSource]:
    """The initial noise (`shape`, float32, on `device`) and the source of the noise that `sampler` adds.

    The initial noise comes from the CPU's generator. So does the rest with `noise_device` "cpu": then a seed is the same
    picture on any device. With "device" it comes from the device's own generator, seeded alike.
    `sigmas` is the run's list of noise levels; the Brownian tree spans its positive ones.
    """
    device = torch.device(device)
    source = device if noise_device == "device" else torch.device("cpu")
    generator = torch.Generator("cpu").manual_seed(seed)
    initial = torch.randn(shape, generator=generator).to(device)
    if sampler in BROWNIAN_SAMPLERS:
        levels = sigmas[sigmas > 0]
        tree = BrownianTree(seed, float(levels.min()), float(levels.max()), shape, source)
        return initial, lambda sigma, sigma_next: tree.noise(float(sigma), float(sigma_next)).to(device)
    if source.type != "cpu":
        generator = torch.Generator(source).manual_seed(seed)
    return initial, lambda sigma, sigma_next: torch.randn(shape, generator=generator, device=source).to(device)


def add_noise(latent: Tensor, noise: Tensor, sigma: Tensor, sigma_max: float) -> Tensor:
    """Where a run starts: `latent` (network space) under unit `noise` of the level `sigma`.

    From `sigma_max` on the noise is scaled so that the network's input has unit variance, as it had in training.
    """
    full = float(sigma) >= sigma_max or math.isclose(float(sigma), sigma_max, rel_tol=1e-5)
    return latent + noise * ((1 + sigma**2).sqrt() if full else sigma)


@dataclass(frozen=True, eq=False)
class _Node:
    """The increment of the path over [start, end]; `key` and `depth` name the node's own random numbers."""

    start: float
    end: float
    increment: Tensor
    key: int
    depth: int


class BrownianTree:
    """A Brownian path over [low, high] that depends on the seed alone, not on where and in what order it is looked at.

    Intervals are halved until their ends meet the times asked for; each half's share of the increment is drawn from the
    Brownian bridge. Values of `shape`, float32, drawn on `device`. The same numbers as BrownianTree of torchsde 0.2.6
    (Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations", section 4).
    """

    def __init__(
        self, seed: int, low: float, high: float, shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        self._seed, self._shape, self._device = seed, shape, device
        word = np.random.SeedSequence(entropy=seed, pool_size=POOL_SIZE).generate_state(1)[0]
        whole = self._gaussian(int(word)) * math.sqrt(high - low)
        self._root = _Node(round(low, DIGITS), round(high, DIGITS), whole, key=0, depth=0)
        self._halves: dict[tuple[int, int], tuple[_Node, _Node]] = {}  # those that the latest query went through

    def noise(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit noise for the step from `sigma` to `sigma_next`; 0 for a step outside the tree's interval."""
        sign = 1 if sigma < sigma_next else -1
        increment = self.increment(min(sigma, sigma_next), max(sigma, sigma_next))
        return increment * (sign / math.sqrt(abs(sigma_next - sigma)))

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start); times outside the tree's interval count as its ends."""
        low, high = self._root.start, self._root.end
        start, end = (min(max(round(time, DIGITS), low), high) for time in (start, end))
        if start >= end:
            return torch.zeros(self._shape, device=self._device)
        earlier, self._halves = self._halves, {}
        return self._sum(self._root, start, end, earlier)

    def _sum(
        self, node: _Node, start: float, end: float, earlier: dict[tuple[int, int], tuple[_Node, _Node]]
    ) -> Tensor:
        """The increment over [start, end], a part of `node`, from the fewest nodes that cover it."""
        if (start, end) == (node.start, node.end):
            return node.increment
        name = (node.key, node.depth)
        left, right = self._halves[name] = earlier.get(name) or self._split(node)
        if end <= left.end:
            return self._sum(left, start, end, earlier)
        if start >= left.end:
            return self._sum(right, start, end, earlier)
        return self._sum(left, start, left.end, earlier) + self._sum(right, left.end, end, earlier)

    def _split(self, node: _Node) -> tuple[_Node, _Node]:
        middle = round((node.start + node.end) / 2, DIGITS)
        left, right = middle - node.start, node.end - middle
        sequence = np.random.SeedSequence(entropy=self._seed, spawn_key=(node.key, node.depth), pool_size=POOL_SIZE)
        bridge = self._gaussian(int(sequence.generate_state(1)[0])) * math.sqrt(left * right / (left + right))
        first = node.increment * (left / (left + right)) + bridge
        return (
            _Node(node.start, middle, first, 2 * node.key, node.depth + 1),
            _Node(middle, node.end, node.increment - first, 2 * node.key + 1, node.depth + 1),
        )

    def _gaussian(self, seed: int) -> Tensor:
        generator = torch.Generator(self._device).manual_seed(seed)
        return torch.randn(self._shape, generator=generator, device=self._device)
