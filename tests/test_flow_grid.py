"""A grid and a sheet of all pictures through the whole engine, on a tiny checkpoint."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import write_checkpoint

from core.axes import Axis, Grid
from core.device import DeviceChoice, choose_device
from core.events import Finished, Progress, Saved
from core.handler import handler, planned
from core.output.history import History
from core.output.metadata import read_settings
from core.pipeline import Pipeline
from core.prompt.resources import PromptResources
from core.settings import Settings
from core.task import AsyncTask
from core.weights.files import Catalog

SMALL = {"width": 64, "height": 64, "steps": 2, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "tiny.safetensors")
    write_checkpoint(folder / "other.safetensors", seed=1)
    return folder


@pytest.fixture
def pipeline(checkpoints, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    return Pipeline(Catalog([checkpoints], hash_cache=tmp_path / "hashes.json"), device, tmp_path / "outputs")


def saved(events):
    return [event for event in events if isinstance(event, Saved)]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_grid_makes_each_cell_as_if_it_had_been_asked_for_alone_and_then_the_sheet(pipeline):
    task = AsyncTask(Settings(**SMALL), grid=Grid(Axis("steps", ("1", "2")), Axis("guidance_scale", ("1", "5"))))
    events = list(handler(task, pipeline))
    *cells, sheet = saved(events)
    assert [cell.index for cell in cells] == [0, 1, 2, 3] and sheet.sheet
    for number, cell in enumerate(cells):
        settings = read_settings(cell.path).settings
        wanted = task.cells[number].settings
        assert (settings["steps"], settings["guidance_scale"], settings["seed"]) == (
            wanted.steps,
            wanted.guidance_scale,
            7,
        )
    [alone] = saved(handler(AsyncTask(Settings(**SMALL | {"steps": 1, "guidance_scale": 5.0})), pipeline))
    same = next(n for n, c in enumerate(task.cells) if (c.settings.steps, c.settings.guidance_scale) == (1, 5.0))
    np.testing.assert_array_equal(pixels(alone.path), pixels(cells[same].path))
    assert len({pixels(cell.path).tobytes() for cell in cells}) == 4
    assert events[-1] == Finished(paths=tuple(cell.path for cell in cells), seconds=events[-1].seconds)
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares) and {e.images for e in events if isinstance(e, Progress)} == {4}


def test_each_model_of_a_grid_is_loaded_once(pipeline, monkeypatch):
    loads = []
    refresh = pipeline.refresh_base_model

    def counted(name, parts=None, **options):
        before = pipeline._base
        refresh(name, parts, **options)
        loads.extend([name] if pipeline._base is not before else [])

    monkeypatch.setattr(pipeline, "refresh_base_model", counted)
    models = Axis("base_model", ("tiny.safetensors", "other.safetensors"))
    for grid in (Grid(models, Axis("seed", ("1", "2", "3"))), Grid(Axis("seed", ("1", "2")), models)):
        loads.clear()
        *cells, sheet = saved(handler(AsyncTask(Settings(**SMALL), grid=grid), pipeline))
        assert len(loads) <= 2 and sheet.sheet
        assert {read_settings(cell.path).settings["base_model"] for cell in cells} == set(models.values)


def test_the_sheet_shows_the_pictures_of_a_request_and_history_and_log_know_it(pipeline, tmp_path):
    history = History(pipeline.outputs)
    task = AsyncTask(Settings(**SMALL, image_number=3, image_grid=True), "me")
    *pictures, sheet = saved(handler(task, pipeline, history))
    whole = pixels(sheet.path)
    assert whole.shape == (128, 128, 3)
    np.testing.assert_array_equal(whole[:64, 64:], pixels(pictures[1].path))
    assert not whole[64:, 64:].any()
    [newest, *_] = history.search("", "me").pictures
    assert (newest.name, newest.width, newest.height) == (sheet.path.rpartition("/")[2], 128, 128)
    history.close()
    assert read_settings(sheet.path).settings["image_number"] == 3
    assert all(not read_settings(picture.path).settings.get("image_grid") for picture in pictures)


def test_what_a_restart_had_made_is_put_on_the_sheet_and_not_made_again(pipeline):
    grid = Grid(Axis("steps", ("1", "2", "3")))
    first = AsyncTask(Settings(**SMALL), grid=grid)
    for event in handler(first, pipeline):
        if isinstance(event, Saved) and event.index == 1:
            first.stop()
    assert len(first.made) == 2
    again = AsyncTask(Settings(**SMALL), grid=grid, made=first.made)
    [third, sheet] = saved(handler(again, pipeline))
    assert third.index == 2 and sheet.sheet
    with Image.open(sheet.path) as image:
        assert len(json.loads(image.text["easel_sheet"])["pictures"]) == 3
    whole = AsyncTask(Settings(**SMALL), grid=grid, made=again.made)
    pipeline.free_memory()
    assert [event.sheet for event in saved(handler(whole, pipeline))] == [True]  # all was made; no model is needed


def test_a_stopped_grid_keeps_its_pictures_and_makes_no_sheet(pipeline):
    task = AsyncTask(Settings(**SMALL), grid=Grid(Axis("steps", ("1", "2", "3"))))
    events = []
    for event in handler(task, pipeline):
        events.append(event)
        if isinstance(event, Saved) and event.index == 1:
            task.stop()
    assert [event.index for event in saved(events)] == [0, 1] and events[-1].stopped


def test_arrays_in_the_prompt_do_not_go_on_from_cell_to_cell():
    task = AsyncTask(Settings(prompt="a [[red, green]] apple"), grid=Grid(Axis("steps", ("1", "2"))))
    plans = planned(task, PromptResources())
    assert [plan.main for plan in plans] == ["a red apple", "a red apple"]
    assert [plan.index for plan in plans] == [0, 1]
