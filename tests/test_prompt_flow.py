"""From a prompt with wildcards, arrays, tags and styles to pictures that can be made again, on a tiny checkpoint."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import write_checkpoint

import launch
from core.config import Config
from core.device import DeviceChoice, choose_device
from core.events import Saved, Warned
from core.handler import handler
from core.output.metadata import read_settings, read_settings_text
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.prompt.resources import PromptResources
from core.prompt.styles import StyleLibrary
from core.prompt.wildcards import Wildcards
from core.settings import Settings
from core.task import AsyncTask
from core.weights.files import Catalog

SMALL = {"width": 64, "height": 64, "steps": 2, "base_model": "tiny.safetensors", "sampler": "euler", "preview": False}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    (folder / "checkpoints").mkdir()
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors")
    (folder / "wildcards").mkdir()
    (folder / "wildcards" / "end.txt").write_text("dog.\ncat.\nfox.\n")
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    pipeline = Pipeline(Catalog([folder / "checkpoints"]), device, folder / "outputs")
    pipeline.prompt_resources = PromptResources(wildcards=Wildcards([folder / "wildcards"]))
    return pipeline


def run(pipeline, settings):
    return list(handler(AsyncTask(settings), pipeline))


def saved(events):
    return [event for event in events if isinstance(event, Saved)]


def pixels(event):
    with Image.open(event.path) as picture:
        return np.asarray(picture)


TYPED = Settings(
    **SMALL,
    prompt="[[big, small]] __color__ __animal__ __nothing__, the __end__\nsecond __end__ <style:Anime>",
    negative_prompt="__weather__",
    styles=("Random Style", "Fooocus Sharp"),
    image_number=4,
    seed=11,
)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("output_format", ["png", "jpeg"])
def test_every_picture_of_a_request_is_made_again_from_its_file_alone(pipeline, ordered, output_format):
    """Defect D36: wildcards, arrays and random styles settle in the record; what was typed is kept beside it."""
    from dataclasses import replace

    typed = replace(TYPED, read_wildcards_in_order=ordered, output_format=output_format, image_number=2 + ordered)
    for picture in saved(run(pipeline, typed)):
        read = read_settings(picture.path)
        alone = Settings.from_dict(read.settings)
        assert alone.image_number == 1 and alone.seed == picture.seed
        assert read.typed["prompt"] == typed.prompt and read.typed["styles"] == typed.styles
        [again] = saved(run(pipeline, alone))
        np.testing.assert_array_equal(pixels(again), pixels(picture))


def test_the_text_that_other_programs_read_makes_the_picture_again_too(pipeline):
    [*_, picture] = saved(run(pipeline, TYPED))
    with Image.open(picture.path) as image:
        text = image.text["parameters"]
    assert "__" not in text.splitlines()[0] and "[[" not in text
    settings = Settings.from_dict({**SMALL, **read_settings_text(text).settings})
    [again] = saved(run(pipeline, settings))
    np.testing.assert_array_equal(pixels(again), pixels(picture))


def test_a_plain_prompt_is_recorded_as_it_was_typed(pipeline):
    [picture] = saved(run(pipeline, Settings(**SMALL, prompt="a fox ,, hat", styles=("Anime",))))
    with Image.open(picture.path) as image:
        record = json.loads(image.text["easel"])
    assert record["settings"]["prompt"] == "a fox ,, hat" and "typed" not in record


def test_what_the_prompt_names_in_vain_is_told_once(pipeline):
    """Defect D23: the reference tells it on the console only."""
    events = run(pipeline, Settings(**SMALL, prompt="__nothing__ <lora:none:1>", styles=("No Such",), image_number=2))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert len(told) == 3 and all(any(word in line for line in told) for word in ("nothing", "none", "No Such"))


def test_styles_change_the_picture(pipeline):
    plain, anime = (saved(run(pipeline, Settings(**SMALL, prompt="a fox", styles=s)))[0] for s in ((), ("Anime",)))
    assert not np.array_equal(pixels(plain), pixels(anime))


def test_the_launcher_hands_over_the_configured_folders(tmp_path):
    for folder, name, text in (
        ("styles", "sdxl_styles_mine.json", '[{"name": "my look", "prompt": "{prompt} of mine"}]'),
        ("wildcards", "mine.txt", "word"),
        ("models/loras/sub", "Film.safetensors", ""),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text(text)
    config = Config.load({}, {}, tmp_path)
    resources = launch.prompt_resources(config, Catalog(config.checkpoints, others=config.model_folders))
    assert isinstance(resources.styles, StyleLibrary)
    [plan] = plan_images(Settings(prompt="__mine__ <lora:film:1>", styles=("My Look",)), resources)
    assert plan.positive == ("word of mine",)
    assert plan.loras[0].name == "sub/Film.safetensors"
