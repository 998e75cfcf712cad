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

STRIP = 2**22  # bytes of one strip's input


def rows_bytes(height: int, width: int, element: int) -> int:
    """What that takes at most beside the weights, in bytes: 256 channels of the picture's size in, 128 between, 128 out."""
    return 512 * 64 * height * width * element + 16 * STRIP


def decode_in_rows(vae: VAE, latent: Tensor, *, check: Check | None = None) -> Tensor:
    """A raw latent (B, 4, h, w) to an image (B, 3, 8 h, 8 w) float32, as `vae.decode` gives it."""
    decoder = vae.decoder
    if check:
        check()
    h = decoder.mid(decoder.conv_in(vae.post_quant_conv(vae.received(latent))))
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
    return _activated(decoder.norm_out, decoder.conv_out, h).float().contiguous()


def _residual(block: ResBlock, x: Tensor) -> Tensor:
    """`block(x)`; may write into `x`."""
    h = _activated(block.norm1, block.conv1, x)
    statistics = _statistics(block.norm2, h)
    same = isinstance(block.nin_shortcut, nn.Identity)
    out = x if same else _instead(x, block.conv2.out_channels)
    for start, end in _strips(h):
        strip = _convolved(block.conv2, _silu(block.norm2, _padded(h, start, end), *statistics), start, end, h.shape[2])
        out[:, :, start:end] = strip.add_(x[:, :, start:end] if same else block.nin_shortcut(x[:, :, start:end]))
    return out


def _activated(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(silu(norm(x)))."""
    statistics = _statistics(norm, x)
    out = _room(x, conv.out_channels)
    for start, end in _strips(x):
        out[:, :, start:end] = _convolved(
            conv, _silu(norm, _padded(x, start, end), *statistics), start, end, x.shape[2]
        )
    return out


def _enlarged(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv of `x` with its sides doubled."""
    rows = x.shape[2]
    out = _room(x, conv.out_channels, 2)
    for start, end in _strips(x, enlarged=4):
        source = _padded(x, start, end)
        wide = F.interpolate(source, scale_factor=2.0, mode="nearest")
        # Of each enlarged neighbour only the nearer of its two rows takes part.
        wide = wide[:, :, (1 if start else 0) : wide.shape[2] - (1 if end < rows else 0)]
        out[:, :, 2 * start : 2 * end] = _convolved(conv, wide, 2 * start, 2 * end, 2 * rows)
    return out


def _instead(x: Tensor, channels: int) -> Tensor:
    """Memory for a map of so many channels: the place of the first ones of `x`, row by row, where they lie together."""
    if len(x) == 1 and channels <= x.shape[1] and x.is_contiguous():
        return x[:, :channels]
    return _room(x, channels)


def _room(x: Tensor, channels: int, larger: int = 1) -> Tensor:
    """Memory for a map of so many channels, its sides `larger` times those of `x`, in the same order of dimensions."""
    size = (len(x), channels, larger * x.shape[2], larger * x.shape[3])
    innermost = x.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if innermost else torch.contiguous_format
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)


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
    """Mean and variance (B C) float32 of the group that each channel of `x` belongs to, over the whole map.

    Strip by strip, each around its own mean, so that no square of a large number is ever in a sum.
    """
    means, variances, rows = [], [], []
    for start, end in _strips(x):
        strip = x[:, :, start:end].to(torch.float32, copy=True)
        means.append(strip.mean((2, 3)))
        variances.append(strip.sub_(means[-1][:, :, None, None]).square_().mean((2, 3)))
        rows.append(end - start)
    shares = x.new_tensor(rows, dtype=torch.float32)[:, None, None] / x.shape[2]
    mean, variance = _joined(torch.stack(means), torch.stack(variances), shares, 0)
    mean, variance = (each.view(len(x), norm.num_groups, -1) for each in (mean, variance))
    channels = mean.shape[2]
    mean, variance = _joined(mean, variance, 1 / channels, 2)
    return mean.repeat_interleave(channels), variance.repeat_interleave(channels)


def _joined(means: Tensor, variances: Tensor, shares: Tensor | float, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of all numbers, from those of parts that hold the `shares` of them."""
    mean = (means * shares).sum(dim, keepdim=True)
    variance = ((variances + (means - mean).square()) * shares).sum(dim)
    return mean.squeeze(dim), variance


def _silu(norm: nn.GroupNorm, strip: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """SiLU of the normed `strip`, in its own type; the kernel of batch_norm normalises each channel by what it is given."""
    weight, bias = (each.float().repeat(len(strip)) for each in (norm.weight, norm.bias))
    normed = F.batch_norm(strip.flatten(0, 1)[None], mean, variance, weight, bias, eps=norm.eps)
    return F.silu(normed, inplace=True).view(strip.shape)
