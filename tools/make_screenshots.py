"""Make docs/screenshots: every tab, light and dark, wide and on a phone, of the real program: python -m tools.make_screenshots

Needs Debian's chromium and the package playwright, as the tests in tests/browser do.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
SHOTS = ROOT / "docs" / "screenshots"
TABS = ("Settings", "Styles", "Models", "Advanced", "History")
THEMES = ("light", "dark")
SIZES = {"desktop": (1280, 900), "phone": (360, 740)}  # pixels
PROMPTS = ("a fox on a blue background", "a slice of pizza", "a red apple")
QUALITY = 80  # of WebP
TALLEST = 2400  # pixels of a phone's page that are shown
FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")
LONGEST = 240_000  # milliseconds for a picture


def main(argv: Sequence[str] | None = None) -> None:
    """Start the program with an outputs folder of its own, make a few pictures, look at all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=SHOTS, help="where they go (default docs/screenshots)")
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=TABS)
    args = parser.parse_args(argv)
    args.into.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, _program(Path(folder)) as address, sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
        page = context.new_page()
        _open(page, address)
        _make_pictures(page)
        cookies = context.storage_state()
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                visit = browser.new_context(
                    viewport={"width": width, "height": height}, storage_state=cookies, locale="en-US"
                )
                page = visit.new_page()
                _open(page, address)
                page.evaluate("(theme) => easel.theme.choose(theme)", theme)
                for tab in args.tabs:
                    file = args.into / f"{tab.lower()}-{theme}-{size}.webp"
                    _show(page, tab)
                    _write(page.screenshot(full_page=size == "phone"), file)
                    print(f"{file.name}  {file.stat().st_size // 1024} KB")
                visit.close()
        browser.close()


@contextmanager
def _program(outputs: Path) -> Iterator[str]:
    """`python launch.py` until the block ends; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "launch.py", "--port", str(port), "--disable-in-browser", "--skip-install",
        "--output", str(outputs),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "EASEL_USER_PRESETS": str(outputs / "presets")}, stdout=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("launch.py ended before its page was there.") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _open(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_function("document.activeElement && document.activeElement.closest('#positive_prompt')")
    page.wait_for_timeout(1000)


def _make_pictures(page: Any) -> None:
    for number, prompt in enumerate(PROMPTS, 1):
        page.fill("#positive_prompt textarea", prompt)
        page.keyboard.press("Control+Enter")
        page.wait_for_function(
            "(count) => document.querySelectorAll('#final_gallery a').length >= count", arg=number, timeout=LONGEST
        )


def _show(page: Any, tab: str) -> None:
    """Open `tab` and wait until it has what it asks the server for."""
    page.get_by_role("tab", name=tab, exact=True).click()
    if tab == "Styles":
        page.wait_for_selector("#styles_browser .tile")
    elif tab == "History":
        page.wait_for_selector("#history .tile img")
    page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")
    page.mouse.move(2, 2)
    page.wait_for_timeout(1200)


def _write(png: bytes, file: Path) -> None:
    with Image.open(io.BytesIO(png)) as picture:
        shown = picture.convert("RGB").crop((0, 0, picture.width, min(picture.height, TALLEST)))
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=QUALITY, method=6)
    part = file.with_suffix(".part")
    part.write_bytes(buffer.getvalue())
    part.replace(file)


if __name__ == "__main__":
    main()
