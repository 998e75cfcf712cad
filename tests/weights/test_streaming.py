"""Weights that come block by block: the same results bit for bit, and the weights at rest untouched."""

import pytest
import torch

from core.models.clip import CLIPText
from core.models.configs import TINY, TINY_CLIP_G
from core.models.unet import UNet
from core.weights.streaming import Streamed, bytes_of, streamable, tensors_of, units

CPU = torch.device("cpu")


def made(kind, config):
    """A network of seeded random weights: ordinary tensors, as loaded ones are."""
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return kind(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return made(UNet, TINY)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    y = noise(2, TINY.adm_in_channels)
    return noise(2, 4, 8, 8), torch.tensor([500.0, 500.0]), noise(2, 7, TINY.context_dim), y


@pytest.fixture
def streamed(unet):
    """All blocks of the network come and go."""
    streamed = Streamed(streamable(unet), CPU)
    yield streamed
    streamed.close()


def addresses(module):
    return [tensor.data_ptr() for tensor in tensors_of(module)]


@torch.inference_mode()
def test_a_streamed_network_gives_the_same_bits_and_its_weights_rest_where_they_were(unet, inputs):
    plain, before = unet(*inputs), addresses(unet)
    streamed = Streamed(streamable(unet), CPU)
    for _ in range(3):  # the first pass learns the order, the others fetch ahead
        assert torch.equal(unet(*inputs), plain)
        assert addresses(unet) == before
    streamed.close()
    assert torch.equal(unet(*inputs), plain)


@torch.inference_mode()
def test_while_a_block_runs_only_it_and_the_next_are_there(unet, inputs, streamed):
    """The two places are as large as the largest block, and every block computes out of one of them."""
    unet(*inputs)
    blocks = streamable(unet)
    assert streamed.size == 2 * max(bytes_of(list(tensors_of(block))) for block in blocks)
    places = {place.memory.data_ptr(): place.memory.nbytes for place in streamed._free}
    if streamed._coming:
        place = streamed._coming[1].result().place
        places[place.memory.data_ptr()] = place.memory.nbytes
    seen, inside = [], []

    def look(block, _):
        seen.append(block)
        inside.extend(any(start <= at < start + size for start, size in places.items()) for at in addresses(block))

    hooks = [block.register_forward_pre_hook(look) for block in blocks]
    unet(*inputs)
    for hook in hooks:
        hook.remove()
    assert seen and set(seen) == set(blocks) and all(inside) and len(places) == 2


@torch.inference_mode()
def test_what_runs_next_is_fetched_ahead(unet, inputs, streamed):
    unet(*inputs)
    alone = []
    fetch = streamed._fetched
    streamed._fetched = lambda block: (
        alone.append(not (streamed._coming and streamed._coming[0] is block)),
        fetch(block),
    )[1]
    unet(*inputs)
    assert not any(alone[1:])


def test_weights_of_16_bits_are_converted_on_the_way_to_what_a_conversion_at_loading_gives(inputs):
    unet, wanted = made(UNet, TINY).half(), made(UNet, TINY).half().to(torch.bfloat16)
    for part in (unet.time_embed, unet.label_emb, unet.out):
        part.to(torch.bfloat16)
    streamed = Streamed(streamable(unet), CPU, torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(unet(*inputs), wanted(*inputs))
    streamed.close()
    assert next(unet.middle_block.parameters()).dtype == torch.float16


@torch.inference_mode()
def test_an_error_in_a_block_leaves_the_weights_at_rest(unet, inputs):
    before = addresses(unet)

    class Stop(Exception):
        pass

    def check():
        calls.append(1)
        if len(calls) == 4:
            raise Stop

    streamed, calls = Streamed(streamable(unet), CPU), []
    with pytest.raises(Stop):
        unet(*inputs, check=check)

    def fail(*_):
        raise MemoryError

    hook = unet.middle_block[1].transformer_blocks[0].attn1.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        unet(*inputs)
    hook.remove()
    assert addresses(unet) == before
    plain = unet(*inputs)
    streamed.close()
    assert torch.equal(unet(*inputs), plain)


@torch.inference_mode()
def test_weights_changed_between_runs_are_used_after_renew(inputs):
    unet = made(UNet, TINY)
    streamed = Streamed(streamable(unet), CPU)
    for _ in range(2):
        unet(*inputs)
    for weight in unet.parameters():
        weight.mul_(1.5)
    streamed.renew()
    changed = unet(*inputs)
    streamed.close()
    assert torch.equal(unet(*inputs), changed)


@torch.inference_mode()
def test_a_text_encoder_streams_too():
    clip = made(CLIPText, TINY_CLIP_G)
    ids = torch.randint(0, 1000, (2, 77), generator=torch.Generator().manual_seed(0))
    plain = clip(ids)
    streamed = Streamed(streamable(clip), CPU)
    for _ in range(2):
        hidden, pooled = clip(ids)
        assert torch.equal(hidden, plain.hidden) and torch.equal(pooled, plain.pooled)
    streamed.close()


def test_units_hold_every_weight_once_but_those_of_the_network_itself(unet):
    parts = list(units(unet))
    held = [id(tensor) for part in parts for tensor in tensors_of(part)]
    assert sorted(held) == sorted(id(tensor) for tensor in tensors_of(unet))


@torch.inference_mode()
def test_runs_that_leave_blocks_out_fetch_none_of_them_and_do_not_disturb_the_others(unet, inputs, streamed):
    kept = []
    wanted = unet(*inputs, keep=kept.append)
    fetched, fill = [], streamed._fill
    streamed._fill = lambda place, block: (fetched.append(block), fill(place, block))[1]

    def run(route):
        """What was fetched, up to the first block of the next run."""
        streamed.route = route
        before = len(fetched)
        assert torch.equal(unet(*inputs, inner=kept[0] if route else None), wanted)
        if streamed._coming:
            streamed._coming[1].result()
        return fetched[before:]

    for route in (None, "short", None, "short"):  # learns both orders
        run(route)
    outermost = {*units(unet.input_blocks[0]), *units(unet.output_blocks[-1])}
    everything = set(streamable(unet))
    for _ in range(2):
        assert set(run(None)) == everything
        assert set(run("short")) == outermost
