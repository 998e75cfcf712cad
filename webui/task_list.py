"""The list of running and waiting tasks as HTML: what is asked for, in which order, how long it will take, its buttons.

What the buttons and keys do is in assets/queue.js; each button names its action in `data-action`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

from core.queue_store import LeftTask
from core.settings import Settings
from core.task import AsyncTask
from core.worker import Forecast

LONGEST_EXCERPT = 80
MOST_EXCERPTS = 3  # of tasks of the last run


@dataclass(frozen=True)
class Standing:
    """How the queue stands for one owner, beside the tasks themselves."""

    held: bool = False
    left: Sequence[LeftTask] = ()
    forecast: Forecast = field(default_factory=Forecast)
    edited: AsyncTask | None = None


def queue_script() -> str:
    """The script of the component that shows the list."""
    return (files("webui") / "assets" / "queue.js").read_text(encoding="utf-8")


def task_list(tasks: Sequence[AsyncTask], position: Callable[[AsyncTask], int], standing: Standing) -> str:
    """All of it for `tasks`, the running one first; "" if there is nothing to say."""
    waiting = [task for task in tasks if task.state == "waiting" and not task.stopped]
    items = "".join(_task(task, waiting, position, standing) for task in tasks)
    return (
        _offer(standing.left)
        + _bar(tasks, waiting, standing)
        + (f'<ul class="tasks" aria-label="Running and waiting tasks">{items}</ul>' if items else "")
    )


def excerpt(settings: Settings) -> str:
    """The beginning of the prompt, on one line."""
    text = " ".join(settings.prompt.split()) or "No prompt"
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"


def about(seconds: float) -> str:
    """A time to come, no more exact than it is known: `about 20 s`, `about 4 min`, `about 1 h 30 min`."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    minutes = 10 * round(minutes / 10)
    return f"about {minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def counted(number: int, one: str, many: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{number} {one if number == 1 else many}"


def _offer(left: Sequence[LeftTask]) -> str:
    """What the last run did not get to."""
    if not left:
        return ""
    running = sum(task.running for task in left)
    waiting = len(left) - running
    words = "; ".join(excerpt(task.settings) for task in left[:MOST_EXCERPTS])
    more = f" <span>and {len(left) - MOST_EXCERPTS} more</span>" if len(left) > MOST_EXCERPTS else ""
    return (
        f'<div class="left-over"><p><span class="said">{escape(_left(running, waiting))}</span> '
        f'<span class="excerpt">{escape(words)}</span>{more}</p>{_button("take_up", "Continue", "")}'
        f"{_button('forget', 'Discard', '')}</div>"
    )


def _left(running: int, waiting: int) -> str:
    """What was not finished, as a whole sentence: translations need that."""
    if not waiting:
        return counted(running, "task was under way when Easel ended:", "tasks were under way when Easel ended:")
    if not running:
        return counted(waiting, "task was waiting when Easel ended:", "tasks were waiting when Easel ended:")
    if waiting == 1:
        return counted(
            running,
            f"task was under way and {waiting} was waiting when Easel ended:",
            f"tasks were under way and {waiting} was waiting when Easel ended:",
        )
    return counted(
        running,
        f"task was under way and {waiting} were waiting when Easel ended:",
        f"tasks were under way and {waiting} were waiting when Easel ended:",
    )


def _bar(tasks: Sequence[AsyncTask], waiting: Sequence[AsyncTask], standing: Standing) -> str:
    if not waiting and not standing.held:
        return ""
    forecast = standing.forecast
    facts = [counted(len(tasks), "task", "tasks")] if tasks else []
    if forecast.until_done is not None and tasks:
        time = about(forecast.until_done)
        if standing.held:
            facts.append(f"{time} of work" if forecast.complete else f"at least {time} of work")
        else:
            facts.append(f"{time} until all are done" if forecast.complete else f"at least {time} until all are done")
    if standing.held:
        running = len(waiting) < len(tasks)
        facts.insert(0, "Paused; what runs is still finished" if running else "Paused: new tasks wait, too")
    pause = _button("release", "Resume", "") if standing.held else _button("hold", "Pause", "")
    cancel = _button("cancel_all", "Cancel all", "") if len(tasks) > 1 else ""
    return f'<div class="queue-bar"><span class="facts">{escape(" · ".join(facts))}</span>{pause}{cancel}</div>'


def _task(
    task: AsyncTask, waiting: Sequence[AsyncTask], position: Callable[[AsyncTask], int], standing: Standing
) -> str:
    words = excerpt(task.settings)
    facts = [_size(task), _images(task)]
    if task in waiting and (seconds := standing.forecast.tasks.get(task.id)) is not None:
        facts.append(about(seconds))
    buttons = _button("cancel", "Cancel", words)
    grip = ""
    if task in waiting:
        edited = task is standing.edited
        buttons = (_button("keep", "Leave as it was", words) if edited else _button("edit", "Edit", words)) + buttons
        if len(waiting) > 1:
            grip = '<span class="grip" aria-hidden="true" title="Drag to another place">⠿</span>'
            buttons = _button("up", "↑", words, "Move up") + _button("down", "↓", words, "Move down") + buttons
    return (
        f'<li class="{escape(task.state)}" data-task="{escape(task.id)}" tabindex="-1">{grip}'
        f'<span class="{"excerpt" if task.settings.prompt.strip() else "excerpt none"}">{escape(words)}</span>'
        f'<span class="facts">{escape(" · ".join(fact for fact in facts if fact))}</span>'
        f'<span class="state">{escape(_state(task, position, standing))}</span>'
        f'<span class="buttons">{buttons}</span></li>'
    )


def _size(task: AsyncTask) -> str:
    settings = task.settings
    return f"{settings.width} × {settings.height} · {counted(settings.steps, 'step', 'steps')}"


def _images(task: AsyncTask) -> str:
    if task.made and not task.done:
        return f"{len(task.made)} of {task.pictures} images made"
    if task.grid:
        return f"grid of {task.pictures} images"
    return f"{task.pictures} images" if task.pictures > 1 else ""


def _state(task: AsyncTask, position: Callable[[AsyncTask], int], standing: Standing) -> str:
    if task.stopped:
        return "stopping"
    if task.state == "running":
        return "running"
    if task is standing.edited:
        return "being edited"
    return "paused" if standing.held else f"waiting, {position(task)} ahead"


def _button(action: str, label: str, about_what: str, name: str = "") -> str:
    """A button; `name` says in words what a sign means, `about_what` which task it is about."""
    spoken = f"{name or label}: {about_what}" if about_what else name
    title = f' title="{escape(name)}"' if name else ""
    said = f' aria-label="{escape(spoken)}"' if spoken else ""
    return f'<button type="button" data-action="{action}"{title}{said}>{escape(label)}</button>'
