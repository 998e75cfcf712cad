"""Scaled dot-product attention, by whichever way is fastest for the shape and the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCORES = 6 * 2**20  # a chunk's products of queries and keys, over all rows of the batch and heads: 12 MB
LEAST_ROWS = 128
FEW_KEYS = 256  # with so few keys, as in attention to text, chunks gain nothing


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v for q (B, heads, T, D) and k, v (B, heads, S, D); `causal`: no token sees a later one.

    On a CPU in bfloat16, without gradients, torch's fused kernel loses to plain matrix products over chunks of rows that
    stay in the cache (by 1.2 to 1.8 x in the shapes of SDXL at 512 x 512); in float32, and on a GPU, it wins.
    """
    wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if causal or wants_gradient or q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return _in_chunks(q, k, v)


def _in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shape = q.shape
    q, v = q.flatten(0, 1), v.flatten(0, 1)
    k = (k.flatten(0, 1) * shape[-1] ** -0.5).transpose(1, 2)
    rows = max(LEAST_ROWS, SCORES // (len(q) * k.shape[2])) if k.shape[2] > FEW_KEYS else shape[2]
    parts = [torch.bmm(torch.softmax(torch.bmm(part, k), dim=-1), v) for part in q.split(rows, dim=1)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).view(shape)
