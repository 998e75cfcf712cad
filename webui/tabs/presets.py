"""The preset card of the Settings tab: choose one, keep what is set now as one of your own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from core.cli_download import told_size
from core.errors import UserError
from core.presets_choice import Choice
from core.presets_shelf import Shelf
from core.settings import Settings, written_setting
from webui.controls import shown
from webui.render import notice, problem
from webui.tabs.place import card

MOST_SHOWN = 100  # characters of a value


@dataclass(frozen=True)
class PresetCard:
    """The card's components."""

    preset: Any
    told: Any
    name: Any
    with_prompt: Any
    changes: Any
    before: Any
    keep: Any
    save: Any
    rename: Any
    delete: Any
    restore: Any


def preset_card(shelf: Shelf, *, allowed: bool) -> PresetCard:
    """Make the card; the user's own presets are changed only where that is `allowed`."""
    with card("Preset"):
        preset = gr.Dropdown(
            preset_choices(shelf),
            value=shelf.first,
            label="Preset",
            elem_id="preset",
            show_label=False,
            filterable=True,
        )
        # Beside the controls in the page, so that it always belongs to the values that are sent with it.
        before = gr.Textbox(shelf.first, visible="hidden", elem_id="preset_before")
        told = gr.HTML("", elem_id="preset_told")
        words = "Keep these settings as a preset"
        with gr.Accordion(words, open=False, elem_id="preset_keeping", visible=allowed) as keep:
            changes = gr.HTML("", elem_id="preset_changes")
            name = gr.Textbox(label="Name", elem_id="preset_name", max_lines=1, placeholder="my look")
            with_prompt = gr.Checkbox(label="With the prompt", elem_id="preset_with_prompt")
            with gr.Row():
                save = gr.Button("Save", elem_id="preset_save", size="sm", min_width=70)
                rename = gr.Button("Rename the chosen one", elem_id="preset_rename", size="sm", min_width=90)
            with gr.Row():
                delete = gr.Button("Delete the chosen one", elem_id="preset_delete", size="sm", min_width=90)
                restore = gr.Button("Undo deleting", elem_id="preset_restore", size="sm", min_width=90)
    return PresetCard(preset, told, name, with_prompt, changes, before, keep, save, rename, delete, restore)


def preset_events(
    made: PresetCard,
    shelf: Shelf,
    controls: dict[str, Any],
    current: Callable[[dict[Any, Any]], Settings],
    filled: Callable[[dict[str, Any], str], dict[Any, Any]],
    everything: list[Any],
    message: Any,
    *,
    allowed: bool,
) -> None:
    """Bind the card's events. `current` reads the settings off the controls, `filled` shows values by control name.

    `allowed` is False where the page is open to others: presets and files are for the one who sits at the computer.
    """
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    asked = {*controls.values(), made.preset, made.before, made.name, made.with_prompt}

    def switch(values: dict[Any, Any]) -> dict[Any, Any]:
        chosen, before = values[made.preset], values[made.before]
        try:
            settings, choice = shelf.switched(current(values), before, chosen)
        except UserError as error:
            return {message: problem(str(error)), made.preset: before}
        told = {made.told: told_choice(choice, allowed=allowed), made.before: chosen}
        return filled({n: v for n, v in shown(settings).items() if n != "seed"}, "") | told

    def compare(values: dict[Any, Any]) -> str:
        try:
            return told_changes(shelf.changes(current(values), values[made.preset]))
        except UserError as error:
            return problem(str(error))

    def changing(act: Callable[[dict[Any, Any]], tuple[str, str]]) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
        """An event that does something to the presets, which says what is chosen then and what to tell."""

        def event(values: dict[Any, Any]) -> dict[Any, Any]:
            try:
                chosen, words = act(values)
            except UserError as error:
                return {message: problem(str(error))}
            choices = gr.update(choices=preset_choices(shelf), value=chosen)
            return {message: notice(words), made.preset: choices, made.before: chosen}

        return event

    def save(values: dict[Any, Any]) -> tuple[str, str]:
        name = values[made.name].strip()
        shelf.save(name, current(values), with_prompt=values[made.with_prompt], overwrite=name in shelf.own_names())
        return name, "The preset is kept."

    def rename(values: dict[Any, Any]) -> tuple[str, str]:
        shelf.rename(values[made.preset], values[made.name].strip())
        return values[made.name].strip(), "The preset has its new name."

    def delete(values: dict[Any, Any]) -> tuple[str, str]:
        shelf.delete(values[made.preset])
        return shelf.first, "The preset is in the trash. Undo deleting brings it back."

    def restore(values: dict[Any, Any]) -> tuple[str, str]:
        return shelf.restore(), "The preset is back."

    made.preset.input(switch, asked, [made.preset, made.before, made.told, *everything], **quiet)
    made.keep.expand(compare, asked, made.changes, **quiet)
    if allowed:
        for button, act in ((made.save, save), (made.rename, rename), (made.delete, delete), (made.restore, restore)):
            button.click(changing(act), asked, [message, made.preset, made.before], **quiet)


def preset_choices(shelf: Shelf) -> list[tuple[str, str]]:
    """The presets as a list shows them, and their names."""
    return [
        (name.replace("_", " ").capitalize() if name in shelf.program_names() else name, name) for name in shelf.names()
    ]


def told_choice(choice: Choice, *, allowed: bool) -> str:
    """What a preset has to say, and what it needs: with a button that downloads it where that is `allowed`."""
    words = [choice.preset.description, *choice.notes]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in words if note)
    published = [need for need in choice.missing if need.url]
    if not published or not allowed:
        return notes
    size = told_size(sum(need.bytes or 0 for need in published))
    files = "".join(
        f"<li>{escape(need.name)} <span>{told_size(need.bytes) if need.bytes else ''}</span></li>" for need in published
    )
    return (
        f'{notes}<ul class="needs">{files}</ul><button type="button" class="plain" id="fetch_preset" '
        f'data-preset="{escape(choice.preset.name)}">Download</button> <span class="note">{size}</span>'
        '<div id="fetching" role="status"></div>'
    )


def told_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    """A table of what is set otherwise than in the chosen preset."""
    if not changes:
        return '<p class="note">Nothing differs from the chosen preset.</p>'
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{_short(there)}</td><td>{_short(here)}</td></tr>"
        for name, (there, here) in changes.items()
    )
    return f"<table><thead><tr><th>Setting</th><th>Preset</th><th>Now</th></tr></thead><tbody>{rows}</tbody></table>"


def _short(value: Any) -> str:
    text = written_setting(value)
    return escape(text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…")
