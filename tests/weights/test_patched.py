"""Patches on and off the weights of a loaded network, in every type they are stored in."""

import copy

import pytest
import torch
from loras import write
from tiny import write_checkpoint

from core.weights.checkpoint import load_checkpoint
from core.weights.memory import Memory
from core.weights.patched import patches_on, put_patches
from core.weights.patches import Patch, PatchFile
from core.weights.refiner import twin

CPU = torch.device("cpu")
LINEAR = "output_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
OTHER = "middle_block.1.transformer_blocks.0.attn2.to_v.weight"
CONV = "input_blocks.1.0.in_layers.2.weight"
NORM = "input_blocks.1.0.in_layers.0.weight"
NAMES = (LINEAR, OTHER, CONV, NORM)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def patch(tmp_path):
    """Patches for a weight: low-rank ones (by row) and whole differences, of seeded random numbers."""

    def patch(weight, kind="LoRA", seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape, file = tuple(weight.shape), tmp_path / f"{kind}{seed}-{weight.numel()}-{weight.dim()}.safetensors"
        if kind == "LoRA":
            tensors = {
                "up": torch.randn(shape[0], 2, *[1] * (len(shape) - 2), generator=generator),
                "down": torch.randn(2, *shape[1:], generator=generator),
            }
        else:
            tensors = {"diff": torch.randn(shape, generator=generator)}
        source = PatchFile(file if file.exists() else write(file, tensors))
        return Patch(source.stamp, "K", kind, {name: name for name in tensors}, source)

    return patch


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def differing(one, other):
    assert one.keys() == other.keys()
    return {name for name in one if not bits(one[name]).equal(bits(other[name]))}


def bits(tensor):
    return tensor.flatten().clone().view(torch.uint8)


def expected(plain, patches):
    """In float64 from the formula: the sum of the products."""
    total = plain.double()
    for each, strength in patches:
        t = {slot: each.file.tensor(name, CPU).double() for slot, name in each.slots.items()}
        change = (t["up"].flatten(1) @ t["down"].flatten(1)).view(plain.shape) if "up" in t else t["diff"]
        total = total + strength * change
    return total


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_patches_come_and_go_bit_for_bit_in_every_type(path, patch, dtype):
    unet = load_checkpoint(path, unet_dtype=dtype).unet
    stored = load_checkpoint(path).unet.state_dict()  # fp16, as in the file
    before, p = weights(unet), dict(unet.named_parameters())
    wanted = {
        LINEAR: ((patch(p[LINEAR]), 0.7), (patch(p[LINEAR], seed=1), -1.3)),
        CONV: ((patch(p[CONV]), 1.0),),
        NORM: ((patch(p[NORM], "difference"), 0.5),),
        OTHER: ((patch(p[OTHER], "difference"), 0.5), (patch(p[OTHER]), 2.0)),
    }
    assert put_patches(unet, wanted, device=CPU) == 4
    assert differing(weights(unet), before) == set(NAMES)
    precision = torch.finfo(dtype)
    for name in NAMES:
        truth = expected(stored[name], wanted[name])
        limit = truth.clamp(precision.min, precision.max).float()
        ours = unet.get_parameter(name)
        assert ours.dtype == dtype
        # One rounding: at most half a unit in the last place off the sum of the file's own numbers (and float32's own).
        torch.testing.assert_close(ours.float(), limit, rtol=0.51 * precision.eps + 1e-6, atol=precision.tiny + 1e-5)
    assert put_patches(unet, {}, device=CPU) == 4
    assert not differing(weights(unet), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_taking_all_patches_off_gives_back_the_very_memory_that_it_was(path, patch, dtype):
    """Views of the file are views again, and converted weights never moved: nothing is held twice."""
    unet = load_checkpoint(path, unet_dtype=dtype).unet
    places = {name: p.data_ptr() for name, p in unet.named_parameters()}
    put_patches(unet, {LINEAR: ((patch(unet.get_parameter(LINEAR)), 1.0),)}, device=CPU)
    moved = {name for name, p in unet.named_parameters() if p.data_ptr() != places[name]}
    assert moved == ({LINEAR} if dtype == torch.float16 else set())  # a view of the file must not be written to
    put_patches(unet, {}, device=CPU)
    assert {name: p.data_ptr() for name, p in unet.named_parameters()} == places


def test_only_what_changed_is_computed_again(path, patch):
    unet = load_checkpoint(path, unet_dtype=torch.float32).unet
    p = dict(unet.named_parameters())
    first, second = patch(p[LINEAR]), patch(p[OTHER])
    assert put_patches(unet, {LINEAR: ((first, 1.0),), OTHER: ((second, 1.0),)}, device=CPU) == 2
    assert put_patches(unet, {LINEAR: ((first, 1.0),), OTHER: ((second, 1.0),)}, device=CPU) == 0
    both = weights(unet)
    assert put_patches(unet, {LINEAR: ((first, 0.5),), OTHER: ((second, 1.0),)}, device=CPU) == 1
    assert differing(weights(unet), both) == {LINEAR}
    again = load_checkpoint(path, unet_dtype=torch.float32).unet
    put_patches(again, {LINEAR: ((first, 0.5),), OTHER: ((second, 1.0),)}, device=CPU)
    assert not differing(weights(unet), weights(again))  # nothing adds up from one change to the next


def test_a_pass_that_was_broken_off_is_finished_by_the_next_one(path, patch, monkeypatch):
    unet = load_checkpoint(path, unet_dtype=torch.bfloat16).unet
    before, p = weights(unet), dict(unet.named_parameters())
    wanted = {LINEAR: ((patch(p[LINEAR]), 1.0),), CONV: ((patch(p[CONV]), 1.0),)}
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_patches(unet, wanted, device=CPU, check=stop)
    assert len(differing(weights(unet), before)) == 1
    with monkeypatch.context() as context:
        context.setattr(Patch, "factors", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            put_patches(unet, wanted, device=CPU)
    assert any(patches_on(weight) is None for weight in p.values())
    assert put_patches(unet, wanted, device=CPU) == 1
    whole = load_checkpoint(path, unet_dtype=torch.bfloat16).unet
    put_patches(whole, wanted, device=CPU)
    assert not differing(weights(unet), weights(whole))
    put_patches(unet, {}, device=CPU)
    assert not differing(weights(unet), before)


def test_weights_that_no_file_holds_are_kept_and_put_back(path, patch):
    """Made by another part of the program, say: then a copy is kept, of what is patched only."""
    unet = load_checkpoint(path, unet_dtype=torch.float32).unet
    with torch.no_grad():
        unet.get_parameter(LINEAR).mul_(1.5)
    bare = copy.deepcopy(unet)
    bare.__dict__.pop("plain_weights")
    for module in (unet, bare):
        before = weights(module)
        wanted = {LINEAR: ((patch(before[LINEAR]), 1.0),)}
        put_patches(module, wanted, device=CPU)
        torch.testing.assert_close(
            module.get_parameter(LINEAR).double(), expected(before[LINEAR], wanted[LINEAR]), rtol=1e-5, atol=1e-5
        )
        put_patches(module, {LINEAR: ((wanted[LINEAR][0][0], 0.3),)}, device=CPU)
        put_patches(module, {}, device=CPU)
        assert not differing(weights(module), before)
        assert not any(vars(p) for p in module.parameters())


def test_a_network_of_another_memory_layout_is_patched_too(path, patch):
    unet = load_checkpoint(path, unet_dtype=torch.float32).unet.to(memory_format=torch.channels_last)
    before = weights(unet)
    wanted = {CONV: ((patch(before[CONV]), 1.0),)}
    put_patches(unet, wanted, device=CPU)
    torch.testing.assert_close(
        unet.get_parameter(CONV).double(), expected(before[CONV], wanted[CONV]), rtol=1e-5, atol=1e-5
    )
    put_patches(unet, {}, device=CPU)
    assert not differing(weights(unet), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_q18_a_twin_shares_what_both_want_and_has_the_rest_to_itself(path, patch, dtype):
    """Additions to the base alone: its synthetic refiner, of the same weights, goes without them."""
    unet = load_checkpoint(path, unet_dtype=dtype).unet
    before = weights(unet)
    refiner = twin(unet)
    both, base_only = (patch(before[LINEAR]), 1.0), (patch(before[OTHER]), 1.0)
    put_patches(refiner, {LINEAR: (both,)}, device=CPU)
    assert put_patches(unet, {LINEAR: (both,), OTHER: (base_only,)}, device=CPU, twin=refiner) == 1
    assert unet.get_parameter(LINEAR) is refiner.get_parameter(LINEAR)
    assert differing(weights(unet), before) == {LINEAR, OTHER}
    assert differing(weights(refiner), before) == {LINEAR}
    assert put_patches(refiner, {LINEAR: (both,)}, device=CPU) == 0
    assert put_patches(unet, {LINEAR: (both,), OTHER: (base_only,)}, device=CPU, twin=refiner) == 0
    put_patches(refiner, {}, device=CPU)
    put_patches(unet, {}, device=CPU, twin=refiner)
    assert not differing(weights(unet), before) and not differing(weights(refiner), before)
    assert all(a is b for a, b in zip(unet.parameters(), refiner.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_network_that_is_partly_off_the_device_is_patched_too(path, patch, dtype, share):
    """Blocks that come and go, or all of it on the device, patched while there and while at rest: the same numbers."""
    unet = load_checkpoint(path, unet_dtype=dtype).unet
    before = weights(unet)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    args = (x, torch.tensor([500.0]), torch.ones(1, 77, 160), torch.ones(1, 96 + 6 * 256))
    size = sum(p.nbytes for p in unet.parameters())
    memory = Memory(CPU, budget=int(share * size))
    lists = [{LINEAR: ((patch(before[LINEAR]), 0.7),), CONV: ((patch(before[CONV]), -0.5),)}, {}, {OTHER: ((patch(before[OTHER]), 1.0),)}, {}]  # fmt: skip
    for wanted in lists:
        put_patches(unet, wanted, device=CPU)
        memory.bring(unet, 0, torch.float32)
        with torch.inference_mode():
            ours = unet(*args)
        alone = load_checkpoint(path, unet_dtype=dtype).unet
        put_patches(alone, wanted, device=CPU)
        with torch.inference_mode():
            torch.testing.assert_close(ours, alone.float()(*args), rtol=1e-4, atol=1e-4)
    memory.rest_all()
    assert not differing(weights(unet), before)
