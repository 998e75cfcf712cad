"""The whole way with too little memory: budgets, streaming, and errors of the allocator at every stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loras import write_lora
from PIL import Image
from tiny import write_checkpoint
from tiny_refiners import write_interposer, write_refiner, write_sd15

from core import diffusion
from core.device import DeviceChoice, choose_device
from core.events import Saved, Warned
from core.handler import handler
from core.models import vae_rows
from core.models.clip import CLIPText
from core.models.interposer import Interposer
from core.models.unet import UNet
from core.models.vae import VAE
from core.pipeline import IN_TILES, Pipeline
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights import lora, memory
from core.weights.files import Catalog
from core.weights.plain import plain_weights
from core.weights.streaming import bytes_of, streamable, tensors_of

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": "a red apple", "base_model": "tiny.safetensors", "seed": 7}
GIB = 2**30
KINDS = ("checkpoints", "loras", "vae_approx")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        (folder / kind).mkdir()
    # In the type that is computed in, so that LoRAs are merged at the same precision in the file's type, too.
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors", dtype=torch.float32)
    write_checkpoint(folder / "checkpoints" / "half.safetensors")
    write_refiner(folder / "checkpoints" / "refiner.safetensors")
    write_sd15(folder / "checkpoints" / "sd15.safetensors")
    write_interposer(folder / "vae_approx")
    write_lora(folder / "loras" / "style.safetensors")
    return folder


@pytest.fixture
def make(models, tmp_path):
    """A pipeline on the CPU with a budget of so many bytes."""

    def make(budget=None, **choice):
        choice = {"device": "cpu", "unet_precision": "fp32", "vae_precision": "fp32", **choice}
        device = choose_device(DeviceChoice(**choice, memory_budget=None if budget is None else budget / GIB))
        others = {kind: [models / kind] for kind in KINDS[1:]}
        catalog = Catalog([models / "checkpoints"], hash_cache=tmp_path / "hashes.json", others=others)
        return Pipeline(catalog, device, tmp_path / "outputs")

    return make


@pytest.fixture
def plain(make):
    """The picture of a pipeline with all the memory that it likes; ask for it before making things fail."""
    made = {}

    def plain(**settings):
        key = repr(settings)
        if key not in made:
            made[key] = run(make(), **settings)[0]
        return made[key]

    return plain


def run(pipeline, **settings):
    """Pixels and warnings."""
    events = list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))
    [path] = [event.path for event in events if isinstance(event, Saved)]
    return np.asarray(Image.open(path)), [event.message for event in events if isinstance(event, Warned)]


@pytest.fixture
def same_ways(monkeypatch):
    """Whatever the budget, what is computed is computed in the same way: only where the weights are differs."""
    monkeypatch.setattr(memory.Memory, "_seems_possible", lambda self, way: True)


STYLE = (Lora("style.safetensors", 0.8),)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loras": STYLE},
        {"refiner_model": "refiner.safetensors", "refiner_switch": 0.5, "loras": STYLE},
        {"refiner_model": "sd15.safetensors", "refiner_switch": 0.5, "refiner_swap": "vae"},
    ],
    ids=["alone", "lora", "refiner", "sd15"],
)
@pytest.mark.parametrize("budget", [2**12, 12 * 2**20, GIB], ids=["hopeless", "some blocks stay", "plenty"])
def test_a_budget_changes_no_pixel(make, plain, same_ways, monkeypatch, budget, settings):
    streamed, real = [], memory.Streamed
    monkeypatch.setattr(memory, "Streamed", lambda blocks, *_: (streamed.append(len(blocks)), real(blocks, *_))[1])
    pipeline = make(budget)
    for _ in range(2):
        pixels, warnings = run(pipeline, **settings)
        np.testing.assert_array_equal(pixels, plain(**settings))
        assert not [words for words in warnings if "Memory" in words]
    every = len(streamable(pipeline._base.checkpoint.unet))
    assert (every in streamed) == (budget == 2**12) and bool(streamed) == (budget < GIB)


def test_switching_loras_while_blocks_come_and_go_changes_no_pixel(make, plain, same_ways):
    pipeline = make(2**20)
    for loras in ((), STYLE, (Lora("style.safetensors", -0.5),), ()):
        np.testing.assert_array_equal(run(pipeline, loras=loras)[0], plain(loras=loras))


def test_a_refiner_for_which_there_is_no_room_stays_in_its_file_as_a_base_model_does(make):
    for budget, kept in ((2**20, torch.float16), (None, torch.float32)):
        pipeline = make(budget)
        pipeline.refresh_everything("half.safetensors", refiner_model="refiner.safetensors")
        for network in (pipeline._base.checkpoint.unet, pipeline._refiner.refiner.unet):
            assert network.dtype == kept


def test_the_synthetic_refiner_and_the_base_model_share_their_weights_wherever_they_are(make, same_ways):
    from core.prompt.plan import plan_images

    settings = Settings(**SMALL, refiner_switch=0.5, refiner_model="x")
    plan = plan_images(settings)[0]
    latents = []
    for budget in (None, 2**20, GIB):
        pipeline = make(budget)
        for _ in range(2):
            pipeline.refresh_everything(
                "tiny.safetensors",
                use_synthetic_refiner=True,
                loras=STYLE,
                base_loras=(Lora("style.safetensors", 0.3),),
            )
            conditions = pipeline.process_prompt(plan, settings)
            *_, last = pipeline.process_diffusion(settings, plan, conditions)
            latents.append(last.x)
    assert all(torch.equal(latent, latents[0]) for latent in latents[1:])


def test_a_network_too_large_for_the_memory_is_left_in_its_file_and_converted_block_by_block(make, same_ways):
    """float16 in the file, bfloat16 to compute in: half of the weights' bytes are never there at once."""
    wanted, _ = run(make(unet_precision="bf16"), base_model="half.safetensors")
    pipeline = make(2**20, unet_precision="bf16")
    pixels, _ = run(pipeline, base_model="half.safetensors")
    np.testing.assert_array_equal(pixels, wanted)
    unet = pipeline._base.checkpoint.unet
    weight, name = unet.middle_block[0].in_layers[2].weight, "middle_block.0.in_layers.2.weight"
    assert weight.data_ptr() == plain_weights(unet).stored(name, weight).data_ptr()


