"""Record: what is known of one finished picture, the source of its metadata and of its row in the log. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from core.settings import Settings

PROGRAM = "Easel"
VERSION = "0.1.0"


def _now() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True)
class Record:
    """How one picture was made.

    `settings` are that picture's own: its own seed, `image_number` 1, the size it has, the name of the model it was made
    with. `base_model_sha256` is in hex, "" if unknown. `created` is local time with its zone.
    """

    settings: Settings
    base_model_sha256: str = ""
    version: str = VERSION
    created: datetime = field(default_factory=_now)
