"""App: what the page is given. Plain data and the few functions of the engine that it may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.output.history import History
from core.presets_shelf import Shelf
from core.prompt.resources import PromptResources
from core.queue_store import LeftTask
from core.settings import ASPECT_RATIOS, Settings
from core.task import AsyncTask
from core.weights.fetching import Downloads
from core.weights.lora_info import LoraInfo
from core.worker import Forecast
from webui.texts import Languages, read_languages


class TaskQueue(Protocol):
    """The side of `core.worker.Worker` that the page sees. `trouble` says why no task can run at present ("" if one can)."""

    trouble: str

    def submit(self, *tasks: AsyncTask) -> None:
        """Append `tasks`, all or none; returns at once. Raises UserError when the queue is full."""

    def cancel(self, task_id: str, owner: str) -> bool:
        """Stop a running task or drop a waiting one of `owner`."""

    def find(self, task_id: str, owner: str) -> AsyncTask | None:
        """The task of that id if it is `owner`'s."""

    def tasks(self, owner: str) -> list[AsyncTask]:
        """Of `owner`: the running task, the waiting ones in order, the finished ones, newest first."""

    def position(self, task: AsyncTask) -> int:
        """How many tasks (of anybody) come before `task`."""

    def positions(self, owner: str) -> Mapping[str, int]:
        """The position of each waiting task of `owner` by its id."""

    def cancel_all(self, owner: str) -> int:
        """Stop or drop all tasks of `owner`."""

    def edit(self, task_id: str, owner: str) -> AsyncTask | None:
        """Keep a waiting task of `owner` from beginning while it is edited."""

    def edited(self, owner: str) -> AsyncTask | None:
        """The waiting task that `owner` edits."""

    def let_go(self, owner: str) -> None:
        """That task stays as it was."""

    def put_back(self, task: AsyncTask) -> bool:
        """Put `task` in its place; a grid takes only a grid's. False if there is none."""

    def move(self, task_id: str, owner: str, place: int) -> bool:
        """Put a waiting task of `owner` at `place` among the others of `owner`."""

    def hold(self, owner: str) -> None:
        """Begin no further task of `owner`."""

    def release(self, owner: str) -> None:
        """Go on with the tasks of `owner`."""

    def held(self, owner: str) -> bool:
        """Whether the tasks of `owner` are held."""

    def seen(self, owner: str) -> None:
        """`owner` is there: what they hold or edit waits on for them."""

    def left_over(self, owner: str) -> list[LeftTask]:
        """What `owner` had asked for when the program ended last time."""

    def forget_left_over(self, owner: str, tasks: Sequence[LeftTask] | None = None) -> None:
        """Drop that, or those `tasks` of it."""

    def room(self, owner: str) -> int:
        """How many more tasks of `owner` would be taken now."""

    def forecast(self, owner: str) -> Forecast:
        """How long the tasks of `owner` will take."""

    def estimate(self, task: AsyncTask) -> float | None:
        """Seconds that `task` will take, None if unknown."""


@dataclass(frozen=True, kw_only=True)
class App:
    """What `launch.py` hands to the page.

    `models()` names the checkpoints that are there now; `native_size(name)` is the width and height in pixels that a
    checkpoint was made for; `defaults(name)` are the settings recommended for it ("" = the installation's default
    checkpoint), its file name filled in as `base_model`; `recommended(name)` is the same without what the installation's
    preset and configuration say. All may raise UserError. `files(kind)` names what there is of a kind of file, `hashes(kind)`
    has the SHA-256 by name of those whose hash is known already, and `lora_info(name)` what a LoRA's header says (may raise
    UserError). Kinds: "checkpoints", "loras", "vae", "text_encoders", "embeddings", "styles", "wildcards".
    `resources` are what prompts may name. `shown` makes of a text what visitors may read of it: strangers need not know
    where files are.
    """

    worker: TaskQueue
    models: Callable[[], Sequence[str]]
    native_size: Callable[[str], tuple[int, int]]
    defaults: Callable[[str], Settings]
    recommended: Callable[[str], Settings] = lambda name: Settings(base_model=name)
    files: Callable[[str], Sequence[str]] = lambda kind: ()
    hashes: Callable[[str], Mapping[str, str]] = lambda kind: {}
    lora_info: Callable[[str], LoraInfo]
    resources: PromptResources = field(default_factory=PromptResources)
    history: History | None = None
    shelf: Shelf | None = None
    downloads: Downloads | None = None
    open_to_others: bool = False
    max_image_number: int = 32  # that the page offers
    lora_rows: int = 5  # that the Models tab begins with
    lora_weights: tuple[float, float] = (-2.0, 2.0)  # that the rows' sliders offer
    aspect_ratios: Sequence[tuple[int, int]] = ASPECT_RATIOS  # for 1024 x 1024 pixels
    languages: Languages = field(default_factory=read_languages)
    notices: tuple[str, ...] = ()  # what there is to say of the configuration
    title: str = "Easel"
    shown: Callable[[str], str] = str

    def told(self, error: Exception) -> str:
        """What visitors read of an error."""
        return self.shown(str(error))
