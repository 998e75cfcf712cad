"""The whole way with a refiner of each kind: prompt to PNG, what the PNG remembers, and the same pixels again."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from tiny_refiners import TINY_REFINER, write_interposer, write_refiner, write_sd15

from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, ModelNotFound
from core.events import Progress, Saved
from core.handler import handler
from core.models.latent_format import SD15, SDXL
from core.output.metadata import read_settings
from core.pipeline import NotFinite, Pipeline
from core.prompt.plan import plan_images
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights.files import Catalog

SMALL = {"width": 64, "height": 64, "steps": 5, "prompt": "a red apple", "base_model": "base.safetensors", "seed": 7,
         "refiner_switch": 0.6}  # fmt: skip
KINDS = {"sdxl": "other.safetensors", "sdxl-refiner": "refiner.safetensors", "sd15": "sd15.safetensors"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    write_checkpoint(checkpoints / "base.safetensors")
    write_checkpoint(checkpoints / "other.safetensors", seed=5)
    write_refiner(checkpoints / "refiner.safetensors")
    write_sd15(checkpoints / "sd15.safetensors")
    write_interposer(folder / "vae_approx")
    return folder


@pytest.fixture
def pipeline(folders, tmp_path):
    return made(folders, tmp_path)


def made(folders, outputs, vae_approx="vae_approx"):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    catalog = Catalog(
        [folders / "checkpoints"], hash_cache=outputs / "hashes.json", others={"vae_approx": [folders / vae_approx]}
    )
    return Pipeline(catalog, device, outputs / "outputs")


def run(pipeline, **settings):
    return list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))


def picture(events):
    [saved] = [event for event in events if isinstance(event, Saved)]
    with Image.open(saved.path) as image:
        return saved.path, np.asarray(image)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_with_a_refiner_remembers_it_and_is_made_again(pipeline, kind, swap):
    events = run(pipeline, refiner_model=KINDS[kind], refiner_swap=swap, sampler="dpmpp_2m_sde", negative_prompt="blue")
    path, pixels = picture(events)
    read = read_settings(path).settings
    assert (read["refiner_model"], read["refiner_switch"], read["refiner_swap"]) == (KINDS[kind], 0.6, swap)
    again = list(handler(AsyncTask(Settings.from_dict(read)), pipeline))
    np.testing.assert_array_equal(picture(again)[1], pixels)
    _, plain = picture(run(pipeline, sampler="dpmpp_2m_sde", negative_prompt="blue"))
    assert not np.array_equal(pixels, plain)
    steps = [event for event in events if isinstance(event, Progress) and event.text.startswith("Step")]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5] and {event.steps for event in steps} == {5}


def test_the_three_swaps_are_three_pictures(pipeline):
    pictures = [picture(run(pipeline, refiner_model="refiner.safetensors", refiner_swap=swap))[1].tobytes()
                for swap in ("joint", "separate", "vae")]  # fmt: skip
    assert len(set(pictures)) == 3


def test_an_sd15_refiner_swaps_by_vae_whatever_was_asked(pipeline):
    pictures = {picture(run(pipeline, refiner_model="sd15.safetensors", refiner_swap=swap))[1].tobytes()
                for swap in ("joint", "separate", "vae")}  # fmt: skip
    assert len(pictures) == 1


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_guidance_on_and_off_works_with_each_kind(pipeline, kind, guidance_scale):
    events = run(pipeline, refiner_model=KINDS[kind], guidance_scale=guidance_scale, sampler="heun")
    assert picture(events)[1].std() > 0


def test_no_refiner_costs_nothing_and_changes_no_pixel(pipeline, monkeypatch):
    _, plain = picture(run(pipeline))

    def fail(*_, **__):
        raise AssertionError("a refiner was loaded or asked for")

    monkeypatch.setattr("core.pipeline.load_refiner", fail)
    monkeypatch.setattr("core.pipeline.refiner_stage", fail)
    for unused in ({"refiner_switch": 0.3}, {"refiner_swap": "separate"}, {"refiner_swap": "vae"}):
        np.testing.assert_array_equal(picture(run(pipeline, **unused))[1], plain)


def test_a_refiner_whose_turn_never_comes_is_not_even_loaded(pipeline, monkeypatch):
    _, plain = picture(run(pipeline))
    monkeypatch.setattr("core.pipeline.load_refiner", lambda *_, **__: pytest.fail("loaded for nothing"))
    events = run(pipeline, refiner_model="refiner.safetensors", refiner_switch=1.0)
    path, pixels = picture(events)
    np.testing.assert_array_equal(pixels, plain)
    assert read_settings(path).settings["refiner_model"] == "refiner.safetensors"


def test_freeu_acts_on_the_base_model_alone(pipeline, monkeypatch):
    """Q13: what is put on the base model's network is gone after any swap."""
    pipeline.refresh_everything("base.safetensors", refiner_model="refiner.safetensors")
    acted = {"base": [], "refiner": []}
    for name, unet in (("base", pipeline._base.checkpoint.unet), ("refiner", pipeline._refiner.refiner.unet)):

        def spy(*args, forward=unet.forward, seen=acted[name], joint=None, **rest):
            seen.append(joint is not None)
            return forward(*args, joint=joint, **rest)

        monkeypatch.setattr(unet, "forward", spy)
    run(pipeline, refiner_model="refiner.safetensors", freeu=True, sampler="euler")
    assert acted == {"base": [True] * 4, "refiner": [False]}


