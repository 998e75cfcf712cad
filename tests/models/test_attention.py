"""Attention by row chunks against the formula in float64."""

import pytest
import torch

from core.models.attention import attention


def by_formula(q, k, v):
    q, k, v = q.double(), k.double(), v.double()
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("tokens, others", [(64, 64), (300, 77), (600, 600), (513, 2300), (300, 9000)])
@torch.inference_mode()
def test_agrees_with_the_formula_in_every_shape(tokens, others, dtype, error):
    generator = torch.Generator().manual_seed(0)
    # as the networks hand them over: heads are cut out of the channels, so not contiguous
    q, k, v = (
        torch.randn(2, n, 3, 16, generator=generator).to(dtype).transpose(1, 2) for n in (tokens, others, others)
    )
    expected = by_formula(q, k, v)
    result = attention(q, k, v)
    assert result.dtype == dtype and result.shape == q.shape
    assert ((result.double() - expected).norm() / expected.norm()).item() < error


@torch.inference_mode()
def test_causal_attention_sees_no_later_token():
    q, k, v = torch.randn(3, 1, 2, 5, 8).unbind(0)
    before = attention(q, k, v, causal=True)
    k[:, :, 3:], v[:, :, 3:] = 9.0, 9.0
    torch.testing.assert_close(attention(q, k, v, causal=True)[:, :, :3], before[:, :, :3])


def test_gradients_reach_q_k_and_v():
    q, k, v = (torch.randn(1, 2, 300, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    attention(q, k, v).float().square().sum().backward()
    assert all(t.grad is not None and t.grad.any() for t in (q, k, v))
