"""The page: where each part stands, and which event calls which function."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr

from core.errors import UserError
from core.presets_choice import TYPED
from webui.app import App
from webui.controls import RECOMMENDED, remembered_values, shown
from webui.form import Form, native_size, remembered_beside
from webui.generate import Desk, defaults_or_problem
from webui.orders import Orders, visitor_of
from webui.render import View, problem, told_origin, view
from webui.reuse import as_text, reused
from webui.sizes import matching_label, parse_label
from webui.tabs.advanced import advanced_tab
from webui.tabs.batch import batch_events, filled_axes
from webui.tabs.history import history_tab
from webui.tabs.models import models_tab
from webui.tabs.place import Placed
from webui.tabs.presets import preset_choices, preset_events, shown_preset
from webui.tabs.settings import settings_tab
from webui.tabs.styles import styles_tab
from webui.task_list import queue_script

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
# Not through Gradio's queue, which would look for them only every IDLE_SLEEP: Stop is to act at once.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}


def build_page(app: App) -> gr.Blocks:
    """The page over `app`. Nothing is started or served yet: see `webui.server.serve`."""
    desk = Desk(app)
    defaults, _ = defaults_or_problem(app, "")
    native = native_size(app, defaults.base_model)
    empty = view([], app.worker.position)
    with gr.Blocks(title=app.title, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.HTML(HEADER.format(title=app.title))
        placed = Placed(defaults)
        incoming = gr.Textbox(elem_id="incoming_settings", visible="hidden", label="Settings from elsewhere")
        session = gr.Textbox(elem_id="session_settings", visible="hidden", label="Settings of the last visit")
        # Not gr.State, which keeps a connection open for each tab, of the six that a browser has.
        own = gr.Textbox("{}", visible="hidden", elem_id="own_values")
        model = gr.Textbox(defaults.base_model, visible="hidden", elem_id="model_of_values")
        with gr.Row(elem_id="easel"):
            with gr.Column(elem_id="canvas", min_width=0):
                stage = gr.HTML(empty.stage, elem_id="stage")
                progress = gr.HTML("", elem_id="progress-bar")
                message = gr.HTML("", elem_id="message")
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
        form = Form(app, placed, tab.any_seed, tab.aspect, tab.told_mode, message, own, model)
        controls, aspect, any_seed = placed.controls, tab.aspect, tab.any_seed
        presets, shelf = tab.presets, app.shelf
        orders = Orders(desk, form, button, tab.batch.make_grid)

        def generate(values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
            return orders.sent(values, visitor_of(request), button, desk.submit)

        async def watch(request: gr.Request) -> AsyncIterator[tuple[str, ...]]:
            old: View | None = None
            async with aclosing(desk.watch(visitor_of(request))) as views:
                async for new in views:
                    if new != old:
                        yield new.stage, new.progress, new.tasks, new.gallery
                    old = new

        def arrive(session: str, request: gr.Request) -> dict[Any, Any]:
            """A page was opened: the files and presets of now, and what this browser had set when it left or asked for."""
            last = desk.latest(visitor_of(request))
            settings, complaint = (last.settings, "") if last else defaults_or_problem(app, "")
            values, beside = shown(settings) | remembered_values(session), remembered_beside(session)
            own, gone = beside.own, form.absent(values)
            if "base_model" in gone:  # what was recommended for it goes with it
                usual, complaint = defaults_or_problem(app, "")
                values |= {name: shown(usual)[name] for name in ("base_model", *RECOMMENDED)}
                own = {name: mine for name, mine in own.items() if name not in RECOMMENDED}
            complaint = complaint or app.shown(app.worker.trouble)
            updates = form.filled(values | {"own": own}, complaint, only_changes=True, as_made=True)
            updates |= {tab.batch.axes[axis]: name for axis, name in beside.grid.items()}
            if gone and not complaint:
                updates[message] = told_origin("", tuple(gone.values()), ())
            if app.worker.edited(visitor_of(request)):
                updates |= orders.editing(visitor_of(request))
            if presets and shelf:
                updates |= shown_preset(presets, shelf, beside.preset, beside.came_to, app)
            return updates

        def use_settings(values: dict[Any, Any]) -> dict[Any, Any]:
            """Settings of a picture, a log or a history entry: what they say is shown, what is unknown is told."""
            if not values[incoming]:  # emptied below, so that the same text can come again
                return {incoming: gr.skip()}
            now = form.plain(values)
            try:
                changes, found = reused(str(values[incoming]), app, now)
            except UserError as error:
                return {incoming: "", message: problem(app.told(error))}
            told = told_origin(found.program, found.missing, found.unused)
            return form.filled(now | changes, as_made=found.whole) | {incoming: "", message: told}

        def reset_all(values: dict[Any, Any]) -> dict[Any, Any]:
            """What the chosen preset comes to; what was typed stays."""
            settings, complaint = defaults_or_problem(app, "")
            if presets and shelf:
                try:
                    settings = shelf.settings(str(values[presets.preset] or ""))
                except UserError as error:
                    complaint = app.told(error)
            typed = (*TYPED, "seed")
            return form.filled(
                {n: v for n, v in shown(settings).items() if n not in typed} | {"any_seed": True}, complaint
            )

        def follow_model(values: dict[Any, Any]) -> dict[Any, Any]:
            if not (presets and shelf):
                return form.follow_model(values)
            return form.follow_model(values, partial(shelf.for_model, str(values[presets.preset] or ""), app.defaults))

        def refresh_lists(values: dict[Any, Any]) -> dict[Any, Any]:
            updates = form.refreshed(values)
            if presets and shelf:
                updates[presets.preset] = gr.update(choices=preset_choices(shelf))
            return updates

        def choose_aspect(entry: Any) -> tuple[Any, Any]:
            return parse_label(entry) or (gr.skip(), gr.skip())

        def typed_size(width: Any, height: Any, name: Any) -> str:
            return matching_label((width, height), native_size(app, str(name or "")), app.aspect_ratios)

        def act(draws_seeds: bool, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
            """A button of the task list. A task to edit gives its settings to the page."""
            visitor, place = visitor_of(request), event.place if isinstance(event.place, int) else 0
            edited = app.worker.edited(visitor)
            try:
                taken = desk.act(str(event.action), visitor, str(event.task), place)
            except UserError as error:
                return {message: problem(app.told(error))}
            if taken is None:
                return {message: "", **(orders.editing(visitor) if edited else {})}
            buttons = orders.begin_edit(visitor, draws_seeds)
            return {incoming: as_text(taken.settings), **filled_axes(tab.batch, taken), **buttons}

        def stop_running(request: gr.Request) -> None:
            desk.stop(visitor_of(request))

        def skip_picture(request: gr.Request) -> None:
            desk.skip(visitor_of(request))

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
        plain = {**QUIET, "preprocess": False, "postprocess": False}
        pressed = button.click(generate, orders.inputs, orders.outputs, trigger_mode="multiple", **plain)
        pressed.then(watch, **watching)
        chosen = presets.choosing if presets else []
        axes = {axis: tab.batch.axes[axis] for axis in ("x", "y")}
        filled = [*form.outputs, *chosen, *orders.makers, *axes.values()]
        arrived = page.load(arrive, session, filled, js=SESSION, **QUIET)
        arrived.then(watch, **watching)
        kept = {**controls, "any_seed": any_seed, "own": own, **{f"grid_{axis}": axes[axis] for axis in axes}}
        if presets:
            kept |= {"preset": presets.before, "came_to": presets.came_to}
        gr.on(
            [component.change for component in kept.values()],
            None,
            list(kept.values()),
            js=f"(...values) => window.easel.remember({json.dumps(list(kept))}, values)",
            **QUIET,
        )
        raw = {**QUIET, "preprocess": False}  # else Gradio tells of its own inside where a number is empty
        incoming.change(use_settings, {incoming, *form.inputs}, [incoming, *form.outputs], **raw)
        controls["performance"].change(form.follow_mode, form.inputs, form.mode_outputs, **raw)
        tab.reset.click(reset_all, {presets.preset} if presets else set(), form.outputs, **raw)
        stop.click(stop_running, **QUIET)
        skip.click(skip_picture, **QUIET)
        # One after the other, so that keys pressed quickly add up in their order.
        in_order: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": 1, "trigger_mode": "multiple"}
        given_back = [incoming, message, any_seed, tab.batch.grid, *tab.batch.axes.values(), *orders.makers]
        acted = tasks.click(act, any_seed, given_back, **in_order)
        queued = batch_events(tab.batch, orders, raw)
        for event in (acted, *queued):
            event.then(watch, **watching)
        base_model, size = controls["base_model"], [controls["width"], controls["height"]]
        followed = form.inputs | ({presets.preset} if presets else set())
        base_model.input(follow_model, followed, form.model_outputs, **raw)
        lists = [*form.file_outputs, *([presets.preset] if presets else [])]
        refreshed = refresh.click(refresh_lists, form.inputs, lists, **raw)
        refreshed = refreshed.then(follow_model, followed, form.model_outputs, **raw)
        if presets and shelf:
            seen = [arrived.then, refreshed.then]
            preset_events(presets, shelf, form, quiet=QUIET, files_seen=seen)
        aspect.input(choose_aspect, aspect, size, **raw)
        for control in size:
            control.input(typed_size, [*size, base_model], aspect, **raw)
    return page