# Out of memory


class Fails:
    """In the place of a function: out of memory as long as `when` says so, and `times` at most."""

    def __init__(self, monkeypatch, owner, name, when=lambda *_, **__: True, times=1):
        real = getattr(owner, name)
        self.count = 0

        def call(*args, **kwargs):
            if self.count < times and when(*args, **kwargs):
                self.count += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)


def close(pixels, wanted):
    """The same but for a last bit here and there."""
    return np.abs(pixels.astype(int) - wanted.astype(int)).max() <= 1


def test_too_little_memory_for_the_text_is_told_and_the_picture_finished(make, plain, monkeypatch):
    wanted = plain()
    fails = Fails(monkeypatch, CLIPText, "forward")
    pixels, warnings = run(make())
    assert fails.count == 1 and close(pixels, wanted)
    assert warnings == ["Memory ran short: texts are now encoded piece by piece, which is slower."]


def test_too_little_memory_for_both_sides_of_guidance_is_told_and_they_go_one_by_one(make, plain, monkeypatch):
    pipeline, wanted, second = make(), plain(), plain(seed=8)
    fails = Fails(monkeypatch, UNet, "forward", lambda unet, x, *_, **__: len(x) == 2, times=99)
    pixels, [warning] = run(pipeline)
    assert fails.count == 1 and "one after the other" in warning and close(pixels, wanted)
    pixels, warnings = run(pipeline, seed=8)
    assert fails.count == 1 and not warnings and close(pixels, second)  # what failed is not tried again


@pytest.mark.parametrize("settings", [{}, {"loras": STYLE}], ids=["alone", "lora"])
def test_too_little_memory_for_the_network_is_told_and_its_blocks_come_and_go(make, plain, monkeypatch, settings):
    """In the middle of the picture, which goes on from there: no step is made twice."""
    pipeline, wanted = make(GIB), plain(**settings)
    steps = []
    monkeypatch.setattr(pipeline, "preview", lambda x0, space=None: steps.append(1))
    monkeypatch.setattr("core.handler.PREVIEW_INTERVAL", 0.0)

    def short(unet, *_, **__):
        place = next(place for place in pipeline._memory._places if place.module is unet)
        return len(steps) == 2 and place.share > 0.2

    fails = Fails(monkeypatch, UNet, "forward", short, times=99)
    pixels, warnings = run(pipeline, **settings)
    assert fails.count >= 3 and len(steps) == 3 and close(pixels, wanted)
    assert warnings == [memory.MOVED_OFF, "Memory ran short: the two sides of guidance are now computed one after the "
                        "other, which is slower.", memory.STREAMING]  # fmt: skip


def test_too_little_memory_on_the_way_to_the_device_is_told_and_blocks_come_and_go(make, plain, monkeypatch):
    pipeline, wanted = make(GIB), plain()
    short = lambda self, place: isinstance(place.module, UNet) and place.share > 0.5  # noqa: E731
    fails = Fails(monkeypatch, memory.Memory, "_put", short, times=99)
    pixels, warnings = run(pipeline)
    assert fails.count == 2 and warnings == [memory.MOVED_OFF, memory.STREAMING]
    np.testing.assert_array_equal(pixels, wanted)


def test_too_little_memory_for_loras_is_told_and_they_are_merged_on_the_processor(make, plain, monkeypatch):
    wanted = plain(loras=STYLE)
    Fails(monkeypatch, lora.Loras, "put")
    pixels, [warning] = run(make(), loras=STYLE)
    assert "LoRAs" in warning
    np.testing.assert_array_equal(pixels, wanted)


