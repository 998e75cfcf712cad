"""Decoding a latent a few rows at a time: what `VAE.decode` computes, in a third of its memory.

The widest feature maps of the decoder, at the picture's own size, are 128 and 256 channels deep; a plain forward pass
holds four of them at once. Here norm, SiLU, enlargement and convolution go over strips of rows, with one more row at each
side for the 3 x 3 convolution, so that only a layer's input and output are ever whole. The norms see the whole map: unlike
tiles, strips change nothing but the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.vae import VAE, Check, Level, ResBlock

STRIP = 2**24  # bytes of one strip's input


def rows_bytes(height: int, width: int, element: int) -> int:
    """What that takes beside the weights, in bytes: 256 channels of the picture's size in, 128 between, 128 out."""
    return 512 * 64 * height * width * element + 16 * STRIP


def decode_in_rows(vae: VAE, latent: Tensor, *, check: Check | None = None) -> Tensor:
    """A raw latent (B, 4, h, w) to an image (B, 3, 8 h, 8 w) float32, as `vae.decode` gives it."""
    decoder = vae.decoder
    if check:
        check()
    h = decoder.mid(decoder.conv_in(vae.post_quant_conv(latent.to(vae.dtype))))
    for level in reversed(decoder.up):
        assert isinstance(level, Level)
        for block in level.block:
            assert isinstance(block, ResBlock)
            if check:
                check()
            h = _residual(block, h)
        if level.upsample is not None:
            if check:
                check()
            h = _enlarged(level.upsample.conv, h)
    return _activated(decoder.norm_out, decoder.conv_out, h).float()


def _residual(block: ResBlock, x: Tensor) -> Tensor:
    """`block(x)`; may write into `x`."""
    h = _activated(block.norm1, block.conv1, x)
    statistics = _statistics(block.norm2, h)
    same = isinstance(block.nin_shortcut, nn.Identity)
    out = x if same else x.new_empty(len(x), block.conv2.out_channels, *x.shape[2:])
    for start, end in _strips(h):
        strip = _convolved(block.conv2, _silu(block.norm2, _padded(h, start, end), *statistics), start, end, h.shape[2])
        out[:, :, start:end] = strip.add_(x[:, :, start:end] if same else block.nin_shortcut(x[:, :, start:end]))
    return out


def _activated(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(silu(norm(x)))."""
    statistics = _statistics(norm, x)
    out = x.new_empty(len(x), conv.out_channels, *x.shape[2:])
    for start, end in _strips(x):
        out[:, :, start:end] = _convolved(
            conv, _silu(norm, _padded(x, start, end), *statistics), start, end, x.shape[2]
        )
    return out


def _enlarged(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv of `x` with its sides doubled."""
    rows, columns = x.shape[2:]
    out = x.new_empty(len(x), conv.out_channels, 2 * rows, 2 * columns)
    for start, end in _strips(x, enlarged=4):
        source = _padded(x, start, end)
        wide = F.interpolate(source, scale_factor=2.0, mode="nearest")
        # Of each enlarged neighbour only the nearer of its two rows takes part.
        wide = wide[:, :, (1 if start else 0) : wide.shape[2] - (1 if end < rows else 0)]
        out[:, :, 2 * start : 2 * end] = _convolved(conv, wide, 2 * start, 2 * end, 2 * rows)
    return out


def _strips(x: Tensor, enlarged: int = 1) -> Iterator[tuple[int, int]]:
    rows = x.shape[2]
    step = max(1, STRIP // (x[:, :, :1].numel() * x.element_size() * enlarged))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _padded(x: Tensor, start: int, end: int) -> Tensor:
    """The rows from `start` to `end` of `x` and, where there is one, a neighbour at each side."""
    return x[:, :, max(0, start - 1) : end + 1]


def _convolved(conv: nn.Conv2d, strip: Tensor, start: int, end: int, rows: int) -> Tensor:
    """Rows `start` to `end` of the convolution, from a `strip` with its neighbours: beyond the map there are zeros."""
    strip = F.pad(strip, (0, 0, int(start == 0), int(end == rows)))
    return F.conv2d(strip, conv.weight, conv.bias, padding=(0, 1))


def _statistics(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B C) float32 of the group that each channel of `x` belongs to, over the whole map."""
    means, variances = [], []
    for group in x.unflatten(1, (norm.num_groups, -1)).unbind(1):
        numbers = group.flatten(1).to(torch.float32, copy=True)
        means.append(numbers.mean(1))
        variances.append(numbers.sub_(means[-1][:, None]).square_().mean(1))
    channels = x.shape[1] // norm.num_groups
    mean, variance = (torch.stack(each, 1).repeat_interleave(channels, 1).flatten() for each in (means, variances))
    return mean, variance


def _silu(norm: nn.GroupNorm, strip: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """SiLU of the normed `strip`, in its own type; the kernel of batch_norm normalises each channel by what it is given."""
    weight, bias = (each.float().repeat(len(strip)) for each in (norm.weight, norm.bias))
    normed = F.batch_norm(strip.flatten(0, 1)[None], mean, variance, weight, bias, eps=norm.eps)
    return F.silu(normed, inplace=True).view(strip.shape)
