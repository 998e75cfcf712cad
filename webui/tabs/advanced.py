"""The Advanced tab: groups named by what they do for a picture, with a box to search them."""

from __future__ import annotations

import json
from html import escape

import gradio as gr

from webui.controls import names_of, search_words
from webui.tabs.place import Placed, card, tab_of

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
    "Pictures made with Fooocus": ("strict_compatibility",),
    "Previews and files": ("preview", "save_metadata"),
}
# assets/page.js searches the words, and says in the line below it what it does not find here.
SEARCH = (
    '<input type="search" id="advanced_search" placeholder="Search the settings" aria-label="Search the settings" '
    'data-words="{words}"><p id="advanced_found" class="note" role="status"></p>'
)


def advanced_tab(placed: Placed) -> None:
    """Make the tab of all controls that stand nowhere else."""
    words = {"here": words_here(), "elsewhere": words_elsewhere(placed)}
    gr.HTML(SEARCH.format(words=escape(json.dumps(words))), elem_id="advanced_search_box")
    for title, names in GROUPS.items():
        with card(title):
            placed.put(*names)


def words_here() -> dict[str, list[str]]:
    """Setting of this tab -> what a search finds it by."""
    return {name: [title, *search_words(name)] for title, names in GROUPS.items() for name in names}


def words_elsewhere(placed: Placed) -> dict[str, dict[str, list[str]]]:
    """Tab -> the labels of the settings that are `placed` in it -> what else they are called."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, control in placed.controls.items():
        if tab := tab_of(control):
            found.setdefault(tab, {})[control.label] = names_of(name)
    return found
