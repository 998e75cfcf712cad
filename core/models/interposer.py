"""The latent interposer: from SDXL's latents to SD 1.x's without a picture in between (city96, version 4.0)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64
BLOCKS = 12


class Long(nn.Sequential):
    """Three convolutions."""

    def __init__(self, c_in: int) -> None:
        super().__init__(
            nn.Conv2d(c_in, WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )


class Head(nn.Module):
    """Latent (B, 4, h, w) to features (B, 64, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.long = Long(4)
        self.short = nn.Conv2d(4, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.long(x) + self.short(x))


class Norm(nn.Module):
    """Batch normalisation with the statistics of training, and no counter of batches, which only training needs."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.register_buffer("running_mean", torch.zeros(WIDTH))
        self.register_buffer("running_var", torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class Block(nn.Module):
    """Three convolutions around a skip connection that starts behind the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Norm()
        self.long = Long(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return F.relu(self.long(h) + h)


class Interposer(nn.Module):
    """A raw SDXL latent (B, 4, h, w) to the raw SD 1.x latent of the same picture. No scale factors on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        # The first place is an enlargement by 1 in the published network: nothing, but it counts.
        self.core = nn.Sequential(nn.Identity(), *(Block() for _ in range(BLOCKS)), Norm(), nn.SiLU())
        self.tail = nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """The result has the type and device of `latent`; inside, those of the weights."""
        h = self.tail(self.core(self.head(latent.to(self.tail.weight))))
        return h.to(latent)
