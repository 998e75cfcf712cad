"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal by a Newton-Schulz iteration; Adam for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from training import Team


class Muon(torch.optim.Optimizer):
    """Matrices and convolutions by Muon, scaled to Adam's usual step (Liu et al. 2025: 0.2 x root of the larger side).

    The processes of a `team` share the work: each makes its part of the matrices orthogonal.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, team: Team, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})
        self.team = team

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            costs = [0.0] * self.team.size
            updates = []
            for p in sorted(parameters, key=lambda p: -p.numel()):
                state = self.state[p]
                if not state:
                    state["mean"] = torch.zeros_like(p)
                mean = state["mean"].lerp_(p.grad, 1 - group["momentum"])
                worker = costs.index(min(costs))
                costs[worker] += p.numel() * min(p.flatten(1).shape)
                mine = worker == self.team.rank
                update = orthogonal(p.grad.lerp(mean, group["momentum"]).flatten(1)) if mine else torch.zeros_like(p)
                updates.append((p, update.reshape(p.shape)))
            flat = self.team.sum(torch.cat([update.flatten() for _, update in updates]))
            for (p, _), update in zip(updates, flat.split([p.numel() for p, _ in updates]), strict=True):
                p.add_(update.view_as(p), alpha=-group["lr"] * 0.2 * max(p.flatten(1).shape) ** 0.5)


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix with all singular values 1 (they come out from 0.7 to 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return (x.T if tall else x).float()
