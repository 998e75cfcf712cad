"""The page: where each control stands, and which event calls which function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from core.errors import UserError
from core.settings import Settings
from webui.app import App
from webui.controls import CONTROLS, RECOMMENDED, shown
from webui.generate import Desk, defaults_or_problem
from webui.render import View, problem, view
from webui.sizes import labels, matching_label, parse_label
from webui.visitors import owner_of

SDXL = (1024, 1024)
HEADER = """
<header class="masthead">
  <h1><span class="mark" aria-hidden="true"></span>{title}</h1>
  <button type="button" id="theme_toggle" aria-label="Switch between light and dark"></button>
</header>
"""
KEYS = '<p class="keys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> generates, <kbd>Esc</kbd> stops</p>'
CANCEL = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-task]');
  if (button) trigger('click', {task: button.dataset.task});
});
"""
NO_COOKIE = "This browser sent no cookie, so Easel cannot tell whose pictures are whose. Allow cookies for this page and reload it."
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


def build_page(app: App) -> gr.Blocks:
    """The page over `app`. Nothing is started or served yet: see `webui.server.serve`."""
    desk = Desk(app)
    defaults, complaint = defaults_or_problem(app, "")
    native = _native(app, defaults.base_model)
    empty = view([], app.worker.position)
    with gr.Blocks(title=app.title, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.HTML(HEADER.format(title=app.title))
        with gr.Row(elem_id="easel"):
            with gr.Column(elem_id="canvas", min_width=0):
                stage = gr.HTML(empty.stage, elem_id="stage")
                progress = gr.HTML("", elem_id="progress-bar")
                message = gr.HTML(problem(complaint), elem_id="message")
                with gr.Column(elem_id="composer", min_width=0):
                    controls = {"prompt": _made("prompt", defaults)}
                    with gr.Row(elem_id="actions"):
                        gr.HTML(KEYS, elem_classes="hide-on-touch")
                        skip = gr.Button("Skip", elem_id="skip_button", visible=False, min_width=90, scale=0)
                        stop = gr.Button(
                            "Stop", elem_id="stop_button", variant="stop", visible=False, min_width=90, scale=0
                        )
                        button = gr.Button(
                            "Generate", elem_id="generate_button", variant="primary", min_width=150, scale=0
                        )
                tasks = gr.HTML("", elem_id="tasks", js_on_load=CANCEL)
                gallery = gr.HTML("", elem_id="final_gallery")
            with gr.Column(elem_id="settings", min_width=0):
                made, refresh, aspect, any_seed = _settings_column(app, defaults, native)
        controls |= made
        parts = {"stage": stage, "progress": progress, "tasks": tasks, "gallery": gallery}

        def owner(request: gr.Request) -> str:
            found = owner_of(request.headers.get("cookie"))
            if found is None:
                raise gr.Error(NO_COOKIE, print_exception=False)
            return found

        def generate(values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
            by_name = {name: values[control] for name, control in controls.items()}
            try:
                settings = desk.submit(by_name, owner(request), any_seed=values[any_seed])
            except UserError as error:
                return {message: problem(str(error))}
            return {message: "", controls["seed"]: str(settings.seed)}

        async def watch(request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            old: View | None = None
            async with aclosing(desk.watch(owner(request))) as views:
                async for new in views:
                    changes = new.changed_from(old)
                    if changes:
                        yield _updates(changes, parts, skip, stop)
                    old = new

        def arrive(request: gr.Request) -> dict[Any, Any]:
            """A page was opened: fresh list of models, and the settings of this browser's last task."""
            names, last = list(app.models()), desk.latest(owner(request))
            settings, complaint = (last.settings, "") if last else defaults_or_problem(app, "")
            chosen = settings.base_model if settings.base_model in names else None
            values: dict[Any, Any] = {
                controls["base_model"]: gr.update(choices=_choices(names), value=chosen),
                message: problem(complaint),
            }
            if settings == defaults:  # as the page was built: what a quick hand typed already stays
                return values
            return (
                {controls[name]: value for name, value in shown(settings).items()}
                | values
                | {aspect: _aspect(app, settings)}
            )

        def choose_model(name: str | None) -> dict[Any, Any]:
            try:
                settings = app.defaults(name or "")
            except UserError as error:
                return {message: problem(str(error))}
            values: dict[Any, Any] = {controls[n]: shown(settings)[n] for n in RECOMMENDED}
            return values | {aspect: _aspect(app, settings), message: ""}

        def reread_models(chosen: str | None) -> dict[str, Any]:
            names = list(app.models())
            return gr.update(choices=_choices(names), value=chosen if chosen in names else next(iter(names), None))

        def choose_aspect(entry: str) -> tuple[Any, Any]:
            return parse_label(entry) or (gr.skip(), gr.skip())

        def typed_size(width: int | None, height: int | None, name: str | None) -> str:
            return matching_label((width, height), _native(app, name or ""))

        def cancel(event: gr.EventData, request: gr.Request) -> None:
            desk.cancel(str(event.task), owner(request))

        def stop_running(request: gr.Request) -> None:
            desk.stop(owner(request))

        def skip_picture(request: gr.Request) -> None:
            desk.skip(owner(request))

        watching: dict[str, Any] = {"outputs": [*parts.values(), skip, stop], "trigger_mode": "always_last"} | QUIET
        everything = [*controls.values(), aspect, message]
        asked = {*controls.values(), any_seed}
        pressed = button.click(generate, asked, [message, controls["seed"]], trigger_mode="multiple", **QUIET)
        pressed.then(watch, **watching)
        page.load(arrive, None, everything, **QUIET).then(watch, **watching)
        stop.click(stop_running, **QUIET)
        skip.click(skip_picture, **QUIET)
        tasks.click(cancel, **QUIET)
        base_model, size = controls["base_model"], [controls["width"], controls["height"]]
        base_model.input(choose_model, base_model, everything, **QUIET)
        refresh.click(reread_models, base_model, base_model, **QUIET).then(
            choose_model, base_model, everything, **QUIET
        )
        aspect.input(choose_aspect, aspect, size, **QUIET)
        for control in size:
            control.input(typed_size, [*size, base_model], aspect, **QUIET)
    return page


def _settings_column(app: App, defaults: Settings, native: tuple[int, int]) -> tuple[dict[str, Any], Any, Any, Any]:
    """The column at the right: its controls by name, the refresh button, the aspect ratio list, the random seed box."""
    made: dict[str, Any] = {}

    def place(*names: str, **options: Any) -> None:
        made.update({name: _made(name, defaults, **options) for name in names})

    with gr.Column(elem_classes="card", min_width=0):
        gr.HTML("<h2>Picture</h2>")
        place("negative_prompt")
        size = (defaults.width, defaults.height)
        aspect = gr.Dropdown(labels(native), value=matching_label(size, native), label="Aspect ratio", elem_id="aspect")
        with gr.Row():
            place("width", "height")
        place("image_number")
        with gr.Row(elem_id="seed_row"):
            place("seed")
            any_seed = gr.Checkbox(value=True, label="Random seed", elem_id="random_seed", min_width=120)
        place("output_format")
    with gr.Column(elem_classes="card", min_width=0):
        gr.HTML("<h2>Model</h2>")
        with gr.Row(elem_id="model_row"):
            place("base_model", choices=_choices(app.models()))
            refresh = gr.Button("Refresh", elem_id="refresh_models", size="sm", min_width=80, scale=0)
        place("steps", "guidance_scale", "sampler", "scheduler", "sharpness")
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            place(*(name for name in CONTROLS if name not in made and name != "prompt"))
    return made, refresh, aspect, any_seed


def _made(name: str, defaults: Settings, **options: Any) -> Any:
    value = shown(defaults)[name]
    if name == "base_model" and value not in dict(options["choices"]).values():
        value = None
    return CONTROLS[name](value=value, **options)


def _choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Checkpoints as a list shows them, without the ending, and their names."""
    return [(name.removesuffix(".safetensors"), name) for name in names]


def _updates(changes: dict[str, Any], parts: dict[str, Any], skip: Any, stop: Any) -> dict[Any, Any]:
    updates: dict[Any, Any] = {parts[name]: value for name, value in changes.items() if name in parts}
    if "running" in changes:
        updates |= {skip: gr.update(visible=changes["running"]), stop: gr.update(visible=changes["running"])}
    return updates


def _native(app: App, base_model: str) -> tuple[int, int]:
    try:
        return app.native_size(base_model)
    except UserError:
        return SDXL


def _aspect(app: App, settings: Settings) -> Any:
    native = _native(app, settings.base_model)
    return gr.update(choices=labels(native), value=matching_label((settings.width, settings.height), native))
