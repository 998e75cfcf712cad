"""Textual inversion in prompts, against diffusers' load_textual_inversion with transformers' CLIP of the same weights."""

import lzma

import pytest
import torch
from safetensors.torch import save_file

from core.models.clip import CLIPText
from core.models.configs import TINY_CLIP_G, TINY_CLIP_L
from core.text.chunks import tokenize
from core.text.emphasis import parse_weights
from core.text.encode import TextEncoder
from core.text.tokenizer import END, MERGES, START, ClipTokenizer, vocabulary
from core.weights.files import Files


@pytest.fixture(scope="module")
def clips():
    torch.manual_seed(0)
    return CLIPText(TINY_CLIP_L).eval(), CLIPText(TINY_CLIP_G).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return ClipTokenizer()


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path):
    save_file({"clip_l": vectors(3, 64), "clip_g": vectors(3, 96)}, tmp_path / "toy.safetensors")
    save_file({"clip_l": vectors(64, seed=1), "clip_g": vectors(96, seed=1)}, tmp_path / "one.safetensors")
    save_file({"emb_params": vectors(2, 64, seed=2)}, tmp_path / "sd15.safetensors")
    save_file({"clip_l": vectors(40, 64), "clip_g": vectors(40, 96)}, tmp_path / "long.safetensors")
    save_file({"emb_params": vectors(1, 64)}, tmp_path / "123.safetensors")
    return tmp_path


@pytest.fixture
def encoder(clips, tokenizer, folder):
    return TextEncoder(*clips, tokenizer, embeddings=Files([folder], "embeddings"))


def peers_tokenizer():
    from transformers import CLIPTokenizer

    text = lzma.decompress(MERGES.read_bytes()).decode("utf-8")
    return CLIPTokenizer(vocab=vocabulary(text), merges=[tuple(line.split(" ")) for line in text.splitlines()])


@torch.no_grad()
def peers_side(clip, table, prompt, padding):
    """Hidden states and pooled vector of `prompt`, in which `toy` is an embedding with the rows of `table`."""
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    class Loader(TextualInversionLoaderMixin):
        hf_device_map = None

        @property
        def components(self):
            return {}

    config = clip.config
    peer = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            projection_dim=config.projection or config.width,
            hidden_act="quick_gelu" if config.quick_gelu else "gelu",
            eos_token_id=END,
            attn_implementation="eager",
        )
    ).eval()
    weights = dict(clip.state_dict())
    if config.projection:
        weights["text_projection.weight"] = weights.pop("text_projection").T
    peer.load_state_dict(weights, strict=False)
    peers, loader = peers_tokenizer(), Loader()
    loader.load_textual_inversion({"toy": table}, token="toytoy", tokenizer=peers, text_encoder=peer)
    ids = peers(loader.maybe_convert_prompt(prompt.replace("embedding:toy", "toytoy"), peers)).input_ids
    out = peer(torch.tensor([ids + [padding] * (77 - len(ids))]), output_hidden_states=True)
    return out.hidden_states[-2], out.text_embeds


@pytest.mark.parametrize(
    "prompt", ["a photo of embedding:toy on a table", "embedding:toy", "a embedding:toy embedding:toy"]
)
def test_a_prompt_with_an_embedding_gives_what_diffusers_gives(clips, encoder, prompt):
    found = encoder.encode([prompt])
    hidden_l, _ = peers_side(clips[0], vectors(3, 64), prompt, END)
    hidden_g, pooled = peers_side(clips[1], vectors(3, 96), prompt, 0)
    wanted = torch.cat([hidden_l, hidden_g], dim=2)
    assert ((found.tokens - wanted).norm() / wanted.norm()).item() < 1e-5
    assert ((found.pooled - pooled).norm() / pooled.norm()).item() < 1e-5
    assert encoder.take_notices() == []


def ids_of(text, tokenizer, count):
    """Chunks of `text` in which every embedding is `count` vectors."""
    used = []

    def insert(word):
        used.extend(range(len(used), len(used) + count))
        return [-1 - i for i in used[-count:]], ""

    return tokenize(text, tokenizer, insert)


