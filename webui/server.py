"""Serving the page: Gradio's launch with our middleware, routes, theme, style and script, until Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from core.errors import BadConfig
from core.port import port_trouble
from webui.alive import alive_route
from webui.app import App
from webui.download_routes import download_routes
from webui.guard import Leavers, SlowLogin, SmallBodies, beside_the_loop, guarded, logout_route
from webui.history_routes import history_routes
from webui.lora_routes import lora_routes
from webui.page import build_page
from webui.pictures import picture_route
from webui.prompt_routes import prompt_routes
from webui.reuse import read_route
from webui.texts import texts_route
from webui.theme import easel_theme
from webui.visitors import LOOPBACK, Visitors

log = logging.getLogger(__name__)

# Seconds between two looks of Gradio's queue for work, and for progress bars of its own kind, which this page has none of.
# Its own 0.001 and 0.01 burn a twentieth of a core for ever, which a picture under way has to do without.
IDLE_SLEEP, PROGRESS_SLEEP = 0.05, 1.0
# Events that Gradio's queue works on at once. A page that watches is one for hours; there cannot be as many as this, since each
# of the visitors who find room in the worker's queue has MOST_WATCHES.
EVENTS_AT_ONCE = 4000
# Seconds that one thread may keep Python from the others. The page's thread works for milliseconds at a time; with Python's
# own 0.005 the sampler, which asks for its turn after each of its many short operations, stood still meanwhile.
SWITCH_INTERVAL = 0.0002
STYLES = ("style.css", "styles.css")
SCRIPTS = (
    "make.js",
    "page.js",
    "texts.js",
    "menu.js",
    "loras.js",
    "prompt.js",
    "downloads.js",
    "presets.js",
)  # in this order: the first makes window.easel


def serve(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 7865,
    share: bool = False,
    auth: Callable[[str, str], bool] | None = None,
    gone: Callable[[], set[str]] = set,
    in_browser: bool = True,
    theme: str = "auto",
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the page and block until Ctrl-C (KeyboardInterrupt ends it cleanly and is not raised again).

    `auth` tells who may come in with which password, `gone` who is to log in again since it was asked last. `theme` is
    "light", "dark" or "auto": as the browser prefers (what a person chooses in the page comes first). `ready` is called once
    with the page's address. Raises BadConfig if the port cannot be used.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    page = start(app, host=host, port=port, share=share, auth=auth, gone=gone, theme=theme)
    address = page.share_url or page.local_url or ""
    try:
        ready(address)
        if in_browser:
            threading.Thread(target=_open_browser, args=[address], daemon=True).start()
        while page.is_running:
            time.sleep(0.2)
    except KeyboardInterrupt:
        log.info("Stopping")
    finally:
        page.close(verbose=False)


def start(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 7865,
    share: bool = False,
    auth: Callable[[str, str], bool] | None = None,
    gone: Callable[[], set[str]] = set,
    theme: str = "auto",
) -> gr.Blocks:
    """Serve the page in the background; `close()` of the returned page ends it. Raises BadConfig as `serve` does."""
    trouble = port_trouble(host, port)
    if trouble:
        raise BadConfig(trouble)
    if find_spec("matplotlib") is None:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]  # Gradio seeks it in all folders twice a call
    page = build_page(app)
    page.queue(default_concurrency_limit=None, max_size=500)
    for name, seconds in (("sleep_when_free", IDLE_SLEEP), ("progress_update_sleep_when_free", PROGRESS_SLEEP)):
        if hasattr(page, "_queue") and hasattr(page._queue, name):
            setattr(page._queue, name, seconds)
    languages = app.languages
    menu, usual = (json.dumps(each).replace("<", "\\u003c") for each in (languages.menu(), languages.usual))
    given = {"PREFERRED_THEME": theme, "LANGUAGE_MENU": menu, "USUAL_LANGUAGE": usual}
    routes = _routes(app)
    extras: dict[str, Any] = {
        "middleware": [
            Middleware(Visitors, hosts=_names(app, host, share), seen=app.worker.seen),
            Middleware(SmallBodies),
            *([Middleware(SlowLogin), Middleware(Leavers, gone=gone)] if auth else []),
        ],
        "routes": [alive_route(), texts_route(languages), *([logout_route(), *guarded(routes)] if auth else routes)],
    }
    with _no_proxy(host):
        page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=share,
            auth=beside_the_loop(auth) if auth else None,  # type: ignore[arg-type]
            max_threads=EVENTS_AT_ONCE,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            footer_links=[],
            run_history=False,
            strict_cors=True,
            ssr_mode=False,
            enable_monitoring=False,
            app_kwargs=extras,
            favicon_path=str(files("webui") / "assets" / "favicon.svg"),
            theme=easel_theme(),
            css="\n".join(_asset(name) for name in STYLES),
            head="".join(f"<script>{_script(name, given)}</script>" for name in _scripts(app)),
        )
    page.limiter = None  # of as many threads, though an event that watches takes none: the server's own forty do
    return page


def _names(app: App, host: str, share: bool) -> tuple[str, ...] | None:
    """The names that the server answers to; None for any: who it is open to may call it as they like."""
    return None if share or app.open_to_others else (*LOOPBACK, host)


@contextmanager
def _no_proxy(host: str) -> Iterator[None]:
    """While it lasts, calls to `host` and to this machine go through no proxy: Gradio asks the page whether it is there."""
    before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    known = before["no_proxy"] or before["NO_PROXY"]
    os.environ.update(dict.fromkeys(before, ",".join(filter(None, [known, *LOOPBACK, host]))))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _open_browser(address: str) -> None:
    """Open `address` in the user's browser; one that would take over the terminal is left alone."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if isinstance(browser, webbrowser.BackgroundBrowser) or not isinstance(browser, webbrowser.GenericBrowser):
        browser.open(address)


def _scripts(app: App) -> list[str]:
    """Those of SCRIPTS that have somebody to talk to."""
    return [name for name in SCRIPTS if name != "downloads.js" or (app.downloads and app.shelf)]


def _script(name: str, given: Mapping[str, str]) -> str:
    """A script with what this start of the program gives it in place of the words in capitals."""
    text = _asset(name)
    for word, value in given.items():
        text = text.replace(word, value)
    return text


def _routes(app: App) -> list[Route]:
    """What the page asks for besides Gradio's own calls."""
    routes = [read_route(app), picture_route(app.worker), *prompt_routes(app)]
    routes += lora_routes(app)
    if app.history:
        routes += history_routes(app.history, app)
    if app.downloads and app.shelf:
        routes += download_routes(app.downloads, app.shelf, allowed=not app.open_to_others)
    return routes


def _asset(name: str) -> str:
    return (files("webui") / "assets" / name).read_text(encoding="utf-8")
