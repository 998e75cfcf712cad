"""The page: where each part stands, and which event calls which function."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr

from core.errors import UserError
from core.settings import Settings
from webui.app import App
from webui.controls import FORCEABLE, RECOMMENDED, performed, remembered_values, settings_from, shown
from webui.generate import Desk, defaults_or_problem
from webui.render import View, problem, view
from webui.reuse import as_text, reused
from webui.sizes import labels, matching_label, parse_label
from webui.tabs.advanced import advanced_tab
from webui.tabs.batch import batch_events, filled_axes
from webui.tabs.history import history_tab
from webui.tabs.models import model_choices, models_tab, refreshed
from webui.tabs.place import Placed
from webui.tabs.presets import preset_events
from webui.tabs.settings import settings_tab
from webui.tabs.styles import styles_tab
from webui.task_list import queue_script
from webui.visitors import owner_of

SDXL = (1024, 1024)
HEADER = """
<a class="skip" href="#positive_prompt">Skip to the prompt</a>
<header class="masthead">
  <h1><span class="mark" aria-hidden="true"></span><span class="notranslate">{title}</span></h1>
  <button type="button" id="theme_toggle" aria-label="Light, dark, or as the browser prefers" title="Light, dark, or as the browser prefers"></button>
  <button type="button" id="page_menu_button" aria-expanded="false" aria-controls="page_menu">Page</button>
  <div id="page_menu" role="group" aria-label="Page" hidden></div>
