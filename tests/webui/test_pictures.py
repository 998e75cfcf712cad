from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.events import Saved
from core.output.record import Record
from core.output.save import encode_picture
from core.settings import Settings
from core.task import AsyncTask
from webui.pictures import picture_route
from webui.render import picture_url
from webui.visitors import COOKIE

ME, YOU = "m" * 43, "y" * 43


@pytest.fixture
def task(worker, tmp_path):
    """A task of ME with one picture on disk and one that was deleted."""
    task = AsyncTask(Settings(prompt="a fox"), ME)
    (tmp_path / "one.png").write_bytes(b"\x89PNG exactly these bytes")
    for name in ("one.png", "deleted.png"):
        task.publish(Saved(path=str(tmp_path / name), seed=1, width=8, height=8))
    worker.submit(task)
    return task


@pytest.fixture
def get(worker):
    client = TestClient(Starlette(routes=[picture_route(worker)]))

    def get(address, owner):
        client.cookies = {COOKIE: owner} if owner else {}
        return client.get(address)

    return get


def test_the_file_comes_byte_for_byte_to_the_browser_that_asked_for_it(task, get, tmp_path):
    """D74: the saved file is what is served; there is no second one."""
    answer = get("/" + picture_url(task, 0), ME)
    assert answer.content == (tmp_path / "one.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert 'filename="one.png"' in answer.headers["content-disposition"]


@pytest.mark.parametrize("owner", [YOU, "", "no cookie of ours"])
def test_for_everybody_else_there_is_no_such_picture(task, get, owner):
    """D4: pictures of others are not to be guessed."""
    assert get("/" + picture_url(task, 0), owner).status_code == 404


@pytest.mark.parametrize("path", ["{id}/1", "{id}/2", "{id}/-1", "{id}/../0", "other/0", "{id}/0/../../../etc/passwd"])
def test_nothing_but_the_pictures_of_a_task_can_be_fetched(task, get, path):
    assert get("/easel/pictures/" + path.format(id=task.id), ME).status_code == 404


def test_a_picture_to_be_shared_comes_without_its_settings(task, get, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    data, _ = encode_picture(pixels, Record(Settings(prompt="a secret")))
    (tmp_path / "one.png").write_bytes(data)
    assert b"a secret" in get("/" + picture_url(task, 0), ME).content
    plain = get("/" + picture_url(task, 0) + "?plain=1", ME)
    assert b"secret" not in plain.content and "attachment" in plain.headers["content-disposition"]
    assert (np.asarray(Image.open(BytesIO(plain.content))) == pixels).all()
    assert get("/" + picture_url(task, 0) + "?plain=1", YOU).status_code == 404


def test_of_a_damaged_picture_there_is_none_to_be_shared(task, get):
    assert get("/" + picture_url(task, 0) + "?plain=1", ME).status_code == 404
