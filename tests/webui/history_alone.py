"""The History tab alone on a page, over pictures that this file makes: for looking at it in a browser."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

import gradio as gr
import numpy as np
from starlette.middleware import Middleware

from core.output.fingerprint import fingerprint
from core.output.history import History
from core.output.record import Origin, Record
from core.output.save import save_picture
from core.settings import Settings
from core.worker import Worker
from tests.webui.stand_in import Engine, handler, make_app
from webui.app import App
from webui.history_routes import history_routes
from webui.tabs.history import history_tab
from webui.theme import easel_theme
from webui.visitors import LOOPBACK, Visitors

SIZE = 64  # pixels
# Prompt, model, days ago, made from which one of this list and how.
MADE = (
    ("a red fox on snow", "easel.safetensors", 0, None),
    ("a red fox on snow, larger", "easel.safetensors", 0, (0, "upscaled")),
    ("a blue castle <img src=x onerror=alert(1)>", "other.safetensors", 1, None),
    ("a yellow boat", "other.safetensors", 1, None),
)
MANY = 150
MAKE = (files("webui") / "assets" / "make.js").read_text("utf-8")
HEAD = f"<script>{MAKE} window.easel.useSettings = (text) => {{ document.title = text; }};</script>"


def fill(outputs: Path, history: History, many: int = 0) -> list[Path]:
    """Save the pictures of MADE, then `many` more of older days, and take them in."""
    made: list[Path] = []
    rows = [*MADE, *((f"number {n}", "easel.safetensors", 2 + n // 40, None) for n in range(many))]
    now = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
    for number, (prompt, model, days, source) in enumerate(rows):
        settings = Settings(prompt=prompt, base_model=model, seed=2**60 + number, width=SIZE, height=SIZE)
        origin = Origin(fingerprint(made[source[0]]), source[1]) if source else None
        record = Record(settings, created=now - timedelta(days=days, seconds=-number), origin=origin)
        pixels = np.full((SIZE, SIZE, 3), (number * 67 % 256, 120, number * 31 % 256), np.uint8)
        made.append(save_picture(pixels, record, outputs).path)
        history.add(made[-1], record, "o" * 43)
    return made


def serve(app: App, port: int) -> None:
    """Serve a page of nothing but the tab until SIGTERM."""
    assert app.history is not None
    with gr.Blocks(title="History", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            '<button id="generate_button">A button</button><div id="positive_prompt"><input autofocus></div><div id="final_gallery"></div>'
        )
        history_tab(app)
    page.launch(
        server_port=port, prevent_thread_lock=False, quiet=True, footer_links=[], run_history=False, ssr_mode=False,
        theme=easel_theme(), css=(files("webui") / "assets" / "style.css").read_text("utf-8"), head=HEAD,
        app_kwargs={
            "middleware": [Middleware(Visitors, hosts=LOOPBACK)], "routes": history_routes(app.history, app)
        },
    )  # fmt: skip


def main(port: int, outputs: Path) -> None:
    """Make the pictures and serve the page."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    history = History(outputs)
    fill(outputs, history, MANY)
    worker = Worker(handler, lambda: Engine(outputs=outputs))
    serve(replace(make_app(worker), history=history), port)
    history.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
