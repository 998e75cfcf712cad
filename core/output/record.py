"""Record: what is known of one finished picture, the source of its metadata and of its row in the log. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.settings import Settings

PROGRAM = "Easel"
VERSION = "0.1.0"


def _now() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True)
class Origin:
    """The picture that another one was made from: its `core.output.fingerprint`, and how ("varied", "upscaled", ...)."""

    fingerprint: str
    kind: str


@dataclass(frozen=True)
class Record:
    """How one picture was made.

    `settings` are that picture's own: its own seed, `image_number` 1, the size it has, the name of the model it was made
    with. `base_model_sha256` is in hex, "" if unknown. `created` is local time with its zone. `origin` is None for a picture
    that was made from nothing but words. `hashes` has the SHA-256, in hex, of LoRAs, refiner and VAE by their names in the
    settings, as far as they are known. `typed` holds the settings that the user gave otherwise, as they were typed: prompts
    with wildcards, arrays and tags, a random style. `created_by` is who made the picture, "" for nobody: nothing is written then.
    """

    settings: Settings
    base_model_sha256: str = ""
    version: str = VERSION
    created: datetime = field(default_factory=_now)
    hashes: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    created_by: str = ""
