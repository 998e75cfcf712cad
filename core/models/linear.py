"""Linear layers that, on a CPU, ask oneDNN themselves.

`F.linear` goes to MKL in float32, which is slow on processors of other makers. oneDNN's operator, which torch has for its
compiler, takes the same plain weights: in bfloat16 it gives the same bits as `F.linear` (which is oneDNN there, too), in
float32 the same numbers within rounding, 1.1 to 1.4 x as fast on a Zen 4. In the same pass it does what follows the
product: a GELU, or the addition of a residual, which are then rounded once less.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias) if _by_onednn(x, self.weight) else super().forward(x)


def plus(layer: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """`residual` + layer(x)."""
    if type(layer) is not Linear or not _by_onednn(x, layer.weight) or residual.dtype != x.dtype:
        return residual + layer(x)
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, layer.weight, layer.bias, "add")


def gated_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """The first half of what `layer` makes of x (B, T, C), times the GELU of the second half."""
    if type(layer) is not Linear or not _by_onednn(x, layer.weight):
        value, gate = layer(x).chunk(2, dim=-1)
        return value * F.gelu(gate)
    value_weight, gate_weight = layer.weight.chunk(2)
    value_bias, gate_bias = (None, None) if layer.bias is None else layer.bias.chunk(2)
    gate = _linear(x, gate_weight, gate_bias, "gelu", "none")  # "none": by erf, as F.gelu has it
    return gate.mul_(_linear(x, value_weight, value_bias))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none", how: str = "") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], how)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to ask oneDNN: on a CPU, for inference, where x and `weight` are of one type that it computes in here."""
    return (
        x.device.type == "cpu" == weight.device.type
        and x.dtype == weight.dtype
        and x.numel() > 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and onednn_has(x.dtype)
    )


@cache
def onednn_has(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's operators, which are no public ones, and they compute in `dtype` here.

    Tried once, on numbers whose results every type holds exactly: so it depends on the processor and on nothing else.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        x = torch.arange(-16, 16, dtype=dtype).view(2, 16) / 4
        weight, bias = torch.eye(16, dtype=dtype) * 2, torch.ones(16, dtype=dtype)
        ways: tuple[tuple[Callable[[], Tensor], Tensor], ...] = (
            (lambda: _linear(x, weight, bias), 2 * x + 1),
            (lambda: _linear(x, weight, None), 2 * x),
            (lambda: torch.ops.mkldnn._linear_pointwise.binary(x, x, weight, bias, "add"), 3 * x + 1),
            (lambda: _linear(x, weight, bias, "gelu", "none"), F.gelu(2 * x + 1)),
        )
        try:
            return all(torch.allclose(way(), expected, rtol=0.02, atol=1e-3) for way, expected in ways)
        except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
            return False