def test_the_base_models_own_file_as_refiner_is_none(pipeline, monkeypatch):
    _, plain = picture(run(pipeline))
    monkeypatch.setattr("core.pipeline.load_refiner", lambda *_, **__: pytest.fail("loaded twice"))
    np.testing.assert_array_equal(picture(run(pipeline, refiner_model="base.safetensors"))[1], plain)
    assert pipeline._refiner is None


def test_a_refiner_that_is_taken_away_leaves_no_trace(pipeline):
    _, plain = picture(run(pipeline))
    run(pipeline, refiner_model="refiner.safetensors")
    np.testing.assert_array_equal(picture(run(pipeline))[1], plain)
    assert pipeline._refiner is None


def test_a_re_roll_loads_neither_model_again(pipeline, monkeypatch):
    run(pipeline, refiner_model="sd15.safetensors")
    monkeypatch.setattr("core.pipeline.load_refiner", lambda *_, **__: pytest.fail("loaded twice"))
    monkeypatch.setattr("core.pipeline.open_checkpoint", lambda *_, **__: pytest.fail("loaded twice"))
    monkeypatch.setattr("core.pipeline.load_interposer", lambda *_, **__: pytest.fail("loaded twice"))
    assert picture(run(pipeline, refiner_model="sd15.safetensors", seed=8))


def test_a_changed_refiner_file_is_loaded_anew(pipeline, folders):
    path = folders / "checkpoints" / "changing.safetensors"
    write_refiner(path, seed=21)
    _, before = picture(run(pipeline, refiner_model=path.name))
    write_refiner(path, seed=22)
    _, after = picture(run(pipeline, refiner_model=path.name))
    assert not np.array_equal(before, after)


def test_an_unsuitable_refiner_is_refused_before_any_sampling_and_leaves_none(pipeline, folders):
    from dataclasses import replace

    wide = replace(TINY_REFINER, context_dim=160, adm_in_channels=160 + 5 * 256)
    write_refiner(folders / "checkpoints" / "wide.safetensors", unet=wide)
    run(pipeline, refiner_model="refiner.safetensors")
    with pytest.raises(BadModelFile, match="160 wide"):
        run(pipeline, refiner_model="wide.safetensors")
    assert pipeline._refiner is None
    with pytest.raises(ModelNotFound):
        run(pipeline, refiner_model="nothing.safetensors")


