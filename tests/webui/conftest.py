"""The page's parts over the real Worker with a stand-in engine; the whole page as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.worker import Worker
from tests.browser.chromium import free_port, running, visit
from tests.webui.stand_in import Engine, handler, make_app
from webui.app import App

PACE = 0.15  # seconds a step of the served stand-in


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(outputs=tmp_path)


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    worker = Worker(handler, lambda: engine)
    worker.start()
    yield worker
    worker.close()


@pytest.fixture
def app(worker: Worker) -> App:
    return make_app(worker)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page over the stand-in engine is served."""
    port, outputs = free_port(), tmp_path_factory.mktemp("outputs")
    command = ["-m", "tests.webui.stand_in", str(port), str(outputs), str(PACE)]
    with running(command, f"http://127.0.0.1:{port}") as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh browser's page."""
    with visit(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def idle(browser: Any, address: str) -> Iterator[Any]:
    """One page for the tests of a file that start no task."""
    with visit(browser, address) as page:
        yield page
