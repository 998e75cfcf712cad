"""LoRAs on the whole way, prompt to PNG and back, on the tiny checkpoint."""

import json
import re

import numpy as np
import pytest
import torch
from loras import write, write_lora
from PIL import Image
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, ModelNotFound
from core.events import Saved, Warned
from core.handler import handler
from core.models.clip import CLIPText
from core.output.metadata import read_settings, read_settings_text
from core.pipeline import NotFinite, Pipeline
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights.files import Catalog
from core.weights.patches import PatchFile

SMALL = {
    "width": 64, "height": 64, "steps": 2, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7,
    "sampler": "euler", "preview": False,
}  # fmt: skip
INK, FILM = Lora("ink.safetensors", 0.8), Lora("styles/film.safetensors", -1.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    (folder / "loras/styles").mkdir(parents=True)
    write_checkpoint(folder / "checkpoints/tiny.safetensors")
    write_checkpoint(folder / "checkpoints/second.safetensors", seed=1)
    write_lora(folder / "loras/ink.safetensors", seed=1)
    write_lora(folder / "loras/styles/film.safetensors", text=False, seed=2)
    return folder


@pytest.fixture(params=["fp32", "bf16"])
def precision(request):
    return request.param


def make_pipeline(folder, tmp_path, precision="fp32"):
    device = choose_device(DeviceChoice(device="cpu", unet_precision=precision, vae_precision="fp32"))
    catalog = Catalog(
        [folder / "checkpoints"], hash_cache=tmp_path / "hashes.json", others={"loras": [folder / "loras"]}
    )
    return Pipeline(catalog, device, tmp_path / "outputs")


@pytest.fixture
def pipeline(folder, tmp_path):
    return make_pipeline(folder, tmp_path)


def run(pipeline, **settings):
    return list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))


def pixels(events):
    [saved] = [event for event in events if isinstance(event, Saved)]
    with Image.open(saved.path) as picture:
        return np.asarray(picture)


def path(events):
    return next(event.path for event in events if isinstance(event, Saved))


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


def test_loras_change_the_picture_and_leave_nothing_behind(folder, tmp_path, precision):
    pipeline = make_pipeline(folder, tmp_path, precision)
    plain = pixels(run(pipeline))
    pictures = [pixels(run(pipeline, loras=loras)) for loras in ((INK,), (FILM,), (INK, FILM), (INK,))]
    assert len({picture.tobytes() for picture in (plain, *pictures)}) == 4
    np.testing.assert_array_equal(pictures[0], pictures[3])  # whatever lay on the weights in between
    np.testing.assert_array_equal(pixels(run(pipeline)), plain)


def test_a_picture_with_loras_is_made_again_from_its_file(pipeline):
    first = run(pipeline, loras=(INK, FILM, Lora("ink.safetensors", 3.0, enabled=False)))
    settings = Settings.from_dict(read_settings(path(first)).settings)
    assert [lora for lora in settings.loras if lora.enabled] == [INK, FILM]
    np.testing.assert_array_equal(pixels(list(handler(AsyncTask(settings), pipeline))), pixels(first))


def test_loras_are_in_the_text_that_other_programs_read(pipeline):
    first = run(pipeline, loras=(INK, FILM))
    with Image.open(path(first)) as picture:
        text = picture.text["parameters"]
    assert re.search(r"\bink\b", text) and re.search(r"\bfilm\b", text)
    read = Settings.from_dict({**SMALL, **read_settings_text(text).settings}).loras
    assert {(lora.name.removesuffix(".safetensors").rpartition("/")[2], lora.weight) for lora in read} == {
        ("ink", 0.8), ("film", -1.25),
    }  # fmt: skip
    assert json.dumps(-1.25) in text


def test_q18_q19_a_re_roll_encodes_reads_and_merges_nothing(pipeline, monkeypatch):
    run(pipeline, loras=(INK, FILM))
    refuse = lambda *_, **__: pytest.fail("this was to be remembered")  # noqa: E731
    monkeypatch.setattr(CLIPText, "forward", refuse)
    monkeypatch.setattr(PatchFile, "__init__", refuse)
    monkeypatch.setattr(PatchFile, "tensor", refuse)
    run(pipeline, loras=(INK, FILM), seed=8)


