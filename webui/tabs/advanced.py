"""The Advanced tab: groups named by what they do for a picture, with a box to search them."""

from __future__ import annotations

import gradio as gr

from webui.tabs.place import Placed, card

GROUPS: dict[str, tuple[str, ...]] = {
    "How it is drawn": ("sampler", "scheduler"),
    "Fine texture": ("sharpness",),
    "Strength of the prompt": ("adaptive_cfg", "guidance_rescale", "clip_skip"),
    "Faster, with small changes": ("guidance_end", "step_cache", "final_decoder"),
    "How the prompt is read": ("prompt_syntax", "read_wildcards_in_order"),
    "Several pictures": ("seed_increment",),
    "Continuing the prompt": ("expander", "prompt_expansion"),
    "Contrast of shapes (FreeU)": ("freeu", "freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2"),
    "Size hints to the model": ("adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end"),
    "How the model is read": ("prediction", "zero_terminal_snr"),
    "Noise": ("noise_device",),
    "Previews and files": ("preview", "save_metadata"),
}
SEARCH = '<input type="search" id="advanced_search" placeholder="Search the settings" aria-label="Search the settings">'


def advanced_tab(placed: Placed) -> None:
    """Make the tab of all controls that stand nowhere else."""
    gr.HTML(SEARCH, elem_id="advanced_search_box")
    for title, names in GROUPS.items():
        with card(title):
            placed.put(*names)
