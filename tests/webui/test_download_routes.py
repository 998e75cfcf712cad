"""Downloads over HTTP: nothing without the word of the one who sits at the computer; a failure is told."""

import json
import re
import threading
import time
from html import unescape
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.presets_shelf import Shelf
from core.weights.download import DownloadFailed, Transfer
from core.weights.fetching import Downloads
from core.weights.files import Catalog
from core.weights.sources import HOSTS
from webui.download_routes import download_routes
from webui.visitors import COOKIE

HYPER = "sdxl_hyper_sd_4step_lora.safetensors"
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
    catalog = Catalog([tmp_path / "none"], others={"loras": [tmp_path / "loras"]})
    return Shelf(catalog=catalog, own=tmp_path / "own", program=ROOT / "presets", hosts=HOSTS)


def client(shelf, fetch, allowed=True, ask=lambda source: pytest.fail("asked")):
    downloads = Downloads(lambda wanted, patience: fetch(wanted), ask)
    made = TestClient(Starlette(routes=download_routes(downloads, shelf, allowed=allowed)))
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


def test_a_presets_file_of_unknown_size_is_asked_for_before_it_is_fetched(shelf):
    """A preset of Fooocus says addresses alone."""
    shelf.own.mkdir()
    theirs = {
        "default_model": "own.safetensors",
        "checkpoint_downloads": {"own.safetensors": "https://civitai.com/own"},
        "lora_downloads": {HYPER: "https://huggingface.co/elsewhere"},
    }
    (shelf.own / "theirs.json").write_text(json.dumps(theirs))
    asked = []

    def ask(source):
        asked.append(source.url)
        return 6_900_000_000

    page = client(shelf, lambda wanted: pytest.fail("fetched"), ask=ask)
    box = page.post("/easel/sizes", json={"preset": "theirs"}).json()["box"]
    assert asked == ["https://civitai.com/own"]  # the size of the other is known
    assert "own.safetensors <span>6.9 GB</span>" in box and ">civitai.com</span>" in box and "7.69 GB" in box
    assert json.loads(unescape(re.search('data-fetch="(.*?)">Download<', box)[1])) == {"preset": "theirs"}
    page = client(shelf, lambda wanted: transfers(1), ask=lambda source: None)
    box = page.post("/easel/sizes", json={"preset": "theirs"}).json()["box"]
    assert "its host does not tell the size" in box and ">Download<" in box
    assert "There is no preset 'nobody'" in page.post("/easel/sizes", json={"preset": "nobody"}).json()["problem"]
    assert page.post("/easel/sizes", json={}).status_code == 400
    closed = client(shelf, lambda wanted: transfers(1), allowed=False)
    assert closed.post("/easel/sizes", json={"preset": "theirs"}).status_code == 403


def test_what_a_mode_lacks_is_told_in_a_box_and_fetched_by_name(shelf, tmp_path):
    asked = []

    def fetch(wanted):
        asked.extend((source.url, folder) for source, folder in wanted)
        yield from transfers(1)

    page = client(shelf, fetch)
    boxes = page.get("/easel/needs", params={"performance": "hyper_sd", "refiner_model": ""}).json()
    assert boxes["refiner_model"] == "" and f"<li>{HYPER} <span>787 MB</span>" in boxes["performance"]
    [sent] = re.findall('data-fetch="(.*?)"', boxes["performance"])
    assert page.post("/easel/downloads", json=json.loads(unescape(sent))).status_code == 200
    assert ended(page)["done"]
    assert asked == [(f"https://huggingface.co/mashb1t/misc/resolve/main/{HYPER}", tmp_path / "loras")]
    assert page.get("/easel/needs", params={"performance": "<b>", "refiner_model": "<b>"}).json() == {
        "performance": "",
        "refiner_model": "",
    }


def test_only_files_of_the_table_are_fetched_by_name(shelf):
    page = client(shelf, lambda wanted: pytest.fail("fetched"))
    for name in ("../evil.safetensors", "https://huggingface.co/x/y.safetensors", "nothing.safetensors"):
        answer = page.post("/easel/downloads", json={"names": [HYPER, name]}).json()
        assert "Easel knows no file" in answer["problem"] and not answer["busy"]
    for names in (HYPER, [], [1], None, {}):
        assert page.post("/easel/downloads", json={"names": names}).status_code == 400


