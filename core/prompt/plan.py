"""From Settings to one ImagePlan a picture: which seed, which texts, which LoRAs. Pure text, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadSetting
from core.prompt.continuation import continues
from core.prompt.resolve import Resolved, resolve
from core.prompt.resources import Lookup, PromptResources
from core.settings import MAX_SEED, Lora, Settings


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """What one picture is made from.

    `positive` and `negative` are encoded text by text and joined on the token axis; the pooled vectors of the first
    `positive_pooled` (`negative_pooled`) texts are summed. With `expansion` the continuation of `main`, drawn with the
    seed modulo 2^32, is one more positive text, not counted in the pooled vector; `settings.prompt_expansion` is that text if
    it is given already, else "".

    `settings` make this picture again alone: one picture, its own seed, the prompts and styles that chance and its place
    in the request gave it. `notices` are sentences for the user.
    """

    index: int
    seed: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_pooled: int
    negative_pooled: int
    main: str
    expansion: bool
    loras: tuple[Lora, ...]
    notices: tuple[str, ...]
    settings: Settings


_BY_CHANCE = ("prompt", "negative_prompt", "styles", "loras", "prompt_expansion")  # settings that chance may complete


def plan_images(settings: Settings, resources: PromptResources | None = None) -> list[ImagePlan]:
    """One plan a picture. Picture n has seed + n (wrapping at 2^63), or always the same without `seed_increment`.

    Raises BadSetting when the prompts grow beyond bounds.
    """
    lookup = Lookup(resources or PromptResources())
    plans = []
    for index in range(settings.image_number):
        seed = seed_of(settings, index)
        found = resolve(settings, index, seed, lookup)
        positive, negative = (tuple(part.text for part in side) for side in (found.positive, found.negative))
        plans.append(
            ImagePlan(
                index=index,
                seed=seed,
                positive=positive,
                negative=negative,
                positive_pooled=len(positive),
                negative_pooled=len(negative),
                main=found.main,
                expansion=found.expansion,
                loras=found.loras,
                notices=found.notices,
                settings=_alone(settings, seed, found, lookup),
            )
        )
    if len(plans) > 1 and all(_same(plan, plans[0]) for plan in plans):
        warning = (
            f"All {len(plans)} pictures are the same: seed and texts do not change from one to the next. Let the seed "
            "change, or use an array such as [[red, green]]."
        )
        plans[0] = replace(plans[0], notices=(*plans[0].notices, warning))
    return plans


def explain(settings: Settings, resources: PromptResources | None = None, index: int = 0) -> Resolved:
    """What the prompts of picture `index` become, part by part. Raises BadSetting as `plan_images`."""
    return resolve(settings, index, seed_of(settings, index), Lookup(resources or PromptResources()))


def typed_otherwise(settings: Settings, plan: ImagePlan) -> dict[str, Any]:
    """Of the request `settings` the prompts, styles and LoRAs that the picture's own settings have otherwise."""
    typed, own = settings.to_dict(), plan.settings.to_dict()
    return {name: typed[name] for name in _BY_CHANCE if typed[name] != own[name]}


def seed_of(settings: Settings, index: int) -> int:
    """The seed of picture `index`."""
    return (settings.seed + index * settings.seed_increment) % (MAX_SEED + 1)


def _alone(settings: Settings, seed: int, found: Resolved, lookup: Lookup) -> Settings:
    """The request for this picture alone. If its prompts would be read in another way once more, it says so."""
    given = settings.prompt_expansion if found.expansion and continues(settings.prompt_expansion, found.main) else ""
    alone = replace(settings, seed=seed, image_number=1, image_grid=False, styles=found.styles, prompt_expansion=given)
    if found.as_typed:
        return alone
    alone = replace(alone, prompt=found.prompt, negative_prompt=found.negative_prompt, loras=found.loras)
    try:
        again = resolve(alone, 0, seed, lookup)
        if (again.positive, again.negative, again.loras) == (found.positive, found.negative, found.loras):
            return alone
    except BadSetting:  # a line of a wildcard file may look like anything
        pass
    return replace(alone, prompt_syntax=False)


def _same(one: ImagePlan, other: ImagePlan) -> bool:
    return (one.seed, one.positive, one.negative, one.loras) == (
        other.seed,
        other.positive,
        other.negative,
        other.loras,
    )
