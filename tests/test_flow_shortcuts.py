"""The whole way with what makes pictures sooner: guidance that ends early, a step cache, a small decoder at the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import write_checkpoint
from tiny_refiners import write_interposer, write_refiner, write_sd15

from core.device import DeviceChoice, choose_device
from core.errors import BadSetting
from core.events import Saved, Warned
from core.handler import handler
from core.models.preview import ApproxDecoder, TinyDecoder, fit_linear
from core.models.vae import VAE
from core.output.metadata import read_settings
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.sampling.shortcuts import Turns
from core.settings import Settings, parse_setting
from core.task import AsyncTask
from core.weights import memory
from core.weights.files import Catalog
from core.weights.previews import DecoderPreview

SMALL = {
    "width": 64, "height": 64, "steps": 10, "sampler": "euler", "prompt": "a red apple",
    "base_model": "tiny.safetensors", "seed": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors", dtype=torch.float32)
    write_refiner(folder / "checkpoints" / "refiner.safetensors")
    write_sd15(folder / "checkpoints" / "sd15.safetensors")
    write_interposer(folder / "vae_approx")
    return folder


@pytest.fixture
def make(models, tmp_path):
    def make(budget=None):
        choice = DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32", memory_budget=budget)
        others = {"vae_approx": [models / "vae_approx"]}
        catalog = Catalog([models / "checkpoints"], hash_cache=tmp_path / "hashes.json", others=others)
        return Pipeline(catalog, choose_device(choice), tmp_path / "outputs")

    return make


def run(pipeline, **settings):
    """The pictures, and the warnings."""
    events = list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))
    pictures = [np.asarray(Image.open(event.path)) for event in events if isinstance(event, Saved)]
    return pictures, [event.message for event in events if isinstance(event, Warned)]


def picture(pipeline, **settings):
    [pixels], warnings = run(pipeline, **settings)
    assert not warnings
    return pixels


class Ran:
    """The rows of each evaluation of a network, and for each whether it ran whole."""

    def __init__(self, unet):
        self.rows, self.whole, self._inner = [], [], False
        unet.input_blocks[0].register_forward_hook(self._first)
        unet.middle_block.register_forward_hook(self._middle)
        unet.output_blocks[-1].register_forward_hook(self._last)

    def _first(self, block, given, made):
        self.rows.append(len(made))
        self._inner = False

    def _middle(self, *_):
        self._inner = True

    def _last(self, *_):
        self.whole.append(self._inner)


def watched(make, **refiner):
    pipeline = make()
    pipeline.refresh_everything("tiny.safetensors", **refiner)
    return pipeline, Ran(pipeline._base.checkpoint.unet)


def steps(whole):
    return [i for i, is_whole in enumerate(whole) if is_whole]


# Guidance that ends


def test_after_the_end_of_guidance_a_step_costs_one_row_instead_of_two(make):
    pipeline, ran = watched(make)
    guided = picture(pipeline, scheduler="sgm_uniform", guidance_end=0.45)
    assert ran.rows == [2] * 5 + [1] * 5  # evenly spaced timesteps: 999, 899, ..., 99
    assert not np.array_equal(guided, picture(pipeline, scheduler="sgm_uniform"))


def test_guidance_that_ends_at_once_is_no_guidance(make):
    pipeline = make()
    same = {"sharpness": 0.0, "adm_scaler_end": 0.0}
    ended = picture(pipeline, guidance_end=0.0, **same)
    np.testing.assert_array_equal(ended, picture(pipeline, guidance_scale=1.0, **same))


# The step cache


def test_the_whole_network_at_every_step_is_the_same_picture_with_and_without_the_cache(make, monkeypatch):
    pipeline = make()
    plain = picture(pipeline, freeu=True)
    asked = []
    monkeypatch.setattr(Pipeline, "_turns", lambda *_: asked.append(1) or Turns(1))
    np.testing.assert_array_equal(picture(pipeline, freeu=True), plain)
    assert asked


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m_sde", "restart"])
def test_where_the_inner_blocks_say_the_same_at_all_times_the_cache_changes_no_pixel(make, sampler):
    pipeline = make()
    pipeline.refresh_everything("tiny.safetensors")
    [block] = pipeline._base.checkpoint.unet.output_blocks[-2]  # all that it makes is its bias
    for layer in (block.out_layers[3], block.skip_connection):
        layer.weight.data = torch.zeros_like(layer.weight)
    plain = picture(pipeline, sampler=sampler)
    np.testing.assert_array_equal(picture(pipeline, sampler=sampler, step_cache=5), plain)


@pytest.mark.parametrize(
    ("every", "wanted"), [(1, list(range(10))), (2, [0, 2, 4, 6, 8, 9]), (3, [0, 3, 6, 9]), (5, [0, 5, 9])]
)
def test_the_inner_blocks_run_every_nth_step(make, every, wanted):
    pipeline, ran = watched(make)
    picture(pipeline, step_cache=every)
    assert len(ran.whole) == 10 and steps(ran.whole) == wanted


def test_with_two_evaluations_a_step_both_run_whole_or_neither(make):
    pipeline, ran = watched(make)
    picture(pipeline, step_cache=2, sampler="heun", steps=6)
    assert ran.whole == [True, True, False, False, True, True, False, False, True, True, True]  # the last step has one


def test_each_picture_begins_anew(make):
    pipeline, ran = watched(make)
    both, _ = run(pipeline, step_cache=4, image_number=2)
    assert steps(ran.whole) == [0, 4, 8, 9, 10, 14, 18, 19]
    np.testing.assert_array_equal(both[1], picture(make(), step_cache=4, seed=8))


def test_the_first_evaluation_without_guidance_runs_whole(make):
    pipeline, ran = watched(make)
    picture(pipeline, scheduler="sgm_uniform", guidance_end=0.45, step_cache=4)
    assert ran.rows == [2] * 5 + [1] * 5
    assert steps(ran.whole) == [0, 4, 5, 8, 9]


@pytest.mark.parametrize("longer", [False, True], ids=["one batch", "two calls"])
def test_each_side_of_guidance_has_a_feature_map_of_its_own(make, monkeypatch, longer):
    """Computed once more by hand from two evaluations of the network for each side alone."""
    prompt = ", ".join(["a red apple on a table"] * 80) if longer else "a red apple"  # more than four times as long
    settings = Settings(
        **{**SMALL, "prompt": prompt, "steps": 3, "sharpness": 0.0, "step_cache": 2, "adm_scaler_end": 0.0}
    )
    pipeline, ran = watched(make)
    [plan] = plan_images(settings)
    conditions = pipeline.process_prompt(plan, settings)
    given = []

    def see(module, args, kwargs):
        given.append({**dict(zip(("x", "timesteps", "context", "y"), args, strict=False)), **kwargs})

    unet = pipeline._base.checkpoint.unet
    hook = unet.register_forward_pre_hook(see, with_kwargs=True)
    _, second, _ = [step.x0 for step in pipeline.process_diffusion(settings, plan, conditions)]
    hook.remove()
    assert ran.rows == ([1] * 6 if longer else [2] * 3)
    calls = len(given) // 3
    outputs = []
    with torch.inference_mode():
        for early, late in zip(given[:calls], given[calls : 2 * calls], strict=True):
            for row in range(len(early["x"])):
                kept = []
                names = ("x", "timesteps", "context", "y")
                unet(**{name: early[name][row : row + 1] for name in names}, keep=kept.append)
                outputs.append(unet(**{name: late[name][row : row + 1] for name in names}, inner=kept[0]))
    negative, positive = outputs
    from core.stages import base_prediction

    prediction, _ = base_prediction(pipeline._base.info, settings)
    t = given[calls]["timesteps"][:1]
    sigma = prediction.table.sigma(t)[0]
    x = given[calls]["x"][:1] * (1 + sigma**2) ** 0.5
    noise = negative + settings.guidance_scale * (positive - negative)
    torch.testing.assert_close(second, x - sigma * noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
@pytest.mark.parametrize("refiner", ["refiner.safetensors", "sd15.safetensors"])
def test_a_refiners_first_evaluation_and_the_last_one_run_whole(make, refiner, swap):
    pipeline, base = watched(make, refiner_model=refiner)
    second = Ran(pipeline._refiner.refiner.unet)
    picture(pipeline, step_cache=3, refiner_model=refiner, refiner_switch=0.5, refiner_swap=swap, guidance_end=0.9)
    assert base.whole[0] and second.whole[0] and second.whole[-1]
    assert not all(base.whole) and not all(second.whole)


@pytest.mark.parametrize("budget", [2**12 / 2**30, 12 / 1024], ids=["hopeless", "some blocks stay"])
def test_a_budget_changes_no_pixel_of_a_picture_with_kept_steps(make, monkeypatch, budget):
    monkeypatch.setattr(memory.Memory, "_seems_possible", lambda self, way: True)
    plain = picture(make(), step_cache=2)
    np.testing.assert_array_equal(picture(make(budget), step_cache=2), plain)


def test_where_memory_is_short_the_sides_are_kept_one_by_one(make, monkeypatch):
    plain = picture(make(), step_cache=3)
    monkeypatch.setattr(memory.Memory, "_seems_possible", lambda self, way: False)
    pipeline, ran = watched(make)
    pixels = picture(pipeline, step_cache=3)
    assert ran.rows == [1] * 20
    assert ran.whole == [step % 3 == 0 for step in range(10) for _ in range(2)]
    assert np.abs(pixels.astype(int) - plain).max() <= 2


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_samplers_that_choose_their_own_levels_run_whole_and_the_user_is_told(make, sampler):
    pipeline = make()
    plain = picture(pipeline, sampler=sampler)
    [pixels], [message] = run(pipeline, sampler=sampler, step_cache=3)
    np.testing.assert_array_equal(pixels, plain)
    assert sampler in message and "step cache" in message


# A draft


@pytest.fixture
def drafting(make):
    """A pipeline whose model a decoder of the given kind fits."""

    def drafting(decoder):
        pipeline = make()
        pipeline.refresh_everything("tiny.safetensors")
        base = pipeline._base
        preview = DecoderPreview(decoder.eval(), fit_linear(base.checkpoint.vae))
        pipeline._base = replace(base, preview=preview)
        return pipeline

    return drafting


@pytest.mark.parametrize("kind", ["tiny", "approx"])
def test_a_draft_is_decoded_by_the_small_decoder_at_full_size(drafting, monkeypatch, kind):
    torch.manual_seed(0)
    decoder = TinyDecoder(8) if kind == "tiny" else ApproxDecoder()
    pipeline = drafting(decoder)
    monkeypatch.setattr(VAE, "decode", None)
    latent = torch.randn(1, 4, 8, 8)
    found = pipeline.decode(latent, Settings(**SMALL, final_decoder="preview"))
    with torch.inference_mode():
        image = decoder(latent)
    if kind == "approx":
        image = F.interpolate(image, scale_factor=4, mode="bicubic")
    wanted = ((image[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255)
    assert found.shape == (64, 64, 3)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1.01)


def test_a_draft_of_another_scale_of_latents_is_of_the_same_raw_latent(drafting):
    from core.models.latent_format import PLAYGROUND, SDXL

    torch.manual_seed(0)
    pipeline, raw = drafting(TinyDecoder(8)), torch.randn(1, 4, 8, 8)
    settings = Settings(**SMALL, final_decoder="preview")
    edm = replace(settings, prediction="edm")
    assert pipeline._space(edm).format == PLAYGROUND
    found = pipeline.decode(PLAYGROUND.to_network(raw), edm)
    plain = pipeline.decode(SDXL.to_network(raw), settings)
    assert np.abs(found.astype(int) - plain).max() <= 1


def test_without_a_small_decoder_the_vae_makes_the_picture_and_the_user_is_told(make):
    pipeline = make()
    plain = picture(pipeline)
    [pixels], [message] = run(pipeline, final_decoder="preview")
    np.testing.assert_array_equal(pixels, plain)
    assert "vae_approx" in message


# What is remembered and what is refused


def test_a_picture_remembers_its_shortcuts(make, drafting):
    torch.manual_seed(0)
    given = {"guidance_end": 0.6, "step_cache": 3, "final_decoder": "preview"}
    pipeline = drafting(TinyDecoder(8))
    events = list(handler(AsyncTask(Settings(**{**SMALL, **given})), pipeline))
    [path] = [event.path for event in events if isinstance(event, Saved)]
    found = read_settings(path).settings
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    ("name", "text"), [("guidance_end", "1.1"), ("step_cache", "0"), ("step_cache", "6"), ("final_decoder", "taesd")]
)
def test_what_is_out_of_range_is_refused_with_the_range(name, text):
    with pytest.raises(BadSetting, match=name):
        Settings(**{name: parse_setting(name, text)})
