"""The whole way with what a request may add to a checkpoint: embeddings, parts of its own choice, guidance extras, modes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from loras import write_lora
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, ModelNotFound
from core.events import Progress, Saved, Warned
from core.handler import handler
from core.models.configs import TINY_VAE
from core.models.vae import VAE
from core.output.metadata import read_settings, read_settings_text
from core.performance import MODES, effective
from core.pipeline import Pipeline
from core.presets import settings_of
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights.files import Catalog

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}
KINDS = ("loras", "vae", "embeddings", "text_encoders")
FAST = [name for name, mode in MODES.items() if mode.lora]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in ("checkpoints", *KINDS):
        (folder / kind).mkdir()
    stored = load_file(write_checkpoint(folder / "checkpoints" / "tiny.safetensors"))
    other = load_file(write_checkpoint(folder / "checkpoints" / "other.safetensors", seed=5))

    def part(tensors, prefix, put=""):
        return {put + name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    save_file(part(stored, "model.", "model."), folder / "checkpoints" / "unet.safetensors")
    save_file(part(stored, "first_stage_model."), folder / "vae" / "same.safetensors")
    save_file(part(other, "first_stage_model."), folder / "vae" / "other.safetensors")
    save_file(part(stored, "conditioner.embedders.0.transformer."), folder / "text_encoders" / "clip_l.safetensors")
    save_file(part(stored, "conditioner.embedders.1.model."), folder / "text_encoders" / "clip_g.safetensors")
    torch.manual_seed(0)
    toy = {"clip_l": torch.randn(3, 64), "clip_g": torch.randn(3, 96)}
    save_file(toy, folder / "embeddings" / "toy.safetensors")
    torch.save(toy, folder / "embeddings" / "pickled.pt")
    save_file({"emb_params": torch.randn(3, 1024)}, folder / "embeddings" / "sd2.safetensors")
    for name in FAST:
        if name != "dmd2":
            write_lora(folder / "loras" / MODES[name].lora.file, seed=len(name))
    return folder


@pytest.fixture
def pipeline(models, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    others = {kind: [models / kind] for kind in KINDS}
    catalog = Catalog([models / "checkpoints"], hash_cache=tmp_path / "hashes.json", others=others)
    return Pipeline(catalog, device, tmp_path / "outputs")


def run(pipeline, **settings):
    return list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))


def pictures(events):
    return [np.asarray(Image.open(event.path)) for event in events if isinstance(event, Saved)]


def picture(pipeline, **settings):
    [pixels] = pictures(run(pipeline, **settings))
    return pixels


def again(pipeline, events):
    """The picture made from nothing but what the saved one remembers."""
    [path] = [event.path for event in events if isinstance(event, Saved)]
    [pixels] = pictures(list(handler(AsyncTask(Settings(**read_settings(path).settings)), pipeline)))
    return pixels


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


# Embeddings


@pytest.mark.parametrize("where", ["prompt", "negative_prompt"])
def test_an_embedding_changes_the_picture_and_what_is_remembered_makes_it_again(pipeline, where):
    text = {"prompt": "a red apple", "negative_prompt": "blue"}
    events = run(pipeline, **{**text, where: f"{text[where]}, (embedding:toy:1.2)"})
    assert not warnings(events)
    [pixels] = pictures(events)
    assert not np.array_equal(pixels, picture(pipeline, **text))
    np.testing.assert_array_equal(again(pipeline, events), pixels)


def test_an_unknown_embedding_is_told_once_a_task_and_the_picture_made_without(pipeline):
    events = run(pipeline, prompt="a red embedding:toi apple", image_number=2)
    [message] = warnings(events)
    assert "'toi'" in message and "Did you mean 'toy'?" in message
    np.testing.assert_array_equal(pictures(events)[0], picture(pipeline))
    assert warnings(run(pipeline, prompt="a red embedding:toi apple")) == [message]


@pytest.mark.parametrize(
    ("name", "words"), [("pickled", r"pickled\.pt .*launch\.py convert"), ("sd2", "sd2.safetensors has .*1024")]
)
def test_an_embedding_that_will_not_do_stops_the_task_with_its_name(pipeline, name, words):
    with pytest.raises(BadModelFile, match=words):
        run(pipeline, prompt=f"an apple embedding:{name}")


# Parts of one's own choice


def test_another_vae_is_loaded_alone_and_the_checkpoints_own_comes_back(pipeline, monkeypatch):
    plain = picture(pipeline)
    unet, preview = pipeline._base.checkpoint.unet, pipeline._base.preview
    monkeypatch.setattr("core.pipeline.open_checkpoint", None)
    events = run(pipeline, vae="other.safetensors")
    [other] = pictures(events)
    assert not np.array_equal(other, plain)
    assert pipeline._base.checkpoint.unet is unet
    assert not torch.equal(pipeline._base.preview.factors, preview.factors)
    np.testing.assert_array_equal(picture(pipeline, vae="same.safetensors"), plain)
    np.testing.assert_array_equal(picture(pipeline), plain)
    assert torch.equal(pipeline._base.preview.factors, preview.factors)
    np.testing.assert_array_equal(again(pipeline, events), other)


def test_the_same_vae_again_loads_nothing(pipeline, monkeypatch):
    first = picture(pipeline, vae="other.safetensors")
    monkeypatch.setattr("core.pipeline.load_vae", None)
    monkeypatch.setattr("core.pipeline.open_checkpoint", None)
    np.testing.assert_array_equal(picture(pipeline, vae="other.safetensors"), first)


def test_a_missing_vae_is_told_and_the_models_stay(pipeline):
    plain = picture(pipeline)
    base = pipeline._base
    with pytest.raises(ModelNotFound, match=r"no VAE 'none\.safetensors'.*other\.safetensors"):
        run(pipeline, vae="none.safetensors")
    assert pipeline._base is base
    np.testing.assert_array_equal(picture(pipeline), plain)


def test_a_network_alone_is_refused_and_works_once_its_parts_are_chosen(pipeline):
    chosen = {
        "base_model": "unet.safetensors",
        "vae": "same.safetensors",
        "text_encoder_l": "clip_l.safetensors",
        "text_encoder_g": "clip_g.safetensors",
    }
    with pytest.raises(BadModelFile, match="Choose text_encoder_g"):
        run(pipeline, **{**chosen, "text_encoder_g": ""})
    events = run(pipeline, **chosen)
    np.testing.assert_array_equal(pictures(events)[0], picture(pipeline))
    np.testing.assert_array_equal(again(pipeline, events), pictures(events)[0])


def test_a_vae_of_another_kind_is_told_before_the_first_step_and_the_models_stay(pipeline, models):
    """One of three levels made a picture of half the size."""
    save_file(VAE(replace(TINY_VAE, channel_mult=(1, 1, 2))).state_dict(), models / "vae" / "three.safetensors")
    plain = picture(pipeline)
    base = pipeline._base
    with pytest.raises(BadModelFile, match=r"three\.safetensors: the VAE makes latents of another kind"):
        run(pipeline, vae="three.safetensors")
    assert pipeline._base is base
    np.testing.assert_array_equal(picture(pipeline), plain)


def test_a_network_alone_is_the_default_where_its_parts_are_chosen_and_else_what_it_lacks_is_said(pipeline, models):
    catalog = Catalog([models / "checkpoints" / "unet.safetensors"], others={kind: [models / kind] for kind in KINDS})
    parts = {"vae": "same.safetensors", "text_encoder_l": "clip_l.safetensors"}
    with pytest.raises(BadModelFile, match=r"unet\.safetensors lacks .* Choose text_encoder_g"):
        settings_of(catalog, parts, {})
    both = {"text_encoder_g": "clip_g.safetensors"}
    assert settings_of(catalog, parts, both).base_model == "unet.safetensors"
    with pytest.raises(BadModelFile, match="Choose text_encoder_g"):  # the preset's is taken back
        settings_of(catalog, {**parts, **both}, {"text_encoder_g": ""})
    pixels = picture(pipeline)
    alone = Pipeline(catalog, pipeline.device, pipeline.outputs)
    np.testing.assert_array_equal(picture(alone, base_model="", **parts, **both), pixels)


def test_a_network_alone_is_never_the_default_base_model(models, pipeline):
    assert pipeline.catalog.default() in ("tiny.safetensors", "other.safetensors")


# Guidance


@pytest.mark.parametrize(
    "settings",
    [
        {"freeu": True, "freeu_b1": 1.5, "freeu_b2": 1.6, "freeu_s1": 0.9, "freeu_s2": 0.2},
        {"guidance_rescale": 0.7},
        {"sharpness": 30.0},
        {"adaptive_cfg": 2.0},
        {"adm_scaler_positive": 3.0},
        {"adm_scaler_negative": 0.1},
        {"adm_scaler_end": 0.9},
        {"clip_skip": 1},
    ],
)
def test_each_extra_changes_the_picture_and_is_remembered(pipeline, settings):
    usual = {"guidance_scale": 8.0, "sampler": "euler", "height": 72}
    events = run(pipeline, **usual, **settings)
    [pixels] = pictures(events)
    assert not np.array_equal(pixels, picture(pipeline, **usual))
    np.testing.assert_array_equal(again(pipeline, events), pixels)


def test_extras_that_are_off_are_not_even_asked(pipeline, monkeypatch):
    """Their sliders may stand anywhere: nothing is computed, and the picture is the plain one."""
    plain = picture(pipeline)
    for name in ("freeu.with_backbone", "freeu.with_low_frequencies"):
        monkeypatch.setattr(f"core.models.{name}", None)
    np.testing.assert_array_equal(picture(pipeline, freeu_b1=2.0, freeu_s2=4.0, guidance_rescale=0.0), plain)


def test_freeu_acts_on_the_base_model_alone(pipeline):
    """It vanishes after a swap (register: Q13): with all steps the refiner's, FreeU changes nothing."""
    settings = {"refiner_model": "other.safetensors", "refiner_swap": "separate", "sampler": "euler", "steps": 4}
    off = picture(pipeline, **settings, refiner_switch=0.1)
    np.testing.assert_array_equal(picture(pipeline, **settings, refiner_switch=0.1, freeu=True, freeu_s1=0.1), off)
    both = {"refiner_switch": 0.5, "freeu_b2": 1.9}
    assert not np.array_equal(picture(pipeline, **settings, **both, freeu=True), picture(pipeline, **settings, **both))


