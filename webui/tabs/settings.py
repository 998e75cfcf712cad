"""The Settings tab: what a person looks at for every picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.app import App
from webui.sizes import labels, matching_label
from webui.tabs.batch import BatchCard, batch_card
from webui.tabs.place import Placed, card
from webui.tabs.presets import PresetCard, preset_card

READ_PICTURE = (
    '<label class="file-button">Take settings from a picture'
    '<input type="file" id="read_picture" accept="image/png,image/jpeg,image/webp"></label>'
)


@dataclass(frozen=True)
class SettingsTab:
    """What the page needs to know of the tab beside its controls."""

    aspect: Any
    any_seed: Any
    told_mode: Any
    reset: Any
    presets: PresetCard | None
    batch: BatchCard


def settings_tab(app: App, placed: Placed, native: tuple[int, int]) -> SettingsTab:
    """Make the tab; `native` is the width and height in pixels that the sizes on offer are scaled to."""
    defaults = placed.defaults
    size = (defaults.width, defaults.height)
    presets = preset_card(app.shelf, allowed=not app.open_to_others) if app.shelf else None
    with card("Picture"):
        placed.put("negative_prompt")
        ratios = app.aspect_ratios
        aspect = gr.Dropdown(
            labels(native, ratios), value=matching_label(size, native, ratios), label="Aspect ratio", elem_id="aspect"
        )
        with gr.Row():
            placed.put("width", "height")
        placed.put("image_number", maximum=max(app.max_image_number, defaults.image_number))
        with gr.Row(elem_id="seed_row"):
            placed.put("seed")
            any_seed = gr.Checkbox(value=True, label="Random seed", elem_id="random_seed", min_width=120)
    with card("Making"):
        placed.put("performance", "steps", "guidance_scale", "output_format")
        told_mode = gr.HTML("", elem_id="forced")
        gr.HTML(READ_PICTURE)
        reset = gr.Button("Reset to the preset", elem_id="reset_settings", size="sm")
    batch = batch_card(placed)
    return SettingsTab(aspect, any_seed, told_mode, reset, presets, batch)
