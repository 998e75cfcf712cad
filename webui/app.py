"""App: what the page is given. Plain data and the few functions of the engine that it may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.output.history import History
from core.settings import Settings
from core.task import AsyncTask
from core.weights.lora_info import LoraInfo


class TaskQueue(Protocol):
    """The side of `core.worker.Worker` that the page sees."""

    def submit(self, task: AsyncTask) -> None:
        """Append `task`; returns at once. Raises UserError when the queue is full."""

    def cancel(self, task_id: str, owner: str) -> bool:
        """Stop a running task or drop a waiting one of `owner`."""

    def find(self, task_id: str, owner: str) -> AsyncTask | None:
        """The task of that id if it is `owner`'s."""

    def tasks(self, owner: str) -> list[AsyncTask]:
        """Of `owner`: the running task, the waiting ones in order, the finished ones, newest first."""

    def position(self, task: AsyncTask) -> int:
        """How many tasks (of anybody) come before `task`."""


@dataclass(frozen=True, kw_only=True)
class App:
    """What `launch.py` hands to the page.

    `models()` names the checkpoints that are there now; `native_size(name)` is the width and height in pixels that a
    checkpoint was made for; `defaults(name)` are the settings recommended for it ("" = the installation's default
    checkpoint), its file name filled in as `base_model`. Both may raise UserError. `files(kind)` names what there is of a
    kind of file, and `lora_info(name)` what a LoRA's header says (may raise UserError). Kinds: "checkpoints", "loras", "vae", "text_encoders", "embeddings", "styles", "wildcards".
    """

    worker: TaskQueue
    models: Callable[[], Sequence[str]]
    native_size: Callable[[str], tuple[int, int]]
    defaults: Callable[[str], Settings]
    files: Callable[[str], Sequence[str]] = lambda kind: ()
    lora_info: Callable[[str], LoraInfo]
    history: History | None = None
    title: str = "Easel"
