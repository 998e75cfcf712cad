"""Shared by all tests: one thread a process, no network, no telemetry."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("DO_NOT_TRACK", "1")

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.browser.chromium import chromium

for name in ("http_proxy", "https_proxy", "all_proxy"):  # what is served here is asked straight
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# The same examples at every run, and no verdict on how fast a busy machine made them.
hypothesis.settings.register_profile(
    "easel", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("easel")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes on two cores: more threads would only get in each other's way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder one that may be neither read nor entered, for root, too."""

    def unreadable(folder: Path) -> None:
        def guarded(name: str, itself: bool) -> None:
            real = getattr(os, name)

            def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
                place = Path(path) if isinstance(path, (str, Path)) else Path()
                if folder in place.parents or (itself and place == folder):
                    raise PermissionError(errno.EACCES, "Permission denied", str(path))
                return real(path, *args, **kwargs)

            monkeypatch.setattr(os, name, call)

        for name, itself in (("stat", False), ("lstat", False), ("scandir", True), ("listdir", True)):
            guarded(name, itself)

    return unreadable


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a process: playwright's synchronous side can run only once in a thread."""
    with chromium() as browser:
        yield browser
