"""Placing controls: each control of CONTROLS stands in one tab, made once, known by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from core.settings import Settings
from webui.controls import CONTROLS, shown


@dataclass(frozen=True)
class Placed:
    """The controls that stand somewhere already, by name; they show `defaults`."""

    defaults: Settings
    controls: dict[str, Any] = field(default_factory=dict)

    def put(self, *names: str, **options: Any) -> Any:
        """Make the controls `names` here, with `options` besides what CONTROLS says; returns the last one."""
        for name in names:
            value = shown(self.defaults)[name]
            if "choices" in options and value not in dict(options["choices"]).values():
                value = None if name == "base_model" else ""
            self.controls[name] = CONTROLS[name](value=value, **options)
        return self.controls[names[-1]]


def tab_of(control: Any) -> str:
    """The name of the tab that `control` stands in, "" if in none."""
    while control is not None and not isinstance(control, gr.Tab):
        control = control.parent
    return str(control.label) if control is not None else ""


def card(title: str) -> Any:
    """A column with a frame and a heading."""
    column = gr.Column(elem_classes="card", min_width=0)
    with column:
        gr.HTML(f"<h2>{title}</h2>")
    return column
