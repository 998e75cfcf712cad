"""The pipeline's functions, one contract each (engine.md 29.2 to 29.19), where no test of a feature has it already."""

import io
import json
import shutil
from concurrent.futures import Future, wait
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loras import write_lora
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from tiny_refiners import write_refiner

from core import pipeline as module
from core.axes import Axis, Grid
from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, BadPicture, BadSetting, ModelNotFound
from core.events import Finished, Progress, Saved, Warned
from core.handler import handler
from core.models.clip import CLIPText
from core.models.preview import TinyDecoder
from core.models.unet import UNet
from core.output import save as output
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights import mapped, patched
from core.weights.files import Catalog
from core.weights.previews import DecoderPreview

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}
KINDS = ("loras", "vae", "embeddings", "text_encoders")
CLIP_L = "conditioner.embedders.0.transformer."
CLIP_G = "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in ("checkpoints", *KINDS):
        (folder / kind).mkdir()
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors")
    other = load_file(write_checkpoint(folder / "checkpoints" / "other.safetensors", seed=5))
    write_refiner(folder / "checkpoints" / "refiner.safetensors")
    own = {name.removeprefix(CLIP_L): tensor for name, tensor in other.items() if name.startswith(CLIP_L)}
    save_file(own, folder / "text_encoders" / "clip_l.safetensors")
    generator = torch.Generator().manual_seed(0)
    toy = {"clip_l": torch.randn(2, 64, generator=generator), "clip_g": torch.randn(2, 96, generator=generator)}
    save_file(toy, folder / "embeddings" / "toy.safetensors")
    write_lora(folder / "loras" / "style.safetensors")
    write_lora(folder / "loras" / "shape.safetensors", text=False, seed=4)
    return folder