def test_vectors_carry_the_weight_of_their_group(tokenizer):
    [chunk] = ids_of("a (big embedding:x:1.4) cat", tokenizer, 2)
    assert chunk.ids == (START, 320, 1205, -1, -2, 2368, END)
    assert chunk.weights == (1, 1, 1.4, 1.4, 1.4, 1, 1)


def test_a_few_vectors_move_to_the_next_chunk_together_and_many_are_cut_at_its_end(tokenizer):
    first, second = ids_of("cat " * 73 + "embedding:x", tokenizer, 7)
    assert len(first.ids) == 75 and second.ids == (START, -1, -2, -3, -4, -5, -6, -7, END)
    first, second = ids_of("cat " * 73 + "embedding:x dog", tokenizer, 8)
    assert first.ids[-3:] == (-1, -2, END) and second.ids == (START, -3, -4, -5, -6, -7, -8, 1929, END)


def test_an_embedding_over_a_chunks_border_is_encoded_by_its_pieces(clips, encoder, folder):
    found = encoder.encode(["cat " * 60 + "embedding:long"]).tokens
    save_file({"clip_l": vectors(40, 64)[:15], "clip_g": vectors(40, 96)[:15]}, folder / "head.safetensors")
    save_file({"clip_l": vectors(40, 64)[15:], "clip_g": vectors(40, 96)[15:]}, folder / "tail.safetensors")
    wanted = [encoder.encode([text]).tokens for text in ("cat " * 60 + "embedding:head", "embedding:tail")]
    torch.testing.assert_close(found, torch.cat(wanted, dim=1))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("(embedding:x)", [("embedding:x", 1.1)]),
        ("(embedding:x:1.3)", [("embedding:x", 1.3)]),
        ("(embedding:123)", [("embedding:123", 1.1)]),
        ("(embedding:123:0.5)", [("embedding:123", 0.5)]),
        ("(a embedding:1.5)", [("a embedding:1.5", 1.1)]),
        ("((b)embedding:2)", [("b", 1.21), ("embedding:2", 1.1)]),
        ("(an embeddings:1.5)", [("an embeddings", 1.5)]),
        ("(word-embedding:1.5)", [("word-embedding", 1.5)]),
        ("(a,embedding:1.5)", [("a,embedding:1.5", 1.1)]),
        ("(a\tEmbedding:1.5)", [("a\tEmbedding:1.5", 1.1)]),
        (r"(embedding:neg_\(1\):1.3)", [("embedding:neg_(1)", 1.3)]),
    ],
)
def test_the_colon_of_an_embedding_is_not_that_of_a_weight(text, pieces):
    """In the reference `(embedding:123)` has the weight 123 (register: Q22)."""
    found = parse_weights(text)
    assert [piece.text for piece in found] == [text for text, _ in pieces]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in pieces])


def test_an_embedding_called_by_a_number_is_found_in_a_group(encoder):
    assert not torch.equal(encoder.encode(["(embedding:123)"]).tokens, encoder.encode(["(embedding)"]).tokens)
    assert "has no vectors for CLIP-G" in encoder.take_notices()[0]


def test_vectors_for_one_encoder_leave_the_other_with_the_text_around_them(encoder, folder):
    """The first inserted vector must not become padding (register: Q21)."""
    found = encoder.encode(["a embedding:sd15 cat"])
    assert "sd15.safetensors has no vectors for CLIP-G" in encoder.take_notices()[0]
    plain = encoder.encode(["a cat"])
    assert torch.equal(found.tokens[:, :, 64:], plain.tokens[:, :, 64:]) and torch.equal(found.pooled, plain.pooled)
    save_file({"clip_l": vectors(2, 64, seed=2), "clip_g": vectors(2, 96)}, folder / "whole.safetensors")
    whole = encoder.encode(["a embedding:whole cat"])
    assert torch.equal(found.tokens[:, :, :64], whole.tokens[:, :, :64])


@pytest.fixture
def for_clip_g(folder):
    """An embedding that has vectors for CLIP-G alone: two of them."""
    save_file({"emb_params": vectors(2, 96, seed=3)}, folder / "g.safetensors")


