"""The preset card of the Settings tab: choose one, see what that changed, keep what is set now as one of your own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, TypeAlias

import gradio as gr

from core.errors import BadSetting, UserError
from core.presets_choice import TYPED, Choice, diff
from core.presets_shelf import Shelf
from core.settings import Settings, written_setting
from webui.app import App
from webui.controls import label_of, remembered_values, shown
from webui.form import UNCHANGED, Form
from webui.needs_box import needs_box
from webui.render import notice, problem
from webui.tabs.place import card

MOST_SHOWN = 100  # characters of a value
Acted: TypeAlias = tuple[str, str, dict[Any, Any]]  # the preset that is chosen then, what to tell, what else to show
Act: TypeAlias = Callable[[dict[Any, Any]], Acted]
REPLACING = (
    "You have a preset of this name. Press Replace to put the new one in its place; the old one goes to the trash."
)


class NameTaken(BadSetting):
    """The user has a preset of that name, which a press on Replace puts into the trash."""


@dataclass(frozen=True)
class PresetCard:
    """The card's components. `before` (hidden) is the preset that the controls came from, `former` (hidden, JSON) what its
    choice replaced and which prompts that put there, `came_to` (hidden, JSON) what the preset came to when it was chosen, and
    which of its files were not there.
    """

    preset: Any
    told: Any
    undo: Any
    again: Any
    name: Any
    with_prompt: Any
    changes: Any
    compare: Any
    before: Any
    former: Any
    came_to: Any
    keep: Any
    save: Any
    replace: Any
    rename: Any
    delete: Any
    restore: Any

    @property
    def choosing(self) -> list[Any]:
        """What shows which preset is chosen."""
        return [self.preset, self.before, self.told, self.came_to]


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
        # Beside the controls in the page, so that they always belong to the values that are sent with them.
        before = gr.Textbox(shelf.first, visible="hidden", elem_id="preset_before")
        former = gr.Textbox("", visible="hidden", elem_id="preset_former")
        came_to = gr.Textbox("", visible="hidden", elem_id="preset_came_to")
        told = gr.HTML("", elem_id="preset_told")
        undo = gr.Button("Undo", elem_id="preset_undo", size="sm", visible=False)
        again = gr.Button("", elem_id="preset_again", visible="hidden")  # pressed by downloads.js when files came
        words = "Keep these settings as a preset"
        with gr.Accordion(words, open=False, elem_id="preset_keeping", visible=allowed) as keep:
            name = gr.Textbox(label="Name", elem_id="preset_name", max_lines=1, placeholder="my look")
            with_prompt = gr.Checkbox(label="With the prompt", elem_id="preset_with_prompt")
            changes = gr.HTML("", elem_id="preset_changes")
            compare = gr.Button("", elem_id="preset_compare", visible="hidden")  # pressed by presets.js
            with gr.Row():
                save = gr.Button("Save", elem_id="preset_save", size="sm", min_width=70)
                replace = gr.Button("Replace", elem_id="preset_replace", size="sm", min_width=70, visible=False)
                rename = gr.Button("Rename the chosen one", elem_id="preset_rename", size="sm", min_width=90)
            with gr.Row():
                delete = gr.Button("Delete the chosen one", elem_id="preset_delete", size="sm", min_width=90)
                restore = gr.Button("Undo deleting", elem_id="preset_restore", size="sm", min_width=90)
    return PresetCard(
        preset,
        told,
        undo,
        again,
        name,
        with_prompt,
        changes,
        compare,
        before,
        former,
        came_to,
        keep,
        save,
        replace,
        rename,
        delete,
        restore,
    )


def preset_events(
    made: PresetCard,
    shelf: Shelf,
    form: Form,
    *,
    quiet: Mapping[str, Any],
    files_seen: Sequence[Any],
) -> None:
    """Bind the card's events to the form. After those of `files_seen` other files may be there.

    Where the page is open to others nobody changes presets: they and files are for the one who sits at the computer.
    """
    app, allowed = form.app, not form.app.open_to_others
    asked = {*form.inputs, made.preset, made.before, made.former, made.came_to, made.name, made.with_prompt}
    message = form.message

    def switch(values: dict[Any, Any]) -> dict[Any, Any]:
        chosen, before = str(values[made.preset] or ""), str(values[made.before] or "")
        if chosen == before:  # a list reports a choice when it is left, too
            return {message: UNCHANGED}
        try:
            current = form.current(values)
            settings, choice = shelf.switched(current, before, chosen)
        except UserError as error:
            return {message: problem(app.told(error)), made.preset: before}
        return changed(current, settings, before, chosen, choice)

    def again(values: dict[Any, Any]) -> dict[Any, Any]:
        """If other files of the chosen preset are there than at its choice: what that comes to now. What was changed since
        then stays."""
        chosen = str(values[made.preset] or "")
        then, absent = _kept_of(chosen, str(values[made.came_to] or ""))
        try:
            choice = shelf.choice(chosen)
            if absent is None or absent == _absent(choice):
                return {message: UNCHANGED}
            current, former = form.current(values), former_of(values)
            if former and former.chosen != chosen:
                former = None
            if former:
                settings, _ = shelf.switched(form.settings(former.values), former.preset, chosen)
            else:  # the page was opened anew: nobody knows what was there before
                kept = {name: getattr(current, name) for name in (*TYPED, "image_number")}
                settings = dataclasses.replace(shelf.settings(chosen), **kept)
            now = shown(current)
            touched = {name for name in now if name not in then or now[name] != then[name]}
            kept = {name: getattr(current, name) for name in {*touched, "seed"}}
            updates = changed(current, dataclasses.replace(settings, **kept), chosen, chosen, choice)
        except UserError as error:
            return {message: problem(app.told(error))}
        if former:  # Undo goes back to before the choice
            updates[made.former] = dataclasses.replace(former, typed=typed_of(settings)).to_text()
        return updates

    def changed(current: Settings, settings: Settings, before: str, chosen: str, choice: Choice) -> dict[Any, Any]:
        """Show `settings` in the place of `current`; what that changed is told, and can be taken back."""
        told = told_choice(choice, chosen, allowed=allowed) + told_switch(diff(settings, current))
        former = Former(before, chosen, _without_seed(shown(current)), typed_of(settings)).to_text()
        choosing = {made.told: told, made.before: chosen, made.former: former, made.undo: gr.update(visible=True)}
        choosing |= {made.came_to: _came_to(chosen, settings, choice)}
        return form.filled(_without_seed(shown(settings))) | choosing

    def typed_of(settings: Settings) -> dict[str, str]:
        return {name: getattr(settings, name) for name in TYPED}

    def former_of(values: dict[Any, Any]) -> Former | None:
        return Former.from_text(str(values[made.former] or ""))

    def undo(values: dict[Any, Any]) -> dict[Any, Any]:
        """The settings and the preset from before the last choice; what was typed since then stays."""
        former = former_of(values)
        if former is None:
            return {message: UNCHANGED}
        preset = former.preset if former.preset in shelf.names() else shelf.start
        now = form.by_name(values)
        typed = {name: now[name] for name in TYPED if now[name] != former.typed.get(name)}
        choosing = {made.preset: preset, made.before: preset, made.former: "", made.undo: gr.update(visible=False)}
        return form.filled(former.values | typed) | choosing | standing(made, shelf, preset, app)

    def compare(values: dict[Any, Any]) -> str:
        try:
            return told_held(shelf.held(form.current(values), with_prompt=bool(values[made.with_prompt])))
        except UserError as error:
            return problem(app.told(error))

    def changing(act: Act) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
        """An event that does something to the presets, which says what is chosen then, what to tell and what else to show."""

        def event(values: dict[Any, Any]) -> dict[Any, Any]:
            try:
                chosen, words, updates = act(values)
            except UserError as error:
                return {
                    message: problem(app.told(error)),
                    made.replace: gr.update(visible=isinstance(error, NameTaken)),
                }
            choices = gr.update(choices=preset_choices(shelf), value=chosen)
            hidden = {made.replace: gr.update(visible=False)}
            stands = standing(made, shelf, chosen, app)
            return {**stands, **updates, message: notice(words), made.preset: choices, made.before: chosen, **hidden}

        return event

    def named(values: dict[Any, Any]) -> str:
        return str(values[made.name] or "").strip()

    def save(values: dict[Any, Any], overwrite: bool = False) -> Acted:
        there = shelf.own_name(named(values))
        if there and not overwrite:
            raise NameTaken(REPLACING)
        name = there or named(values)
        with_prompt = bool(values[made.with_prompt])
        shelf.save(name, form.current(values), with_prompt=with_prompt, overwrite=bool(there))
        back = "The preset is kept. Undo deleting brings the old one back beside it."
        return name, back if there else "The preset is kept.", {}

    def rename(values: dict[Any, Any]) -> Acted:
        shelf.rename(str(values[made.preset]), named(values))
        return named(values), "The preset has its new name.", {}

    def delete(values: dict[Any, Any]) -> Acted:
        before, current = str(values[made.preset]), form.current(values)
        settings, choice = shelf.delete(before, current)
        updates = changed(current, settings, before, shelf.start, choice)
        gone = {made.former: "", made.undo: gr.update(visible=False)}  # what it held comes back with it
        return shelf.start, "The preset is in the trash. Undo deleting brings it back.", updates | gone

    def restore(values: dict[Any, Any]) -> Acted:
        before, current, chosen = str(values[made.before]), form.current(values), shelf.restore()
        settings, choice = shelf.switched(current, before, chosen)
        return chosen, "The preset is back.", changed(current, settings, before, chosen, choice)

    raw = {**quiet, "preprocess": False}  # checked by Settings; a list of files may be older than a file that is chosen
    shows = [*made.choosing, made.former, made.undo, *form.outputs]
    made.preset.input(switch, asked, shows, **raw)
    made.undo.click(undo, asked, shows, **raw)
    for seen in (made.again.click, *files_seen):
        seen(again, asked, shows, **raw)
    if not allowed:
        return
    seen = [made.keep.expand, made.compare.click, made.with_prompt.change]
    gr.on(seen, compare, asked, made.changes, trigger_mode="always_last", **raw)
    kept = [message, *made.choosing, made.replace]
    actions: list[tuple[Any, Act, list[Any]]] = [
        (made.save, save, kept),
        (made.replace, partial(save, overwrite=True), kept),
        (made.rename, rename, kept),
        (made.delete, delete, [*shows, made.replace]),
        (made.restore, restore, [*shows, made.replace]),
    ]
    for button, act, outputs in actions:
        button.click(changing(act), asked, outputs, **raw)


def shown_preset(made: PresetCard, shelf: Shelf, name: str, came_to: str, app: App) -> dict[Any, Any]:
    """Updates for a page that was opened anew, with the presets that there are now: `name` chosen, if it is one.

    `came_to` is what it came to when it was chosen, as the browser remembers it.
    """
    chosen = name if name in shelf.names() else shelf.start
    stands = standing(made, shelf, chosen, app)
    said = (*app.notices, *(() if app.open_to_others else shelf.left_out()))
    notes = "".join(f'<p class="note">{escape(each)}</p>' for each in said)
    return {
        made.preset: gr.update(choices=preset_choices(shelf), value=chosen),
        made.before: chosen,
        made.told: notes + stands[made.told],
        made.came_to: came_to if _kept_of(chosen, came_to)[1] is not None else stands[made.came_to],
    }


def standing(made: PresetCard, shelf: Shelf, name: str, app: App) -> dict[Any, Any]:
    """Updates that say how the preset `name`, which is the chosen one, stands with the files of now."""
    try:
        choice = shelf.choice(name)
        told = told_choice(choice, name, allowed=not app.open_to_others, described=False)
        return {made.told: told, made.came_to: _came_to(name, shelf.settings(name), choice)}
    except UserError as error:
        return {made.told: problem(app.told(error)), made.came_to: ""}


@dataclass(frozen=True)
class Former:
    """What the choice of preset `chosen` replaced: the preset before, its `values` by control name, and what was `typed`
    after the choice."""

    preset: str
    chosen: str
    values: dict[str, Any]
    typed: dict[str, str]

    def to_text(self) -> str:
        """For `PresetCard.former`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Former | None:
        """As far as it is possible: the text comes from a browser. None if it is none of these."""
        try:
            kept = json.loads(text)
            values = remembered_values(json.dumps(kept["values"]))
            return cls(str(kept["preset"]), str(kept["chosen"]), values, dict(kept["typed"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


def _came_to(name: str, settings: Settings, choice: Choice) -> str:
    """That the preset `name` came to `settings` by `choice`, for `PresetCard.came_to`."""
    return json.dumps({"preset": name, "values": shown(settings), "absent": _absent(choice)})


def _absent(choice: Choice) -> list[str]:
    return sorted(need.name for need in choice.missing)


def _kept_of(name: str, came_to: str) -> tuple[dict[str, Any], list[str] | None]:
    """The values of `PresetCard.came_to` and the files that were not there, if it is of the preset `name`; else none, and
    None. The text comes from a browser."""
    try:
        kept = json.loads(came_to)
        if kept["preset"] == name:
            return remembered_values(json.dumps(kept["values"])), [str(each) for each in kept["absent"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}, None


def preset_choices(shelf: Shelf) -> list[tuple[str, str]]:
    """The presets as a list shows them, and their names."""
    return [
        (name.replace("_", " ").capitalize() if name in shelf.program_names() else name, name) for name in shelf.names()
    ]


def told_choice(choice: Choice, name: str, *, allowed: bool, described: bool = True) -> str:
    """What the preset `name`, which came to `choice`, has to say, and what it needs: with a button that downloads it."""
    words = [choice.preset.description if described else "", *choice.notes]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in words if note)
    box = needs_box(choice.missing, allowed=allowed, preset=name)
    return notes + (f'<div class="needs-box">{box}</div>' if box else "")


def told_switch(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """What the choice of a preset changed, folded away."""
    if not changes:
        return ""
    return f'<details class="changed"><summary>What that changed</summary>{_table(changes, "Before", "Now")}</details>'


def told_held(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """What a preset made of the present settings would hold."""
    if not changes:
        return '<p class="note">Nothing differs from the defaults, so the preset would hold nothing.</p>'
    return f'<p class="note">The preset will hold:</p>{_table(changes, "Default", "Now")}'


def _table(changes: Mapping[str, tuple[Any, Any]], there: str, here: str) -> str:
    rows = "".join(
        f"<tr><th>{escape(label_of(name))}</th>{_cell(old)}{_cell(new)}</tr>" for name, (old, new) in changes.items()
    )
    return (
        f"<table><thead><tr><th>Setting</th><th>{there}</th><th>{here}</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _without_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seed"}


def _cell(value: Any) -> str:
    text = written_setting(value)
    return f'<td class="notranslate">{escape(text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…")}</td>'