def test_a_damaged_file_is_told_and_not_written_over(shelf, tmp_path):
    """Q30: the box says what to do; a press on Download says it again as long as the file is there."""
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / HYPER).write_bytes(b"cut off")
    page = client(shelf, lambda wanted: pytest.fail("fetched"))
    box = page.get("/easel/needs", params={"performance": "hyper_sd"}).json()["performance"]
    assert "with 7 bytes instead of 787359648" in box and "Move it away or delete it" in box
    answer = page.post("/easel/downloads", json={"names": [HYPER]}).json()
    assert "Move it away or delete it, then download again." in answer["problem"] and not answer["busy"]
    page = client(shelf, lambda wanted: transfers(1))
    page.post("/easel/downloads", json={"names": [HYPER, "sdxl_lcm_lora.safetensors"]})
    now = ended(page)
    assert now["share"] == 1.0 and not now["done"] and HYPER in now["problem"]  # the other one came
    assert (tmp_path / "loras" / HYPER).read_bytes() == b"cut off"


THEIRS = {
    "default_model": "own.safetensors",
    "default_loras": [["nowhere.safetensors", 0.5]],
    "checkpoint_downloads": {"own.safetensors": "https://civitai.com/own"},
}


def test_what_nobody_knows_where_to_get_is_told_in_the_end(shelf):
    shelf.own.mkdir()
    (shelf.own / "theirs.json").write_text(json.dumps(THEIRS))
    asked = []

    def fetch(wanted):
        asked.extend(source.name for source, _ in wanted)
        yield from transfers(1)

    page = client(shelf, fetch)
    page.post("/easel/downloads", json={"preset": "theirs"})
    now = ended(page)
    assert asked == ["own.safetensors"] and now["came"] and not now["done"]
    assert now["problem"].startswith("nowhere.safetensors is not there, and Easel does not know where it is published.")


def test_a_damaged_file_of_unknown_address_is_not_called_there(shelf, tmp_path):
    shelf.own.mkdir()
    (shelf.own / "theirs.json").write_text(json.dumps({"default_loras": [["own.safetensors", 0.5]]}))
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "own.safetensors").write_bytes(b"cut off")
    page = client(shelf, lambda wanted: pytest.fail("fetched"))
    box = page.post("/easel/sizes", json={"preset": "theirs"}).json()["box"]
    assert "own.safetensors" in box and "<button" not in box
    now = page.post("/easel/downloads", json={"preset": "theirs"}).json()
    assert "Move it away or delete it" in now["problem"] and not now["done"] and not now["busy"]


def test_stopping_is_said_at_once(shelf):
    goes_on = threading.Event()

    def fetch(wanted):
        yield from transfers(1)
        goes_on.wait(20)
        yield from transfers(1)

    page = client(shelf, fetch)
    page.post("/easel/downloads", json={"preset": "anime"})
    while "name" not in page.get("/easel/downloads").json():
        time.sleep(0.01)
    now = page.post("/easel/downloads", json={}).json()
    assert now["busy"] and now["text"] == "Stopping"
    goes_on.set()
    assert ended(page)["problem"].startswith("Stopped")


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
    assert page.post("/easel/downloads", json={"names": [HYPER]}).status_code == 403
    assert page.get("/easel/needs", params={"performance": "hyper_sd"}).json()["performance"] == ""


@pytest.mark.parametrize("body", ["", "[]", "{", "x" * 2000])
def test_what_is_no_request_is_refused(shelf, body):
    page = client(shelf, lambda wanted: transfers(1))
    answer = page.post("/easel/downloads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_preset_that_is_not_there_is_told(shelf):
    page = client(shelf, lambda wanted: transfers(1))
    answer = page.post("/easel/downloads", json={"preset": "nobody"}).json()
    assert "There is no preset 'nobody'" in answer["problem"]
