"""Easel as a person starts it, and a browser to look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import ROOT, free_port, running


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def address(browser: Any, outputs: Path) -> Iterator[str]:
    """Where the whole program serves its page, with the checkpoint that the repository ships."""
    models = Path(os.environ.get("EASEL_MODELS", ROOT / "models"))
    if not any((models / "checkpoints").glob("*.safetensors")):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{models / 'checkpoints'} holds no checkpoint."
        )
    port = free_port()
    command = ["launch.py", "--port", str(port), "--disable-in-browser", "--skip-install", "--output", str(outputs)]
    with running(command, f"http://127.0.0.1:{port}", EASEL_USER_PRESETS=str(outputs / "presets")) as address:
        yield address
