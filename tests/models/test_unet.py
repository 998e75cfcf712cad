"""The denoising network against diffusers' on the same random weights, and against published layouts."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from layouts import UNET, part

from core.models.configs import REFINER, SD15, SDXL, SSD_1B, TINY, VEGA, UNetConfig
from core.models.unet import Attention, TextKeys, UNet, sinusoid
from tools import make_layout_lists as peer

FULL = {"sdxl": SDXL, "sdxl-refiner": REFINER, "sd15": SD15, "ssd-1b": SSD_1B, "vega": VEGA}
PUBLISHED_SIZES = {"sdxl": 2_567_463_684, "sd15": 859_520_964}  # numbers of weights

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
# Each family's plan at small widths. Not below 128 channels: diffusers has 32 groups in every norm.
SMALL = {
    "sdxl": {
        **peer.SDXL,
        "block_out_channels": (128, 128, 256),
        "transformer_layers_per_block": [1, 1, 2],
        "attention_head_dim": [2, 2, 4],
        "cross_attention_dim": 96,
        "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
    "sdxl-refiner": {
        **peer.REFINER,
        "block_out_channels": (128, 128, 256, 256),
        "transformer_layers_per_block": 2,
        "attention_head_dim": [2, 2, 4, 4],
        "cross_attention_dim": 64,
        "projection_class_embeddings_input_dim": 64 + 5 * 256,
    },
    "sd15": {**peer.SD15, "block_out_channels": (128, 128, 256, 256), "cross_attention_dim": 96},
    "ssd-1b": {
        **peer.SSD_1B,
        "block_out_channels": (128, 128, 256),
        "transformer_layers_per_block": [1, 1, 2],
        "reverse_transformer_layers_per_block": [[2, 1, 3], [1, 2, 1], 1],
        "attention_head_dim": [2, 2, 4],
        "cross_attention_dim": 96,
        "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
    "vega": {
        **peer.VEGA,
        "block_out_channels": (128, 128, 256),
        "attention_head_dim": [2, 2, 4],
        "cross_attention_dim": 96,
        "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
    "sd2": {  # SD 1.x's plan with linear projections and heads of 64 channels; no class vector
        **peer.SD15,
        "block_out_channels": (128, 128, 256, 256),
        "attention_head_dim": [2, 2, 4, 4],
        "cross_attention_dim": 64,
        "use_linear_projection": True,
    },
}


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def on_meta(config):
    with torch.device("meta"):
        return UNet(config)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return UNet(TINY)


def inputs(height=8, width=8, rows=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 4, height, width, generator=generator)
    context = torch.randn(rows, 77, TINY.context_dim, generator=generator)
    return x, torch.full((rows,), 500.0), context, torch.randn(rows, TINY.adm_in_channels, generator=generator)


@pytest.mark.parametrize("family", SMALL)
@torch.inference_mode()
def test_gives_the_same_numbers_as_diffusers(family):
    torch.manual_seed(0)
    other = UNet2DConditionModel(**SMALL[family]).eval()
    weights = peer.unet_to_ldm(other.state_dict())
    unet = UNet(UNetConfig.from_shapes({name: tuple(t.shape) for name, t in weights.items()}))
    unet.load_state_dict(weights, strict=True)
    x = torch.randn(2, 4, 16, 24)
    timesteps = torch.tensor([999.0, 17.0])
    context = torch.randn(2, 77, unet.config.context_dim)
    y, extra = None, None
    if unet.config.adm_in_channels is not None:
        pooled, sizes = torch.randn(2, 64), torch.randint(0, 2048, (2, unet.config.adm_in_channels // 256))
        y = torch.cat([pooled, sinusoid(sizes.flatten(), 256).view(2, -1)], dim=1)
        extra = {"text_embeds": pooled, "time_ids": sizes}
    expected = other(x, timesteps, context, added_cond_kwargs=extra).sample
    assert relative(unet(x, timesteps, context, y), expected) < 1e-5


@pytest.mark.parametrize("family", FULL)
def test_full_size_has_the_names_and_shapes_of_the_published_file(family):
    published = part(family, UNET)
    assert shapes_of(on_meta(FULL[family])) == published
    assert UNetConfig.from_shapes(published) == FULL[family]


@pytest.mark.parametrize(("family", "weights"), PUBLISHED_SIZES.items())
def test_full_size_has_the_published_number_of_weights(family, weights):
    assert sum(p.numel() for p in on_meta(FULL[family]).parameters()) == weights


def test_tiny_configuration_is_read_from_its_own_shapes(tiny):
    assert UNetConfig.from_shapes(shapes_of(tiny)) == TINY


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (9, 7), (8, 16)])
def test_odd_sides_come_back_as_they_went_in(tiny, height, width):
    x, *rest = inputs(height, width)
    assert tiny(x, *rest).shape == x.shape


def test_check_is_called_between_all_blocks_and_may_end_the_computation(tiny):
    calls = []
    tiny(*inputs(), check=lambda: calls.append(None))
    transformers = sum(TINY.depth_in) + sum(TINY.depth_out) + TINY.depth_middle
    assert len(calls) >= len(tiny.input_blocks) + len(tiny.output_blocks) + 3 + transformers

    class StopError(Exception):
        pass

    def stop_at_the_third():
        calls.append(None)
        if len(calls) == 3:
            raise StopError

    calls.clear()
    with pytest.raises(StopError):
        tiny(*inputs(), check=stop_at_the_third)
    assert len(calls) == 3


def test_rows_of_a_batch_do_not_mix(tiny):
    x, t, context, y = inputs()
    both = tiny(x, t, context, y)
    alone = tiny(x[1:], t[1:], context[1:], y[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_bf16_stays_within_its_rounding(tiny):
    x, t, context, y = inputs(16, 32)
    with torch.inference_mode():
        exact = tiny(x, t, context, y)
        rounded = UNet(TINY).to(torch.bfloat16)
        rounded.load_state_dict(tiny.state_dict())
        result = rounded(x, t, context, y)
    assert result.dtype == torch.bfloat16
    assert relative(result.float(), exact) < 0.03


def test_every_weight_learns(tiny):
    tiny(*inputs()).square().mean().backward()
    assert [name for name, p in tiny.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_sinusoid_has_cosines_first_and_frequencies_from_1_to_1_in_10000():
    embedded = sinusoid(torch.tensor([0.0, 2.0]), 6)
    assert embedded[0].tolist() == [1, 1, 1, 0, 0, 0]
    frequencies = torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    torch.testing.assert_close(embedded[1], torch.cat([(2 * frequencies).cos(), (2 * frequencies).sin()]))
    assert sinusoid(torch.tensor([5.0]), 7)[0, 6] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_kept_keys_and_values_change_no_bit_and_follow_the_text(dtype):
    torch.manual_seed(0)
    unet = UNet(TINY).to(dtype)
    x, t, context, y = inputs()
    first, second = context.to(dtype), context.flip(1).to(dtype)
    kept = TextKeys()
    for text in (first, first, second, first):
        assert torch.equal(unet(x, t, text, y, kept=kept), unet(x, t, text, y))
    assert not torch.equal(unet(x, t, first, y), unet(x, t, second, y))


@torch.inference_mode()
def test_kept_keys_and_values_are_made_once(tiny):
    x, t, context, y = inputs()
    layers = [module for module in tiny.modules() if isinstance(module, Attention)]
    calls = []
    for layer in layers:
        layer.to_v.register_forward_hook(lambda *_: calls.append(None))
    kept = TextKeys()
    for _ in range(3):
        tiny(x, t, context, y, kept=kept)
    assert len(calls) == 3 * len(layers) // 2 + len(layers) // 2


@pytest.mark.parametrize("family", ["sdxl", "sdxl-refiner", "sd15"])
@torch.inference_mode()
def test_with_a_kept_feature_map_it_is_diffusers_network_whose_last_block_gets_the_map_of_another_step(family):
    """DeepCache's branch 0. The peer runs whole; what enters its last block is replaced by what entered it before."""
    torch.manual_seed(0)
    other = UNet2DConditionModel(**SMALL[family]).eval()
    weights = peer.unet_to_ldm(other.state_dict())
    unet = UNet(UNetConfig.from_shapes({name: tuple(t.shape) for name, t in weights.items()}))
    unet.load_state_dict(weights, strict=True)
    x, context = torch.randn(2, 2, 4, 16, 24), torch.randn(2, 77, unet.config.context_dim)
    y, extra = None, None
    if unet.config.adm_in_channels is not None:
        pooled, sizes = torch.randn(2, 64), torch.randint(0, 2048, (2, unet.config.adm_in_channels // 256))
        y = torch.cat([pooled, sinusoid(sizes.flatten(), 256).view(2, -1)], dim=1)
        extra = {"text_embeds": pooled, "time_ids": sizes}
    early, late = torch.tensor([700.0, 700.0]), torch.tensor([600.0, 600.0])
    width = SMALL[family]["block_out_channels"][0]  # of the skip that it is joined with
    before: list[torch.Tensor] = []

    def remember(_, given):
        before.append(given[0][:, :-width])

    def replace_it(_, given):
        return torch.cat([before[0], given[0][:, -width:]], dim=1), *given[1:]

    last = other.up_blocks[-1].resnets[-1]
    hook = last.register_forward_pre_hook(remember)
    other(x[0], early, context, added_cond_kwargs=extra)
    hook.remove()
    hook = last.register_forward_pre_hook(replace_it)
    expected = other(x[1], late, context, added_cond_kwargs=extra).sample
    hook.remove()

    kept: list[torch.Tensor] = []
    whole = unet(x[0], early, context, y, keep=kept.append)
    assert len(kept) == 1 and torch.equal(whole, unet(x[0], early, context, y))
    found = unet(x[1], late, context, y, inner=kept[0])
    assert relative(found, expected) < 1e-5
    assert relative(unet(x[1], late, context, y), expected) > 1e-3


@pytest.mark.parametrize("with_freeu", [False, True])
@torch.inference_mode()
def test_with_the_feature_map_of_the_same_evaluation_it_gives_the_same_bits_from_the_outermost_blocks_alone(
    tiny, with_freeu
):
    from core.models.freeu import FreeU

    joint = (
        FreeU(TINY.model_channels // 2, 1.3, 1.4, 0.7, 0.6) if with_freeu else None
    )  # acts on the outermost level, too
    kept: list[torch.Tensor] = []
    whole = tiny(*inputs(), joint=joint, keep=kept.append)
    assert torch.equal(tiny(*inputs(), joint=joint, inner=kept[0]), whole)
    blocks = [*tiny.input_blocks, tiny.middle_block, *tiny.output_blocks]
    ran, checks = [], []
    hooks = [block.register_forward_pre_hook(lambda block, _: ran.append(block)) for block in blocks]
    tiny(*inputs(), joint=joint, inner=kept[0], check=lambda: checks.append(None))
    for hook in hooks:
        hook.remove()
    assert ran == [tiny.input_blocks[0], tiny.output_blocks[-1]] and len(checks) >= 2