def test_a_missing_interposer_is_told_before_the_first_step(folders, tmp_path):
    pipeline = made(folders, tmp_path, vae_approx="nowhere")
    seen = []
    with pytest.raises(ModelNotFound, match="xl-to-v1_interposer"):
        for event in handler(AsyncTask(Settings(**SMALL, refiner_model="sd15.safetensors")), pipeline):
            seen.append(event)
    assert not [event for event in seen if isinstance(event, Progress) and event.text.startswith("Step")]


def test_nan_in_the_refiner_is_told_and_both_models_are_loaded_in_a_safer_precision(folders, tmp_path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="bf16", vae_precision="fp32"))
    pipeline = Pipeline(Catalog([folders / "checkpoints"]), device, tmp_path / "outputs")
    pipeline.refresh_everything("base.safetensors", refiner_model="refiner.safetensors")
    with torch.no_grad():
        pipeline._refiner.refiner.unet.out[2].bias.fill_(float("nan"))
    events = run(pipeline, refiner_model="refiner.safetensors")
    assert picture(events)
    assert pipeline._refiner.refiner.unet.dtype == torch.float32
    pipeline.device = device
    assert "UNet" in pipeline.take_safer_precision(NotFinite("UNet"))


def test_the_synthetic_refiner_is_the_base_models_own_network(pipeline):
    pipeline.refresh_everything("base.safetensors", use_synthetic_refiner=True)
    record = pipeline._refiner
    assert record.synthetic and record.name == "base.safetensors" and record.refiner.vae is None
    base = dict(pipeline._base.checkpoint.unet.named_parameters())
    assert all(base[name] is weight for name, weight in record.refiner.unet.named_parameters())
    pipeline.refresh_everything("base.safetensors", use_synthetic_refiner=True)
    assert pipeline._refiner is record  # Q18 made it anew for every request
    pipeline.refresh_everything("base.safetensors", refiner_model="refiner.safetensors", use_synthetic_refiner=True)
    assert not pipeline._refiner.synthetic
    pipeline.refresh_everything("base.safetensors", use_synthetic_refiner=True)
    assert pipeline._refiner.synthetic
    pipeline.refresh_everything("base.safetensors")
    assert pipeline._refiner is None


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [({}, "epsilon"), ({"prediction": "v", "zero_terminal_snr": "on"}, "v"), ({"prediction": "edm"}, "edm")],
)
def test_the_synthetic_refiner_is_understood_as_the_base_model_is(pipeline, monkeypatch, chosen, kind):
    settings = Settings(**SMALL, **chosen)
    pipeline.refresh_everything("base.safetensors", use_synthetic_refiner=True)
    jobs = []
    monkeypatch.setattr("core.pipeline.diffuse", lambda job: jobs.append(job) or iter(()))
    plan = plan_images(settings)[0]
    list(pipeline.process_diffusion(settings, plan, pipeline.process_prompt(plan, settings)))
    base, refiner = jobs[0].base, jobs[0].refiner
    assert base.prediction.kind == refiner.prediction.kind == kind
    assert base.prediction.table.sigma_max == refiner.prediction.table.sigma_max


def test_the_synthetic_refiner_goes_without_what_is_added_to_the_base_model_alone(folders, tmp_path):
    place = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    (tmp_path / "loras").mkdir()
    file = {f"lora_unet_{place.removesuffix('.weight').replace('.', '_')}.lora_{side}.weight": torch.ones(shape)
            for side, shape in (("up", (64, 2)), ("down", (2, 64)))}  # fmt: skip
    save_file(file, tmp_path / "loras" / "patch.safetensors")
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    catalog = Catalog([folders / "checkpoints"], others={"loras": [tmp_path / "loras"]})
    pipeline = Pipeline(catalog, device, tmp_path / "outputs")
    pipeline.refresh_everything("base.safetensors", base_loras=[Lora("patch.safetensors")])
    for _ in range(2):  # with the patch on already, and once more
        pipeline.refresh_everything(
            "base.safetensors", base_loras=[Lora("patch.safetensors")], use_synthetic_refiner=True
        )
        base, own = (
            net.get_parameter(place) for net in (pipeline._base.checkpoint.unet, pipeline._refiner.refiner.unet)
        )
        torch.testing.assert_close(base, own + 2, rtol=0, atol=1e-5)
        stored = load_file(folders / "checkpoints" / "base.safetensors")[f"model.diffusion_model.{place}"]
        torch.testing.assert_close(own, stored.float(), rtol=0, atol=0)
    other = "middle_block.1.transformer_blocks.0.attn1.to_k.weight"
    nets = (pipeline._base.checkpoint.unet, pipeline._refiner.refiner.unet)
    assert nets[0].get_parameter(other) is nets[1].get_parameter(other)