@pytest.fixture
def pipeline(models, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    catalog = Catalog(
        [models / "checkpoints"], hash_cache=tmp_path / "hashes.json", others={kind: [models / kind] for kind in KINDS}
    )
    return Pipeline(catalog, device, tmp_path / "outputs")


@pytest.fixture
def loaded(pipeline):
    pipeline.refresh_everything("tiny.safetensors")
    return pipeline


@pytest.fixture
def counted(monkeypatch):
    """How often files are mapped, weights changed and texts encoded."""
    counts = {"mapped": 0, "changed": 0, "encoded": 0}

    def count(owner, name, key):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            counts[key] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    count(mapped.MappedFile, "tensors", "mapped")
    count(patched, "_change", "changed")
    count(CLIPText, "forward", "encoded")
    return counts


STYLE = (Lora("style.safetensors", 0.8),)


# Loading


def test_refresh_base_model_does_nothing_for_the_same_file_and_leaves_the_old_one_at_an_error(loaded, counted):
    """29.4."""
    base = loaded._base
    loaded.refresh_base_model("tiny.safetensors")
    with pytest.raises(ModelNotFound):
        loaded.refresh_base_model("nothing.safetensors")
    with pytest.raises(BadModelFile):
        loaded.refresh_base_model("refiner.safetensors")
    assert loaded._base is base and counted["mapped"] == 0
    loaded.refresh_base_model("other.safetensors")
    assert loaded.base_name == "other.safetensors" and loaded._base is not base


@pytest.mark.parametrize("part", ["checkpoint", "vae"])
def test_a_file_that_lacks_tensors_leaves_the_old_model_in_place(models, loaded, part):
    """29.4; the file's header says so before anything is let go."""
    base, tensors = loaded._base, load_file(models / "checkpoints" / "other.safetensors")
    if part == "checkpoint":
        del tensors["first_stage_model.decoder.conv_out.bias"]
        save_file(tensors, models / "checkpoints" / "holed.safetensors")
        given = {"name": "holed.safetensors"}
    else:
        save_file({"decoder.conv_in.weight": torch.zeros(1)}, models / "vae" / "holed.safetensors")
        given = {"name": "other.safetensors", "parts": {"vae": "holed.safetensors"}}
    with pytest.raises(BadModelFile, match="holed"):
        loaded.refresh_base_model(**given)
    assert loaded._base is base
    (models / "checkpoints" / "holed.safetensors").unlink(missing_ok=True)


def test_d20_stop_acts_while_a_model_is_loaded_and_the_next_request_loads_it(loaded):
    """Between two tensors; what is left is no model at all, not half of one."""
    task = AsyncTask(Settings(**{**SMALL, "base_model": "other.safetensors"}))
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 20:
            task.stop()
        AsyncTask.check(task)

    task.check = check
    events = list(handler(task, loaded))
    assert events[-1].stopped and not any(isinstance(event, Saved) for event in events)
    assert len(asked) < 25 and loaded.base_name == ""
    events = list(handler(AsyncTask(Settings(**{**SMALL, "base_model": "other.safetensors"})), loaded))
    assert any(isinstance(event, Saved) for event in events) and loaded.base_name == "other.safetensors"


def test_a_skip_while_another_model_is_loaded_leaves_a_sheet_of_the_others(loaded):
    """The sheet does without the model's name."""
    grid = Grid(Axis("base_model", ("tiny.safetensors", "other.safetensors")), None)
    task = AsyncTask(Settings(**SMALL), grid=grid)
    events = []
    for event in handler(task, loaded):
        events.append(event)
        if isinstance(event, Saved):
            task.skip()
    assert isinstance(events[-1], Finished) and not events[-1].stopped


@pytest.mark.parametrize("how", ["stop", "skip"])
def test_d20_stop_does_not_wait_for_a_checksum_and_the_finished_picture_is_kept(loaded, how, monkeypatch):
    """Skip gives it up."""
    loaded._base = replace(loaded._base, sha256=Future())
    task = AsyncTask(Settings(**SMALL))
    monkeypatch.setattr(module, "wait", lambda futures, seconds: (getattr(task, how)(), wait(futures, seconds))[1])
    monkeypatch.setattr(module, "WAIT", 0.01)
    events = list(handler(task, loaded))
    saved = [event for event in events if isinstance(event, Saved)]
    assert len(saved) == (1 if how == "stop" else 0) and events[-1].stopped is (how == "stop")
    assert not saved or json.loads(Image.open(saved[0].path).text["easel"])["settings"]["seed"] == 7


def test_d55_a_picture_does_not_wait_long_for_a_checksum(loaded, monkeypatch):
    loaded._base = replace(loaded._base, sha256=Future())
    monkeypatch.setattr(module, "WAIT", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    settings = Settings(**{**SMALL, "loras": STYLE})
    [saved] = [event for event in handler(AsyncTask(settings), loaded) if isinstance(event, Saved)]
    kept = json.loads(Image.open(saved.path).text["easel"])
    assert kept["base_model_sha256"] == "" and kept["hashes"].keys() == {"style.safetensors"}


def test_d55_checksums_are_computed_beside_the_sampling(loaded, monkeypatch):
    asked, then, hashed = [], [], loaded.catalog.file_hash
    monkeypatch.setattr(loaded.catalog, "file_hash", lambda path: (asked.append(path.name), hashed(path))[1])
    for event in handler(AsyncTask(Settings(**{**SMALL, "loras": STYLE})), loaded):
        if isinstance(event, Progress) and event.step == 1:
            loaded._hashing.submit(int).result()
            then += asked
    assert "style.safetensors" in then


def test_a_finished_picture_is_kept_though_idle_files_are_missing(loaded):
    """Neither a refiner whose step never comes nor a LoRA that is off or at 0 is looked for."""
    idle = (Lora("gone.safetensors", 0.0), Lora("away.safetensors", 1.0, enabled=False))
    settings = {**SMALL, "refiner_model": "none.safetensors", "refiner_switch": 1.0, "loras": (*STYLE, *idle)}
    [saved] = [event for event in handler(AsyncTask(Settings(**settings)), loaded) if isinstance(event, Saved)]
    hashes = json.loads(Image.open(saved.path).text["easel"])["hashes"]
    assert hashes.keys() == {"style.safetensors"}


def test_files_that_vanish_while_a_picture_is_made_do_not_take_it_along(models, loaded, tmp_path):
    lora = models / "loras" / "brief.safetensors"
    write_lora(lora, seed=9)
    failed = Future()
    failed.set_exception(FileNotFoundError("gone"))
    loaded._base = replace(loaded._base, sha256=failed)
    events = []
    for event in handler(AsyncTask(Settings(**{**SMALL, "loras": (Lora(lora.name, 0.5),)})), loaded):
        events.append(event)
        if isinstance(event, Progress) and event.step == 1:
            lora.unlink(missing_ok=True)
    assert any(isinstance(event, Saved) for event in events)


def test_what_a_models_header_says_beyond_its_kind_is_told_when_it_is_loaded(models, pipeline):
    tensors = load_file(models / "checkpoints" / "tiny.safetensors")
    save_file(tensors | {"edm_vpred.sigma_max": torch.ones(1)}, models / "checkpoints" / "odd.safetensors")
    told = []
    for name in ("odd.safetensors", "odd.safetensors"):
        pipeline.refresh_everything(name)
        told += pipeline.take_notices()
    [note] = told
    assert note.startswith("About odd.safetensors: ") and "v-prediction on EDM noise levels" in note
    (models / "checkpoints" / "odd.safetensors").unlink()


def test_assert_model_integrity_says_that_nothing_is_loaded_and_refuses_a_refiner(pipeline):
    """29.3; an error of its own where the reference meets a null."""
    with pytest.raises(BadSetting, match="No base model"):
        pipeline.assert_model_integrity()
    with pytest.raises(BadModelFile, match="refiner"):
        pipeline.refresh_everything("refiner.safetensors")
    pipeline.refresh_everything("tiny.safetensors")
    pipeline.assert_model_integrity()


def test_refresh_everything_loads_what_differs_and_nothing_else(loaded, counted):
    """29.13. Of four parts of the checkpoint: none again; another encoder: all of its own checkpoint's and that one."""
    loaded.refresh_everything("tiny.safetensors")
    assert counted == {"mapped": 0, "changed": 0, "encoded": 0}
    loaded.refresh_everything("tiny.safetensors", loras=STYLE)
    once = counted["changed"]
    assert once > 0
    loaded.refresh_everything("tiny.safetensors", loras=STYLE)
    assert counted == {"mapped": 0, "changed": once, "encoded": 0}
    loaded.refresh_everything("tiny.safetensors", loras=STYLE, refiner_model="refiner.safetensors")
    assert counted["mapped"] == 1  # the refiner's network alone


def test_q18_the_synthetic_refiner_stays_from_request_to_request(loaded, counted):
    """29.6, Q18: neither made anew nor merged anew."""
    wanted = {"use_synthetic_refiner": True, "loras": STYLE, "base_loras": (Lora("shape.safetensors", 0.5),)}
    loaded.refresh_everything("tiny.safetensors", **wanted)
    refiner, changed = loaded._refiner, counted["changed"]
    loaded.refresh_everything("tiny.safetensors", **wanted)
    assert loaded._refiner is refiner and counted["changed"] == changed and counted["mapped"] == 0


def test_a_re_roll_starts_denoising_without_loading_encoding_or_merging_anything(pipeline, counted, monkeypatch):
    """29.19, Q18, Q19: a base model with LoRAs, a refiner with the same, an embedding."""
    settings = {
        **SMALL,
        "prompt": "a red apple, embedding:toy",
        "loras": STYLE,
        "refiner_model": "refiner.safetensors",
        "refiner_switch": 0.5,
    }
    list(handler(AsyncTask(Settings(**settings)), pipeline))
    assert all(counted.values())
    before, steps, real = dict(counted), [], UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda *args, **kwargs: (steps.append(dict(counted)), real(*args, **kwargs))[1]
    )
    events = list(handler(AsyncTask(Settings(**{**settings, "seed": 8})), pipeline))
    assert any(isinstance(event, Saved) for event in events) and len(steps) == 3
    assert all(step == before for step in steps) and counted == before


# Texts


def test_clip_encode_single_gives_the_cached_conditions_by_reference_and_by_clip_skip(loaded, counted):
    """29.8 and Q19: the key has the text, the clip skip and what lies on the encoders."""
    first = loaded.clip_encode_single("a cat")
    encoded = counted["encoded"]
    again = loaded.clip_encode_single("a cat")
    assert counted["encoded"] == encoded == 2  # CLIP-L and bigG
    assert torch.equal(again.tokens, first.tokens)
    loaded.set_clip_skip(1)
    assert not torch.equal(loaded.clip_encode_single("a cat").tokens, first.tokens)
    loaded.set_clip_skip(2)
    assert torch.equal(loaded.clip_encode_single("a cat").tokens, first.tokens) and counted["encoded"] == 4


def test_clip_encode_joins_tokens_and_sums_the_first_pooled_vectors(loaded):
    """29.10, 17.6, Q07. A text at least, and one to pool at least, or an error that says so: the reference fails later."""
    cat, dog = (loaded.clip_encode_single(text) for text in ("a cat", "a dog"))
    both = loaded.clip_encode(["a cat", "a dog"], pool_top_k=2)
    assert torch.equal(both.tokens, torch.cat([cat.tokens, dog.tokens], 1))
    assert torch.equal(both.pooled, cat.pooled + dog.pooled)
    assert torch.equal(loaded.clip_encode(["a cat", "a dog"]).pooled, cat.pooled)
    for texts, top in (([], 1), (["a cat"], 0)):
        with pytest.raises(ValueError, match="at least"):
            loaded.clip_encode(texts, top)


def test_texts_need_a_loaded_model(pipeline):
    """29.10 to 29.12: where the reference returns none or meets a null, one sentence; the clip skip needs no model."""
    pipeline.set_clip_skip(1)
    for call in (lambda: pipeline.clip_encode(["a cat"]), pipeline.clear_all_caches, pipeline.prepare_text_encoder):
        with pytest.raises(BadSetting, match="No base model"):
            call()


def test_set_clip_skip_stays_through_a_refresh_that_changes_the_encoders(loaded):
    """29.11: in the reference another list of LoRAs takes the clip skip back."""
    loaded.set_clip_skip(1)
    last = loaded.clip_encode_single("a cat")
    loaded.refresh_everything("tiny.safetensors", loras=STYLE)
    loaded.refresh_everything("tiny.safetensors")
    assert torch.equal(loaded.clip_encode_single("a cat").tokens, last.tokens)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (CLIP_L + "text_model.encoder.layers.0.mlp.fc1.weight", r"CLIP-L of nan\.safetensors"),
        (CLIP_G + "transformer.resblocks.0.mlp.c_fc.weight", r"CLIP-G of nan\.safetensors"),
        (CLIP_G + "text_projection", r"CLIP-G of nan\.safetensors"),
    ],
)
def test_a_text_encoder_that_gives_nan_is_told_by_its_name(models, pipeline, tensor, words):
    tensors = load_file(models / "checkpoints" / "tiny.safetensors")
    tensors[tensor].fill_(float("nan"))
    save_file(tensors, models / "checkpoints" / "nan.safetensors")
    with pytest.raises(BadModelFile, match=f"The text encoder {words} gave NaN") as told:
        list(handler(AsyncTask(Settings(**{**SMALL, "base_model": "nan.safetensors"})), pipeline))
    assert "LoRA" not in str(told.value) and "precision" not in str(told.value)
    assert not pipeline._texts
    (models / "checkpoints" / "nan.safetensors").unlink()


