"""Weights of 8 bits against closed forms, and LoRAs over them."""

from dataclasses import replace

import pytest
import torch
from loras import write_lora
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from torch import nn

from core.device import DeviceChoice, choose_device
from core.models.configs import SDXL, TINY
from core.models.int8 import has_int8_units, int8_works
from core.models.unet import UNet
from core.settings import Lora
from core.weights import quantized
from core.weights.checkpoint import load_checkpoint
from core.weights.files import Files
from core.weights.lora import Loras, Model
from core.weights.memory import Memory
from core.weights.patched import patches_on
from core.weights.quantized import Int8Linear, _plain, large_layers, scale_of
from core.weights.refiner import twin

STORAGES = {"fp8": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2, "int8": torch.int8}
UNET = "model.diffusion_model."
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


def load(file, storage, precision="fp32"):
    device = choose_device(DeviceChoice(device="cpu", unet_precision=storage))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return load_checkpoint(file, device=replace(device, unet_dtype=dtype)).unet


@pytest.fixture(params=STORAGES)
def storage(request):
    return request.param


def stored_layers(unet):
    return {name: layer for name, layer in unet.named_modules() if "scale" in layer._buffers}


def inputs():
    generator = torch.Generator().manual_seed(1)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    return noise(2, 4, 8, 8), torch.tensor([500.0] * 2), noise(2, 7, TINY.context_dim), noise(2, TINY.adm_in_channels)


def test_what_is_large_is_stored_in_8_bits_and_the_rest_in_the_type_of_computation(file, storage):
    unet = load(file, storage)
    large = stored_layers(unet)
    assert {layer.weight.dtype for layer in large.values()} == {STORAGES[storage]}
    small = {name: p.dtype for name, p in unet.named_parameters() if name.removesuffix(".weight") not in large}
    assert set(small.values()) == {torch.float32} == {unet.dtype}
    assert {"out.2.weight", "time_embed.0.weight", "input_blocks.0.0.weight"} < small.keys()


def test_of_the_full_size_network_99_percent_are_stored_in_8_bits():
    with torch.device("meta"):
        unet = UNet(SDXL)
    large = sum(layer.weight.numel() for _, layer in large_layers(unet))
    assert large > 0.99 * sum(p.numel() for p in unet.parameters())


def test_fp8_weights_are_the_nearest_floats_of_8_bits(file):
    wanted = load_file(file)
    for name in ("fp8", "fp8-e5m2"):
        unet = load(file, name)
        for path, layer in stored_layers(unet).items():
            assert torch.equal(_plain(layer, torch.float32), wanted[f"{UNET}{path}.weight"].to(STORAGES[name]).float())


