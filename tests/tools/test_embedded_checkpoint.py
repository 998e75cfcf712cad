"""The checkpoint that ships with the program: its file, what it recommends, and that it draws what it is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.device import DeviceChoice, choose_device
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Settings
from core.weights.files import Catalog

FOLDER = Path(__file__).parents[2] / "models" / "checkpoints"
NAME = "easel-emoji-256.safetensors"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pipeline = Pipeline(
        Catalog([FOLDER]), choose_device(DeviceChoice(device="cpu")), tmp_path_factory.mktemp("outputs")
    )
    pipeline.refresh_everything(NAME)
    return pipeline


@pytest.fixture(scope="module")
def recommended(pipeline):
    return Settings.from_dict(dict(pipeline.catalog.info(NAME).settings))


def draw(pipeline, settings):
    plan = plan_images(settings)[0]
    conditions = pipeline.process_prompt(plan, settings)
    *_, last = pipeline.process_diffusion(settings, plan, conditions)
    return pipeline.decode(last.x, settings).astype(np.float32)


def border(pixels):
    return np.median(np.concatenate([pixels[:6].reshape(-1, 3), pixels[-6:].reshape(-1, 3)]), axis=0)


def test_the_file_is_at_most_40_mb_and_says_what_it_is():
    info = Catalog([FOLDER]).info(NAME)
    assert info.size <= 40_000_000
    assert (info.family, info.prediction, info.native_size) == ("sdxl", "v", (256, 256))
    assert not info.missing and not info.problem


def test_its_recommendations_are_settings(recommended):
    assert (recommended.width, recommended.height) == (256, 256)


@pytest.mark.parametrize(
    ("prompt", "thing", "ground"),
    [
        ("a red apple", (210, 40, 60), (255, 255, 255)),
        ("a red apple on a blue background", (210, 40, 60), (46, 96, 216)),
        ("basketball, black background", (240, 110, 60), (22, 22, 26)),
    ],
)
def test_thing_and_background_have_the_colours_of_the_prompt(pipeline, recommended, prompt, thing, ground):
    pixels = draw(pipeline, replace(recommended, prompt=prompt, seed=7, steps=12))
    assert np.abs(border(pixels) - ground).max() < 45
    middle = np.median(pixels[112:176, 96:160].reshape(-1, 3), axis=0)
    assert np.linalg.norm(middle - thing) < np.linalg.norm(middle - np.asarray(ground))
    assert np.linalg.norm(middle - thing) < 110


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(pipeline, recommended):
    settings = replace(recommended, prompt="a cat", seed=3, steps=6)
    first = draw(pipeline, settings)
    assert (draw(pipeline, settings) == first).all()
    assert (draw(pipeline, replace(settings, seed=4)) != first).any()
