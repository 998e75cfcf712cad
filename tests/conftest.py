"""Shared by all tests: one thread a process, no network, no telemetry."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("DO_NOT_TRACK", "1")

from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a process: playwright's synchronous side can run only once in a thread."""
    with chromium() as browser:
        yield browser
