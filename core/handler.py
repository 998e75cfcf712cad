"""handler: one request told in order, from Settings to saved pictures, as a generator of events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from core.events import Event, Finished, Progress, Saved, Warned
from core.output.record import Record
from core.output.save import check_outputs, save_and_log
from core.performance import effective, with_mode_lora
from core.prompt.continuation import cleaned
from core.prompt.plan import ImagePlan, plan_images, typed_otherwise
from core.sheet import sheets
from core.task import AsyncTask, Interrupted
from core.weights.info import PARTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.output.history import History
    from core.pipeline import Pipeline
    from core.prompt.resources import PromptResources
    from core.settings import Lora, Settings

log = logging.getLogger(__name__)

MOST_TOLD = 120  # characters of what was added to a prompt; the picture's settings have all of it
PREVIEW_INTERVAL = 0.2  # seconds; more pictures a second than an eye wants cost the run more than they give


def handler(
    task: AsyncTask, pipeline: Pipeline, history: History | None = None, created_by: str = ""
) -> Iterator[Event]:
    """Carry out one task; its pictures are entered in `history` and say that they were `created_by` somebody.

    Yields Progress, Saved and Warned, and at the end Finished.

    Raises UserError for what the user can mend. Stop ends the loop over pictures, Skip drops the one under way.
    """
    started = time.monotonic()
    plans = planned(task, pipeline.prompt_resources)
    check_outputs(pipeline.outputs)
    clock = _Clock(len(plans))
    before = len(task.made)
    notices = [*pipeline.take_notices(), *(notice for plan in plans for notice in plan.notices)]
    told = {Warned(message=notice): None for notice in notices}  # each once, however many pictures it is about
    yield from tuple(told)
    try:
        for event in _pictures(task, pipeline, plans, clock, history, created_by):
            if isinstance(event, Warned):
                if event in told:
                    continue
                told[event] = None
            yield event
        if not task.stopped and (task.grid or task.settings.image_grid):
            record = _record_of_sheet(task, pipeline, made_now=len(task.made) > before)
            record = replace(record, created_by=created_by)
            yield from sheets(task, record, pipeline.outputs, _remember(task, history))
    finally:
        pipeline.rest()
    seconds = time.monotonic() - started
    log.info("Made %d of %d pictures in %.1f s", len(task.made) - before, len(plans), seconds)
    yield Finished(paths=tuple(task.made.values()), seconds=seconds, stopped=task.stopped)


def planned(task: AsyncTask, resources: PromptResources) -> list[ImagePlan]:
    """One plan for each picture of the request, or for each cell of its grid. Raises BadSetting."""
    if not task.cells:
        return plan_images(effective(task.settings), resources)
    plans = (plan for cell in task.cells for plan in plan_images(effective(cell.settings), resources))
    return [replace(plan, index=index) for index, plan in enumerate(plans)]


def _pictures(
    task: AsyncTask,
    pipeline: Pipeline,
    plans: Sequence[ImagePlan],
    clock: _Clock,
    history: History | None,
    created_by: str,
) -> Iterator[Event]:
    """The pictures of `plans`, one after the other, but for those that were made before the program was started again."""
    for plan in plans:
        if plan.index in task.made:
            continue
        try:
            for event in _one_picture(task, pipeline, plan, clock, history, created_by):
                if isinstance(event, Saved):
                    task.made[event.index] = event.path
                yield event
        except Interrupted:
            task.unskip()
            clock.picture_skipped()
        if task.stopped:
            return


def _one_picture(
    task: AsyncTask, pipeline: Pipeline, plan: ImagePlan, clock: _Clock, history: History | None, created_by: str
) -> Iterator[Event]:
    """Load what is missing, sample, decode and save one picture."""
    from core.pipeline import NotFinite  # here, so that the page can import this module before torch is there

    cramped = False
    while True:
        yield clock.at(plan, "Loading models")
        settings = plan.settings
        try:
            loras = with_mode_lora(plan.loras, settings.performance, pipeline.catalog.files("loras"))
            pipeline.refresh_everything(
                settings.base_model,
                parts={part: getattr(settings, part) for part in PARTS},
                refiner_model=settings.refiner_model if settings.switch_step < settings.steps else "",
                loras=loras,
                expander=settings.expander if plan.expansion and not settings.prompt_expansion else "",
                check=task.check,
            )
            pipeline.begin_hashes(settings, loras)
            yield from (Warned(message=notice) for notice in pipeline.take_notices())
            if plan.expansion:
                yield clock.at(plan, "Continuing the prompt")
                plan = pipeline.expand_prompt(plan, check=task.check)
                added = plan.settings.prompt_expansion.removeprefix(cleaned(plan.main)).strip(", ")
                yield clock.at(plan, f"Added to the prompt: {shorten(added, MOST_TOLD)}" if added else "Nothing to add")
            picture = yield from _sampled(task, pipeline, plan, clock)
            break
        except NotFinite as problem:
            yield Warned(message=pipeline.take_safer_precision(problem))
        except Exception as problem:
            words = None if cramped else pipeline.step_down(problem)
            if words is None:
                raise
            cramped = True
            yield Warned(message=words)
    yield clock.at(plan, "Saving")
    settings = replace(plan.settings, base_model=pipeline.base_name)
    digest, others = _checksums(task, pipeline, settings, loras)
    record = Record(
        settings,
        digest,
        hashes=others,
        typed=typed_otherwise(task.request(plan.index), plan),
        created_by=created_by,
    )
    saved = save_and_log(picture, record, pipeline.outputs, _remember(task, history))
    clock.picture_done()
    task.unskip()  # the picture that it was meant for is there
    yield from (Warned(message=warning) for warning in saved.warnings)
    yield Saved(path=str(saved.path), seed=plan.seed, width=settings.width, height=settings.height, index=plan.index)


def _checksums(
    task: AsyncTask, pipeline: Pipeline, settings: Settings, loras: Sequence[Lora]
) -> tuple[str, dict[str, str]]:
    """SHA-256 of the base model's file, and of the others that acted on the picture by their names.

    They may take minutes at first, and the picture, which is made, is not kept waiting as long: it is saved without those
    that are not there after a while, or after Stop.
    """
    digest, others = "", dict[str, str]()
    try:
        digest = pipeline.base_hash(task.check)
        others = pipeline.hashes(settings, loras, task.check)
    except Interrupted:
        if not task.stopped:
            raise
    return digest, others


def _remember(task: AsyncTask, history: History | None) -> Callable[[Path, Record], object] | None:
    return None if history is None else partial(history.add, owner=task.owner)


def _record_of_sheet(task: AsyncTask, pipeline: Pipeline, made_now: bool) -> Record:
    """What is known of the sheet of all pictures: the request itself. Without a picture `made_now` no model is loaded,
    nor after a Skip while one was."""
    name = pipeline.base_name
    if not made_now or not name or task.settings.base_model not in ("", name):
        return Record(task.settings)
    return Record(replace(task.settings, base_model=name), pipeline.base_hash())


def _sampled(
    task: AsyncTask, pipeline: Pipeline, plan: ImagePlan, clock: _Clock
) -> Generator[Progress | Warned, None, NDArray[np.uint8]]:
    """Yields Progress with previews; returns the picture as uint8 (H, W, 3)."""
    settings = plan.settings
    yield clock.at(plan, "Reading the prompt")
    conditions = pipeline.process_prompt(plan, settings, check=task.check)
    yield from (Warned(message=notice) for notice in pipeline.take_notices())
    shown = 0.0
    for step in pipeline.process_diffusion(settings, plan, conditions, check=task.check):
        preview = None
        if settings.preview and time.monotonic() - shown >= PREVIEW_INTERVAL:
            preview = pipeline.preview(step.x0, step.space)
            shown = time.monotonic()
        yield clock.step(plan, step.index + 1, step.total, preview)
        yield from (Warned(message=notice) for notice in pipeline.take_notices())
        task.check()
    yield clock.at(plan, "Decoding")
    pixels = pipeline.decode(step.x, settings, step.space, check=task.check)
    yield from (Warned(message=notice) for notice in pipeline.take_notices())
    return pixels


class _Clock:
    """Share done and time left, from the pace of the steps so far."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.steps = 0
        self._step = 0  # of the picture under way
        self._pace_start = 0.0
        self._pace_steps = 0
        self._seconds_a_step = 0.0
        self._tail = 0.0  # seconds from the last step to the saved picture
        self._last_step = 0.0

    def at(self, plan: ImagePlan, text: str) -> Progress:
        """Progress between the steps. The pace starts anew: loading and decoding are not steps."""
        self._pace_start = time.monotonic()
        self._pace_steps = 0
        return self._progress(plan, text, None)

    def step(self, plan: ImagePlan, step: int, steps: int, preview: bytes | None) -> Progress:
        """Progress after a sampling step."""
        self.steps, self._step = steps, step
        self._pace_steps += 1
        self._last_step = time.monotonic()
        self._seconds_a_step = (self._last_step - self._pace_start) / self._pace_steps
        return self._progress(plan, f"Step {step} of {steps}", preview)

    def picture_done(self) -> None:
        """A picture is on disk."""
        self._tail = time.monotonic() - self._last_step
        self._step = 0

    def picture_skipped(self) -> None:
        """The next picture begins."""
        self._step = 0

    def _progress(self, plan: ImagePlan, text: str, preview: bytes | None) -> Progress:
        share_of_picture = self._step / (self.steps + 1) if self.steps else 0.0
        pictures_left = self.images - plan.index - 1
        seconds_left = None
        if self._seconds_a_step:
            steps_left = self.steps - self._step + pictures_left * self.steps
            seconds_left = steps_left * self._seconds_a_step + (pictures_left + 1) * self._tail
        return Progress(
            share=min(1.0, (plan.index + share_of_picture) / self.images),
            text=text,
            step=self._step,
            steps=self.steps,
            image=plan.index + 1,
            images=self.images,
            preview=preview,
            seconds_left=seconds_left,
        )
