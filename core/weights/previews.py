"""Which preview suits a VAE: a small decoder from the user's folder if one fits it, else a linear map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from core.errors import UserError
from core.models.preview import (
    ApproxDecoder,
    LinearPreview,
    Preview,
    TinyDecoder,
    fit_linear,
    known_colours,
    preview_decoder,
    to_pixels,
)
from core.models.vae import SDXL_SCALE, VAE
from core.weights.files import Files

log = logging.getLogger(__name__)

LARGEST = 2**26  # bytes; preview decoders have 10 kB to 10 MB
FITS = 0.08  # mean squared error on known colours from -1 to 1; a decoder of other latents is off by 0.3 and more
CELL_BYTES = 3 * 64 * 64 * 4  # three of TAESD's widest maps at once: 64 pixels a cell, 64 channels, float32
SHARE = 0.02  # of a run's time that its previews may take


class DecoderPreview:
    """Previews by a small decoder, as long as they cost at most SHARE of the time between two; else by the linear map.

    The decoder computes where its weights are; whoever asks brings it there.
    """

    def __init__(
        self,
        decoder: ApproxDecoder | TinyDecoder,
        linear: LinearPreview,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.decoder = decoder
        self.linear = linear
        self._clock = clock
        self._last = clock()
        self._seconds_a_cell = 0.0

    def __call__(self, latent: Tensor) -> np.ndarray:
        """The first picture of `latent` (B, 4, h, w) in network space as uint8 pixels, one, two or eight a cell."""
        began = self._clock()
        between, self._last = began - self._last, began
        cells = latent.shape[2] * latent.shape[3]
        if self._seconds_a_cell * cells > SHARE * between:
            return self.linear(latent)
        pixels = to_pixels(self.decoded(latent[:1])[0].permute(1, 2, 0))
        self._seconds_a_cell = (self._clock() - began) / cells
        return pixels

    @torch.inference_mode()
    def decoded(self, latent: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), about [-1, 1], of `latent` (B, 4, h, w) in network space; H is h, 2 h or 8 h."""
        weight = next(self.decoder.parameters())
        image: Tensor = self.decoder(latent.to(weight.device, weight.dtype))
        return image

    def working(self, latent: Tensor) -> int:
        """Bytes that decoding the first of `latent` (B, 4, h, w) takes beside the weights."""
        return CELL_BYTES * latent.shape[2] * latent.shape[3]


def preview_for(vae: VAE, files: Files, scale: float = SDXL_SCALE) -> Preview:
    """The preview of `files` that shows known colours best in the latents of `vae`; a fitted linear map if none does.

    What a file is called does not matter, only whether it fits. A file that is no preview decoder is passed over.
    """
    linear = fit_linear(vae, scale)
    best, least = None, FITS
    for name in files.names():
        try:
            path = files.find(name)
            if path.stat().st_size > LARGEST:
                continue
            decoder = preview_decoder({key: tensor.float() for key, tensor in load_file(path).items()})
            error = _error(decoder, vae, scale)
        except (UserError, OSError, ValueError, RuntimeError) as problem:
            log.debug("%s gives no previews: %s", name, problem)
            continue
        except Exception as problem:  # safetensors' own kind of error for a damaged file
            log.warning("The preview decoder %s cannot be read: %s", name, problem)
            continue
        if error < least:
            best, least = decoder, error
    return linear if best is None else DecoderPreview(best, linear)


@torch.inference_mode()
def _error(decoder: ApproxDecoder | TinyDecoder, vae: VAE, scale: float) -> float:
    """How far the colours that `decoder` shows are from those that were encoded: mean of squares."""
    latent, colours = known_colours(vae, scale)
    shown = F.adaptive_avg_pool2d(decoder(latent), (colours.shape[2], colours.shape[3]))
    return float(((shown - colours) ** 2).mean())
