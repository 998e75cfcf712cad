"""The page's colours and shapes, light and dark. Fonts are the system's own: nothing is fetched."""

from __future__ import annotations

from typing import Any

import gradio as gr

INK, INK_DARK = "#22262b", "#ece8e1"
SOFT, SOFT_DARK = "#59616b", "#a9b0b8"  # secondary text: at least 4.5 : 1 on every ground below
PAPER, PAPER_DARK = "#f5f3ee", "#14171a"
CARD, CARD_DARK = "#fffefb", "#1d2125"
FIELD, FIELD_DARK = "#f8f6f1", "#15191c"
LINE, LINE_DARK = "#dedad0", "#343a41"
ACCENT, ACCENT_DARK = "#0b6b62", "#63d2c0"
ACCENT_HOVER, ACCENT_HOVER_DARK = "#08564f", "#86dfd1"
ON_ACCENT, ON_ACCENT_DARK = "#ffffff", "#06201d"

COLOURS = {
    "body_background_fill": (PAPER, PAPER_DARK),
    "body_text_color": (INK, INK_DARK),
    "body_text_color_subdued": (SOFT, SOFT_DARK),
    "background_fill_primary": (CARD, CARD_DARK),
    "background_fill_secondary": (FIELD, FIELD_DARK),
    "border_color_primary": (LINE, LINE_DARK),
    "border_color_accent": (ACCENT, ACCENT_DARK),
    "color_accent_soft": ("#e0efec", "#123530"),
    "block_background_fill": ("transparent", "transparent"),
    "block_info_text_color": (SOFT, SOFT_DARK),
    "block_label_text_color": (INK, INK_DARK),
    "block_title_text_color": (INK, INK_DARK),
    "input_background_fill": (FIELD, FIELD_DARK),
    "input_border_color": (LINE, LINE_DARK),
    "input_border_color_focus": (ACCENT, ACCENT_DARK),
    "input_placeholder_color": ("#6b727b", "#8d959e"),
    "slider_color": (ACCENT, ACCENT_DARK),
    "loader_color": (ACCENT, ACCENT_DARK),
    "checkbox_background_color_selected": (ACCENT, ACCENT),
    "checkbox_border_color_selected": (ACCENT, ACCENT_DARK),
    "checkbox_label_background_fill": (FIELD, FIELD_DARK),
    "checkbox_label_background_fill_selected": ("#e0efec", "#123530"),
    "checkbox_label_border_color_selected": (ACCENT, ACCENT_DARK),
    "checkbox_label_text_color_selected": (INK, INK_DARK),
    "button_primary_background_fill": (ACCENT, ACCENT_DARK),
    "button_primary_background_fill_hover": (ACCENT_HOVER, ACCENT_HOVER_DARK),
    "button_primary_text_color": (ON_ACCENT, ON_ACCENT_DARK),
    "button_secondary_background_fill": (CARD, "#282d33"),
    "button_secondary_background_fill_hover": ("#efece4", "#323940"),
    "button_secondary_border_color": (LINE, LINE_DARK),
    "button_secondary_text_color": (INK, INK_DARK),
    "panel_background_fill": (CARD, CARD_DARK),
    "accordion_text_color": (INK, INK_DARK),
}


def easel_theme() -> gr.themes.Base:
    """Calm paper and ink with one accent."""
    both: dict[str, Any] = {}
    for name, (light, dark) in COLOURS.items():
        both |= {name: light, f"{name}_dark": dark}
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    )
    return theme.set(
        **both,
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        block_title_text_weight="600",
        form_gap_width="0px",
        layout_gap="14px",
        input_border_width="1px",
        button_large_text_weight="600",
    )
