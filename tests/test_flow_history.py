"""A picture that is made is in the history at once, with its owner, its settings and its size."""

import json

import pytest
from PIL import Image
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.events import Saved, Warned
from core.handler import handler
from core.output.history import History
from core.pipeline import Pipeline
from core.settings import Settings
from core.task import AsyncTask
from core.weights.files import Catalog

OWNER = "o" * 43
SMALL = {"width": 64, "height": 64, "steps": 2, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}


@pytest.fixture
def pipeline(tmp_path):
    write_checkpoint(tmp_path / "tiny.safetensors")
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    return Pipeline(Catalog([tmp_path], hash_cache=tmp_path / "hashes.json"), device, tmp_path / "outputs")


def test_a_picture_is_in_the_history_of_its_owner_as_soon_as_it_is_saved(pipeline):
    history = History(pipeline.outputs, private=True)
    saved = [
        event.path
        for event in handler(AsyncTask(Settings(**SMALL, image_number=2), OWNER), pipeline, history)
        if isinstance(event, Saved)
    ]
    found = history.search("apple model:tiny size:64x64", OWNER).pictures
    assert [str(history.file(picture)) for picture in reversed(found)] == saved
    assert [Settings.from_dict(history.settings(picture)).seed for picture in found] == [8, 7]
    assert history.search("", "y" * 43).pictures == ()
    history.close()


def test_a_picture_says_who_made_it_where_the_installation_does(pipeline):
    for name in ("Ann", ""):
        events = handler(AsyncTask(Settings(**SMALL), OWNER), pipeline, created_by=name)
        [path] = [event.path for event in events if isinstance(event, Saved)]
        with Image.open(path) as picture:
            assert json.loads(picture.text["easel"]).get("created_by", "") == name


def test_a_history_that_cannot_be_written_costs_a_warning_and_no_picture(pipeline, tmp_path):
    (tmp_path / "outputs" / "history.sqlite3").mkdir(parents=True)
    events = list(handler(AsyncTask(Settings(**SMALL), OWNER), pipeline, History(pipeline.outputs)))
    assert sum(isinstance(event, Saved) for event in events) == 1
    assert any("pictures themselves are safe" in event.message for event in events if isinstance(event, Warned))
