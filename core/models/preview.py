"""From latents to small pictures, quickly: a linear map for every step, small decoders for those who have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import BadModelFile
from core.models.vae import SDXL_SCALE, VAE

SIDE = 16  # latent cells along a side of the picture that `fit_linear` learns from
BLOCK = 2  # cells along a side of one of its colour patches


class Preview(Protocol):
    """Makes small pictures of latents in network space."""

    @property
    def linear(self) -> LinearPreview:
        """The linear map behind it."""

    def __call__(self, latent: Tensor) -> np.ndarray:
        """The first picture of `latent` (B, 4, h, w) as uint8 pixels; how many a cell is up to the preview."""


@dataclass(frozen=True)
class LinearPreview:
    """rgb = latent x factors + bias, in [-1, 1], for latents in network space; a pixel a cell. Takes 0.1 to 0.3 ms."""

    factors: Tensor  # (4, 3)
    bias: Tensor  # (3,)

    @property
    def linear(self) -> LinearPreview:
        """Itself."""
        return self

    def __call__(self, latent: Tensor) -> np.ndarray:
        """The first picture of `latent` (B, 4, h, w) as uint8 pixels (h, w, 3)."""
        cells = latent[0].float().permute(1, 2, 0)
        return to_pixels(cells @ self.factors.to(cells.device) + self.bias.to(cells.device))


SDXL_LINEAR = LinearPreview(  # a published fit to its autoencoder
    torch.tensor(
        [[0.3920, 0.4054, 0.4549], [-0.2634, -0.0196, 0.0653], [0.0568, 0.1687, -0.0755], [-0.3112, -0.2359, -0.2076]]
    ),
    torch.zeros(3),
)


@torch.inference_mode()
def fit_linear(vae: VAE, scale: float = SDXL_SCALE) -> LinearPreview:
    """The linear preview that suits `vae` best: fitted by least squares to a picture of coloured patches that it encodes.

    `scale` is the factor from raw to network space. An autoencoder that gives NaN gets SDXL's published factors.
    """
    latent, cells = known_colours(vae, scale)
    known = F.pad(latent[0].flatten(1).T, (0, 1), value=1.0).double()
    wanted = cells[0].flatten(1).T.double()
    ridge = 1e-6 * torch.eye(known.shape[1], dtype=torch.float64)  # keeps dead channels from spoiling the fit
    normal = known.T @ known / len(known) + ridge
    if not torch.isfinite(normal).all():
        return SDXL_LINEAR
    solution = torch.linalg.solve(normal, known.T @ wanted / len(known)).float()
    return LinearPreview(solution[:-1].clone(), solution[-1].clone())


@torch.inference_mode()
def known_colours(vae: VAE, scale: float = SDXL_SCALE) -> tuple[Tensor, Tensor]:
    """A picture of coloured patches as `vae` encodes it: latent (1, 4, SIDE, SIDE) in network space, on the CPU, and the
    colours (1, 3, SIDE, SIDE) of its cells in [-1, 1]."""
    colours = 2 * torch.rand(1, 3, SIDE // BLOCK, SIDE // BLOCK, generator=torch.Generator().manual_seed(0)) - 1
    cells = F.interpolate(colours, scale_factor=BLOCK, mode="nearest")
    image = F.interpolate(cells, scale_factor=vae.config.ratio, mode="nearest")
    return vae.encode(image.to(vae.quant_conv.weight.device)).cpu() * scale, cells


def to_pixels(rgb: Tensor) -> np.ndarray:
    """Colours (h, w, 3) about [-1, 1] as uint8 pixels."""
    pixels: np.ndarray = ((rgb.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8).cpu().numpy()
    return pixels


class ApproxDecoder(nn.Module):
    """Eight convolutions (the "vae approx" kind): network-space latent (B, 4, h, w) to image (B, 3, 2 h, 2 w)."""

    LAYERS = ((4, 8, 7), (8, 16, 5), (16, 32, 3), (32, 64, 3), (64, 32, 3), (32, 16, 3), (16, 8, 3), (8, 3, 3))

    def __init__(self) -> None:
        super().__init__()
        for i, (c_in, c_out, kernel) in enumerate(self.LAYERS, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(c_in, c_out, kernel))

    def forward(self, latent: Tensor) -> Tensor:
        h = F.pad(F.interpolate(latent, scale_factor=2.0, mode="nearest"), (11, 11, 11, 11))
        for conv in self.children():
            h = F.leaky_relu(conv(h), 0.1)
        return h


class TinyBlock(nn.Module):
    """Three convolutions around a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width), nn.ReLU(), _conv(width), nn.ReLU(), _conv(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Squash(nn.Module):
    """Bends values smoothly into -3 .. 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class TinyDecoder(nn.Sequential):
    """A decoder of TAESD's shape (Bohan 2023): network-space latent (B, 4, h, w) to image (B, 3, 8 h, 8 w), [-1, 1]."""

    def __init__(self, width: int = 64) -> None:
        layers: list[nn.Module] = [Squash(), nn.Conv2d(4, width, 3, padding=1), nn.ReLU()]
        for _ in range(3):
            layers += [TinyBlock(width), TinyBlock(width), TinyBlock(width)]
            layers += [nn.Upsample(scale_factor=2), _conv(width, bias=False)]
        super().__init__(*layers, TinyBlock(width), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent) * 2 - 1


def preview_decoder(tensors: Mapping[str, Tensor]) -> ApproxDecoder | TinyDecoder:
    """The small decoder whose weights these are, told by their names. Raises BadModelFile if it is none.

    TAESD's come as `1.weight`, with a prefix, or as diffusers' `decoder.layers.0.weight`, which has no place for the
    squashing layer and so counts one less.
    """
    decoder: ApproxDecoder | TinyDecoder
    if "conv8.weight" in tensors:
        decoder, named = ApproxDecoder(), dict(tensors)
    else:
        prefix, shift = next(
            (
                found
                for found in (("decoder.layers.", 1), ("taesd_decoder.", 0), ("decoder.", 0), ("", 0))
                if _is_tiny(tensors, *found)
            ),
            ("", -1),
        )
        if shift < 0:
            raise BadModelFile("This is no preview decoder: neither `conv8.weight` nor `1.weight` is in it.")
        decoder = TinyDecoder(tensors[f"{prefix}{1 - shift}.weight"].shape[0])
        cut = [
            (name[len(prefix) :].partition("."), tensor) for name, tensor in tensors.items() if name.startswith(prefix)
        ]
        named = {f"{int(number) + shift}.{rest}": tensor for (number, _, rest), tensor in cut if number.isdecimal()}
    try:
        decoder.load_state_dict(named)
    except RuntimeError as error:
        raise BadModelFile(f"The preview decoder's tensors do not fit: {str(error)[:300]}") from None
    decoder.eval()
    return decoder.requires_grad_(False)


def _is_tiny(tensors: Mapping[str, Tensor], prefix: str, shift: int) -> bool:
    first = tensors.get(f"{prefix}{1 - shift}.weight")
    return first is not None and first.ndim == 4 and first.shape[1] == 4


def _conv(width: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1, bias=bias)
