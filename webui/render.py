"""A browser's tasks as HTML: the stage, the progress bar, the list of tasks, the gallery. Pure functions of the tasks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from core.events import Failed, Finished, Saved, Warned
from core.task import AsyncTask
from webui.task_list import Standing, excerpt, task_list

EXAMPLES = (
    "a red apple",
    "a fox on a blue background",
    "a slice of pizza",
    "a sun with a face",
    "a rocket on a yellow background",
)
MOST_PICTURES = 60
MOST_NAMED = 12  # in a sentence
IDLE = Standing()


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the page shows of a browser's tasks, as HTML."""

    stage: str
    progress: str
    tasks: str
    gallery: str


def view(tasks: Sequence[AsyncTask], position: Callable[[AsyncTask], int], standing: Standing = IDLE) -> View:
    """What to show for `tasks`: the running one, the waiting ones in order, then the finished ones, newest first."""
    under_way = [task for task in tasks if not task.done]
    running = next((task for task in under_way if task.state == "running"), None)
    shown = running or (under_way[0] if under_way else next(iter(tasks), None))
    return View(
        stage=_stage(shown),
        progress="" if shown is None else _summary(shown) if shown.done else _progress(shown, position, standing),
        tasks=task_list(under_way, position, standing),
        gallery=_gallery(tasks),
    )


def problem(message: str) -> str:
    """`message`, written for the user, as a box."""
    return _problem_box(escape(message)) if message else ""


def notice(message: str) -> str:
    """`message`, written for the user, which is no problem, as a box."""
    return _notice_box(escape(message)) if message else ""


def told_origin(program: str, missing: Sequence[str], unused: Sequence[str]) -> str:
    """Of settings from elsewhere: who wrote them, which files and styles are not here, and what else could not be used.

    It looks like a problem only if something could not be used.
    """
    written = f"<p>{escape(f'Written by {program}.')}</p>" if program else ""
    not_here = _listed(missing, "Not here, and left out: {}.", "Not here, and left out: {} and {} more.", "no")
    not_used = _listed(unused, "These could not be used: {}.", "These could not be used: {} and {} more.", "yes")
    if not_here or not_used:
        return _problem_box(written + not_here + not_used)
    return _notice_box(written) if written else ""


def picture_url(task: AsyncTask, index: int) -> str:
    """Where the page fetches picture `index` of `task`, relative to the page's address."""
    return f"easel/pictures/{task.id}/{index}"


def pictures(task: AsyncTask) -> list[Saved]:
    """The pictures of `task` that are on disk, oldest first."""
    return [event for event in task.kept() if isinstance(event, Saved)]


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _problem_box(html: str) -> str:
    return f'<div class="problem" role="alert">{html}</div>'


def _notice_box(html: str) -> str:
    return f'<div class="notice" role="status">{html}</div>'


def _listed(names: Sequence[str], sentence: str, longer: str, translate: str) -> str:
    """`names` in a `sentence`; many in a `longer` one that has the first and how many more, and all to open below.

    `translate` is HTML's "yes" or "no".
    """
    if not names:
        return ""
    first, more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    if more <= 0:
        return f"<p>{escape(sentence.format(first))}</p>"
    entries = "".join(f"<li>{escape(name)}</li>" for name in names)
    return (
        f"<p>{escape(longer.format(first, more))}</p>"
        f'<details><summary>All of them</summary><ul class="names" tabindex="0" translate="{translate}">{entries}</ul></details>'
    )


def _stage(task: AsyncTask | None) -> str:
    if task is None:
        return _empty()
    warnings = "".join(f'<p class="note">{escape(e.message)}</p>' for e in task.kept() if isinstance(e, Warned))
    if not task.done:
        return _live(task) + warnings
    saved = list(enumerate(pictures(task)))
    if task.grid and saved and saved[-1][1].sheet:  # it shows all the others
        saved = saved[-1:]
    shots = "".join(_shot(task, index, picture) for index, picture in saved)
    failure = "".join(problem(event.message) for event in task.kept() if isinstance(event, Failed))
    if not shots and not failure:
        return '<div class="hint"><p>Stopped. Nothing was saved.</p></div>'
    if not shots:
        return f'<div class="hint">{failure}{warnings}</div>'
    return f'<div class="shots count-{min(len(saved), 5)}">{shots}</div>{failure}{warnings}'


