"""The whole way, prompt to PNG and back, on a tiny checkpoint of random weights."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.errors import BadPicture, ModelNotFound, OutputError
from core.events import Failed, Finished, Progress, Saved, Warned
from core.handler import handler
from core.output.metadata import read_settings, read_settings_text
from core.pipeline import NotFinite, Pipeline
from core.settings import SAMPLERS, SCHEDULERS, Settings
from core.task import AsyncTask
from core.weights.files import Catalog
from core.worker import Worker

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "tiny.safetensors")
    return folder


@pytest.fixture
def pipeline(checkpoints, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    return Pipeline(Catalog([checkpoints], hash_cache=tmp_path / "hashes.json"), device, tmp_path / "outputs")


def run(pipeline, **settings):
    task = AsyncTask(Settings(**{**SMALL, **settings}))
    return list(handler(task, pipeline))


def opened(path):
    with Image.open(path) as picture:
        picture.load()
        return picture


def pixels(event):
    return np.asarray(opened(event.path))


def saved(events):
    return [event for event in events if isinstance(event, Saved)]


def test_a_prompt_becomes_a_picture_on_disk_with_previews_on_the_way(pipeline):
    events = run(pipeline)
    [picture] = saved(events)
    assert opened(picture.path).size == (64, 64)
    assert pixels(picture).std() > 0
    steps = [event for event in events if isinstance(event, Progress) and event.step]
    assert [event.step for event in steps if event.text.startswith("Step")] == [1, 2, 3]
    previews = [event.preview for event in steps if event.preview]
    assert previews and Image.open(io.BytesIO(previews[0])).size == (32, 32)
    assert events[-1] == Finished(paths=(picture.path,), seconds=events[-1].seconds)
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_settings_in_a_picture_make_the_same_picture_again(pipeline, output_format):
    """Same pixels from the same machine: what is read back, and nothing else, goes into the second run."""
    [first] = saved(
        run(
            pipeline,
            output_format=output_format,
            prompt="a (red:1.3) apple\non a table",
            negative_prompt="blue",
            sampler="euler_ancestral",
        )
    )
    settings = Settings.from_dict(read_settings(first.path).settings)
    assert settings.seed == 7 and settings.base_model == "tiny.safetensors"
    [second] = saved(list(handler(AsyncTask(settings), pipeline)))
    assert second.path != first.path
    np.testing.assert_array_equal(pixels(second), pixels(first))


def test_the_settings_can_be_restored_from_the_text_that_other_programs_read(pipeline):
    [first] = saved(run(pipeline, steps=4, negative_prompt="blue, ugly", scheduler="exponential", sampler="dpmpp_2m"))
    text = opened(first.path).text["parameters"]
    assert text.splitlines()[0] == "a red apple"
    settings = Settings.from_dict({**SMALL, **read_settings_text(text).settings})
    [second] = saved(list(handler(AsyncTask(settings), pipeline)))
    np.testing.assert_array_equal(pixels(second), pixels(first))


def test_each_picture_of_a_task_can_be_made_again_alone(pipeline):
    several = saved(run(pipeline, image_number=3))
    assert [event.seed for event in several] == [7, 8, 9]
    [alone] = saved(run(pipeline, seed=8))
    np.testing.assert_array_equal(pixels(alone), pixels(several[1]))
    assert not np.array_equal(pixels(several[0]), pixels(several[1]))


def test_the_record_holds_the_models_hash_and_our_own_json(pipeline, checkpoints):
    import hashlib

    [picture] = saved(run(pipeline))
    record = json.loads(opened(picture.path).text["easel"])
    digest = hashlib.sha256((checkpoints / "tiny.safetensors").read_bytes()).hexdigest()
    assert digest in json.dumps(record)
    assert digest[:10] in opened(picture.path).text["parameters"]


def test_metadata_can_be_left_out(pipeline):
    [picture] = saved(run(pipeline, save_metadata=False))
    assert not getattr(opened(picture.path), "text", {})


def test_the_days_log_lists_the_picture(pipeline):
    from pathlib import Path

    [picture] = saved(run(pipeline, prompt="<script>alert(1)</script>"))
    log = (Path(picture.path).parent / "log.html").read_text(encoding="utf-8")
    assert Path(picture.path).name in log and "<script>alert" not in log


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_a_picture_at_a_steady_seed(pipeline, sampler):
    first, second = (saved(run(pipeline, sampler=sampler, steps=4, preview=False)) for _ in range(2))
    np.testing.assert_array_equal(pixels(first[0]), pixels(second[0]))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_makes_a_picture(pipeline, scheduler):
    assert saved(run(pipeline, scheduler=scheduler, sampler="euler", steps=4))


def test_a_size_that_halves_to_odd_sides_works(pipeline):
    [picture] = saved(run(pipeline, width=72, height=104))
    assert opened(picture.path).size == (72, 104)


def test_guidance_scale_1_ignores_the_negative_prompt(pipeline):
    one, other = (saved(run(pipeline, guidance_scale=1.0, negative_prompt=n)) for n in ("", "green"))
    np.testing.assert_array_equal(pixels(one[0]), pixels(other[0]))
    one, other = (saved(run(pipeline, guidance_scale=5.0, negative_prompt=n)) for n in ("", "green"))
    assert not np.array_equal(pixels(one[0]), pixels(other[0]))


def test_stop_acts_within_one_block_of_the_network(pipeline):
    """The stop is pressed in the middle of a network call, and no further block is computed."""
    task = AsyncTask(Settings(**SMALL))
    pipeline.refresh_everything(SMALL["base_model"])
    unet = pipeline._base.checkpoint.unet
    reached = []
    unet.input_blocks[1].register_forward_hook(lambda *_: task.stop())
    for block in (unet.input_blocks[2], unet.middle_block, unet.output_blocks[0]):
        block[0].register_forward_hook(lambda *_: reached.append(1))
    events = list(handler(task, pipeline))
    assert not reached
    assert events[-1].stopped and not saved(events)


def test_skip_drops_one_picture_and_the_next_is_made(pipeline):
    task = AsyncTask(Settings(**SMALL, image_number=3))
    events = []
    for event in handler(task, pipeline):
        events.append(event)
        if isinstance(event, Progress) and event.image == 2 and event.step == 1:
            task.skip()
    assert [event.seed for event in saved(events)] == [7, 9]
    assert not events[-1].stopped
    shares = [(event.image, event.share) for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert all((image - 1) / 3 <= share <= image / 3 for image, share in shares)  # D58: the one left out counts, too


def test_stop_keeps_the_pictures_made_so_far(pipeline):
    task = AsyncTask(Settings(**SMALL, image_number=3))
    events = []
    for event in handler(task, pipeline):
        events.append(event)
        if isinstance(event, Saved):
            task.stop()
    assert len(saved(events)) == 1 and events[-1].stopped and len(events[-1].paths) == 1


def test_a_re_roll_loads_and_encodes_nothing(pipeline, monkeypatch):
    run(pipeline)
    base = pipeline._base

    def fail(*_, **__):
        raise AssertionError("the text was encoded again")

    monkeypatch.setattr(base.checkpoint.clip_l, "forward", fail)
    assert saved(run(pipeline, seed=8))
    assert pipeline._base is base


def test_a_changed_file_is_loaded_anew(checkpoints, pipeline, tmp_path):
    write_checkpoint(checkpoints / "other.safetensors", seed=1)
    [before] = saved(run(pipeline, base_model="other.safetensors"))
    write_checkpoint(checkpoints / "other.safetensors", seed=2)
    [after] = saved(run(pipeline, base_model="other.safetensors"))
    assert not np.array_equal(pixels(before), pixels(after))


def test_a_missing_model_is_told_with_what_is_there(pipeline):
    with pytest.raises(ModelNotFound, match=r"tiny\.safetensors"):
        run(pipeline, base_model="nothing.safetensors")


def test_a_folder_that_takes_no_pictures_is_told_before_anything_is_loaded(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "refresh_everything", lambda *given, **named: pytest.fail("a model was loaded"))
    pipeline.outputs.write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match=r"The picture cannot be saved in .*Move it away"):
        run(pipeline)


def test_nan_in_a_lower_precision_is_told_and_the_picture_made_in_a_safer_one(checkpoints, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="bf16", vae_precision="fp32"))
    pipeline = Pipeline(Catalog([checkpoints], hash_cache=tmp_path / "hashes.json"), device, tmp_path / "outputs")
    pipeline.refresh_everything("tiny.safetensors")
    with torch.no_grad():
        pipeline._base.checkpoint.unet.out[2].bias.fill_(float("nan"))
    events = run(pipeline)
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert "32-bit" in warning.message and "UNet" in warning.message
    assert len(saved(events)) == 1
    assert next(pipeline._base.checkpoint.unet.parameters()).dtype == torch.float32


def test_nan_in_full_precision_is_an_error_that_says_so(pipeline):
    pipeline.refresh_everything("tiny.safetensors")
    with pytest.raises(BadPicture, match="32-bit"):
        pipeline.take_safer_precision(NotFinite("VAE"))


def test_the_worker_lives_on_after_a_failure(pipeline):
    worker = Worker(handler, lambda: pipeline)
    worker.start()
    bad, good = AsyncTask(Settings(**{**SMALL, "base_model": "no.safetensors"})), AsyncTask(Settings(**SMALL))
    worker.submit(bad)
    worker.submit(good)
    assert isinstance(list(bad.events())[-1], Failed)
    assert isinstance(list(good.events())[-1], Finished) and saved(good.kept())
    worker.close()


def test_what_is_odd_about_the_device_is_told_once(checkpoints, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp16"))
    pipeline = Pipeline(Catalog([checkpoints]), replace(device, vae_dtype=torch.float32), tmp_path / "outputs")
    first, second = run(pipeline), run(pipeline)
    assert [event.message for event in first if isinstance(event, Warned)] == list(device.warnings) != []
    assert not [event for event in second if isinstance(event, Warned)]


def test_rng_of_the_process_is_left_alone(pipeline):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(pipeline, sampler="euler_ancestral")
    assert torch.equal(before, torch.get_rng_state())