def test_fp8_keeps_what_is_beyond_its_range_at_its_largest_number(file, tmp_path):
    tensors = load_file(file)
    tensors[f"{UNET}middle_block.0.in_layers.2.weight"][0, 0, 0] = torch.tensor([1000.0, -1000.0, 448.0])
    save_file(tensors, tmp_path / "loud.safetensors", {"modelspec.resolution": "64x64"})
    weight = load(tmp_path / "loud.safetensors", "fp8").middle_block[0].in_layers[2].weight
    assert weight[0, 0, 0].tolist() == [448.0, -448.0, 448.0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_int8_weights_are_within_half_a_step_of_their_rows_scale(file, precision):
    wanted = load_file(file)
    for path, layer in stored_layers(load(file, "int8", precision)).items():
        true = wanted[f"{UNET}{path}.weight"].float().flatten(1)
        scale = scale_of(layer.weight).float()[:, None]
        error = (layer.weight.float().flatten(1) * scale - true).abs()
        assert (error <= scale / 2 * 1.0001).all()
        largest = true.abs().amax(1, keepdim=True)
        slack = 1.02 if precision == "bf16" else 1.000001  # the scale is rounded upwards, to the type of computation
        assert (scale >= largest / 127).all() and (scale <= largest / 127 * slack + 1e-12).all()


def test_a_row_of_zeros_stays_zero(file, tmp_path):
    tensors = load_file(file)
    tensors[f"{UNET}middle_block.0.in_layers.2.weight"][3] = 0
    save_file(tensors, tmp_path / "zero.safetensors", {"modelspec.resolution": "64x64"})
    layer = load(tmp_path / "zero.safetensors", "int8").middle_block[0].in_layers[2]
    assert torch.equal(_plain(layer, torch.float32)[3], torch.zeros_like(layer.weight[3], dtype=torch.float32))


def test_a_network_over_8_bits_computes_what_one_with_these_very_weights_computes(file, storage):
    unet, peer = load(file, storage), UNet(TINY).eval()
    weights = {f"{name}.weight": _plain(layer, torch.float32) for name, layer in stored_layers(unet).items()}
    peer.load_state_dict({**unet.state_dict(), **weights})
    with torch.inference_mode():
        torch.testing.assert_close(unet(*inputs()), peer(*inputs()), rtol=1e-5, atol=1e-6)


def test_the_deviation_from_full_precision_is_of_the_size_that_the_steps_give(file):
    """int8 of a uniform row: a step of 1/127, an error of 1/sqrt(12) of it, against a spread of 1/sqrt(3): 0.4 %."""
    wanted = load_file(file)
    errors = {}
    for name in STORAGES:
        layers = stored_layers(load(file, name))
        true = torch.cat([wanted[f"{UNET}{path}.weight"].float().flatten() for path in layers])
        ours = torch.cat([_plain(layer, torch.float32).flatten() for layer in layers.values()])
        errors[name] = ((ours - true).norm() / true.norm()).item()
    assert errors["int8"] == pytest.approx(0.5 / 127, rel=0.1)
    assert errors["int8"] < errors["fp8"] < errors["fp8-e5m2"] < 0.08


def test_weights_that_the_file_has_in_8_bits_stay_in_the_file(file, tmp_path):
    tensors = load_file(file)
    eight = {n: t.to(torch.float8_e4m3fn) if n.startswith(UNET) and t.dim() > 1 else t for n, t in tensors.items()}
    save_file(eight, tmp_path / "fp8.safetensors", {"modelspec.resolution": "64x64"})
    unet = load(tmp_path / "fp8.safetensors", "fp8")
    plain = unet.__dict__["plain_weights"]
    for path, layer in stored_layers(unet).items():
        assert layer.weight.data_ptr() == plain.stored(f"{path}.weight", layer.weight).data_ptr()


# LoRAs over them


def put(unet, folder, *loras, **parts):
    loader = Loras(Files([folder], "LoRA"))
    model = Model("tiny", unet, **parts)
    return loader.put(model, loader.match(model, loras), device=CPU)


def bits(unet):
    return {name: t.clone().view(torch.uint8) for name, t in (*unet.named_parameters(), *unet.named_buffers())}


@pytest.fixture
def style(tmp_path):
    write_lora(tmp_path / "style.safetensors", text=False)
    return tmp_path


def test_a_lora_over_8_bits_is_the_patched_weight_rounded_once(file, style, storage):
    unet, full = load(file, storage), load_checkpoint(file, unet_dtype=torch.float32).unet
    put(unet, style, Lora("style.safetensors", 0.7))
    put(full, style, Lora("style.safetensors", 0.7))
    patched = dict(full.named_parameters())
    changed = 0
    for path, layer in stored_layers(unet).items():
        true, ours = patched[f"{path}.weight"], _plain(layer, torch.float32)
        if storage == "int8":
            scale = scale_of(layer.weight).view(-1, *(1,) * (true.dim() - 1))
            assert ((ours - true).abs() <= scale / 2 * 1.001).all()
        else:
            assert torch.equal(ours, true.to(STORAGES[storage]).float())
        changed += layer.weight.__dict__.get("easel_patches", ()) != ()
    assert changed > 10


def test_taking_loras_off_8_bits_gives_the_same_bits_back(file, style, storage):
    unet = load(file, storage)
    before = bits(unet)
    put(unet, style, Lora("style.safetensors", 0.7))
    assert any(not torch.equal(before[name], now) for name, now in bits(unet).items())
    put(unet, style)
    after = bits(unet)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_twin_over_8_bits_has_loras_of_its_own(file, style, storage):
    base = load(file, storage)
    second = twin(base)
    plain = bits(base)
    put(base, style, Lora("style.safetensors", 0.7), twin=second)
    alone = load(file, storage)
    put(alone, style, Lora("style.safetensors", 0.7))
    theirs, ours, wanted = bits(second), bits(base), bits(alone)
    assert all(torch.equal(theirs[name], plain[name]) and torch.equal(ours[name], wanted[name]) for name in plain)
    put(base, style, twin=second)
    assert all(one is other for one, other in zip(base.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(now, plain[name]) for name, now in bits(base).items())


def test_weights_that_were_patched_on_the_device_go_home_with_their_scales(file, style):
    """bf16 stands for another device: what is brought there lies in memory of its own."""
    unet = load(file, "int8")
    memory = Memory(CPU, 2**30)
    memory.bring(unet, dtype=torch.bfloat16)
    put(unet, style, Lora("style.safetensors", 2.0))
    changed = [layer for layer in stored_layers(unet).values() if patches_on(layer.weight)]
    there = [_plain(layer, torch.float32) for layer in changed]
    memory.rest(unet)
    assert len(changed) > 10
    assert all(torch.equal(_plain(layer, torch.float32), was) for layer, was in zip(changed, there, strict=True))
    assert memory.room() == 2**30


def test_8_bits_stream_block_by_block(file, storage):
    unet = load(file, storage)
    memory = Memory(CPU, 2**16)
    with torch.inference_mode():
        plain = unet(*inputs())
        memory.bring(unet, dtype=torch.float32)
        assert memory._places[0].streamed
        for _ in range(2):
            assert torch.equal(unet(*inputs()), plain)


# Multiplied in int8


needs_int8 = pytest.mark.skipif(not (int8_works(CPU) and has_int8_units()), reason="needs a CPU with int8 units")


def load_int8(file, precision="fp32"):
    device = choose_device(DeviceChoice(device="cpu", unet_precision=precision, int8_linears=True))
    return load_checkpoint(file, device=device).unet


def computed(unet):
    return {name for name, layer in unet.named_modules() if type(layer) is Int8Linear}


@needs_int8
def test_linear_layers_on_the_picture_multiply_in_int8_and_those_of_time_and_text_do_not(file):
    unet = load_int8(file)
    linears = {name for name, layer in stored_layers(unet).items() if isinstance(layer, nn.Linear)}
    of_time = {name for name in linears if ".emb_layers." in name}
    of_text = {name for name in linears if name.endswith((".attn2.to_k", ".attn2.to_v"))}
    assert of_time and of_text and computed(unet) == linears - of_time - of_text
    assert {name.rpartition(".transformer_blocks.0.")[2] for name in computed(unet) if "blocks.0." in name} >= {
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2",
    }  # fmt: skip
    assert not computed(load(file, "int8"))


@needs_int8
def test_multiplying_in_int8_lies_near_what_the_stored_weights_say(file):
    """A step of a row is 1/127 of its largest number: about 1 % of each product, and less of their mean."""
    unet, stored = load_int8(file), load(file, "int8")
    with torch.inference_mode():
        ours, wanted = unet(*inputs()), stored(*inputs())
    assert 0 < (ours - wanted).norm() / wanted.norm() < 0.03
    assert all(torch.equal(now, bits(stored)[name]) for name, now in bits(unet).items())


@needs_int8
def test_a_picture_in_a_batch_is_what_it_is_alone(file):
    unet = load_int8(file)
    with torch.inference_mode():
        both, alone = unet(*inputs()), unet(*(each[:1] for each in inputs()))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


@needs_int8
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lora_changes_what_is_multiplied_in_int8_and_leaves_nothing_behind(file, style, precision):
    unet = load_int8(file, precision)
    layers, before = computed(unet), bits(unet)
    with torch.inference_mode():
        plain = unet(*inputs())
        put(unet, style, Lora("style.safetensors", 0.7))
        assert not torch.equal(unet(*inputs()), plain)
        put(unet, style)
        assert torch.equal(unet(*inputs()), plain)
    assert computed(unet) == layers and all(torch.equal(before[name], now) for name, now in bits(unet).items())


@needs_int8
def test_a_twin_multiplies_in_int8_with_weights_of_its_own(file, style):
    base = load_int8(file)
    second, alone = twin(base), load_int8(file)
    put(base, style, Lora("style.safetensors", 0.7), twin=second)
    with torch.inference_mode():
        assert torch.equal(second(*inputs()), alone(*inputs()))
        assert not torch.equal(second(*inputs()), base(*inputs()))
    assert computed(second) == computed(base)


@needs_int8
def test_layers_multiplied_in_int8_stream_block_by_block(file):
    unet = load_int8(file)
    memory = Memory(CPU, 2**16)
    with torch.inference_mode():
        plain = unet(*inputs())
        memory.bring(unet, dtype=torch.float32)
        assert memory._places[0].streamed
        assert torch.equal(unet(*inputs()), plain)


@needs_int8
def test_what_the_product_does_not_take_is_computed_over_the_stored_weights(file, monkeypatch):
    unet, stored = load_int8(file), load(file, "int8")
    monkeypatch.setattr(quantized, "fits", lambda x, weight: False)
    with torch.inference_mode():
        assert torch.equal(unet(*inputs()), stored(*inputs()))


# Text encoders


@pytest.mark.parametrize("name", ["fp8", "fp8-e5m2"])
def test_text_encoders_in_8_bits_compute_what_these_very_weights_say(file, name):
    """They cast layer by layer whatever they are stored in; also while their blocks come and go."""
    eight, plain = (load_checkpoint(file, text_dtype=dtype).clip_g for dtype in (STORAGES[name], torch.float32))
    linear = {f"{path}.weight" for path, layer in eight.named_modules() if isinstance(layer, torch.nn.Linear)}
    for (path, ours), theirs in zip(eight.named_parameters(), plain.parameters(), strict=True):
        assert ours.dtype == (STORAGES[name] if path in linear else torch.float16)  # 17.1: tables stay as they are
        theirs.data = ours.float()
    assert len(linear) > 10
    ids = torch.randint(0, 1000, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = plain(ids)
        for memory in (None, Memory(CPU, 2**16)):
            if memory:
                memory.bring(eight)
            hidden, pooled = eight(ids)
            torch.testing.assert_close(hidden, wanted.hidden)
            torch.testing.assert_close(pooled, wanted.pooled)