def _empty() -> str:
    chips = "".join(
        f'<button type="button" class="chip" data-prompt="{escape(e)}">{escape(e)}</button>' for e in EXAMPLES
    )
    return (
        '<div class="hint"><p class="lead">Describe a picture, and watch it form.</p>'
        f'<p>Write a prompt below and press Generate, or start from one of these:</p><div class="chips">{chips}</div></div>'
    )


def _live(task: AsyncTask) -> str:
    preview = task.preview  # once: the task may end meanwhile
    if preview is None:
        return '<div class="blank" aria-hidden="true"></div>'
    encoded = base64.b64encode(preview).decode("ascii")
    label = escape(f"Preview: {excerpt(task.settings)}")
    return f'<div class="live"><img class="preview" alt="{label}" src="data:image/jpeg;base64,{encoded}"></div>'


def _progress(task: AsyncTask, position: Callable[[AsyncTask], int], standing: Standing) -> str:
    text, facts = _status(task, position, standing)
    percent = round(100 * task.progress.share)
    return (
        f'<div class="bar {task.state}" role="progressbar" data-task="{escape(task.id)}" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><div class="done" style="width:{percent}%"></div></div>'
        f'<div class="status"><span class="text">{escape(text)}</span><span class="facts">{escape(facts)}</span></div>'
    )


def _summary(task: AsyncTask) -> str:
    """What became of a finished task, in the place of its progress."""
    end = next((event for event in task.kept() if isinstance(event, Finished)), None)
    if end is None:
        return ""
    count = len(end.paths)
    made = "" if task.pictures == 1 else f"{count} of {task.pictures} images"
    facts = [fact for fact in (made, f"seed {task.settings.seed}" if count else "") if fact]
    text = "Stopped" if end.stopped else f"Done in {duration(end.seconds)}"
    how = "stopped" if end.stopped else "done"
    return f'<div class="status" data-end="{how}"><span class="text">{text}</span><span class="facts">{" · ".join(facts)}</span></div>'


def _status(task: AsyncTask, position: Callable[[AsyncTask], int], standing: Standing) -> tuple[str, str]:
    if task.stopped:
        return "Stopping", ""
    if task.state == "waiting" and standing.held:
        return "Paused", ""
    if task.state == "waiting":
        ahead = position(task)
        return (
            f"Waiting for {ahead} other task"
            if ahead == 1
            else f"Waiting for {ahead} other tasks"
            if ahead
            else "Getting ready",
            "",
        )
    progress = task.progress
    facts = []
    if progress.images > 1:
        facts.append(f"image {progress.image} of {progress.images}")
    if progress.step and not progress.text.startswith("Step"):
        facts.append(f"step {progress.step} of {progress.steps}")
    if progress.seconds_left is not None:
        facts.append(f"{duration(progress.seconds_left)} left")
    return progress.text, " · ".join(facts)


def _gallery(tasks: Sequence[AsyncTask]) -> str:
    shots = [
        _shot(task, index, picture)
        for task in tasks
        for index, picture in reversed(list(enumerate(pictures(task))))
    ]  # fmt: skip
    return f'<div class="shots">{"".join(shots[:MOST_PICTURES])}</div>' if shots else ""


def _shot(task: AsyncTask, index: int, picture: Saved) -> str:
    address = picture_url(task, index)
    prompt = task.request(picture.index).prompt or "No prompt"
    text = escape(f"All pictures on one: {prompt}" if picture.sheet else prompt)
    return (
        f'<a class="shot" href="{address}" data-seed="{picture.seed}" data-size="{picture.width} × {picture.height}" '
        f'data-prompt="{text}"><img loading="lazy" src="{address}" alt="{text}" '
        f'width="{picture.width}" height="{picture.height}"></a>'
    )
