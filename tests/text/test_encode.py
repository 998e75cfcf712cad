"""Encoding against transformers' CLIP with the same random weights, and emphasis against a loop over its definition."""

import pytest
import torch

from core.models.clip import CLIPText
from core.models.configs import TINY_CLIP_G, TINY_CLIP_L
from core.task import Interrupted
from core.text.encode import TextEncoder, emphasised
from core.text.tokenizer import ClipTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return ClipTokenizer()


@pytest.fixture(scope="module")
def clips():
    torch.manual_seed(0)
    return CLIPText(TINY_CLIP_L).eval(), CLIPText(TINY_CLIP_G).eval()


@pytest.fixture
def encoder(clips, tokenizer):
    return TextEncoder(*clips, tokenizer)


def peer_of(clip):
    """transformers' model with the weights of ours."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = clip.config
    peer = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            projection_dim=config.projection or config.width,
            hidden_act="quick_gelu" if config.quick_gelu else "gelu",
            eos_token_id=2,  # makes it pool at the largest id of a row
            attn_implementation="eager",
        )
    ).eval()
    weights = dict(clip.state_dict())
    if config.projection:
        weights["text_projection.weight"] = weights.pop("text_projection").T
    missing, unexpected = peer.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("position_ids" in name or "text_projection" in name for name in missing)
    return peer


@torch.no_grad()
def peers_conditions(clips, ids, layer):
    """SDXL's conditions of one chunk of ids (77, padded with the end token)."""
    l_ids = torch.tensor([ids])
    g_ids = torch.tensor([[*ids[: ids.index(49407) + 1], *[0] * (76 - ids.index(49407))]])
    out_l = peer_of(clips[0])(l_ids, output_hidden_states=True)
    out_g = peer_of(clips[1])(g_ids, output_hidden_states=True)
    return torch.cat([out_l.hidden_states[layer], out_g.hidden_states[layer]], dim=2), out_g.text_embeds


def rel(found, wanted):
    assert found.shape == wanted.shape
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("text", ["", "a photo of a cat"])
def test_a_text_of_one_chunk_gives_what_transformers_gives(clips, encoder, tokenizer, text, clip_skip):
    ids = [49406, *tokenizer.ids(text), 49407]
    tokens, pooled = peers_conditions(clips, ids + [49407] * (77 - len(ids)), -clip_skip)
    found = encoder.encode([text], clip_skip=clip_skip)
    assert found.tokens.shape == (1, 77, 64 + 96)
    assert found.pooled.shape == (1, 96)
    assert rel(found.tokens, tokens) < 1e-5
    assert rel(found.pooled, pooled) < 1e-5


def test_a_long_text_is_its_chunks_in_a_row_with_the_pooled_vector_of_the_first(clips, encoder):
    ids = [49406] + [2368] * 75 + [49407]
    first, pooled = peers_conditions(clips, ids, -2)
    second, _ = peers_conditions(clips, [49406, 2368, 49407] + [49407] * 74, -2)
    found = encoder.encode(["cat " * 76])
    assert rel(found.tokens, torch.cat([first, second], dim=1)) < 1e-5
    assert rel(found.pooled, pooled) < 1e-5


