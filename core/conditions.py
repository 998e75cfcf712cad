"""What each kind of network is told of a prompt: which of the text's features, and which class vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from core.errors import BadSetting
from core.models.clip import CLIPText
from core.sampling.denoiser import Condition
from core.settings import Settings
from core.text.encode import TextConditions
from core.text.size_conditioning import refiner_vector, size_vectors

SCORE_POSITIVE, SCORE_NEGATIVE = 6.0, 2.5  # aesthetic scores that the SDXL refiner is told: Stability's own


@dataclass(frozen=True)
class Conditions:
    """What the two sides of guidance are told. `negative` is None where it is not evaluated."""

    positive: TextConditions
    negative: TextConditions | None

    def told(self, tell: Callable[[TextConditions, bool], Condition]) -> tuple[Condition, Condition | None]:
        """Both sides as a network gets them; `tell` makes one of them from its text and whether it is the positive."""
        negative = None if self.negative is None else tell(self.negative, False)
        return tell(self.positive, True), negative


def sdxl_condition(settings: Settings, text: TextConditions, positive: bool) -> Condition:
    """All features, and the picture's size, scaled as the settings say. Raises BadSetting without a pooled vector."""
    scale = settings.adm_scaler_positive if positive else settings.adm_scaler_negative
    end, strict = settings.adm_scaler_end, settings.strict_compatibility
    vectors = size_vectors(_pooled(text), settings.width, settings.height, scale=scale, end=end, strict=strict)
    return Condition(text.tokens, vectors.emphasised, vectors.consistent, end)


def sdxl_refiner_condition(width: int, settings: Settings, text: TextConditions, positive: bool) -> Condition:
    """The last `width` features, which are bigG's; the picture's size and how beautiful it is to be."""
    score = SCORE_POSITIVE if positive else SCORE_NEGATIVE
    y = refiner_vector(_pooled(text), settings.width, settings.height, score)
    return Condition(text.tokens[:, :, -width:], y)


def sd15_condition(clip_l: CLIPText, text: TextConditions) -> Condition:
    """CLIP-L's features, the first ones, with that encoder's last norm, which SDXL leaves out. Float32, on the CPU."""
    norm = clip_l.text_model.final_layer_norm
    width = clip_l.config.width
    weight, bias = (tensor.float().cpu() for tensor in (norm.weight, norm.bias))
    return Condition(F.layer_norm(text.tokens[:, :, :width].float().cpu(), (width,), weight, bias, norm.eps))


def refiner_condition(
    family: str, width: int, clip_l: CLIPText | None, settings: Settings, text: TextConditions, positive: bool
) -> Condition:
    """What a refiner of `family`, whose network takes `width` features, is told of the base model's `text`."""
    if family == "sd15" and clip_l is not None:
        return sd15_condition(clip_l, text)
    if family == "sdxl-refiner":
        return sdxl_refiner_condition(width, settings, text, positive)
    return sdxl_condition(settings, text, positive)


def _pooled(text: TextConditions) -> Tensor:
    if text.pooled is None:
        raise BadSetting("The base model has no pooled text vector; it is no SDXL checkpoint.")
    return text.pooled