def test_what_else_may_be_to_blame_for_nan_in_a_text_is_told_where_it_is_there(models, tmp_path):
    tensors = load_file(models / "text_encoders" / "clip_l.safetensors")
    tensors["text_model.final_layer_norm.weight"].fill_(float("nan"))  # which SDXL leaves out
    save_file(tensors, models / "text_encoders" / "unharmed.safetensors")
    tensors["text_model.encoder.layers.0.mlp.fc1.weight"].fill_(float("nan"))
    save_file(tensors, models / "text_encoders" / "nan_l.safetensors")
    catalog = Catalog([models / "checkpoints"], others={kind: [models / kind] for kind in KINDS})
    device = choose_device(DeviceChoice(device="cpu", clip_precision="fp16"))
    pipeline = Pipeline(catalog, device, tmp_path / "outputs")
    for settings in ({}, {"loras": [{"name": "style.safetensors"}]}, {"prompt": "embedding:toy"}):
        with pytest.raises(BadModelFile, match=r"CLIP-L of nan_l\.safetensors .* precision chosen for") as told:
            list(handler(AsyncTask(Settings(**{**SMALL, **settings, "text_encoder_l": "nan_l.safetensors"})), pipeline))
        assert ("A LoRA or an embedding may be the cause" in str(told.value)) == bool(settings)
    events = list(handler(AsyncTask(Settings(**{**SMALL, "text_encoder_l": "unharmed.safetensors"})), pipeline))
    assert any(isinstance(event, Saved) for event in events)


