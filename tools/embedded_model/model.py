"""The network that is trained: UNet and two text encoders, of core's own modules, with the small vocabulary of words.py."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from core.models.clip import CLIPText
from core.models.configs import CLIPConfig, UNetConfig
from core.models.unet import UNet, sinusoid

WIDTH_L, WIDTH_G = 32, 64  # of the text encoders; their tables of 49,408 rows are a quarter of the file
UNET = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2, 3),
    num_res_blocks=(1, 1, 1),
    depth_in=(0, 1, 1),
    depth_out=(0, 0, 1, 1, 1, 1),
    depth_middle=1,
    context_dim=WIDTH_L + WIDTH_G,
    adm_in_channels=WIDTH_G + 6 * 256,
)
CLIP_L = CLIPConfig(width=WIDTH_L, layers=2, mlp_width=4 * WIDTH_L)
CLIP_G = CLIPConfig(width=WIDTH_G, layers=2, mlp_width=4 * WIDTH_G, projection=WIDTH_G, quick_gelu=False)


class Painter(nn.Module):
    """All that is learnt from captions and latents."""

    def __init__(self, vocabulary: int, config: UNetConfig = UNET) -> None:
        super().__init__()
        self.unet = UNet(config)
        self.clip_l = CLIPText(replace(CLIP_L, vocabulary=vocabulary))
        self.clip_g = CLIPText(replace(CLIP_G, vocabulary=vocabulary))
        for name, module in self.unet.named_modules():  # branches start at zero, as in Ho et al. 2020
            if name.endswith(("out_layers.3", "proj_out")) or name == "out.2":
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        for clip in (self.clip_l, self.clip_g):
            nn.init.normal_(clip.text_model.embeddings.token_embedding.weight, std=0.5)
            nn.init.normal_(clip.text_model.embeddings.position_embedding.weight, std=0.1)

    def forward(self, x: Tensor, t: Tensor, rows: tuple[Tensor, Tensor], sizes: Tensor) -> Tensor:
        """v for noisy latents x (B, 4, h, w) at steps t (B,), rows of words (B, 77) twice, sizes (B, 6)."""
        context, pooled = self.read(rows)
        return self.unet(x, t, context, torch.cat([pooled, embed_sizes(sizes)], dim=1))

    def read(self, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Conditions of a batch: tokens (B, 77, 96) of the layers before the last, and the pooled vector (B, 64)."""
        left, right = self.clip_l(rows[0]), self.clip_g(rows[1])
        return torch.cat([left.hidden, right.hidden], dim=2), right.pooled


def embed_sizes(sizes: Tensor) -> Tensor:
    """Height, width, crop top and left, target height and width (B, 6) as sinusoids (B, 1536)."""
    return sinusoid(sizes.flatten(), 256).reshape(len(sizes), -1)