def test_a_joint_swap_to_the_synthetic_refiner_changes_no_pixel_by_itself(pipeline):
    from core.prompt.plan import plan_images

    settings = Settings(**SMALL)
    [plan] = plan_images(settings)
    finals = []
    for synthetic in (False, True):
        pipeline.refresh_everything("base.safetensors", use_synthetic_refiner=synthetic)
        *_, last = pipeline.process_diffusion(settings, plan, pipeline.process_prompt(plan, settings))
        finals.append(last.x)
    torch.testing.assert_close(finals[1], finals[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "denoise", "expected"),
    [
        ("", 1.0, ("base", None)),
        ("sdxl", 0.2, ("base", None)),
        ("sdxl-refiner", 1.0, ("base", None)),
        ("sd15", 1.0, ("base", "refiner")),
        ("sd15", 0.91, ("base", "refiner")),
        ("sd15", 0.9, ("base", None)),
        ("sd15", 0.27, ("base", None)),
        ("sd15", 0.26, ("refiner", None)),
    ],
)
def test_get_candidate_vae_names_the_space_to_encode_in(pipeline, kind, denoise, expected):
    """Threshold ((30 - 24) / 30) ^ 0.834 = 0.26125."""
    pipeline.refresh_everything("base.safetensors", refiner_model=KINDS.get(kind, ""))
    found = pipeline.get_candidate_vae(Settings(steps=30, refiner_switch=0.8), denoise)
    own = pipeline._refiner and pipeline._refiner.refiner.vae
    vaes = {"base": (pipeline._base.checkpoint.vae, SDXL), "refiner": (own, SD15)}
    assert [space and (space.vae, space.format) for space in found] == [vaes.get(name) for name in expected]


def test_vae_parse_leaves_latents_alone_unless_the_refiner_has_its_own_vae(pipeline):
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for kind in ("", "sdxl", "sdxl-refiner"):
        pipeline.refresh_everything("base.safetensors", refiner_model=KINDS.get(kind, ""))
        assert pipeline.vae_parse(latent) is latent
    pipeline.refresh_everything("base.safetensors", refiner_model=KINDS["sd15"])
    parsed = pipeline.vae_parse(latent)
    assert parsed.shape == latent.shape and not torch.allclose(parsed, latent)


def test_a_vae_swap_is_decoded_by_the_refiners_own_vae(pipeline):
    """The refiner's decoder is made to paint everything red; the base model's is not asked."""
    pipeline.refresh_everything("base.safetensors", refiner_model=KINDS["sd15"])
    conv = pipeline._refiner.refiner.vae.decoder.conv_out
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([1.0, -1.0, -1.0]))
    _, pixels = picture(run(pipeline, refiner_model=KINDS["sd15"]))
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde_gpu", "dpm_fast", "euler"])
def test_a_picture_of_one_step_is_the_base_models(pipeline, kind, sampler):
    """A swap by way of a clean picture needs a step on either side."""
    one = {"steps": 1, "refiner_switch": 0.5, "refiner_swap": "vae", "sampler": sampler}
    alone, swapped = run(pipeline, **one), run(pipeline, **one, refiner_model=KINDS[kind])
    assert np.array_equal(picture(alone)[1], picture(swapped)[1])
