"""Prediction: what a network's output means, and so how to read the clean guess x0 from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import BadSetting
from core.sampling.tables import STEPS, EDMTable, Table, discrete_table, distilled_table


def epsilon(x: Tensor, output: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """The network says the noise (Ho et al. 2020)."""
    return x - sigma * output


def v(x: Tensor, output: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """The network says the velocity between noise and data (Salimans and Ho 2022)."""
    data = table.sigma_data
    power = sigma**2 + data**2
    return x * (data**2 / power) - output * (sigma * data / power.sqrt())


def edm(x: Tensor, output: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """The preconditioning of Karras et al. 2022, table 1: the same as v with the opposite sign."""
    return v(x, -output, sigma, table)


def lcm(x: Tensor, output: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """Noise, with the boundary condition of consistency models (Luo et al. 2023, section 4.1, timesteps times 10)."""
    return _bounded(x, epsilon(x, output, sigma, table), sigma, table)


def lcm_v(x: Tensor, output: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """Velocity, with the same condition."""
    return _bounded(x, v(x, output, sigma, table), sigma, table)


def _bounded(x: Tensor, x0: Tensor, sigma: Tensor, table: Table) -> Tensor:
    tau = 10 * table.timestep(sigma)
    power = tau**2 + 0.25
    return x0 * (tau / power.sqrt()) + x * (0.25 / power)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor, Table], Tensor]] = {
    "epsilon": epsilon, "v": v, "edm": edm, "lcm": lcm, "lcm_v": lcm_v,
}  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """How one network is asked and understood: `kind` is a key of KINDS. `sigma` is a single number everywhere.

    `by_label`: the label alone says how far the run is, as in the reference. EDM's labels say "at its end" from the first on.
    """

    kind: str
    table: Table
    by_label: bool = False

    def progress(self, sigma: Tensor) -> float:
        """Share of the run that lies behind at `sigma`, for all that changes on the way."""
        if self.by_label:
            return 1 - self.table.timestep(sigma).item() / (STEPS - 1)
        return self.table.progress(sigma)

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`x` as the network wants it: about unit variance at every noise level."""
        return x / (sigma**2 + self.table.sigma_data**2).sqrt()

    def denoised(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """x0 from the network's `output` for `scale_input(x, sigma)`; both in x's dtype."""
        return KINDS[self.kind](x, output, sigma, self.table)

    def output_of(self, x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
        """The other way round: the output that `denoised` reads x0 from. `sigma` must be above 0."""
        at_zero = self.denoised(x, torch.zeros_like(x), sigma)  # every kind is linear in the output
        at_one = self.denoised(torch.zeros_like(sigma), torch.ones_like(sigma), sigma)
        return (x0 - at_zero) / at_one


def sampling_for(
    scheduler: str, prediction: str, zero_terminal_snr: bool = False, *, strict: bool = False
) -> tuple[Prediction, str]:
    """The prediction (with its table) and the schedule that the user's `scheduler` stands for.

    `prediction` ("epsilon", "v" or "edm") is what the checkpoint is. The schedulers "lcm", "tcd" and
    "edm_playground_v2.5" are other names for a schedule with a table of their own; the last one also says that the
    prediction is "edm". The rest stand for themselves. Raises BadSetting for another `prediction`, and for "edm" with "lcm"
    or "tcd", whose tables it has no place in. `strict` as in the reference: those two take every checkpoint for one of
    noise, and progress is told by the label.
    """
    if prediction not in ("epsilon", "v", "edm"):
        raise BadSetting(f"The prediction type is {prediction!r}; it must be one of: epsilon, v, edm.")
    if scheduler == "edm_playground_v2.5":
        return Prediction("edm", EDMTable(), strict), "karras"
    if scheduler in ("lcm", "tcd"):
        prediction = "epsilon" if strict else prediction
        if prediction == "edm":
            raise BadSetting(
                f"The scheduler {scheduler} does not suit a checkpoint with EDM prediction. Choose another, such as karras; "
                "the mode Extreme Speed is not for this checkpoint."
            )
        kind = {"epsilon": "lcm", "v": "lcm_v"}[prediction] if scheduler == "lcm" else prediction
        return Prediction(kind, distilled_table(), strict), "sgm_uniform"
    if prediction == "edm":
        return Prediction("edm", EDMTable(), strict), scheduler
    return Prediction(prediction, discrete_table(zero_terminal_snr=zero_terminal_snr), strict), scheduler