def test_q21_strict_padding_where_vectors_fell_out_is_the_first_vector_that_fits(clips, encoder, for_clip_g):
    """The reference gives the first inserted vector the padding's id, 49407; CLIP-G is padded with 0, which no vector gets."""
    text = "a embedding:g cat embedding:one"
    found, plain = encoder.encode([text], strict=True), encoder.encode([text])
    ids = torch.tensor([[START, 320, 2368, -1, END, *[END] * 70, -1, -1]])
    wanted = clips[0](ids, -2, vectors=vectors(64, seed=1)[None]).hidden
    torch.testing.assert_close(found.tokens[:, :, :64], wanted)
    assert torch.equal(found.tokens[:, :75], plain.tokens[:, :75])  # no token sees a later one
    assert not torch.equal(found.tokens[:, 75:, :64], plain.tokens[:, 75:, :64])
    assert torch.equal(found.tokens[:, :, 64:], plain.tokens[:, :, 64:]) and torch.equal(found.pooled, plain.pooled)


def test_q21_strict_padding_is_each_chunks_own_and_that_of_the_empty_text_stays(encoder, for_clip_g):
    text = "embedding:one (embedding:g:1.2) " + "cat " * 80
    found, plain = (encoder.encode([text], strict=strict).tokens for strict in (True, False))
    assert torch.equal(found[:, 77:], plain[:, 77:]) and not torch.equal(found[:, :77], plain[:, :77])


@pytest.mark.parametrize(
    "text", ["a cat", "a embedding:g cat", "embedding:one embedding:toy", "embedding:sd15 embedding:one"]
)
def test_q21_strict_padding_is_the_usual_one_where_nothing_or_everything_fits_clip_l(encoder, for_clip_g, text):
    found, plain = encoder.encode([text], strict=True), encoder.encode([text])
    assert torch.equal(found.tokens, plain.tokens) and torch.equal(found.pooled, plain.pooled)


def test_weights_stay_with_their_words_where_vectors_fall_out(encoder):
    found = encoder.encode(["embedding:sd15 a (cat:1.5)"]).tokens[:, :, 64:]
    assert torch.equal(found, encoder.encode(["a (cat:1.5)"]).tokens[:, :, 64:])


def test_an_unknown_embedding_is_left_out_and_told_every_time(encoder):
    plain = encoder.encode(["a cat"])
    for _ in range(2):
        assert torch.equal(encoder.encode(["a embedding:nothing, cat"]).tokens, plain.tokens)
        [notice] = encoder.take_notices()
        assert "'nothing'" in notice


@pytest.mark.parametrize("text", ["a,embedding:one cat", "a,\tembedding:one cat", "a, Embedding:one cat"])
def test_an_embedding_is_read_wherever_its_word_begins_and_in_any_case(encoder, text):
    assert torch.equal(encoder.encode([text]).tokens, encoder.encode(["a, embedding:one cat"]).tokens)
    assert encoder.take_notices() == []


def test_punctuation_behind_the_name_is_read_as_text(encoder):
    assert torch.equal(
        encoder.encode(["embedding:one, a cat"]).tokens, encoder.encode(["embedding:one , a cat"]).tokens
    )


def test_another_file_of_the_same_name_is_encoded_anew(encoder, folder):
    first = encoder.encode(["embedding:one"])
    assert encoder.encode(["embedding:one"]).tokens is not None
    save_file({"clip_l": vectors(2, 64, seed=5), "clip_g": vectors(2, 96, seed=5)}, folder / "one.safetensors")
    assert not torch.equal(encoder.encode(["embedding:one"]).tokens, first.tokens)


def test_without_a_folder_for_embeddings_the_word_is_text(clips, tokenizer):
    encoder = TextEncoder(*clips, tokenizer)
    [chunk] = tokenize("embedding:toy", tokenizer)
    assert len(chunk.ids) > 3
    assert encoder.encode(["embedding:toy"]).tokens.shape == (1, 77, 160)


@pytest.mark.parametrize("text", ["word embedding: a diagram", "embedding:"])
def test_the_plain_word_is_text(clips, tokenizer, encoder, text):
    assert torch.equal(encoder.encode([text]).tokens, TextEncoder(*clips, tokenizer).encode([text]).tokens)
    assert encoder.take_notices() == []
