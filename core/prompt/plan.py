"""From Settings to one ImagePlan a picture: which seed, which texts. Pure text, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from core.prompt.lines import clean_lines
from core.settings import MAX_SEED, Settings


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """What one picture is made from.

    `positive` and `negative` are encoded text by text and joined on the token axis; the pooled vectors of the first
    `positive_pooled` (`negative_pooled`) texts are summed.
    """

    index: int
    seed: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_pooled: int
    negative_pooled: int


def plan_images(settings: Settings) -> list[ImagePlan]:
    """One plan a picture. Picture n has seed + n (wrapping at 2^63), so that it can be made again alone."""
    positive = tuple(clean_lines(settings.prompt)) or ("",)
    negative = tuple(clean_lines(settings.negative_prompt)) or ("",)
    return [
        ImagePlan(
            index=index,
            seed=(settings.seed + index) % (MAX_SEED + 1),
            positive=positive,
            negative=negative,
            positive_pooled=len(positive),
            negative_pooled=len(negative),
        )
        for index in range(settings.image_number)
    ]
