"""Linear layers by oneDNN against the formula in float64, and against torch's own way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.models import linear as module
from core.models.linear import Linear, gated_gelu, onednn_has, plus

ERROR = {torch.float32: 2e-6, torch.bfloat16: 6e-3}


class Wrapped(nn.Module):
    """As training wraps a layer: it has no weight of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x)


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def way(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(module, "onednn_has", lambda dtype: False)
    return request.param


def relative(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


def made(dtype, bias=True):
    torch.manual_seed(0)
    layer = Linear(48, 64, bias=bias).to(dtype)
    x, residual = torch.randn(2, 5, 48).to(dtype), torch.randn(2, 5, 64).to(dtype)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    return layer, x, residual, exact


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_gives_the_formula_with_and_without_what_follows(dtype, bias, way):
    layer, x, residual, exact = made(dtype, bias)
    assert relative(layer(x), exact) < ERROR[dtype]
    assert relative(plus(layer, x, residual), exact + residual.double()) < ERROR[dtype]
    value, gate = exact.chunk(2, dim=-1)
    assert relative(gated_gelu(layer, x), value * F.gelu(gate)) < 2 * ERROR[dtype]
    assert gated_gelu(layer, x).dtype == plus(layer, x, residual).dtype == dtype


@torch.inference_mode()
def test_in_bf16_a_layer_gives_the_bits_that_torch_gives():
    layer, x, _, _ = made(torch.bfloat16)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@torch.inference_mode()
def test_what_follows_in_the_same_pass_is_no_less_exact_than_torchs_own_way():
    layer, x, residual, exact = made(torch.bfloat16)
    value, gate = F.linear(x, layer.weight, layer.bias).chunk(2, dim=-1)
    exact_value, exact_gate = exact.chunk(2, dim=-1)
    gelu = exact_value * F.gelu(exact_gate)
    assert relative(gated_gelu(layer, x), gelu) <= relative(value * F.gelu(gate), gelu)
    total = exact + residual.double()
    assert relative(plus(layer, x, residual), total) <= relative(
        residual + F.linear(x, layer.weight, layer.bias), total
    )


@torch.inference_mode()
def test_follows_a_weight_that_changes_in_place():
    layer, x, _, exact = made(torch.float32)
    before, plain = layer(x), layer.weight.clone()
    layer.weight.mul_(2)
    layer.bias.mul_(2)
    assert relative(layer(x), 2 * exact) < 2e-6
    layer.weight.copy_(plain)
    layer.bias.div_(2)
    assert torch.equal(layer(x), before)


@torch.inference_mode()
def test_a_wrapped_layer_is_asked_itself():
    layer, x, residual, _ = made(torch.float32)
    torch.testing.assert_close(plus(Wrapped(layer), x, residual), plus(layer, x, residual))
    torch.testing.assert_close(gated_gelu(Wrapped(layer), x), gated_gelu(layer, x))


def test_gradients_reach_weights_and_input():
    layer, x, residual, _ = made(torch.float32)
    x.requires_grad_()
    (gated_gelu(layer, x).sum() + plus(layer, x, residual).sum()).backward()
    assert all(t.grad is not None and t.grad.any() for t in (x, layer.weight, layer.bias))


@torch.inference_mode()
def test_a_build_without_the_operators_computes_by_torch(monkeypatch):
    def missing(*_):
        raise NotImplementedError("no such operator")

    onednn_has.cache_clear()
    monkeypatch.setattr(module, "_linear", missing)
    try:
        assert not onednn_has(torch.float32)
        layer, x, _, exact = made(torch.float32)
        assert relative(layer(x), exact) < 2e-6
    finally:
        onednn_has.cache_clear()


@torch.inference_mode()
def test_no_rows_give_no_rows():
    layer, *_ = made(torch.float32)
    assert layer(torch.empty(2, 0, 48)).shape == (2, 0, 64)
