"""The Models tab: which files the picture is made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.app import App
from webui.tabs.place import Placed, card


@dataclass(frozen=True)
class ModelsTab:
    """What the page needs to know of the tab beside its controls."""

    refresh: Any


def models_tab(app: App, placed: Placed) -> ModelsTab:
    """Make the tab."""
    with card("Model"):
        with gr.Row(elem_id="model_row"):
            placed.put("base_model", choices=model_choices(app.models()))
            refresh = gr.Button("Refresh", elem_id="refresh_models", size="sm", min_width=80, scale=0)
    return ModelsTab(refresh)


def model_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Files as a list shows them, without the ending, and their names."""
    return [(name.removesuffix(".safetensors"), name) for name in names]
