"""The text encoders against transformers' on the same random weights, and against the published layouts."""

import pytest
import torch
from layouts import part
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from core.models.clip import CLIPText, from_open_clip, to_open_clip
from core.models.configs import CLIP_G, CLIP_L, TINY_CLIP_G, CLIPConfig
from core.models.names import open_clip_names
from tools.make_layout_lists import clip_to_open_clip

PREFIX_L, PREFIX_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def peer(activation):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=384,
        vocab_size=1000,
        projection_dim=96,
        hidden_act=activation,
        eos_token_id=2,  # the published models' value: the pooled place is that of the largest id
    )
    model = CLIPTextModelWithProjection(config).eval()
    for p in model.parameters():  # norms and biases start as ones and zeros, which would hide a mix-up
        p.data += 0.05 * torch.randn_like(p)
    return model


def some_ids():
    ids = torch.randint(1, 900, (3, 77))
    ids[0, 10:] = ids[1, 76] = ids[2, 40] = 999  # the end token; row 0 is padded with it
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.inference_mode()
def test_gives_the_same_numbers_as_transformers(activation):
    other = peer(activation)
    weights = from_open_clip(clip_to_open_clip(other.state_dict()))
    config = CLIPConfig.from_shapes(shapes_of(weights), quick_gelu=activation == "quick_gelu")
    encoder = CLIPText(config)
    encoder.load_state_dict(weights, strict=True)
    ids = some_ids()
    expected = other(ids, output_hidden_states=True)
    for layer in (-1, -2, -4):
        hidden, pooled = encoder(ids, layer)
        assert relative(hidden, expected.hidden_states[layer]) < 1e-5
        assert relative(pooled, expected.text_embeds) < 1e-5
    assert relative(encoder(ids, -1, final_norm=True).hidden, expected.last_hidden_state) < 1e-5
    assert relative(encoder(ids, -5).hidden, expected.last_hidden_state) < 1e-5  # more than there are layers


def test_full_size_has_the_names_shapes_and_numbers_of_weights_of_the_published_file():
    with torch.device("meta"):
        clip_l, clip_g = CLIPText(CLIP_L), CLIPText(CLIP_G)
    assert shapes_of(clip_l.state_dict()) == part("sdxl", PREFIX_L)
    assert sum(p.numel() for p in clip_l.parameters()) == 123_060_480
    published = part("sdxl", PREFIX_G)
    assert shapes_of(to_open_clip(clip_g.state_dict())) == published
    assert sum(p.numel() for p in clip_g.parameters()) == 694_659_840
    assert {name for old in published for name in open_clip_names(old)} == set(clip_g.state_dict())


def test_open_clip_names_there_and_back_without_copies():
    weights = CLIPText(TINY_CLIP_G).state_dict()
    stored = to_open_clip(weights)
    back = from_open_clip(stored)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    first = "transformer.resblocks.0.attn.in_proj_weight"
    assert back["text_model.encoder.layers.0.self_attn.q_proj.weight"].data_ptr() == stored[first].data_ptr()


def test_the_other_spelling_of_the_projection_is_transposed():
    matrix = torch.arange(6.0).view(2, 3)  # output x input
    assert torch.equal(from_open_clip({"text_projection.weight": matrix})["text_projection"], matrix.T)


@torch.inference_mode()
def test_half_precision_weights_compute_in_float32():
    torch.manual_seed(0)
    encoder = CLIPText(TINY_CLIP_G).half()
    exact = CLIPText(TINY_CLIP_G)
    exact.load_state_dict(encoder.state_dict())
    ids = torch.randint(0, 49408, (2, 77))
    for a, b in zip(encoder(ids), exact(ids), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


@torch.inference_mode()
def test_without_projection_the_layers_behind_the_wanted_one_are_not_run():
    encoder = CLIPText(CLIPConfig(width=64, layers=5, mlp_width=128, vocabulary=100))
    calls = []
    out = encoder(torch.zeros(1, 77, dtype=torch.long), -3, check=lambda: calls.append(None))
    assert out.pooled is None
    assert len(calls) <= 4
