"""Scaled dot-product attention, by whichever way is fastest for the shape and the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v for q (B, heads, T, D) and k, v (B, heads, S, D); `causal`: no token sees a later one.

    On a CPU, without gradients, torch's fused kernel loses to plain matrix products over row chunks that stay in the
    cache (see docs/benchmarks.md); everywhere else it is the best there is.
    """
    if causal or q.device.type != "cpu" or (torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return _in_chunks(q, k, v)


def _in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = _rows(q.shape[2], k.shape[2])
    k = (k * k.shape[-1] ** -0.5).transpose(-2, -1)
    parts = [torch.softmax(part @ k, dim=-1) @ v for part in q.split(rows, dim=2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _rows(tokens: int, others: int) -> int:
    """Query rows a chunk."""
    if others <= 256:
        return tokens
    return 256 if others <= 2048 else 128
