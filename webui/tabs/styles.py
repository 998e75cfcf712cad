"""The Styles tab: the frame that webui/assets/styles.js fills with the library, and the control that holds the choice."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr

from webui.tabs.place import Placed

FRAME = '<section class="styles" aria-label="Styles"></section>'


def styles_tab(placed: Placed) -> None:
    """Make the tab. The control `styles` is hidden: it holds the chosen names as a JSON list, which the script draws."""
    placed.put("styles")
    script = (files("webui") / "assets" / "styles.js").read_text(encoding="utf-8")
    gr.HTML(FRAME, elem_id="styles_browser", js_on_load=script, apply_default_css=False)