# Modes


@pytest.mark.parametrize("name", [name for name in FAST if name != "dmd2"])
def test_a_fast_mode_is_its_values_and_its_lora_and_what_is_remembered_makes_it_again(pipeline, name):
    mode = MODES[name]
    events = run(pipeline, performance=name, negative_prompt="ignored", sharpness=9.0, steps=50)
    [pixels] = pictures(events)
    steps = {event.steps for event in events if isinstance(event, Progress) and event.step}
    assert steps == {mode.forced["steps"]}
    by_hand = {**mode.forced, "loras": (Lora(mode.lora.file, mode.lora.weight),)}
    np.testing.assert_array_equal(picture(pipeline, **by_hand), pixels)
    assert not np.array_equal(picture(pipeline, **mode.forced), pixels)
    np.testing.assert_array_equal(again(pipeline, events), pixels)


def test_the_text_that_other_programs_read_makes_a_fast_picture_again_too(pipeline):
    events = run(pipeline, performance="lightning", loras=[{"name": MODES["hyper_sd"].lora.file, "weight": 0.3}])
    [path] = [event.path for event in events if isinstance(event, Saved)]
    text = Image.open(path).text["parameters"]
    assert "Steps: 4" in text and "CFG scale: 1" in text
    settings = Settings(**{**SMALL, **read_settings_text(text).settings})
    np.testing.assert_array_equal(pictures(list(handler(AsyncTask(settings), pipeline)))[0], pictures(events)[0])