@pytest.mark.parametrize("text", ["a (red:1.4) apple", "(cat) " * 50 + "(dog:0.3) " * 50, "(a:0) b"])
def test_emphasis_pushes_away_from_the_empty_prompt_and_restores_the_mean(clips, encoder, tokenizer, text):
    plain = text.replace("(", "").replace(")", "").replace(":1.4", "").replace(":0.3", "").replace(":0", "")
    pushed, unweighted, empty = encoder.encode([text]), encoder.encode([plain]), encoder.encode([""])
    weights = []
    for word in text.split():
        weight = float(word[:-1].split(":")[1]) if ":" in word else 1.1 if "(" in word else 1.0
        weights.append(weight)
    wanted = unweighted.tokens.clone()
    for chunk in range(wanted.shape[1] // 77):
        for side in (slice(0, 64), slice(64, 160)):
            z = wanted[0, chunk * 77 : chunk * 77 + 77, side]
            before = z.mean().item()
            for j, weight in enumerate(weights[chunk * 75 : chunk * 75 + 75]):
                if weight != 1:
                    z[j + 1] = (z[j + 1] - empty.tokens[0, j + 1, side]) * weight + empty.tokens[0, j + 1, side]
            z *= before / z.mean().item()
    assert rel(pushed.tokens, wanted) < 1e-4
    assert rel(pushed.tokens, unweighted.tokens) > 1e-3
    assert rel(pushed.pooled, unweighted.pooled) < 1e-6


def test_a_chunk_without_weights_stays_bit_for_bit_as_it_is():
    hidden, empty = torch.randn(2, 77, 8), torch.randn(1, 77, 8)
    weights = torch.ones(2, 77, 1)
    weights[1, 3] = 1.5
    found = emphasised(hidden, empty, weights)
    assert torch.equal(found[0], hidden[0])
    assert not torch.equal(found[1], hidden[1])


def test_a_mean_of_zero_gives_no_nan():
    """The ratio of the means is kept, wild as it may be (register: Q20)."""
    hidden = torch.zeros(1, 77, 2)
    hidden[:, 1] = torch.tensor([1.0, -1.0])
    weights = torch.ones(1, 77, 1)
    weights[:, 1] = 2.0
    assert emphasised(hidden, torch.zeros(1, 77, 2), weights).isfinite().all()


def test_several_texts_stand_in_a_row_and_the_first_pooled_vectors_are_summed(encoder):
    texts = ["a cat", "a (dog:1.2)", "in the rain"]
    each = [encoder.encode([text]) for text in texts]
    found = encoder.encode(texts, pool_top_k=2)
    assert torch.equal(found.tokens, torch.cat([conditions.tokens for conditions in each], dim=1))
    assert torch.equal(found.pooled, each[0].pooled + each[1].pooled)


def test_texts_are_encoded_once_until_the_cache_is_full_or_cleared(clips, tokenizer):
    encoder = TextEncoder(*clips, tokenizer, cached=2)
    calls = []
    hook = encoder.clip_g.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    try:
        first = encoder.encode(["a"])
        assert torch.equal(encoder.encode(["a"]).tokens, first.tokens)
        assert len(calls) == 1
        encoder.encode(["a"], clip_skip=1)  # the cache now holds a at 2 and a at 1
        assert len(calls) == 2
        encoder.encode(["a"])
        encoder.encode(["b"])  # pushes out a at 1, which was used longest ago
        encoder.encode(["a"])
        assert len(calls) == 3
        encoder.encode(["a"], clip_skip=1)
        assert len(calls) == 4
        encoder.clear_cache()
        encoder.encode(["a"], clip_skip=1)
        assert len(calls) == 5
    finally:
        hook.remove()


def test_a_texts_bits_do_not_depend_on_what_was_encoded_with_it(clips, tokenizer):
    together = TextEncoder(*clips, tokenizer).encode(["a cat", "a dog", "cat " * 80])
    alone = TextEncoder(*clips, tokenizer).encode(["a dog"])
    assert torch.equal(together.tokens[:, 77:154], alone.tokens)


def test_a_clone_shares_nothing_and_results_do_not_spoil_the_cache(encoder):
    first = encoder.encode(["a cat"])
    copy = first.clone()
    first.tokens.zero_()
    first.pooled.zero_()
    assert torch.equal(encoder.encode(["a cat"]).tokens, copy.tokens)
    assert torch.equal(encoder.encode(["a cat"]).pooled, copy.pooled)


def test_one_encoder_alone_is_sd1_or_the_refiner(clips, tokenizer):
    sd1 = TextEncoder(clips[0], None, tokenizer).encode(["a cat"], clip_skip=1)
    ids = torch.tensor([[49406, 320, 2368, 49407] + [49407] * 73])
    assert sd1.pooled is None
    with torch.no_grad():
        assert rel(sd1.tokens, peer_of(clips[0]).text_model(ids).last_hidden_state) < 1e-5
    refiner = TextEncoder(None, clips[1], tokenizer).encode(["a cat"])
    assert torch.equal(refiner.tokens, TextEncoder(*clips, tokenizer).encode(["a cat"]).tokens[:, :, 64:])


def test_check_is_called_between_layers_and_what_it_raises_comes_through(encoder):
    def check():
        raise Interrupted

    with pytest.raises(Interrupted):
        encoder.encode(["never seen before"], check=check)
    assert encoder.encode(["never seen before"]).tokens.isfinite().all()


@pytest.mark.parametrize(("texts", "pool_top_k"), [([], 1), (["a"], 0)])
def test_nothing_to_encode_or_to_pool_is_an_error(encoder, texts, pool_top_k):
    with pytest.raises(ValueError, match="at least"):
        encoder.encode(texts, pool_top_k=pool_top_k)
