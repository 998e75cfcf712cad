"""The autoencoder between pictures and latents (Kingma & Welling 2013, Rombach et al. 2022), with the single-file names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import attention
from core.models.configs import VAEConfig, norm_groups

Check = Callable[[], None]

SDXL_SCALE = 0.13025  # network space = raw VAE space x scale; also of the refiner, SSD-1B and Vega
SD15_SCALE = 0.18215

DECODE_TILES = ((64, 64), (32, 128), (128, 32))  # latent cells, height x width; one pass each, averaged
ONE_TILE = min(side for tile in DECODE_TILES for side in tile)  # a latent that is no larger is decoded as a whole
DECODE_OVERLAP = 16
ENCODE_TILES = ((512, 512), (1024, 256), (256, 1024))  # pixels
ENCODE_OVERLAP = 64


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.nin_shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttnBlock(nn.Module):
    """Attention with one head over all cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # Rows that lie together: of others torch's kernel keeps all products of queries and keys, 2 GB for 1024 x 1024.
        q, k, v = (layer(h).flatten(2).mT.unsqueeze(1).contiguous() for layer in (self.q, self.k, self.v))
        h = attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(h)


class Downsample(nn.Module):
    """Halve the sides; the padding is at the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The residual blocks of one resolution, and the way to the next one, if there is any."""

    def __init__(self, c_in: int, c_out: int, n: int, *, down: bool = False, up: bool = False) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(c_in if i == 0 else c_out, c_out) for i in range(n))
        self.downsample = Downsample(c_out) if down else None
        self.upsample = Upsample(c_out) if up else None

    def forward(self, x: Tensor, check: Check | None = None) -> Tensor:
        for layer in (*self.block, self.downsample, self.upsample):
            if layer is not None:
                if check:
                    check()
                x = layer(x)
        return x


class Encoder(nn.Module):
    """Picture (B, 3, H, W) to the posterior's mean and log-variance before `quant_conv` (B, 2 z, H/8, W/8)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.channels * mult for mult in config.channel_mult]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList(
            Level(c_in, c_out, config.num_res_blocks, down=i < len(widths) - 1)
            for i, (c_in, c_out) in enumerate(zip([config.channels, *widths[:-1]], widths, strict=True))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor, check: Check | None = None) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h, check)
        if check:
            check()
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latent behind `post_quant_conv` (B, z, h, w) to a picture (B, 3, 8 h, 8 w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.channels * mult for mult in config.channel_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(  # counted from the highest resolution, run from the lowest
            Level(c_in, c_out, config.num_res_blocks + 1, up=i > 0)
            for i, (c_in, c_out) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor, check: Check | None = None) -> Tensor:
        if check:
            check()
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h, check)
        return self.conv_out(F.silu(self.norm_out(h)))


class VAE(nn.Module):
    """The whole autoencoder. Latents are raw, that is without the scale factor of the denoising network."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        z = config.z_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the weights; inputs are cast to it."""
        return self.quant_conv.weight.dtype

    def moments(self, image: Tensor, *, check: Check | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to -30 .. 20), each (B, 4, H/8, W/8) float32, of the latent of `image`."""
        h = self.quant_conv(self.encoder(self.received(image), check)).float()
        mean, logvar = h.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def encode(self, image: Tensor, *, noise: Tensor | None = None, check: Check | None = None) -> Tensor:
        """`image` (B, 3, H, W) in [-1, 1], sides multiples of 8, to a raw latent (B, 4, H/8, W/8) float32.

        The posterior's mean; with `noise` (standard normal, of the latent's shape) a sample of it.
        """
        mean, logvar = self.moments(image, check=check)
        return mean if noise is None else mean + (0.5 * logvar).exp() * noise

    def decode(self, latent: Tensor, *, check: Check | None = None) -> Tensor:
        """A raw latent (B, 4, h, w) to an image (B, 3, 8 h, 8 w) float32, about [-1, 1] but not clamped."""
        image = self.decoder(self.post_quant_conv(self.received(latent)), check)
        return image.float().contiguous()

    def received(self, x: Tensor) -> Tensor:
        """`x` in the weights' type and, for bfloat16 on a CPU, with the channels innermost: all layers keep it so, and are
        1.03 to 1.14 x as fast (Zen 4)."""
        innermost = x.device.type == "cpu" and self.dtype == torch.bfloat16
        return x.to(self.dtype, memory_format=torch.channels_last if innermost else torch.preserve_format)

    def encode_tiled(self, image: Tensor, *, noise: Tensor | None = None, check: Check | None = None) -> Tensor:
        """As `encode`, tile by tile in three passes of different tile shapes, averaged: needs less memory."""

        def moments(tile: Tensor) -> Tensor:
            return torch.cat(self.moments(tile, check=check), dim=1)

        scale = 1 / self.config.ratio
        h = sum(_tiled(moments, image, tile, ENCODE_OVERLAP, scale) for tile in ENCODE_TILES) / len(ENCODE_TILES)
        mean, logvar = torch.as_tensor(h).chunk(2, dim=1)
        return mean if noise is None else mean + (0.5 * logvar).exp() * noise

    def decode_tiled(self, latent: Tensor, *, check: Check | None = None) -> Tensor:
        """As `decode`, tile by tile in three passes of different tile shapes, averaged: needs less memory."""

        def decode(tile: Tensor) -> Tensor:
            return self.decode(tile, check=check)

        scale = float(self.config.ratio)
        image = sum(_tiled(decode, latent, tile, DECODE_OVERLAP, scale) for tile in DECODE_TILES) / len(DECODE_TILES)
        return torch.as_tensor(image)


def _tiled(f: Callable[[Tensor], Tensor], x: Tensor, tile: tuple[int, int], overlap: int, scale: float) -> Tensor:
    """f(x), computed on overlapping tiles of `tile` (height, width) and blended with linear ramps over the overlap.

    `scale` is how many cells along a side f makes of one.
    """
    high, wide = x.shape[2:]
    total: Tensor | None = None
    weight = torch.zeros(1, 1, round(high * scale), round(wide * scale), device=x.device)
    for top in _origins(high, tile[0], overlap):
        for left in _origins(wide, tile[1], overlap):
            y = f(x[:, :, top : top + tile[0], left : left + tile[1]])
            if total is None:
                total = y.new_zeros(y.shape[0], y.shape[1], *weight.shape[2:])
            rows, columns = (_ramp(size, round(overlap * scale), x.device) for size in y.shape[2:])
            mask = rows[:, None] * columns
            y0, x0 = round(top * scale), round(left * scale)
            area = (..., slice(y0, y0 + y.shape[2]), slice(x0, x0 + y.shape[3]))
            total[area] += y * mask
            weight[area] += mask
    if total is None:
        raise ValueError(f"nothing to compute on a map of {high} x {wide} cells")
    return total / weight


def _origins(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start: every `tile - overlap`, up to the first that reaches the end."""
    return list(range(0, max(1, length - overlap), tile - overlap))


def _ramp(length: int, feather: int, device: torch.device) -> Tensor:
    """Weights (length,) that rise over `feather` cells from both ends."""
    k = torch.arange(length, device=device, dtype=torch.float32)
    return ((torch.minimum(k, length - 1 - k) + 1) / max(1, feather)).clamp(max=1.0)
