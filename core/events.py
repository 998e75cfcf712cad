"""What a running task reports. Plain data, picklable, so that a task can run in another thread, process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the task is. Only the newest one matters: a slow reader may miss earlier ones.

    `share` runs from 0 to 1 over the whole task; `step` of `steps` and `image` of `images` count from 1 (0: not there
    yet); `preview` is a JPEG of the picture as it stands, or None if this event brings no new one; `seconds_left` is an
    estimate for the whole task, None while nothing is known.
    """

    share: float
    text: str
    step: int = 0
    steps: int = 0
    image: int = 0
    images: int = 0
    preview: bytes | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A finished picture is on disk at `path` (absolute).

    `index` counts the pictures of the task from 0. A `sheet` shows several of them, and is none of them itself.
    """

    path: str
    seed: int
    width: int
    height: int
    index: int = 0
    sheet: bool = False


@dataclass(frozen=True, kw_only=True)
class Warned:
    """Something the user should know though the task goes on (a retry in a safer precision, say)."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The task ended with an error; `message` is written for the user. The last event of a task.

    `bad_input`: the request asks for something that cannot be done; the same one fails again.
    """

    message: str
    bad_input: bool = False


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The task ended: `stopped` by the user, or with all its pictures. The last event of a task."""

    paths: tuple[str, ...]
    seconds: float
    stopped: bool = False


Event: TypeAlias = Progress | Saved | Warned | Failed | Finished
