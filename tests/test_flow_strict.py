"""Strict compatibility, prompt to PNG: what it changes, and that it changes nothing else."""

import numpy as np
import pytest
from PIL import Image
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.events import Saved
from core.handler import handler
from core.output.metadata import read_settings
from core.pipeline import Pipeline
from core.settings import Settings
from core.task import AsyncTask
from core.weights.files import Catalog

SMALL = {"width": 128, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    write_checkpoint(folder / "tiny.safetensors")
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    return Pipeline(Catalog([folder], hash_cache=folder / "hashes.json"), device, folder / "outputs")


@pytest.fixture
def picture(pipeline):
    def made(**settings):
        events = handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline)
        [path] = [event.path for event in events if isinstance(event, Saved)]
        with Image.open(path) as image:
            return np.asarray(image), read_settings(path).settings

    return made


def test_a_picture_without_the_references_mistakes_stays_as_it_is_to_the_bit(picture):
    plain, said = picture()
    strict, noted = picture(strict_compatibility=True)
    assert np.array_equal(plain, strict)
    assert (said["strict_compatibility"], noted["strict_compatibility"]) == (False, True)


@pytest.mark.parametrize("scheduler", ["turbo", "align_your_steps"])
def test_q01_a_picture_of_a_schedule_that_the_reference_ignores_is_that_of_normal(picture, scheduler):
    chosen = {"sampler": "euler", "guidance_scale": 5.0}
    strict, _ = picture(scheduler=scheduler, strict_compatibility=True, **chosen)
    assert np.array_equal(strict, picture(scheduler="normal", **chosen)[0])
    assert not np.array_equal(strict, picture(scheduler=scheduler, **chosen)[0])


@pytest.mark.parametrize(
    "chosen",
    [
        {"scheduler": "edm_playground_v2.5", "sampler": "euler", "guidance_scale": 9.0},  # Q05b
        {"scheduler": "tcd", "sampler": "dpmpp_2m_sde"},  # Q05a
        {"scheduler": "lcm", "sampler": "lcm", "prediction": "v"},
        {"width": 72, "adm_scaler_end": 0.0},
    ],
    ids=["progress of EDM", "span of the path", "prediction", "size"],
)
def test_each_mistake_is_seen_in_the_picture(picture, chosen):
    plain, _ = picture(**chosen)
    assert not np.array_equal(plain, picture(**chosen, strict_compatibility=True)[0])
    assert np.array_equal(plain, picture(**chosen)[0])
