"""A headless Chromium for the tests that look at the page: Debian's package, driven by playwright."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOW_TO_GET = "No browser to look at the page with. Get it with: apt-get install chromium; pip install playwright"

ON_LEAVING = ("signal is aborted without reason", "Connection errored out")  # Gradio, when a page is left in mid-stream


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser. Without one the test is skipped; in CI, where nothing may be skipped, it fails."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(HOW_TO_GET)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Seen:
    """What must not happen on any page: requests to other hosts, and errors in the console."""

    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("request", lambda request: self._request(request.url))
        page.on("pageerror", lambda error: self._error(str(error)))
        page.on("console", lambda message: message.type == "error" and self._error(message.text))

    def _error(self, text: str) -> None:
        if not any(known in text for known in ON_LEAVING):
            self.errors.append(text)

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.foreign.append(url)


@contextmanager
def visit(browser: Any, address: str, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Any]:
    """A fresh browser profile on the page, ready for use; afterwards nothing foreign and no error was seen.

    `options` are further ones of playwright's `new_context`.
    """
    seen = Seen()
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light", **options)
    page = context.new_page()
    seen.watch(page)
    arrive(page, address)
    yield page
    context.close()
    assert not seen.foreign, seen.foreign
    assert not seen.errors, seen.errors


def arrive(page: Any, address: str) -> None:
    """Open `address` (or reload it) and wait until the page answers to keys."""
    page.goto(address)
    page.wait_for_selector("#generate_button")
    page.wait_for_function("document.activeElement && document.activeElement.closest('#positive_prompt')")


@contextmanager
def running(
    command: list[str], address: str, seconds: float = 120.0, kill: bool = False, **environ: str
) -> Iterator[str]:
    """A server started as a process of its own, from when it answers; it must end cleanly on SIGTERM.

    With `kill` it is ended as `kill -9` does, without a chance to tidy up.
    """
    # One thread: two servers of two test processes on two cores would wait for each other at every layer.
    kept = {
        name: value for name, value in os.environ.items() if name == "EASEL_MODELS" or not name.startswith("EASEL_")
    }
    environment = kept | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "EASEL_THREADS": "1"} | environ
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"The page did not come up: {' '.join(command)}")
            time.sleep(0.1)
        yield address
    finally:
        (process.kill if kill else process.terminate)()
        process.wait(timeout=20)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True
