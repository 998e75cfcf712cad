"""The History tab: the frame that webui/assets/history.js fills from the routes of webui/history_routes.py."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

from webui.app import App

WITHOUT = '<p class="note">This installation keeps no history.</p>'


def history_tab(app: App) -> Any:
    """Make the tab where the caller is placing things. Without a history in `app` it only says so.

    The script asks for nothing before the tab is seen. "Use these settings" calls `window.easel.useSettings(json)`.
    """
    if app.history is None:
        return gr.HTML(WITHOUT, elem_id="history")
    frame = f'<style>{_asset("history.css")}</style><section class="history" aria-label="History"></section>'
    return gr.HTML(frame, elem_id="history", js_on_load=_asset("history.js"), apply_default_css=False)


def _asset(name: str) -> str:
    return (files("webui") / "assets" / name).read_text(encoding="utf-8")
