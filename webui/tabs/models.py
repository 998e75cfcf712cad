"""The Models tab: which files the picture is made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.app import App
from webui.tabs.place import Placed, card

PARTS = {"vae": "vae", "text_encoder_l": "text_encoders", "text_encoder_g": "text_encoders"}
# The rows are drawn by assets/loras.js, which reads and writes the control `loras`.
LORAS = (
    '<div id="lora_list" data-rows="{rows}" data-min="{least:g}" data-max="{most:g}"></div>'
    '<button type="button" id="add_lora" class="plain">Add a LoRA</button>'
)


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
    with card("LoRAs"):
        placed.put("loras")
        least, most = app.lora_weights
        gr.HTML(LORAS.format(rows=app.lora_rows, least=least, most=most), elem_id="lora_rows")
    with card("Refiner"):
        placed.put("refiner_model", choices=model_choices(app.models()))
        placed.put("refiner_switch", "refiner_swap")
    with card("Parts of other files"):
        for name, kind in PARTS.items():
            placed.put(name, choices=model_choices(app.files(kind)))
    return ModelsTab(refresh)


def model_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Files as a list shows them, without the ending, and their names."""
    return [(name.removesuffix(".safetensors"), name) for name in names]