def test_too_little_memory_for_the_interposer_moves_others_off(make, plain, monkeypatch):
    settings = {"refiner_model": "sd15.safetensors", "refiner_switch": 0.5, "refiner_swap": "vae"}
    wanted = plain(**settings)
    fails = Fails(monkeypatch, Interposer, "forward")
    pixels, warnings = run(make(GIB), **settings)
    assert fails.count == 1 and warnings == [memory.MOVED_OFF]
    np.testing.assert_array_equal(pixels, wanted)


def test_too_little_memory_to_decode_is_told_and_the_picture_decoded_by_rows(make, plain, monkeypatch):
    wanted = plain()
    Fails(monkeypatch, VAE, "decode")
    pixels, [warning] = run(make())
    assert "rows" in warning and close(pixels, wanted)


def test_too_little_memory_even_for_rows_is_told_and_the_picture_decoded_in_tiles(make, plain, monkeypatch):
    """A picture of one tile: the passes over it are all the same."""
    wanted = plain()
    Fails(monkeypatch, VAE, "decode")
    Fails(monkeypatch, vae_rows, "_enlarged")
    pixels, warnings = run(make())
    assert "rows" in warnings[0] and "tiles" in warnings[1] and close(pixels, wanted)


def decoded(pipeline, monkeypatch, side):
    """In which way a latent of `side` x `side` cells is decoded, and what is told of it."""
    vae = pipeline._base.checkpoint.vae
    monkeypatch.setattr("core.pipeline.decode_in_rows", lambda vae, raw, check: "rows")
    monkeypatch.setattr(vae, "decode_tiled", lambda raw, check: "tiles")
    return pipeline._decoded(vae, torch.zeros(1, 4, side, side), None), pipeline.take_notices()


def test_networks_that_are_not_at_work_leave_before_a_picture_is_decoded_in_tiles(make, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**50)
    pipeline = make(GIB)
    pipeline.refresh_everything("tiny.safetensors")
    unet, vae = pipeline._base.checkpoint.unet, pipeline._base.checkpoint.vae
    pipeline._memory.rest_all()
    sizes = [bytes_of(list(tensors_of(network))) for network in (unet, vae)]
    pipeline._memory.budget = sizes[1] + sizes[0] // 2 + vae_rows.rows_bytes(160, 160, 4)
    pipeline._memory.bring(unet)
    assert decoded(pipeline, monkeypatch, 160) == ("rows", [])


def test_tiles_that_change_the_picture_are_told_where_there_is_no_room_for_anything_else(make, monkeypatch):
    pipeline = make(2**20)
    pipeline.refresh_everything("tiny.safetensors")
    assert decoded(pipeline, monkeypatch, 40) == ("tiles", [IN_TILES])
    assert decoded(pipeline, monkeypatch, 32) == ("tiles", [])  # a single tile is the whole picture


def test_too_little_memory_anywhere_else_is_told_and_the_picture_made_again_with_little(make, plain, monkeypatch):
    wanted = plain()
    pipeline = make(GIB)
    fails = Fails(monkeypatch, diffusion, "noise_for")
    pixels, [warning] = run(pipeline)
    assert fails.count == 1 and "made again" in warning and close(pixels, wanted)
    pixels, warnings = run(pipeline)  # the next request is made as usual
    assert warnings == []
    np.testing.assert_array_equal(pixels, wanted)


def test_too_little_memory_for_a_decoder_on_the_processor_is_told_and_remembered(make, plain, monkeypatch):
    """`--vae-in-cpu` beside a GPU; "cpu:0" stands for another device than "cpu"."""
    pipeline, wanted = make(), plain()
    pipeline = Pipeline(pipeline.catalog, replace(pipeline.device, vae_device=torch.device("cpu", 0)), pipeline.outputs)
    fails = Fails(monkeypatch, VAE, "decode", times=99)
    pixels, [warning] = run(pipeline)
    assert "rows" in warning and close(pixels, wanted)
    pixels, warnings = run(pipeline)
    assert fails.count == 1 and not warnings and close(pixels, wanted)


def test_memory_is_given_back_after_a_request_that_failed_as_well(make, monkeypatch):
    pipeline = make(GIB, offload=True)
    Fails(monkeypatch, UNet, "forward", times=99)
    with pytest.raises(torch.OutOfMemoryError):
        run(pipeline)
    assert not pipeline._memory._places and not pipeline._memory._rest and not pipeline._memory.cramped


def test_where_nothing_helps_the_error_is_the_tasks_end(make, monkeypatch):
    Fails(monkeypatch, UNet, "forward", times=99)
    with pytest.raises(torch.OutOfMemoryError):
        run(make(GIB))


def test_errors_of_other_kinds_are_not_taken_for_a_lack_of_memory(make, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(UNet, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run(make(GIB))
