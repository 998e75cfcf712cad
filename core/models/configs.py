"""The sizes of every network, read from the names and shapes of a checkpoint's tensors. Plain data, no torch.

A `Shapes` maps tensor names, cut to what the module itself calls them, to shapes. What cannot be read raises BadModelFile
with a sentence that fits after "model.safetensors: ".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import BadModelFile

Shapes = Mapping[str, tuple[int, ...]]

LARGEST = 16384  # no width in any of these networks comes near; a bound on what a mad file can ask for


def norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: 32 in all published models; fewer where 32 would leave less than 4 channels a group."""
    groups = max(1, min(32, channels // 4))
    while channels % groups:
        groups -= 1
    return groups


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of the denoising network. Levels count from the highest resolution; so do both depth lists."""

    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2)  # residual blocks per level on the way down; one more on the way up
    depth_in: tuple[int, ...] = (0, 0, 2, 2, 10, 10)  # transformer blocks behind each residual block, way down
    depth_out: tuple[int, ...] = (0, 0, 0, 2, 2, 2, 10, 10, 10)  # the same on the way up, highest resolution first
    depth_middle: int = 10  # -1: the middle is a single residual block
    context_dim: int = 2048  # width of the text conditions
    adm_in_channels: int | None = 2816  # width of the class vector `y`; None: there is none
    linear_projections: bool = True  # else 1x1 convolutions lead in and out of the transformers (SD 1.x)
    heads: int | None = None  # None: 64 channels a head; a number: so many heads at every width (SD 1.x: 8)
    in_channels: int = 4
    out_channels: int = 4

    def heads_of(self, channels: int) -> int:
        """Attention heads at a width of `channels`."""
        return self.heads if self.heads is not None else max(1, channels // 64)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> UNetConfig:
        """Read the sizes from `input_blocks.0.0.weight` and its like. Raises BadModelFile for what is no such network."""
        model_channels, in_channels = _shape(shapes, "input_blocks.0.0.weight", 4)[:2]
        n = _count(shapes, "input_blocks")
        mult, res_blocks, depth_in = [0], [0], []
        for i in range(1, n):
            block = f"input_blocks.{i}"
            if f"{block}.0.op.weight" in shapes:
                mult.append(0)
                res_blocks.append(0)
                continue
            rows = _shape(shapes, f"{block}.0.out_layers.3.weight", 4)[0]
            if rows % model_channels:
                raise BadModelFile(f"{block} has {rows} channels, which is no multiple of {model_channels}")
            mult[-1] = rows // model_channels
            res_blocks[-1] += 1
            depth_in.append(_count(shapes, f"{block}.1.transformer_blocks"))
        if not all(mult):
            raise BadModelFile("a level of the network has no residual block")
        if _count(shapes, "output_blocks") != n:
            raise BadModelFile(f"the network has {n} input blocks and {_count(shapes, 'output_blocks')} output blocks")
        depth_out = [_count(shapes, f"output_blocks.{i}.1.transformer_blocks") for i in reversed(range(n))]
        has_middle = "middle_block.1.proj_in.weight" in shapes
        context = next((s for name, s in shapes.items() if name.endswith(".attn2.to_k.weight")), None)
        proj = next((s for name, s in shapes.items() if name.endswith(".1.proj_in.weight")), None)
        if context is None or len(context) != 2 or proj is None:
            raise BadModelFile("the network has no cross-attention")
        adm = _shape(shapes, "label_emb.0.0.weight", 2)[1] if "label_emb.0.0.weight" in shapes else None
        linear = len(proj) == 2
        config = cls(
            model_channels=model_channels,
            channel_mult=tuple(mult),
            num_res_blocks=tuple(res_blocks),
            depth_in=tuple(depth_in),
            depth_out=tuple(depth_out),
            depth_middle=_count(shapes, "middle_block.1.transformer_blocks") if has_middle else -1,
            context_dim=context[1],
            adm_in_channels=adm,
            linear_projections=linear,
            heads=None if linear or adm is not None else 8,
            in_channels=in_channels,
            out_channels=_shape(shapes, "out.2.weight", 4)[0],
        )
        for channels in {model_channels * m for m in mult}:
            if channels > LARGEST or channels % config.heads_of(channels):
                raise BadModelFile(f"{channels} channels cannot be shared out to {config.heads_of(channels)} heads")
        return config


SDXL = UNetConfig()
REFINER = UNetConfig(
    model_channels=384,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=(2, 2, 2, 2),
    depth_in=(0, 0, 4, 4, 4, 4, 0, 0),
    depth_out=(0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0),
    depth_middle=4,
    context_dim=1280,
    adm_in_channels=2560,
)
SD15 = UNetConfig(
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=(2, 2, 2, 2),
    depth_in=(1, 1, 1, 1, 1, 1, 0, 0),
    depth_out=(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
    depth_middle=1,
    context_dim=768,
    adm_in_channels=None,
    linear_projections=False,
    heads=8,
)
SSD_1B = UNetConfig(depth_in=(0, 0, 2, 2, 4, 4), depth_out=(0, 0, 0, 1, 1, 2, 10, 4, 4), depth_middle=-1)
VEGA = UNetConfig(depth_in=(0, 0, 1, 1, 2, 2), depth_out=(0, 0, 0, 1, 1, 1, 2, 2, 2), depth_middle=-1)
TINY = UNetConfig(  # SDXL's plan at a size for tests; 64 + 96 are the widths of TINY_CLIP_L and TINY_CLIP_G
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    depth_in=(0, 1),
    depth_out=(0, 0, 1, 1),
    depth_middle=1,
    context_dim=64 + 96,
    adm_in_channels=96 + 6 * 256,
)


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the autoencoder. `channel_mult` counts from the highest resolution."""

    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # per encoder level; the decoder has one more
    z_channels: int = 4

    @property
    def ratio(self) -> int:
        """Pixels per latent cell along a side: 8 for four levels."""
        return int(2 ** (len(self.channel_mult) - 1))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> VAEConfig:
        """Read the sizes from `encoder.conv_in.weight` and its like. Raises BadModelFile for what is no such autoencoder."""
        channels = _shape(shapes, "encoder.conv_in.weight", 4)[0]
        mult = []
        for level in range(_count(shapes, "encoder.down")):
            rows = _shape(shapes, f"encoder.down.{level}.block.0.conv2.weight", 4)[0]
            if rows % channels or rows > LARGEST:
                raise BadModelFile(f"encoder.down.{level} has {rows} channels, which is no multiple of {channels}")
            mult.append(rows // channels)
        if not 1 <= len(mult) <= 8:
            raise BadModelFile(f"the autoencoder has {len(mult)} levels")
        return cls(
            channels=channels,
            channel_mult=tuple(mult),
            num_res_blocks=_count(shapes, "encoder.down.0.block"),
            z_channels=_shape(shapes, "decoder.conv_in.weight", 4)[1],
        )


TINY_VAE = VAEConfig(channels=16, channel_mult=(1, 1, 2, 2), num_res_blocks=1)


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Sizes of a text encoder. The shapes do not tell the activation: CLIP-L has quick-gelu, the open_clip ones gelu."""

    width: int = 768
    layers: int = 12
    mlp_width: int = 3072
    positions: int = 77
    vocabulary: int = 49408
    projection: int | None = None  # width of the pooled vector; None: no pooled vector
    quick_gelu: bool = True

    @property
    def heads(self) -> int:
        """64 channels a head, as in CLIP-L, H and bigG."""
        return max(1, self.width // 64)

    @classmethod
    def from_shapes(cls, shapes: Shapes, *, quick_gelu: bool) -> CLIPConfig:
        """Read the sizes from transformers' names (`text_model. ...`). Raises BadModelFile for what is no text encoder."""
        vocabulary, width = _shape(shapes, "text_model.embeddings.token_embedding.weight", 2)
        projection = shapes.get("text_projection")
        config = cls(
            width=width,
            layers=_count(shapes, "text_model.encoder.layers"),
            mlp_width=_shape(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            positions=_shape(shapes, "text_model.embeddings.position_embedding.weight", 2)[0],
            vocabulary=vocabulary,
            projection=projection[1] if projection and len(projection) == 2 else None,
            quick_gelu=quick_gelu,
        )
        if width > LARGEST or width % config.heads:
            raise BadModelFile(f"a text encoder of width {width} cannot be shared out to {config.heads} heads")
        return config


CLIP_L = CLIPConfig()
CLIP_G = CLIPConfig(width=1280, layers=32, mlp_width=5120, projection=1280, quick_gelu=False)
TINY_CLIP_L = CLIPConfig(width=64, layers=2, mlp_width=256)
TINY_CLIP_G = CLIPConfig(width=96, layers=3, mlp_width=384, projection=96, quick_gelu=False)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many of `prefix`.0, `prefix`.1, ... there are without a gap."""
    cut = len(prefix) + 1
    found = {name[cut:].split(".", 1)[0] for name in shapes if name.startswith(prefix + ".")}
    n = 0
    while str(n) in found:
        n += 1
    return n


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise BadModelFile(f"the tensor {name} is missing")
    if len(shape) != dimensions or not all(size > 0 for size in shape):
        raise BadModelFile(f"the tensor {name} has the shape {list(shape)}; {dimensions} dimensions were wanted")
    return shape
