"""The card "Many pictures": all of a request on one, a list of prompts, a grid of two settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from core.axes import SETTINGS, example
from core.errors import UserError
from core.task import AsyncTask
from webui.controls import label_of
from webui.orders import Orders, visitor_of
from webui.render import problem
from webui.tabs.place import Placed, card
from webui.task_list import about, counted

FIRST = ("steps", "guidance_scale", "seed", "sampler", "scheduler", "styles", "prompt", "loras", "base_model")
WORDS = {
    "prompt": "Prompt: seek and replace",
    "negative_prompt": "Negative prompt: seek and replace",
    "loras": "LoRA weight",
}
NONE = ("None", "")
READ_PROMPTS = (
    '<label class="file-button">Read text files'
    '<input type="file" id="read_prompts" accept=".txt,.md,text/plain" multiple></label>'
    '<label class="file-button">Read a folder of text files'
    '<input type="file" id="read_prompt_folder" webkitdirectory></label>'
)
HOW = "Choose a setting, and write its values: <code>1, 2, 3</code> or <code>1-9 (+2)</code>. Each pair is one picture."


@dataclass(frozen=True)
class BatchCard:
    """Its parts. `axes` are the inputs of a grid, by the names that `Desk.grid_task` knows."""

    prompts: Any
    queue_list: Any
    axes: Mapping[str, Any]
    told: Any
    make_grid: Any
    grid: Any  # the part that folds out


def batch_card(placed: Placed) -> BatchCard:
    """Make the card."""
    choices = [(axis_label(name), name) for name in dict.fromkeys((*FIRST, *SETTINGS))]
    with card("Many pictures"):
        placed.put("image_grid")
        with gr.Accordion("A list of prompts", open=False, elem_id="batch_list"):
            prompts = gr.Textbox(
                label="Prompts, one a line", lines=4, max_lines=12, elem_id="prompt_list",
                info="Each becomes a task of its own, with the other settings as they are now",
            )  # fmt: skip
            gr.HTML(READ_PROMPTS)
            queue_list = gr.Button("Queue the list", elem_id="queue_list", size="sm")
        with gr.Accordion("A grid of two settings (X/Y)", open=False, elem_id="batch_grid") as grid:
            axes: dict[str, Any] = {}
            for axis, words, label in (("x", "Columns", "Values of the columns"), ("y", "Rows", "Values of the rows")):
                options, value = (choices, "steps") if axis == "x" else ([NONE, *choices], "")
                axes[axis] = gr.Dropdown(options, value=value, label=words, elem_id=f"grid_{axis}")
                axes[f"{axis}_values"] = gr.Textbox(label=label, lines=1, max_lines=4, elem_id=f"grid_{axis}_values")
            told = gr.HTML(_hint(HOW), elem_id="grid_told")
            make_grid = gr.Button("Make the grid", elem_id="make_grid", size="sm")
    return BatchCard(prompts, queue_list, axes, told, make_grid, grid)


def batch_events(made: BatchCard, orders: Orders, raw: Mapping[str, Any]) -> tuple[Any, Any]:
    """Connect the card; `raw` has its values come as they are, to be checked by Settings alone.

    Returns the two events that queue tasks, so that the page can watch what becomes of them.
    """
    desk, form = orders.desk, orders.form
    fields = set(made.axes.values())

    def axes(values: dict[Any, Any]) -> dict[str, str]:
        return {name: str(values[control] or "") for name, control in made.axes.items()}

    def queue_list(values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
        prompts = str(values[made.prompts] or "")
        try:
            desk.submit_list(form.by_name(values), visitor_of(request), prompts, any_seed=bool(values[form.any_seed]))
        except UserError as error:
            return {form.message: problem(form.app.told(error))}
        return {form.message: ""}

    def over_modes(written: Mapping[str, str]) -> bool:
        """Whether it is the modes that the grid compares: each forces its own, on the user's values."""
        return "performance" in (written["x"], written["y"])

    def make_grid(values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
        written = axes(values)
        send = partial(desk.submit_grid, axes=written)
        return orders.sent(values, visitor_of(request), made.make_grid, send, plain=over_modes(written))

    def describe(values: dict[Any, Any]) -> str:
        written = axes(values)
        empty = next(
            (name for name in ("x", "y") if written[name] in SETTINGS and not written[f"{name}_values"].strip()), None
        )
        if empty:
            return _hint(f"{escape(axis_label(written[empty]))}: <code>{escape(example(written[empty]))}</code>")
        try:
            by_name = form.plain(values) if over_modes(written) else form.by_name(values)
            task = desk.grid_task(by_name, "", written, any_seed=bool(values[form.any_seed]))
        except UserError as error:
            return _hint(escape(form.app.told(error)))
        return _hint(escape(told(task, desk.app.worker.estimate(task))))

    for control in fields:
        control.change(describe, orders.inputs | fields, made.told, trigger_mode="always_last", **raw)
    pressed = {"trigger_mode": "multiple", **raw}
    listed = made.queue_list.click(queue_list, orders.inputs | {made.prompts}, form.message, **pressed)
    grid = made.make_grid.click(make_grid, orders.inputs | fields, orders.outputs, **pressed)
    return listed, grid


def filled_axes(made: BatchCard, task: AsyncTask) -> dict[Any, Any]:
    """Updates that put the grid of `task` back into the card."""
    if task.grid is None:
        return {}
    updates: dict[Any, Any] = {made.grid: gr.update(open=True), made.axes["y"]: "", made.axes["y_values"]: ""}
    for name, axis in (("x", task.grid.x), ("y", task.grid.y)):
        if axis is not None:
            updates[made.axes[name]] = axis.setting
            updates[made.axes[f"{name}_values"]] = axis.text
    return updates


def told(task: AsyncTask, seconds: float | None) -> str:
    """How much work the grid of `task` is: `4 x 3 = 12 pictures, about 2 min`."""
    assert task.grid is not None
    columns, rows = len(task.grid.x.values), len(task.grid.y.values) if task.grid.y else 1
    pictures = counted(task.pictures, "picture", "pictures")
    size = f"{columns} × {rows} = {pictures}" if rows > 1 else pictures
    return size + (f", {about(seconds)}" if seconds is not None else "")


def axis_label(name: str) -> str:
    """What the axis over the setting `name` is called in the page."""
    return WORDS.get(name) or label_of(name)


def _hint(html: str) -> str:
    return f'<p class="note">{html}</p>'