def test_clone_cond_shares_no_memory(loaded):
    """29.9."""
    conditions = loaded.clip_encode_single("a cat")
    clone = loaded.clone_cond(conditions)
    clone.tokens.zero_()
    clone.pooled.zero_()
    again = loaded.clip_encode_single("a cat")
    assert again.tokens.abs().sum() > 0 and again.pooled.abs().sum() > 0


def test_clear_all_caches_forgets_texts_and_nothing_else(loaded, counted):
    """29.12."""
    first = loaded.clip_encode_single("a cat")
    loaded.clear_all_caches()
    assert torch.equal(loaded.clip_encode_single("a cat").tokens, first.tokens)
    assert counted["encoded"] == 4 and counted["mapped"] == 0


def test_texts_survive_by_what_they_were_encoded_with(loaded, counted):
    """29.19: LoRAs on the encoders, embeddings in the text, encoders from other files, other checkpoints and back again."""
    changes = (
        {},
        {"loras": STYLE},
        {"parts": {"text_encoder_l": "clip_l.safetensors"}},
        {"base_model": "other.safetensors"},
    )
    texts = ("a cat", "a cat, embedding:toy")

    def encode(change):
        loaded.refresh_everything(**{"base_model": "tiny.safetensors", **change})
        return [loaded.clip_encode_single(text).tokens for text in texts]

    first = [encode(change) for change in changes]
    for i, tokens in enumerate(first):
        assert not torch.equal(*tokens)
        assert all(not torch.equal(tokens[0], other[0]) for other in first[:i])
    counted["encoded"] = 0
    for change, tokens in zip(changes, first, strict=True):
        assert all(map(torch.equal, encode(change), tokens))
    assert counted["encoded"] == 0
    encode({"loras": (Lora("shape.safetensors", 0.5),)})  # which leaves the encoders alone
    assert counted["encoded"] == 0


