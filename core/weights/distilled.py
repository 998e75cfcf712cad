"""Checkpoints that were distilled to a few steps: known by what they are called, and what samples them well. No torch.

Nothing in the weights tells that a network is distilled, and with an ordinary model's settings it gives burnt pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from core.performance import WITHOUT_GUIDANCE

USUAL_STEPS = range(1, 17)  # a number of steps in a name counts if it is one of these
NOT_SO = r"(?<![a-z])(?i:no[nt]?[ _-]?(turbo|lightning|hyper|lcm|tcd|dmd))"  # noTurbo, but not chinoTurbo


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way of distilling. `pattern` is searched in the file's name and title, without regard to case."""

    name: str
    pattern: str
    settings: Mapping[str, Any]


# The first that matches counts: `lightning` checkpoints may say `turbo` as well.
KINDS = (
    Kind(
        name="DMD2",
        pattern=r"dmd2?(?![a-z])",
        settings={"steps": 4, "sampler": "lcm", "scheduler": "sgm_uniform", **WITHOUT_GUIDANCE},
    ),
    Kind(
        name="LCM",
        pattern=r"(?<![a-z])lcm(?![a-z])",
        settings={"steps": 8, "sampler": "lcm", "scheduler": "lcm", **WITHOUT_GUIDANCE},
    ),
    Kind(
        name="TCD",
        pattern=r"(?<![a-z])tcd(?![a-z])",
        settings={"steps": 8, "sampler": "tcd", "scheduler": "tcd", **WITHOUT_GUIDANCE},
    ),
    Kind(
        name="Lightning",
        pattern=r"lightning",
        settings={"steps": 4, "sampler": "euler", "scheduler": "sgm_uniform", **WITHOUT_GUIDANCE},
    ),
    Kind(
        name="Hyper-SD",
        pattern=r"hyper-?sd|(?<![a-z])hyper(?![a-z])(?![ _-]*real)",
        settings={"steps": 8, "sampler": "dpmpp_sde_gpu", "scheduler": "karras", **WITHOUT_GUIDANCE},
    ),
    Kind(  # Stability's own, made for 512 x 512
        name="SDXL Turbo",
        pattern=r"sd_?xl_?turbo",
        settings={
            "steps": 4,
            "sampler": "euler_ancestral",
            "scheduler": "turbo",
            "width": 512,
            "height": 512,
            **WITHOUT_GUIDANCE,
        },
    ),
    Kind(  # other people's models with Turbo in them: these still want a little guidance
        name="Turbo",
        pattern=r"turbo",
        settings={
            "steps": 8,
            "sampler": "dpmpp_sde_gpu",
            "scheduler": "karras",
            **WITHOUT_GUIDANCE,
            "guidance_scale": 2.0,
        },
    ),
)


def kind_of(name: str, title: str = "") -> Kind | None:
    """Which kind of distilled checkpoint is called `name` (a file's) or `title` (its header's); None for an ordinary one."""
    words = re.sub(NOT_SO, "", f"{PurePosixPath(name).stem} {title}")
    return next((kind for kind in KINDS if re.search(kind.pattern, words, re.IGNORECASE)), None)


def settings_of(name: str, title: str = "") -> dict[str, Any]:
    """The settings for a checkpoint so called, by Settings field; {} for an ordinary one. A number of steps in the name wins."""
    kind = kind_of(name, title)
    if kind is None:
        return {}
    steps = re.search(r"(?<!\d)(\d{1,2})[ _-]?steps?(?![a-z])", f"{PurePosixPath(name).stem} {title}", re.IGNORECASE)
    found = {"steps": int(steps[1])} if steps and int(steps[1]) in USUAL_STEPS else {}
    return {**kind.settings, **found}
