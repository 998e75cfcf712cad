"""The denoising network of SDXL, its refiner, SD 1.x, SSD-1B and Vega, with the single-file checkpoint's own names.

After Rombach et al. 2022 (latent diffusion) and Podell et al. 2023 (SDXL). `check`, where a method takes it, is called
between blocks, so that a Stop takes effect within one block; it ends the computation by raising.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import attention
from core.models.configs import UNetConfig, norm_groups
from core.models.freeu import Joint
from core.models.linear import Linear, gated_gelu, plus

Check = Callable[[], None]


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Embed numbers (B,) as (B, width) float32: cosines, then sines, at `width // 2` frequencies from 1 down to 1/10000.

    An odd width ends with a zero. The frequencies are computed on the CPU, so that every device gets the same ones.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device="cpu") / half)
    angles = values.float()[:, None] * frequencies.to(values.device)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class ResBlock(nn.Module):
    """Two convolutions with the time embedding added between them, around a skip connection."""

    def __init__(self, c_in: int, c_out: int, c_time: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(norm_groups(c_in), c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(c_time, c_out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(norm_groups(c_out), c_out), nn.SiLU(), nn.Identity(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class TextKeys:
    """Keys and values that the layers of one network made of a text: kept, because they are the same at every step.

    Belongs to a stretch of time in which the network's weights stay as they are: one picture, say. A text is known by its
    tensor, which must be the same object, with the same numbers in it, at every call. Those of the last one are kept.
    """

    def __init__(self) -> None:
        self._text: Tensor | None = None
        self._made: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def of(self, layer: Attention, text: Tensor) -> tuple[Tensor, Tensor]:
        """What `layer` makes of `text` (B, S, C')."""
        if text is not self._text:
            self._text = text
            self._made.clear()
        if layer not in self._made:
            self._made[layer] = layer.keys_and_values(text)
        return self._made[layer]


class Attention(nn.Module):
    """Multi-head attention of tokens (B, T, C) to `context` (B, S, C'), added to `residual` (B, T, C)."""

    def __init__(self, channels: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(channels, channels, bias=False)
        self.to_k = Linear(context_dim, channels, bias=False)
        self.to_v = Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor, residual: Tensor, kept: TextKeys | None = None) -> Tensor:
        k, v = kept.of(self, context) if kept else self.keys_and_values(context)
        mixed = attention(self._heads(self.to_q(x)), k, v).transpose(1, 2).flatten(2)
        return plus(self.to_out[0], mixed, residual)

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Each (B, heads, S, D)."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GEGLU(nn.Module):
    """Gated GELU (Shazeer 2020): the first half of the projection times the GELU of the second."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = Linear(channels, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        return gated_gelu(self.proj, x)


class FeedForward(nn.Module):
    """The two linear layers of a transformer block, four times as wide between them, added to `residual`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return plus(self.net[2], self.net[0](x), residual)


class TransformerBlock(nn.Module):
    """Attention to the picture, attention to the text, feed-forward; each normed before and added back."""

    def __init__(self, channels: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_dim, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor, kept: TextKeys | None = None) -> Tensor:
        h = self.norm1(x)
        x = self.attn1(h, h, x)
        x = self.attn2(self.norm2(x), context, x, kept)
        return self.ff(self.norm3(x), x)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of a feature map."""

    def __init__(self, channels: int, depth: int, config: UNetConfig) -> None:
        super().__init__()
        heads = config.heads_of(channels)
        self.linear = config.linear_projections
        self.norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.proj_in = Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, config.context_dim, heads) for _ in range(depth)
        )
        self.proj_out = Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, check: Check | None = None, kept: TextKeys | None = None) -> Tensor:
        size = x.shape[2:]
        h = self.norm(x)
        if self.linear:
            h = self.proj_in(h.flatten(2).transpose(1, 2))
        else:
            h = self.proj_in(h).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            if check:
                check()
            h = block(h, context, kept)
        if self.linear:
            h = self.proj_out(h).transpose(1, 2).unflatten(2, size)
        else:
            h = self.proj_out(h.transpose(1, 2).unflatten(2, size))
        return x + h


class Downsample(nn.Module):
    """Halve the sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to exactly `size`, so that odd sides meet their skip; then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Block(nn.Sequential):
    """One entry of `input_blocks`, `middle_block` or `output_blocks`: hands each layer what it needs."""

    def forward(  # type: ignore[override]
        self,
        h: Tensor,
        emb: Tensor,
        context: Tensor,
        size: torch.Size | None = None,
        check: Check | None = None,
        kept: TextKeys | None = None,
    ) -> Tensor:
        for layer in self:
            if check:
                check()
            if isinstance(layer, ResBlock):
                h = layer(h, emb)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context, check, kept)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h