def test_prepare_text_encoder_brings_both_encoders_and_can_be_called_again(loaded, monkeypatch):
    """29.12. A new model is followed by it; later encoders are brought when a text is not in the cache."""
    brought = []
    monkeypatch.setattr(loaded._memory, "bring", lambda network, *_: brought.append(network))
    loaded.prepare_text_encoder()
    loaded.refresh_everything("tiny.safetensors", loras=STYLE)
    assert len(brought) == 2
    loaded.refresh_everything("other.safetensors")
    assert len(brought) == 4
    brought.clear()
    loaded.prepare_text_encoder()
    loaded.prepare_text_encoder()
    checkpoint = loaded._base.checkpoint
    assert brought == 2 * [checkpoint.clip_l, checkpoint.clip_g]
    settings = Settings(**SMALL)
    conditions = [loaded.process_prompt(plan_images(settings)[0], settings) for _ in range(2)]
    assert torch.equal(conditions[0].positive.tokens, conditions[1].positive.tokens)
    assert len(brought) == 4 + 4  # a prompt and a negative prompt, once


@pytest.mark.parametrize(("scale", "negative"), [(1.0, "none"), (1.00005, "the prompt"), (1.001, "its own")])
def test_next_to_scale_1_the_negative_side_is_the_positive_one(loaded, scale, negative):
    """2.14.11 of the application: below 0.0001."""
    settings = Settings(**SMALL, negative_prompt="green", guidance_scale=scale)
    conditions = loaded.process_prompt(plan_images(settings)[0], settings)
    kinds = {id(None): "none", id(conditions.positive): "the prompt"}
    assert kinds.get(id(conditions.negative), "its own") == negative