</header>
"""
OFFER = '<button type="button" id="settings_offer" hidden>Use the settings in this text</button>'
KEYS = '<p class="keys hide-on-touch"><kbd>Ctrl</kbd> <kbd>Enter</kbd> generates, <kbd>Esc</kbd> stops</p>'
BECOMES = '<details id="becomes"><summary>What the prompt becomes</summary><div class="body"></div></details>'
SESSION = "() => [window.easel.session()]"
NO_COOKIE = "This browser sent no cookie, so Easel cannot tell whose pictures are whose. Allow cookies for this page and reload it."
# Not through Gradio's queue, which would look for them only every IDLE_SLEEP: Stop is to act at once.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}


def build_page(app: App) -> gr.Blocks:
    """The page over `app`. Nothing is started or served yet: see `webui.server.serve`."""
    desk = Desk(app)
    defaults, complaint = defaults_or_problem(app, "")
    native = _native(app, defaults.base_model)
    empty = view([], app.worker.position)
    with gr.Blocks(title=app.title, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.HTML(HEADER.format(title=app.title))
        placed = Placed(defaults)
        incoming = gr.Textbox(elem_id="incoming_settings", visible="hidden", label="Settings from elsewhere")
        session = gr.Textbox(elem_id="session_settings", visible="hidden", label="Settings of the last visit")
        own = gr.State({})  # values that the performance mode has replaced
        with gr.Row(elem_id="easel"):
            with gr.Column(elem_id="canvas", min_width=0):
                stage = gr.HTML(empty.stage, elem_id="stage")
                progress = gr.HTML("", elem_id="progress-bar")
                message = gr.HTML(problem(complaint), elem_id="message")
                with gr.Column(elem_id="composer", min_width=0):
                    placed.put("prompt")
                    with gr.Row(elem_id="actions"):
                        gr.HTML(OFFER + KEYS)
                        # seen while a task runs: style.css looks for .bar.running
                        skip = gr.Button("Skip", elem_id="skip_button", min_width=90, scale=0)
                        stop = gr.Button("Stop", elem_id="stop_button", variant="stop", min_width=90, scale=0)
                        button = gr.Button(
                            "Generate", elem_id="generate_button", variant="primary", min_width=150, scale=0
                        )
                    gr.HTML(BECOMES)
                tasks = gr.HTML("", elem_id="tasks", js_on_load=queue_script())
                gallery = gr.HTML("", elem_id="final_gallery")
            with gr.Column(elem_id="settings", min_width=0), gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                with gr.Tab("Settings", id="settings", render_children=True):
                    tab = settings_tab(app, placed, native)
                with gr.Tab("Styles", id="styles", render_children=True):
                    styles_tab(placed)
                with gr.Tab("Models", id="models", render_children=True):
                    refresh = models_tab(app, placed).refresh
                with gr.Tab("Advanced", id="advanced", elem_id="advanced", render_children=True):
                    advanced_tab(placed)
                with gr.Tab("History", id="history_tab", elem_id="history_panel", render_children=True):
                    history_tab(app)
        controls, aspect, any_seed = placed.controls, tab.aspect, tab.any_seed

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

        async def watch(request: gr.Request) -> AsyncIterator[tuple[str, ...]]:
            old: View | None = None
            async with aclosing(desk.watch(owner(request))) as views:
                async for new in views:
                    if new != old:
                        yield new.stage, new.progress, new.tasks, new.gallery
                    old = new

        def arrive(session: str, request: gr.Request) -> dict[Any, Any]:
            """A page was opened: fresh list of models, and what this browser had set when it left or asked for last."""
            last = desk.latest(owner(request))
            settings, complaint = (last.settings, "") if last else defaults_or_problem(app, "")
            values = shown(settings) | remembered_values(session)
            return filled(values, complaint, only_changes=True)

        def filled(values: dict[str, Any], complaint: str, only_changes: bool = False) -> dict[Any, Any]:
            """Updates that show `values` by control name. `only_changes`: what a quick hand typed already stays."""
            names = list(app.models())
            chosen = values.get("base_model", "")
            usual = shown(defaults) if only_changes else {}
            updates: dict[Any, Any] = {
                controls[name]: value for name, value in values.items() if name in controls and usual.get(name) != value
            }
            updates[controls["base_model"]] = gr.update(
                choices=model_choices(names), value=chosen if chosen in names else None
            )
            if "any_seed" in values:
                updates[any_seed] = values["any_seed"]
            size = (values.get("width"), values.get("height"))
            sizes = _native(app, chosen if chosen in names else "")
            updates[aspect] = _offered(app, size, sizes)
            return updates | {message: problem(complaint)}

        def use_settings(text: str) -> dict[Any, Any]:
            """Settings of a picture, a log or a history entry: what they say is shown, what is unknown is told."""
            if not text:  # emptied below, so that the same text can come again
                return {incoming: gr.skip()}
            try:
                settings, told = reused(text, app)
            except UserError as error:
                return {incoming: "", message: problem(str(error))}
            return filled(shown(settings) | {"any_seed": False}, told) | {incoming: ""}

        def follow_performance(values: dict[Any, Any]) -> dict[Any, Any]:
            """Show what the mode forces, and give back what it forced when it is left."""
            shown_now = {name: values[controls[name]] for name in FORCEABLE}
            settings, _ = defaults_or_problem(app, "")
            kept, changes = performed(values[controls["performance"]], shown_now, values[own], shown(settings))
            return {own: kept, **{controls[name]: gr.update(**change) for name, change in changes.items()}}

        def current(values: dict[Any, Any]) -> Settings:
            """The settings as the controls show them; a seed that is none counts as 0."""
            by_name = {name: values[control] for name, control in controls.items()}
            by_name["seed"] = by_name["seed"] if str(by_name["seed"]).isdecimal() else "0"
            return settings_from(by_name, app.defaults(by_name.get("base_model") or ""), any_seed=False)

        def reset_all() -> dict[Any, Any]:
            settings, complaint = defaults_or_problem(app, "")
            own = ("prompt", "negative_prompt", "seed")
            return filled({n: v for n, v in shown(settings).items() if n not in own} | {"any_seed": True}, complaint)

        def choose_model(name: str | None) -> dict[Any, Any]:
            try:
                settings = app.defaults(name or "")
            except UserError as error:
                return {message: problem(str(error))}
            values: dict[Any, Any] = {controls[n]: shown(settings)[n] for n in RECOMMENDED}
            return values | {aspect: _aspect(app, settings), message: ""}

        def reread_models(chosen: str | None) -> dict[str, Any]:
            names = list(app.models())
            return gr.update(choices=model_choices(names), value=chosen if chosen in names else next(iter(names), None))

        def choose_aspect(entry: str) -> tuple[Any, Any]:
            return parse_label(entry) or (gr.skip(), gr.skip())

        def typed_size(width: int | None, height: int | None, name: str | None) -> str:
            return matching_label((width, height), _native(app, name or ""), app.aspect_ratios)

        def act(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
            """A button of the task list. A task to edit gives its settings back to the page."""
            try:
                taken = desk.act(str(event.action), owner(request), str(event.task), int(event.place))
            except UserError as error:
                return {message: problem(str(error))}
            if taken is None:
                return {message: ""}
            return {incoming: as_text(taken.settings), **filled_axes(tab.batch, taken)}

        def stop_running(request: gr.Request) -> None:
            desk.stop(owner(request))

        def skip_picture(request: gr.Request) -> None:
            desk.skip(owner(request))

        # Whole values, as they are: Gradio sends what differs. For an output left out, or an update of one, it makes
        # the component anew, which took five times as long (docs/decisions.md).
        watching: dict[str, Any] = {
            "outputs": [stage, progress, tasks, gallery],
            "trigger_mode": "always_last",
            "postprocess": False,
            **QUIET,
            "queue": True,
            "concurrency_limit": None,
        }
        everything = [*controls.values(), any_seed, aspect, message]
        asked = {*controls.values(), any_seed}
        pressed = button.click(
            generate, asked, [message, controls["seed"]], trigger_mode="multiple", preprocess=False, **QUIET
        )
        pressed.then(watch, **watching)
        page.load(arrive, session, everything, js=SESSION, **QUIET).then(watch, **watching)
        kept = [*controls, "any_seed"]
        gr.on(
            [control.change for control in (*controls.values(), any_seed)],
            None,
            [*controls.values(), any_seed],
            js=f"(...values) => window.easel.remember({json.dumps(kept)}, values)",
            **QUIET,
        )
        incoming.change(use_settings, incoming, [incoming, *everything], **QUIET)
        performance = controls["performance"]
        forceable = [controls[name] for name in FORCEABLE]
        performance.change(follow_performance, {performance, own, *forceable}, [own, *forceable], **QUIET)
        if tab.presets and app.shelf:
            allowed = not app.open_to_others
            preset_events(tab.presets, app.shelf, controls, current, filled, everything, message, allowed=allowed)
        tab.reset.click(reset_all, None, everything, **QUIET)
        stop.click(stop_running, **QUIET)
        skip.click(skip_picture, **QUIET)
        acted = tasks.click(
            act, None, [incoming, message, tab.batch.grid, *tab.batch.axes.values()], trigger_mode="multiple", **QUIET
        )
        for event in (acted, *batch_events(tab.batch, desk, controls, any_seed, message, owner, QUIET)):
            event.then(watch, **watching)
        base_model, size = controls["base_model"], [controls["width"], controls["height"]]
        base_model.input(choose_model, base_model, everything, **QUIET)
        lists = refreshed(app, placed)
        refresh.click(lambda: refreshed(app, placed), None, list(lists), **QUIET)
        refresh.click(reread_models, base_model, base_model, **QUIET).then(
            choose_model, base_model, everything, **QUIET
        )
        aspect.input(choose_aspect, aspect, size, **QUIET)
        for control in size:
            control.input(typed_size, [*size, base_model], aspect, **QUIET)
    return page


def _native(app: App, base_model: str) -> tuple[int, int]:
    try:
        return app.native_size(base_model)
    except UserError:
        return SDXL


def _aspect(app: App, settings: Settings) -> Any:
    native = _native(app, settings.base_model)
    return _offered(app, (settings.width, settings.height), native)


def _offered(app: App, size: tuple[Any, Any], native: tuple[int, int]) -> Any:
    ratios = app.aspect_ratios
    return gr.update(choices=labels(native, ratios), value=matching_label(size, native, ratios))
