"""The pipeline's functions, one contract each (engine.md 29.2 to 29.19), where no test of a feature has it already."""

import numpy as np
import pytest
import torch
from loras import write_lora
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from tiny_refiners import write_refiner

from core import pipeline as module
from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, BadSetting, ModelNotFound
from core.events import Progress, Saved
from core.handler import handler
from core.models.clip import CLIPText
from core.models.unet import UNet
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights import mapped, patched
from core.weights.files import Catalog

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}
KINDS = ("loras", "vae", "embeddings", "text_encoders")
CLIP_L = "conditioner.embedders.0.transformer."


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
    """29.10, 17.6. A text at least, and one to pool at least, or an error that says so: the reference fails later."""
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
    """29.12. Re-rolls don't need it: encoders are brought when a text is not in the cache."""
    brought = []
    monkeypatch.setattr(loaded._memory, "bring", lambda network, *_: brought.append(network))
    loaded.prepare_text_encoder()
    loaded.prepare_text_encoder()
    checkpoint = loaded._base.checkpoint
    assert brought == 2 * [checkpoint.clip_l, checkpoint.clip_g]
    settings = Settings(**SMALL)
    conditions = [loaded.process_prompt(plan_images(settings)[0], settings) for _ in range(2)]
    assert torch.equal(conditions[0].positive.tokens, conditions[1].positive.tokens)
    assert len(brought) == 4 + 4  # a prompt and a negative prompt, once


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