def test_prepare_text_encoder_checks_the_model_and_brings_what_continues_prompts(loaded, monkeypatch):
    """29.12."""
    network = torch.nn.Linear(1, 1)
    brought = []
    monkeypatch.setattr(loaded._memory, "bring", lambda network, *_: brought.append(network))
    monkeypatch.setattr(loaded._expansions, "_in_use", SimpleNamespace(network=network))
    loaded.prepare_text_encoder()
    assert network in brought and len(brought) == 3
    checkpoint = loaded._base.checkpoint
    refiner = replace(checkpoint, info=replace(checkpoint.info, family="sdxl-refiner"))
    loaded._base = replace(loaded._base, checkpoint=refiner)
    with pytest.raises(BadModelFile, match="refiner"):
        loaded.prepare_text_encoder()


# Sampling


def test_process_diffusion_starts_from_zeros_and_counts_its_steps_from_nothing(loaded):
    """29.18: sides cut to whole cells, steps in their order, and errors go through."""
    settings = Settings(**{**SMALL, "width": 72, "height": 64})
    plan = plan_images(settings)[0]
    conditions = loaded.process_prompt(plan, settings)
    steps = list(loaded.process_diffusion(settings, plan, conditions))
    assert [(step.index, step.total) for step in steps] == [(0, 3), (1, 3), (2, 3)]
    assert all(step.x.shape == (1, 4, 8, 9) for step in steps)
    assert loaded.decode(steps[-1].x, settings, steps[-1].space).shape == (64, 72, 3)

    def fail():
        raise OSError("seen")

    with pytest.raises(OSError, match="seen"):
        list(loaded.process_diffusion(settings, plan, conditions, check=fail))


def test_decoded_pixels_are_cut_off_not_rounded(loaded, monkeypatch):
    """29.18 step 5, section 1, Q11: clip(255 v) and then the fraction falls away."""
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0 - 1e-6, 3.0, 2 * 254.999 / 255 - 1])
    image = values.expand(1, 3, 1, -1)
    monkeypatch.setattr(loaded, "_decoded", lambda *_: image)
    pixels = loaded.decode(torch.zeros(1, 4, 1, 1), Settings(**SMALL))
    assert pixels[0, :, 0].tolist() == [0, 0, 127, 254, 255, 254]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_black_picture_is_made_again_in_a_safer_precision_and_then_kept_and_told(models, tmp_path, precision):
    """A decoder that gives -1 all over; a black ground may have been asked for."""
    tensors = load_file(models / "checkpoints" / "tiny.safetensors")
    for name, number in (("weight", 0.0), ("bias", -1.0)):
        tensors[f"first_stage_model.decoder.conv_out.{name}"].fill_(number)
    (tmp_path / "checkpoints").mkdir()
    save_file(tensors, tmp_path / "checkpoints" / "tiny.safetensors", {"modelspec.resolution": "64x64"})
    names = {"bf16": "bfloat16", "fp32": "float32"}
    device = choose_device(DeviceChoice(device="cpu", unet_precision=precision, vae_precision=precision))
    pipeline = Pipeline(Catalog([tmp_path / "checkpoints"]), replace(device, warnings=()), tmp_path / "outputs")
    events = list(handler(AsyncTask(Settings(**SMALL)), pipeline))
    told = [event.message for event in events if isinstance(event, Warned)]
    [saved] = [event for event in events if isinstance(event, Saved)]
    assert not np.asarray(Image.open(saved.path)).any()
    parts = ["The VAE gave", "The UNet gave"] if precision == "bf16" else []
    assert [message[: len(part)] for message, part in zip(told, parts, strict=False)] == parts
    assert told[len(parts) :] == [module.BLACK]
    assert (
        pipeline.device.unet_dtype == pipeline.device.vae_dtype == getattr(torch, names[precision])
    )  # for the next one


