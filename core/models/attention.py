"""Scaled dot-product attention, by whichever way is fastest for the shape and the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 256  # of queries in a chunk
SCORES = 5 * 2**20  # products of queries and keys in a chunk: 10 MB
FEW_KEYS = 256  # with so few keys, as in attention to text, chunks gain nothing


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v for q (B, heads, T, D) and k, v (B, heads, S, D); `causal`: no token sees a later one.

    On a CPU in bfloat16, without gradients, torch's fused kernel loses to plain matrix products over chunks of heads and
    rows that stay in the cache (on a Zen 4 by 1.5 to 2.2 x in all shapes of SDXL); in float32, and on a GPU, it wins.
    """
    wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if causal or wants_gradient or q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return _in_chunks(q, k, v)


def _in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shape = q.shape
    q, v = q.flatten(0, 1), v.flatten(0, 1)
    k = (k.flatten(0, 1) * shape[-1] ** -0.5).transpose(1, 2)
    rows = ROWS if k.shape[2] > FEW_KEYS else shape[2]
    heads = max(1, SCORES // max(1, rows * k.shape[2]))
    if heads >= len(q) and rows >= shape[2]:
        return _mixed(q, k, v).view(shape)
    result = torch.empty_like(q)
    for head in range(0, len(q), heads):
        some = slice(head, head + heads)
        for row in range(0, shape[2], rows):
            result[some, row : row + rows] = _mixed(q[some, row : row + rows], k[some], v[some])
    return result.view(shape)


def _mixed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(torch.bmm(q, k), dim=-1), v)