def test_q19_texts_are_remembered_by_what_lies_on_the_encoders(pipeline, monkeypatch):
    """A LoRA without text parts leaves them valid; and back at an earlier list, its texts are still there."""
    calls, forward = [], CLIPText.forward
    monkeypatch.setattr(CLIPText, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))

    def encoded(*loras):
        calls.clear()
        run(pipeline, loras=loras)
        return bool(calls)

    lists = [(), (FILM,), (INK,), (Lora(INK.name, 0.7),), (INK, FILM), (Lora(INK.name, 0.7),), ()]
    assert [encoded(*loras) for loras in lists] == [True, False, True, True, False, False, False]


def test_a_lora_stays_when_the_precision_or_the_base_model_changes(folder, tmp_path, pipeline):
    wanted = pixels(run(pipeline, loras=(INK,)))
    other = make_pipeline(folder, tmp_path, "bf16")
    run(other, loras=(INK,))
    other.take_safer_precision(NotFinite("UNet"))
    np.testing.assert_array_equal(pixels(run(other, loras=(INK,))), wanted)
    run(pipeline, base_model="second.safetensors", loras=(INK,))
    np.testing.assert_array_equal(pixels(run(pipeline, loras=(INK,))), wanted)


def test_a_refiner_has_the_loras_too_and_additions_to_the_base_are_not_for_it(folder, pipeline):
    with torch.inference_mode(False):
        pipeline.refresh_everything(
            "tiny.safetensors", refiner_model="second.safetensors", loras=[INK], base_loras=[FILM]
        )
    base, refiner = pipeline._base.checkpoint.unet, pipeline._refiner.refiner.unet
    plain = make_pipeline(folder, folder)
    plain.refresh_everything("tiny.safetensors", refiner_model="second.safetensors")
    only = make_pipeline(folder, folder)
    only.refresh_everything("second.safetensors", loras=[INK])

    def same(one, other):
        return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    assert same(refiner, only._base.checkpoint.unet)
    assert not same(base, plain._base.checkpoint.unet)
    pipeline.refresh_loras([], [])
    assert same(base, plain._base.checkpoint.unet) and same(refiner, plain._refiner.refiner.unet)


def test_q18_the_synthetic_refiner_is_the_base_model_without_its_additions(folder, pipeline):
    pipeline.refresh_everything("tiny.safetensors", use_synthetic_refiner=True, loras=[INK], base_loras=[FILM])
    base, refiner = pipeline._base.checkpoint.unet, pipeline._refiner.refiner.unet
    for expected, loras in ((refiner, [INK]), (base, [INK, FILM])):
        alone = make_pipeline(folder, folder)
        alone.refresh_everything("tiny.safetensors", loras=loras)
        for one, other in zip(expected.parameters(), alone._base.checkpoint.unet.parameters(), strict=True):
            assert torch.equal(one, other)


def test_what_does_not_fit_is_told_once_and_a_file_that_fits_nothing_is_an_error(folder, pipeline):
    write_lora(folder / "loras/odd.safetensors", extra={"lora_unet_nowhere.alpha": torch.tensor(1.0)})
    odd = (Lora("odd.safetensors"),)
    [warning] = warnings(run(pipeline, loras=odd))
    assert warning.startswith("odd.safetensors: 1 of ") and "lora_unet_nowhere.alpha" in warning
    assert not warnings(run(pipeline, loras=odd, seed=8))
    write(folder / "loras/other.safetensors", {"x.lora_A.weight": torch.ones(1, 1)})
    with pytest.raises(BadModelFile, match=r"other\.safetensors does nothing"):
        run(pipeline, loras=(Lora("other.safetensors"),))
    with pytest.raises(ModelNotFound, match=r"There is no LoRA 'none\.safetensors'"):
        run(pipeline, loras=(Lora("none.safetensors"),))
    assert not warnings(run(pipeline))