class UNet(nn.Module):
    """The denoising network. What it predicts (noise or velocity) is the caller's business."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.model_channels
        c_time = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, c_time), nn.SiLU(), nn.Linear(c_time, c_time))
        self.label_emb: nn.Sequential | None = None
        if config.adm_in_channels is not None:
            mlp = nn.Sequential(nn.Linear(config.adm_in_channels, c_time), nn.SiLU(), nn.Linear(c_time, c_time))
            self.label_emb = nn.Sequential(mlp)

        def block(c_in: int, c_out: int, depth: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResBlock(c_in, c_out, c_time)]
            return [*layers, SpatialTransformer(c_out, depth, config)] if depth else layers

        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(config.in_channels, channels, 3, padding=1))])
        skips, c, depths = [channels], channels, iter(config.depth_in)
        for level, (mult, n) in enumerate(zip(config.channel_mult, config.num_res_blocks, strict=True)):
            if level:
                self.input_blocks.append(Block(Downsample(c)))
                skips.append(c)
            for _ in range(n):
                self.input_blocks.append(Block(*block(c, mult * channels, next(depths))))
                c = mult * channels
                skips.append(c)

        if config.depth_middle < 0:
            self.middle_block = Block(ResBlock(c, c, c_time))
        else:
            self.middle_block = Block(*block(c, c, config.depth_middle), ResBlock(c, c, c_time))

        self.output_blocks = nn.ModuleList()
        depths = iter(reversed(config.depth_out))
        for level in reversed(range(len(config.channel_mult))):
            for last in [False] * config.num_res_blocks[level] + [True]:
                c_out = config.channel_mult[level] * channels
                layers = block(c + skips.pop(), c_out, next(depths))
                c = c_out
                self.output_blocks.append(Block(*layers, Upsample(c)) if last and level else Block(*layers))

        self.out = nn.Sequential(
            nn.GroupNorm(norm_groups(c), c), nn.SiLU(), nn.Conv2d(c, config.out_channels, 3, padding=1)
        )

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the weights; inputs are cast to it."""
        return self.out[2].weight.dtype  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        *,
        joint: Joint | None = None,
        check: Check | None = None,
        kept: TextKeys | None = None,
        inner: Tensor | None = None,
        keep: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """One evaluation: x (B, 4, h, w), timesteps (B,) from 0 to 999, context (B, T, context_dim), y (B, adm) -> like x.

        The result has the weights' type. Any h, w from 1 up will do. `joint` may change what meets in front of each output
        block (FreeU). `kept` has what earlier calls made of `context`. Raises what `check` raises.

        `keep` gets the feature map (B, C, h, w) that enters the last output block. Given as `inner` to a later call, it
        stands in for all blocks but the first and the last, which then do not run.
        """
        dtype = self.dtype
        emb = self.time_embed(sinusoid(timesteps, self.config.model_channels).to(dtype))
        if self.label_emb is not None:
            if y is None:
                raise ValueError("this network needs the class vector y")
            emb = emb + self.label_emb(y.to(dtype))
        context = context.to(dtype)
        h = x.to(dtype)
        skips: list[Tensor] = []
        down, up = list(self.input_blocks), list(self.output_blocks)
        if inner is not None:
            down, up = down[:1], up[-1:]
        for block in down:
            h = block(h, emb, context, check=check, kept=kept)
            skips.append(h)
        h = self.middle_block(h, emb, context, check=check, kept=kept) if inner is None else inner
        for block in up:
            skip = skips.pop()
            if keep and not skips:
                keep(h)
            if joint:
                h, skip = joint(h, skip)
            h = torch.cat([h, skip], dim=1)
            h = block(h, emb, context, skips[-1].shape[2:] if skips else None, check, kept)
        return self.out(h)