def test_leaving_a_mode_gives_the_plain_picture_back(pipeline):
    plain = picture(pipeline)
    picture(pipeline, performance="lightning")
    np.testing.assert_array_equal(picture(pipeline), plain)


def test_the_record_says_the_values_that_were_in_force_and_not_the_modes_lora(pipeline):
    events = run(pipeline, performance="extreme_speed", steps=50)
    [path] = [event.path for event in events if isinstance(event, Saved)]
    read = Settings(**read_settings(path).settings)
    assert read == effective(replace(Settings(**SMALL), performance="extreme_speed"))
    assert read.steps == 8 and read.loras == ()
    assert MODES["extreme_speed"].lora.file in json.loads(Image.open(path).text["easel"])["hashes"]  # its file is known


def test_a_vae_and_a_lora_that_are_called_alike_do_not_get_each_others_checksum(pipeline, models):
    write_lora(models / "loras" / "same.safetensors", seed=3)
    ours = {"vae": "same.safetensors", "loras": [{"name": "same.safetensors", "weight": 0.5}]}
    for settings, known in ((ours, set()), ({**ours, "loras": []}, {"same.safetensors"})):
        [path] = [event.path for event in run(pipeline, **settings) if isinstance(event, Saved)]
        assert set(json.loads(Image.open(path).text["easel"]).get("hashes", {})) == known


def test_a_mode_without_its_lora_is_told_before_anything_is_loaded(pipeline, models):
    with pytest.raises(ModelNotFound) as told:
        run(pipeline, performance="dmd2")
    assert MODES["dmd2"].lora.file in str(told.value) and str(models / "loras") in str(told.value)
    assert pipeline._base is None


@pytest.mark.parametrize("name", ["speed", "quality"])
def test_speed_and_quality_leave_all_but_the_steps_to_the_user(pipeline, name):
    chosen = {"sampler": "euler", "guidance_scale": 3.0, "preview": False}
    found = picture(pipeline, performance=name, **chosen)
    np.testing.assert_array_equal(found, picture(pipeline, **chosen, steps=MODES[name].forced["steps"]))


# LCM, TCD and EDM


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "tcd", "sampler": "tcd"},
        {"scheduler": "lcm", "sampler": "lcm"},
        {"scheduler": "edm_playground_v2.5", "sampler": "dpmpp_2m_sde_gpu"},
        {"scheduler": "karras", "prediction": "edm"},
        {"scheduler": "karras", "sampler": "tcd"},
    ],
)
def test_special_noise_levels_make_a_picture_with_previews_that_can_be_made_again(pipeline, settings):
    events = run(pipeline, **settings, steps=4)
    [pixels] = pictures(events)
    assert pixels.std() > 0
    assert any(event.preview for event in events if isinstance(event, Progress))
    np.testing.assert_array_equal(again(pipeline, events), pixels)
