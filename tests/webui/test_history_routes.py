"""The history over HTTP: keys instead of paths, everybody's own, and changes only by our own page."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from foreign_samples import A1111
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from core.output.history import NAME, History
from core.output.thumbnails import make_thumbnail
from core.private_paths import without
from tests.webui.history_alone import MADE, fill
from webui.history_routes import LARGEST_REQUEST, MADE_AT_ONCE, MOST_KEYS, ROOT, history_routes
from webui.reuse import read_route
from webui.visitors import COOKIE, LOOPBACK, Visitors

ME, YOU = "o" * 43, "y" * 43  # `fill` makes all pictures for the first
TODAY = datetime.now().date().isoformat()


def client_of(history, app, owner=ME):
    routes = [*history_routes(history, app), read_route(app)]
    served = Starlette(routes=routes, middleware=[Middleware(Visitors, hosts=LOOPBACK)])
    return TestClient(served, base_url="http://127.0.0.1:7865", cookies={COOKIE: owner} if owner else {})


@pytest.fixture
def history(tmp_path):
    history = History(tmp_path, private=True)
    fill(tmp_path, history)
    yield history
    history.close()


@pytest.fixture
def client(history, app):
    return client_of(history, app)


@pytest.fixture
def own(tmp_path):
    """The history of a page that is open to nobody else: pictures of ours, one of another program, one without settings."""
    history = History(tmp_path / "own")
    fill(history.outputs, history)
    for name, text in (("foreign.png", A1111), ("bare.png", "")):
        info = PngInfo()
        info.add_text("parameters", text)
        Image.new("RGB", (8, 8)).save(history.outputs / name, pnginfo=info)
    history.sync()
    yield history
    history.close()


def listed(client, **params):
    return client.get(ROOT, params=params).json()


def key_of(client, words, **params):
    return listed(client, q=words, **params)["pictures"][0]["key"]


def test_a_search_tells_what_a_list_shows_and_no_path(client, history):
    answer = listed(client, q="fox model:easel")
    assert [picture["prompt"] for picture in answer["pictures"]] == ["a red fox on snow, larger", "a red fox on snow"]
    assert (answer["total"], answer["before"]) == (2, None)
    first = answer["pictures"][0]
    assert (first["seed"], first["kind"], first["time"][:10]) == (str(2**60 + 1), "upscaled", TODAY)
    assert str(history.outputs) not in json.dumps(answer) and len(first["key"]) >= 22  # 128 bits in base 64


def test_details_have_the_very_settings_and_the_lineage(client):
    answer = client.get(f"{ROOT}/details/{key_of(client, 'larger')}").json()
    assert f'"seed": {2**60 + 1},' in answer["settings"]
    assert [other["prompt"] for other in answer["ancestors"]] == ["a red fox on snow"]


def test_use_gives_what_a_drop_of_the_file_gives(own, app):
    """The program that wrote it, what could not be used, and a renamed model by its hash; from the trash, too."""
    known = {"checkpoints": {"large.safetensors": "31e35c80fc" + "0" * 54}}
    client = client_of(own, replace(app, hashes=lambda kind: known.get(kind, {})))
    key = key_of(client, "lighthouse")
    file = own.file(own.picture(key, ME))
    used = client.get(f"{ROOT}/use/{key}").json()["settings"]
    assert used == client.post("/easel/read", content=file.read_bytes()).text
    found = json.loads(used)
    assert (found["program"], found["settings"]["base_model"]) == ("A1111 or a program like it", "large.safetensors")
    assert "Denoising strength (0.35)" in found["unused"]
    client.post(f"{ROOT}/trash", json={"keys": [key]})
    assert not file.exists() and client.get(f"{ROOT}/use/{key}").json()["settings"] == used


@pytest.mark.parametrize(
    ("words", "program", "seed"), [("boat", "", 2**60 + 3), ("lighthouse", "A1111 or a program like it", 2**32 - 1)]
)
def test_use_gives_what_the_history_knows_of_a_file_that_is_gone(own, app, words, program, seed):
    client = client_of(own, app)
    key = key_of(client, words)
    own.file(own.picture(key, ME)).unlink()
    found = json.loads(client.get(f"{ROOT}/use/{key}").json()["settings"])
    assert (found["program"], found["whole"], found["settings"]["seed"]) == (program, True, seed)


def test_use_of_a_picture_without_settings_says_so(own, app):
    client = client_of(own, app)
    (bare,) = (one for one in listed(client)["pictures"] if one["name"] == "bare.png")
    answer = client.get(f"{ROOT}/use/{bare['key']}")
    assert answer.status_code == 422 and answer.json()["error"].startswith("The picture carries no settings.")


def test_the_file_comes_as_it_is_and_its_thumbnail_as_webp(client, history):
    key = key_of(client, "castle")
    answer = client.get(f"{ROOT}/picture/{key}")
    assert answer.content == history.file(history.picture(key, ME)).read_bytes()
    assert answer.headers["content-type"] == "image/png" and answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{ROOT}/thumbnail/{key}").content[8:12] == b"WEBP"


def test_thumbnails_that_wait_to_be_made_take_no_thread_and_those_that_are_there_do_not_wait(history, app, monkeypatch):
    making, go_on = threading.Semaphore(0), threading.Event()

    def make_slowly(file):
        making.release()
        go_on.wait(20)
        return make_thumbnail(file)

    pictures = history.search("", ME).pictures
    there, *others = [f"{ROOT}/thumbnail/{picture.key}" for picture in pictures]
    history.thumbnail(pictures[0])
    monkeypatch.setattr("core.output.thumbnails.make_thumbnail", make_slowly)

    async def story():
        transport = httpx.ASGITransport(client_of(history, app).app)
        cookies = {COOKIE: ME}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7865", cookies=cookies) as browser:
            waiting = [asyncio.create_task(browser.get(path)) for path in others + others]
            for _ in range(MADE_AT_ONCE):
                while not making.acquire(blocking=False):
                    await asyncio.sleep(0.01)
            kept = await browser.get(there)
            taken = current_default_thread_limiter().borrowed_tokens
            go_on.set()
            return kept, taken, await asyncio.gather(*waiting)

    with ThreadPoolExecutor(1) as thread:  # a loop of its own: in this thread playwright may be running one
        kept, taken, made = thread.submit(asyncio.run, story()).result()
    assert taken == MADE_AT_ONCE < len(made)
    assert {answer.content[8:12] for answer in (kept, *made)} == {b"WEBP"}


def test_a_picture_can_be_had_without_its_settings(client):
    answer = client.get(f"{ROOT}/picture/{key_of(client, 'castle')}", params={"plain": "1"})
    with Image.open(BytesIO(answer.content)) as image:
        assert image.info == {} and image.getpixel((0, 0)) == (134, 120, 62)
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_day_is_a_page_to_keep(client):
    """D59: it is made of the history when it is asked for, so its link is never stale."""
    answer = client.get(f"{ROOT}/day/{TODAY}")
    assert answer.text.count("<article>") == 2
    assert f'filename="easel-{TODAY}.html"' in answer.headers["content-disposition"]


def test_a_day_may_be_the_browsers_own(client):
    noon = round(datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0).timestamp() * 1000)
    long = 36 * 3_600_000  # to yesterday's pictures and beyond
    spans = ((noon, noon + 1000, 1), (noon - long, noon, 2), (noon - long, noon + long, 4), (noon, "x", 2))
    for since, until, count in spans:
        page = client.get(f"{ROOT}/day/{TODAY}", params={"since": since, "until": until}).text
        assert page.count("<article>") == count
    assert client.get(f"{ROOT}/day/9999-12-31", params={"since": 0, "until": 1}).status_code == 404


def test_favourite_trash_undo_and_emptying(client):
    key = key_of(client, "boat")
    assert client.post(f"{ROOT}/favourite", json={"keys": [key], "on": True}).json() == {"done": [key]}
    assert listed(client, q="fav")["total"] == 1
    assert client.post(f"{ROOT}/trash", json={"keys": [key]}).json() == {"done": [key], "remarks": []}
    assert (listed(client, q="boat")["total"], listed(client, q="boat", trash=1)["total"]) == (0, 1)
    assert client.post(f"{ROOT}/restore", json={"keys": [key]}).json()["done"] == [key]
    client.post(f"{ROOT}/trash", json={"keys": [key]})
    assert client.post(f"{ROOT}/empty", json={}).json() == {"deleted": 1}
    assert client.get(f"{ROOT}/picture/{key}").status_code == 404


def test_to_others_nothing_of_mine_is_there_and_nothing_can_be_done_to_it(client, history, app):
    key = key_of(client, "boat")
    other = client_of(history, app, YOU)
    assert listed(other)["total"] == 0
    for kind in ("details", "use", "picture", "thumbnail"):
        assert other.get(f"{ROOT}/{kind}/{key}").status_code == 404
    assert "<article>" not in other.get(f"{ROOT}/day/{TODAY}").text
    for change in ("favourite", "trash", "restore"):
        assert other.post(f"{ROOT}/{change}", json={"keys": [key], "on": True}).json()["done"] == []
    assert other.post(f"{ROOT}/empty", json={}).json() == {"deleted": 0}
    assert listed(client)["total"] == len(MADE) and listed(client, q="fav")["total"] == 0


@pytest.mark.parametrize("owner", ["", "no cookie of ours"])
def test_without_our_cookie_there_is_nothing_even_on_a_page_of_ones_own(tmp_path, app, owner):
    history = History(tmp_path)
    fill(tmp_path, history)
    stranger = client_of(history, app, owner)
    asked = ("", "/details/x", "/use/x", "/picture/x", "/thumbnail/x", f"/day/{TODAY}")
    answers = [stranger.get(ROOT + path) for path in asked]
    answers += [
        stranger.post(f"{ROOT}/{change}", json={"keys": []}) for change in ("favourite", "trash", "empty", "rescan")
    ]
    assert {answer.status_code for answer in answers} == {403}
    history.close()


@pytest.mark.parametrize("change", ["favourite", "trash", "restore", "empty", "rescan"])
def test_another_web_page_can_change_nothing(client, change):
    body = {"keys": [key_of(client, "boat")], "on": True}
    address = f"{ROOT}/{change}"
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client.post(address, json=body, headers=headers).status_code == 403
    form = client.post(address, content=json.dumps(body), headers={"content-type": "text/plain"})
    assert form.status_code == 400
    assert client.get(address).status_code in (404, 405)
    assert listed(client)["total"] == len(MADE)


@pytest.mark.parametrize(
    "path",
    ["picture/..%2f..%2fetc%2fpasswd", "picture/2026", f"picture/{NAME}", "thumbnail/%00", "details/' OR 1=1", "day/../../x", "day/2026-02-30", "day/soon"],
)  # fmt: skip
def test_nothing_but_the_key_of_a_picture_opens_anything(client, path):
    assert client.get(f"{ROOT}/{path}").status_code == 404


def test_the_last_day_there_is_has_no_pictures(client):
    assert "<article>" not in client.get(f"{ROOT}/day/9999-12-31").text
    assert listed(client, q="date:9999-12-31")["total"] == 0


def test_however_often_a_visitor_asks_to_look_again_one_thread_does_it(client, history, monkeypatch):
    go_on = threading.Event()
    looks = []
    monkeypatch.setattr(history, "sync", lambda: (looks.append(1), go_on.wait(10)))
    for _ in range(10):
        assert client.post(f"{ROOT}/rescan", json={}).json() == {}
    assert sum(thread.name == "history" for thread in threading.enumerate()) == 1
    go_on.set()
    history._thread.join(10)
    assert len(looks) == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"null", b'{"keys": "x"}', b'{"keys": [1]}', b"[" * 50_000, b" " * (LARGEST_REQUEST + 1),
     json.dumps({"keys": ["x"] * (MOST_KEYS + 1)}).encode()],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_with_a_reason(client, body):
    answer = client.post(f"{ROOT}/trash", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]


@pytest.mark.parametrize("before", ["-1", "x", "9" * 30, "1e9", "²"])
def test_a_place_in_the_list_that_makes_no_sense_is_its_beginning(client, before):
    assert listed(client, before=before)["total"] == len(MADE)


def test_a_file_that_is_gone_is_not_found(client, history):
    key = key_of(client, "boat")
    Path(history.file(history.picture(key, ME))).unlink()
    assert client.get(f"{ROOT}/picture/{key}").status_code == 404
    assert client.get(f"{ROOT}/thumbnail/{key}").status_code == 404


def test_a_history_that_cannot_be_used_says_so(tmp_path, app):
    (tmp_path / "file").write_text("in the way")
    visited = replace(app, shown=without({tmp_path: "…"}))
    answer = client_of(History(tmp_path / "file"), visited).get(ROOT)
    assert answer.status_code == 503 and "pictures themselves are safe" in answer.json()["error"]
    assert str(tmp_path) not in answer.json()["error"]
