"""Downloads over HTTP: nothing without the word of the one who sits at the computer; a failure is told."""

import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.presets_shelf import Shelf
from core.weights.download import DownloadFailed, Transfer
from core.weights.fetching import Downloads
from core.weights.files import Catalog
from webui.download_routes import download_routes
from webui.visitors import COOKIE

ROOT = Path(__file__).parents[2]


def transfers(count):
    for done in range(1, count + 1):
        yield Transfer(
            name="big.safetensors", text="Downloading", file=1, files=1, done=done, total=count, all_done=done, all_total=count
        )  # fmt: skip
        time.sleep(0.01)


def failing(wanted):
    yield from transfers(2)
    raise DownloadFailed("The server broke off.")


@pytest.fixture
def shelf(tmp_path):
    return Shelf(catalog=Catalog([tmp_path / "none"]), own=tmp_path / "own", program=ROOT / "presets")


def client(shelf, fetch, allowed=True):
    made = TestClient(Starlette(routes=download_routes(Downloads(fetch), shelf, allowed=allowed)))
    made.cookies = {COOKIE: "m" * 43}
    return made


def ended(page):
    while (now := page.get("/easel/downloads").json())["busy"]:
        time.sleep(0.01)
    return now


def test_what_a_preset_needs_is_fetched_after_the_word(shelf):
    asked = []

    def fetch(wanted):
        asked.extend(source.name for source, _ in wanted)
        yield from transfers(3)

    page = client(shelf, fetch)
    assert page.get("/easel/downloads").json() == {"busy": False, "done": False, "problem": ""}
    assert page.post("/easel/downloads", json={"preset": "anime"}).status_code == 200
    now = ended(page)
    assert now["done"] and now["share"] == 1.0 and now["problem"] == ""
    assert asked == [need.name for need in shelf.choice("anime").missing if need.url]


def test_a_second_download_waits_its_turn_and_the_first_can_be_stopped(shelf):
    page = client(shelf, lambda wanted: transfers(10_000))
    page.post("/easel/downloads", json={"preset": "anime"})
    assert "already" in page.post("/easel/downloads", json={"preset": "pony"}).json()["problem"]
    page.post("/easel/downloads", json={})
    now = ended(page)
    assert not now["done"] and now["problem"].startswith("Stopped")


def test_a_failure_is_told(shelf):
    page = client(shelf, failing)
    page.post("/easel/downloads", json={"preset": "anime"})
    assert ended(page)["problem"] == "The server broke off."


def test_where_the_page_is_open_to_others_nobody_fills_the_disk(shelf):
    page = client(shelf, lambda wanted: transfers(1), allowed=False)
    assert page.post("/easel/downloads", json={"preset": "anime"}).status_code == 403


@pytest.mark.parametrize("body", ["", "[]", "{", "x" * 2000])
def test_what_is_no_request_is_refused(shelf, body):
    page = client(shelf, lambda wanted: transfers(1))
    answer = page.post("/easel/downloads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_preset_that_is_not_there_is_told(shelf):
    page = client(shelf, lambda wanted: transfers(1))
    answer = page.post("/easel/downloads", json={"preset": "nobody"}).json()
    assert "There is no preset 'nobody'" in answer["problem"]
