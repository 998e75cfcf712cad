"""The form: all controls of a request together. What they show, which a mode locks, what belongs to them unseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from core.axes import SETTINGS
from core.errors import UserError
from core.performance import MODES, forced
from core.settings import Settings
from webui.app import App
from webui.controls import (
    FORCEABLE,
    RECOMMENDED,
    asked_model,
    label_of,
    performed,
    remembered_values,
    settings_from,
    shown,
)
from webui.generate import defaults_or_problem
from webui.render import problem
from webui.sizes import labels, matching_label
from webui.tabs.models import PARTS, model_choices
from webui.tabs.place import Placed

SDXL = (1024, 1024)
UNCHANGED: Any = gr.skip()


@dataclass(frozen=True)
class Form:
    """The controls and what stands beside them.

    `own` (hidden, JSON) holds the values that the performance mode replaced, `model` (hidden) the base model that the
    other controls belong to. Both are in the page, so that they always go with the values that are sent with them.
    """

    app: App
    placed: Placed
    any_seed: Any
    aspect: Any
    told_mode: Any
    message: Any
    own: Any
    model: Any

    @property
    def controls(self) -> dict[str, Any]:
        """The controls by name."""
        return self.placed.controls

    @property
    def inputs(self) -> set[Any]:
        """What an event needs that reads the form."""
        return {*self.controls.values(), self.any_seed, self.own, self.model}

    @property
    def outputs(self) -> list[Any]:
        """What an event may change that fills the form."""
        return [*self.controls.values(), self.any_seed, self.aspect, self.told_mode, self.own, self.model, self.message]

    @property
    def mode_outputs(self) -> list[Any]:
        """What `follow_mode` may change."""
        return [*(self.controls[name] for name in FORCEABLE), self.told_mode, self.own]

    @property
    def model_outputs(self) -> list[Any]:
        """What `follow_model` may change."""
        return [*(self.controls[name] for name in RECOMMENDED), self.aspect, self.own, self.model, self.message]

    @property
    def file_outputs(self) -> list[Any]:
        """What `refreshed` may change."""
        return [self.controls[name] for name in ("base_model", "refiner_model", *PARTS)]

    def by_name(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """What an event got, by control name."""
        return {name: values[control] for name, control in self.controls.items()}

    def plain(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """The same with the user's own values where a mode forces others."""
        by_name = self.by_name(values)
        locked = forced(mode_of(by_name))
        return by_name | {name: mine for name, mine in own_values(values[self.own]).items() if name in locked}

    def current(self, values: Mapping[Any, Any]) -> Settings:
        """The settings that the form holds, without what a mode forces; a seed that is none counts as 0. Raises UserError."""
        return self.settings(self.plain(values))

    def settings(self, by_name: Mapping[str, Any]) -> Settings:
        """The settings of the controls' values; a seed that is none counts as 0. Raises UserError."""
        seed = str(by_name.get("seed", ""))
        given = {**by_name, "seed": seed if seed.isdecimal() else "0"}
        return settings_from(given, self.app.defaults(asked_model(given)), any_seed=False)

    def absent(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The files that `values` by control name name and that are not there, by control name."""
        files = self._files().items()
        return {
            name: wanted for name, names in files if (wanted := str(values.get(name) or "")) and wanted not in names
        }

    def filled(
        self, values: Mapping[str, Any], complaint: str = "", *, only_changes: bool = False, as_made: bool = False
    ) -> dict[Any, Any]:
        """Updates that show `values` by control name, with what their mode forces, and the lists of files as they are now.

        `values` may have "any_seed", and in "own" what the mode replaced before. `as_made`: they are those that a picture
        was made with, what its mode forced among them. With `only_changes` what a quick hand typed into a fresh page already
        stays, and what it was told.
        """
        if "image_number" in values:  # what a slider shows beyond its end would come back as its end
            values = {**values, "image_number": min(values["image_number"], self.controls["image_number"].maximum)}
        changes: dict[str, dict[str, Any]] = {name: {"value": value} for name, value in values.items()}
        usual = shown(self.placed.defaults)
        if only_changes:
            changes = {name: change for name, change in changes.items() if usual.get(name) != change["value"]}
        updates: dict[Any, Any] = {}
        if "performance" in values:
            mode = mode_of(values)
            updates = {self.own: json.dumps(self._replaced_by(mode, values, as_made)), self.told_mode: told_mode(mode)}
            for name in FORCEABLE:
                if name in forced(mode):
                    changes[name] = {"value": forced(mode)[name], "interactive": False}
                elif not only_changes:
                    changes.setdefault(name, {})["interactive"] = True
        for name, names in self._files().items():
            value = changes.get(name, {}).get("value", values.get(name, usual[name]))
            none = None if name == "base_model" else ""
            change: dict[str, Any] = {"choices": self._choices(name, names), "value": value if value in names else none}
            changes[name] = changes.get(name, {}) | change
        updates |= {
            self.controls[name]: change["value"] if set(change) == {"value"} else gr.update(**change)
            for name, change in changes.items()
            if name in self.controls
        }
        if "any_seed" in values:
            updates[self.any_seed] = values["any_seed"]
        chosen = changes["base_model"]["value"]
        updates[self.model] = chosen or ""
        if not only_changes or any(values.get(name) != usual[name] for name in ("width", "height", "base_model")):
            updates[self.aspect] = self.sizes((values.get("width"), values.get("height")), chosen or "")
        if not only_changes or complaint:
            updates[self.message] = problem(complaint)
        return updates

    def follow_mode(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Show what the mode forces, and give back what it forced when it is left."""
        shown_now = {name: values[self.controls[name]] for name in FORCEABLE}
        mode = mode_of(self.by_name(values))
        kept, changes = performed(mode, shown_now, own_values(values[self.own]))
        updates = {self.controls[name]: gr.update(**change) for name, change in changes.items()}
        return updates | {self.own: json.dumps(kept), self.told_mode: told_mode(mode)}

    def follow_model(
        self, values: Mapping[Any, Any], recommended_for: Callable[[str], Settings] | None = None
    ) -> dict[Any, Any]:
        """Show what `recommended_for` the chosen base model (else `App.defaults`), unless the controls belong to it already.

        (A list reports a choice when it is left, too.) What the mode forces stays; the model's word on it waits.
        """
        name = str(values[self.controls["base_model"]] or "")
        if name == values[self.model]:
            return {self.message: UNCHANGED}
        try:
            settings = (recommended_for or self.app.defaults)(name)
        except UserError as error:
            return {self.message: problem(self.app.told(error))}
        recommended = {each: shown(settings)[each] for each in RECOMMENDED}
        locked = forced(mode_of(self.by_name(values)))
        own = own_values(values[self.own]) | {each: value for each, value in recommended.items() if each in locked}
        updates: dict[Any, Any] = {
            self.controls[each]: value for each, value in recommended.items() if each not in locked
        }
        size = (settings.width, settings.height)
        return updates | {
            self.own: json.dumps(own),
            self.model: name,
            self.aspect: self.sizes(size, name),
            self.message: "",
        }

    def refreshed(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """The lists of files as the folders are now. What is chosen stays chosen, if it is still there."""
        updates: dict[Any, Any] = {}
        for name, names in self._files().items():
            chosen = values[self.controls[name]]
            change: dict[str, Any] = {"choices": self._choices(name, names)}
            if name == "base_model" and chosen not in names:
                change["value"] = next(iter(names), None)
            elif name != "base_model" and chosen and chosen not in names:
                change["value"] = ""
            updates[self.controls[name]] = gr.update(**change)
        return updates

    def sizes(self, size: tuple[Any, Any], model: str) -> Any:
        """The aspect ratios on offer for `model`, with `size` chosen."""
        native, ratios = native_size(self.app, model), self.app.aspect_ratios
        return gr.update(choices=labels(native, ratios), value=matching_label(size, native, ratios))

    def _replaced_by(self, mode: str, values: Mapping[str, Any], as_made: bool) -> dict[str, Any]:
        """What `mode` puts other values in the place of, where `values` are to be shown. See `filled`."""
        if not forced(mode):
            return {}
        settings, _ = defaults_or_problem(self.app, str(values.get("base_model") or ""))
        usual = shown(settings)
        now = {name: values.get(name, usual[name]) for name in FORCEABLE}
        return performed(mode, now, values.get("own") or {}, usual if as_made else {})[0]

    def _files(self) -> dict[str, list[str]]:
        models = list(self.app.models())
        parts = {name: list(self.app.files(kind)) for name, kind in PARTS.items()}
        return {"base_model": models, "refiner_model": models, **parts}

    def _choices(self, name: str, names: list[str]) -> list[tuple[str, str]]:
        none = [] if name == "base_model" else [(self.controls[name].choices[0][0], "")]
        return [*none, *model_choices(names)]


def mode_of(values: Mapping[str, Any]) -> str:
    """The performance mode among `values`; "custom" for one that is none: the values come from a browser."""
    mode = values.get("performance")
    return mode if isinstance(mode, str) and mode in MODES else "custom"


def own_values(text: Any) -> dict[str, Any]:
    """What `Form.own` holds, as far as it is possible: the text comes from a browser."""
    return {name: value for name, value in remembered_values(str(text or "")).items() if name in FORCEABLE}


@dataclass(frozen=True)
class Beside:
    """What a browser remembers beside the controls: what a mode replaced, the preset that they came from and what that
    came to (`PresetCard.came_to`), and the settings of the grid's axes."""

    own: dict[str, Any] = field(default_factory=dict)
    preset: str = ""
    came_to: str = ""
    grid: dict[str, str] = field(default_factory=dict)


def remembered_beside(session: str) -> Beside:
    """That, as far as it is possible: the text comes from a browser."""
    try:
        kept = json.loads(session or "{}")
    except (ValueError, RecursionError):
        return Beside()
    if not isinstance(kept, dict):
        return Beside()
    axes = {axis: str(kept.get(f"grid_{axis}") or "") for axis in ("x", "y")}
    grid = {axis: name for axis, name in axes.items() if name in SETTINGS}
    return Beside(own_values(kept.get("own")), str(kept.get("preset") or ""), str(kept.get("came_to") or ""), grid)


def told_mode(performance: str) -> str:
    """What a mode does, and which settings have no effect in it."""
    mode = MODES[performance]
    if not mode.forced:
        return ""
    idle = ", ".join(f"<span>{escape(label_of(name))}</span>" for name in mode.idle)
    without = f" <span>Without effect here:</span> {idle}." if idle else ""
    return f'<p class="note"><span>{escape(mode.help)}</span>{without}</p>'


def native_size(app: App, model: str) -> tuple[int, int]:
    """Width and height in pixels that `model` was made for; SDXL's if nobody can tell."""
    try:
        return app.native_size(model)
    except UserError:
        return SDXL