def test_a_safer_precision_is_kept_for_the_model_that_needs_it_alone(models, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="bf16"))
    (tmp_path / "checkpoints").mkdir()
    for name in ("tiny.safetensors", "other.safetensors"):
        shutil.copy(models / "checkpoints" / "tiny.safetensors", tmp_path / "checkpoints" / name)
    pipeline = Pipeline(Catalog([tmp_path / "checkpoints"]), device, tmp_path / "outputs")
    used = []
    for name in ("tiny.safetensors", "tiny.safetensors", "other.safetensors", "tiny.safetensors"):
        pipeline.refresh_everything(name)
        used.append(pipeline._base.checkpoint.unet.dtype)
        if len(used) == 1:
            assert "32-bit" in pipeline.take_safer_precision(module.NotFinite("UNet"))
    assert used == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]
    pipeline.take_safer_precision(module.NotFinite("UNet"))
    pipeline.refresh_everything("tiny.safetensors")
    with pytest.raises(BadPicture):
        pipeline.take_safer_precision(module.NotFinite("UNet"))
    assert pipeline.device is device  # it was of no use


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_a_draft_that_shows_nothing_says_nothing_about_the_picture(loaded, monkeypatch, value):
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = loaded.decode(latent, Settings(**SMALL))
    monkeypatch.setattr(loaded, "_draft", lambda *_: torch.full((1, 3, 64, 64), value))
    np.testing.assert_array_equal(loaded.decode(latent, Settings(**SMALL, final_decoder="preview")), wanted)


def test_a_skip_that_comes_while_its_picture_is_saved_drops_no_other(pipeline, monkeypatch):
    task = AsyncTask(Settings(**{**SMALL, "image_number": 2}))
    real = output.save_and_log
    monkeypatch.setattr("core.handler.save_and_log", lambda *given: (task.skip(), real(*given))[1])
    assert len([event for event in handler(task, pipeline) if isinstance(event, Saved)]) == 2


def test_a_preview_decoder_is_counted_and_where_it_has_no_room_the_linear_map_shows_the_picture(models, tmp_path):
    """28: one owner of what is on the device."""
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", memory_budget=1.0))
    pipeline = Pipeline(Catalog([models / "checkpoints"]), device, tmp_path / "outputs")
    pipeline.refresh_everything("tiny.safetensors")
    decoder = TinyDecoder(8).eval()
    preview = DecoderPreview(decoder, pipeline._base.preview.linear, clock=iter(range(0, 10**6, 1000)).__next__)
    preview._seconds_a_cell = 0.0
    pipeline._base = replace(pipeline._base, preview=preview)

    def by_the_decoder():
        preview._seconds_a_cell = 0.0  # until it has decoded something
        picture = Image.open(io.BytesIO(pipeline.preview(torch.zeros(1, 4, 8, 6))))
        assert picture.size == (6 * module.PREVIEW_SCALE, 8 * module.PREVIEW_SCALE)  # whoever makes it
        return preview._seconds_a_cell > 0

    assert by_the_decoder() and next(decoder.parameters()) in pipeline._memory._rest
    pipeline._memory.budget = 1
    assert not by_the_decoder()
    pipeline.rest()
    pipeline._memory.rest_all()
    assert not pipeline._memory._rest


def test_the_first_sign_of_life_comes_before_any_loading(pipeline):
    """The page has something to show while a model of 7 GB is read."""
    events = handler(AsyncTask(Settings(**SMALL)), pipeline)
    first = next(events)
    assert isinstance(first, Progress) and pipeline._base is None
    events.close()


def test_memory_is_given_back_after_a_request_where_the_installation_wants_it(models, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", memory_budget=1.0, offload=True))
    pipeline = Pipeline(Catalog([models / "checkpoints"]), device, tmp_path / "outputs")
    pictures = []
    for _ in range(2):
        events = list(handler(AsyncTask(Settings(**SMALL)), pipeline))
        assert not pipeline._memory._rest and not pipeline._memory._places
        pictures += [np.asarray(Image.open(event.path)) for event in events if isinstance(event, Saved)]
    np.testing.assert_array_equal(*pictures)


def test_a_large_picture_is_decoded_by_rows_on_a_cpu_and_a_small_one_at_once(loaded, monkeypatch):
    """Whatever the memory: so that the same latent is the same picture today and tomorrow."""
    gone = []
    monkeypatch.setattr(
        loaded._memory, "run", lambda vae, ways: gone.append([way.name for way in ways if way.need < 2**50])
    )
    vae = loaded._base.checkpoint.vae
    for cells in (64, 128):
        loaded._decoded(vae, torch.zeros(1, 4, cells, cells), None)
    assert gone == [["decode", "decode rows", "decode tiles"], ["decode rows", "decode tiles"]]
    assert module.MOST_ON_CPU == 2.5 * 2**30
