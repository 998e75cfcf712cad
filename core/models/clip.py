"""The text encoders CLIP-L and open_clip's bigG (Radford et al. 2021, Cherti et al. 2022), with transformers' names.

bigG is stored under open_clip's names; `from_open_clip` and `to_open_clip` rename (views, no copies). Computation is in
float32, whatever the weights are stored in: each layer casts its own weights, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import attention
from core.models.configs import CLIPConfig
from core.models.names import OPEN_CLIP, OPEN_CLIP_LAYER, QKV, open_clip_names

Check = Callable[[], None]


class TextOutput(NamedTuple):
    """What a text encoder makes of token ids."""

    hidden: Tensor  # (B, T, width)
    pooled: Tensor | None  # (B, projection); None if the encoder has no projection


class Linear(nn.Linear):
    """A linear layer that computes in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """A norm that computes in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Multi-head attention in which no token sees a later one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in projected)
        return self.out_proj(attention(q, k, v, causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.quick_gelu = config.quick_gelu
        self.fc1 = Linear(config.width, config.mlp_width)
        self.fc2 = Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h) if self.quick_gelu else F.gelu(h))


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.width)
        self.self_attn = SelfAttention(config.width, config.heads)
        self.layer_norm2 = LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embedding(nn.Embedding):
    """A table that is left alone on the meta device, where filling it would import torch's compiler (2 s)."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embeddings(nn.Module):
    """Token and position tables."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocabulary, config.width)
        self.position_embedding = Embedding(config.positions, config.width)

    def forward(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        positions = self.position_embedding.weight[: ids.shape[1]]
        if vectors is None:
            return self.token_embedding(ids).float() + positions.float()
        inserted = vectors[(-1 - ids).clamp(min=0)]
        tokens = torch.where((ids < 0)[..., None], inserted, self.token_embedding(ids.clamp(min=0)).float())
        return tokens + positions.float()


class Encoder(nn.Module):
    """The layers, one behind the other."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))


class TextModel(nn.Module):
    """Tables, layers and the last norm."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config.width)


class CLIPText(nn.Module):
    """A text encoder; `text_projection` is (width, projection), input x output, as open_clip stores it."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextModel(config)
        self.text_projection: nn.Parameter | None = None
        if config.projection is not None:
            std = config.width**-0.5
            self.text_projection = nn.Parameter(torch.empty(config.width, config.projection))
            if not self.text_projection.is_meta:
                nn.init.normal_(self.text_projection, std=std)

    def forward(
        self,
        ids: Tensor,
        layer: int = -2,
        *,
        final_norm: bool = False,
        vectors: Tensor | None = None,
        check: Check | None = None,
    ) -> TextOutput:
        """Token `ids` (B, T), T up to 77, to the output of layer `layer`, counted from the end: -1 is the last one.

        `final_norm`: with the model's last norm (SD 1.x). A `layer` beyond the first gives the normed last output. The
        pooled vector is the normed last output at the first place of the row's largest id, times the projection.
        An id below 0 stands for a row of `vectors` (V, width), float32: -1 for the first one, -2 for the second.
        """
        layers = self.text_model.encoder.layers
        wanted = len(layers) + layer if 1 <= -layer <= len(layers) else len(layers) - 1
        final_norm = final_norm or not 1 <= -layer <= len(layers)
        h = self.text_model.embeddings(ids, vectors)
        hidden = h
        for i, module in enumerate(layers):
            if check:
                check()
            if self.text_projection is None and i > wanted:
                break
            h = module(h)
            if i == wanted:
                hidden = h
        pooled = None
        if self.text_projection is not None:
            last = h[torch.arange(len(ids), device=h.device), ids.argmax(dim=1)]
            pooled = self.text_model.final_layer_norm(last) @ self.text_projection.to(h.dtype)
        return TextOutput(self.text_model.final_layer_norm(hidden) if final_norm else hidden, pooled)


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under open_clip's names as views under transformers' names; unknown ones are left out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = open_clip_names(name)
        pieces = (
            tensor.chunk(len(names)) if len(names) > 1 else (tensor.T if name == "text_projection.weight" else tensor,)
        )
        renamed.update(zip(names, pieces, strict=False))
    return renamed


def to_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round: a `state_dict` of CLIPText under open_clip's names, q, k and v packed again."""
    whole = {new: old for old, new in OPEN_CLIP.items()}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in whole:
            renamed[whole[name]] = tensor
            continue
        number, _, rest = name.removeprefix("text_model.encoder.layers.").partition(".")
        block = f"transformer.resblocks.{number}."
        if rest.startswith("self_attn.q_proj."):
            kind = rest.rpartition(".")[2]
            parts = [tensors[name.replace("q_proj", part)] for part in QKV]
            renamed[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
        for old, new in OPEN_CLIP_LAYER.items():
            if rest.startswith(new):
                renamed[block + old + rest[len(new) :]] = tensor
    return renamed
