"""Checkpoints without some of their parts, which then come from files of their own, in every layout that is about."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint

from benchmarks.unet_step import PEER_TINY
from core.errors import BadModelFile
from core.models import vae
from core.models.clip import CLIPText, from_open_clip, to_open_clip
from core.models.configs import TINY, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, CLIPConfig
from core.weights import layouts
from core.weights.checkpoint import load_checkpoint, load_vae
from core.weights.header import TensorEntry
from core.weights.info import CLIP_G, CLIP_L, PARTS, UNET, VAE, model_info
from tools import make_layout_lists as peer


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return load_file(write_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def write(tmp_path):
    def write(name, tensors):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name)
        return tmp_path / name

    return write


def cut(tensors, prefix, put=""):
    return {put + name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def transformers_g(tensors):
    """bigG as transformers writes it: its names, and the projection output x input."""
    return with_turned_projection(from_open_clip(cut(tensors, CLIP_G)))


def with_turned_projection(tensors):
    others = {name: tensor for name, tensor in tensors.items() if name != "text_projection"}
    return others | {"text_projection.weight": tensors["text_projection"].T}


def same(module, other):
    mine, theirs = module.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("prefix", [UNET, ""])
def test_a_file_with_nothing_but_the_network_says_what_is_missing_and_how_to_choose_it(write, stored, prefix):
    """The reference samples with whatever memory holds (register: Q23)."""
    path = write("unet.safetensors", cut(stored, UNET, prefix))
    info = model_info(path)
    assert info.family == "sdxl" and len(info.missing) == 3
    with pytest.raises(BadModelFile) as told:
        load_checkpoint(path)
    for words in ("unet.safetensors lacks", "the autoencoder (VAE)", "CLIP-L and", "CLIP-G", *PARTS, *PARTS.values()):
        assert words in str(told.value)
    with pytest.raises(BadModelFile, match=r"lacks the text encoder CLIP-G\. Choose text_encoder_g"):
        info.check_base({"vae", "text_encoder_l"})
    info.check_base(PARTS)


LAYOUTS = {
    "transformers": (lambda t: cut(t, CLIP_L), transformers_g),
    "without the outermost name": (
        lambda t: cut(t, CLIP_L + "text_model."),
        lambda t: {name.removeprefix("text_model."): tensor for name, tensor in transformers_g(t).items()},
    ),
    "open_clip": (lambda t: to_open_clip(cut(t, CLIP_L)), lambda t: cut(t, CLIP_G)),
    "open_clip's newer projection": (
        lambda t: to_open_clip(cut(t, CLIP_L)) | {"logit_scale": torch.ones(1)},
        lambda t: with_turned_projection(cut(t, CLIP_G)),
    ),
    "with position ids and a projection": (
        lambda t: (
            cut(t, CLIP_L)
            | {
                "text_model.embeddings.position_ids": torch.arange(77)[None],
                "text_projection.weight": torch.zeros(64, 64),
            }
        ),
        transformers_g,
    ),
    "prefixes": (
        lambda t: cut(t, CLIP_L, "text_encoders.clip_l.transformer."),
        lambda t: cut(transformers_g(t), "", "text_encoders.clip_g.transformer."),
    ),
    "another checkpoint": (dict, dict),
}


@pytest.mark.parametrize("family", ["SDXL", "REFINER", "SD15", "SSD_1B", "VEGA"])
def test_a_network_in_diffusers_layout_gets_the_single_files_names(family):
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**getattr(peer, family)).state_dict()
    entries = {name: TensorEntry("F16", tuple(tensor.shape), 0, 0) for name, tensor in theirs.items()}
    found, expected = layouts.network(entries), peer.unet_to_ldm(theirs)
    assert {name: entry.shape for name, entry in found.items()} == {n: tuple(t.shape) for n, t in expected.items()}


def test_a_network_alone_in_diffusers_layout_and_one_with_its_markers_are_used_with_chosen_parts(write, stored):
    """As SDXL-Lightning's networks and merging tools write them."""
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**PEER_TINY).state_dict()
    names = dict(zip(peer.unet_to_ldm(theirs, blocks=1), theirs, strict=True))
    network = cut(stored, UNET)
    marked = write("marked.safetensors", network | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    named = write("named.safetensors", {names[name]: tensor for name, tensor in network.items()})
    whole = write("whole.safetensors", stored)
    for path in (marked, named):
        with pytest.raises(BadModelFile, match=r"lacks the autoencoder \(VAE\)"):
            load_checkpoint(path)
        found = load_checkpoint(path, chosen={"text_encoder_l": whole, "text_encoder_g": whole, "vae": whole})
        assert same(found.unet, load_checkpoint(whole).unet)
    assert model_info(marked).prediction == "v" and model_info(marked).zero_terminal_snr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_missing_parts_come_from_files_of_their_own(write, stored, layout):
    text_l, text_g = LAYOUTS[layout]
    whole = load_checkpoint(write("whole.safetensors", stored))
    chosen = {
        "text_encoder_l": write("l.safetensors", text_l(stored)),
        "text_encoder_g": write("g.safetensors", text_g(stored)),
        "vae": write("v.safetensors", cut(stored, VAE)),
    }
    found = load_checkpoint(write("unet.safetensors", cut(stored, UNET)), chosen=chosen)
    for part in ("unet", "vae", "clip_l", "clip_g"):
        assert same(getattr(found, part), getattr(whole, part)), part


def test_a_chosen_part_takes_the_place_of_the_checkpoints_own(write, stored):
    torch.manual_seed(1)
    other = CLIPText(TINY_CLIP_L)
    path = write("l.safetensors", {name: tensor.half() for name, tensor in other.state_dict().items()})
    whole = write("whole.safetensors", stored)
    found, plain = load_checkpoint(whole, chosen={"text_encoder_l": path}), load_checkpoint(whole)
    assert torch.equal(found.clip_l.text_model.final_layer_norm.bias, other.half().text_model.final_layer_norm.bias)
    assert not same(found.clip_l, plain.clip_l) and same(found.clip_g, plain.clip_g)


def test_an_encoder_of_the_wrong_width_is_told_with_its_file(write, stored):
    wide = CLIPText(CLIPConfig(width=128, layers=1, mlp_width=128)).state_dict()
    path, whole = write("wide.safetensors", wide), write("whole.safetensors", stored)
    with pytest.raises(BadModelFile, match=r"wide\.safetensors is a text encoder 128 wide.*text_encoder_l.* 64 wide"):
        load_checkpoint(whole, chosen={"text_encoder_l": path})
    with pytest.raises(BadModelFile, match=r"v\.safetensors: CLIP-L cannot be read"):
        load_checkpoint(whole, chosen={"text_encoder_l": write("v.safetensors", cut(stored, VAE))})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"channel_mult": (1, 1, 2)}, "4 channels at 1/4 of the picture's size; 4 channels at 1/8 were wanted"),
        ({"z_channels": 16}, "16 channels at 1/8 of the picture's size; 4 channels at 1/8 were wanted"),
    ],
)
def test_a_vae_whose_latents_are_of_another_kind_is_told_before_anything_is_made_with_it(write, stored, kind, words):
    path = write("v.safetensors", vae.VAE(replace(TINY_VAE, **kind)).state_dict())
    own = {VAE + name: tensor for name, tensor in vae.VAE(replace(TINY_VAE, **kind)).state_dict().items()}
    others = {name: tensor for name, tensor in stored.items() if not name.startswith(VAE)}
    with pytest.raises(BadModelFile, match=rf"v\.safetensors: .*another kind, with {words}"):
        load_checkpoint(write("whole.safetensors", stored), chosen={"vae": path})
    with pytest.raises(BadModelFile, match=rf"v\.safetensors: .*another kind, with {words}"):
        load_vae(path, unet=TINY)
    with pytest.raises(BadModelFile, match=rf"own\.safetensors: .*another kind, with {words}"):
        load_checkpoint(write("own.safetensors", others | own))


def test_a_clip_g_without_its_projection_is_told_with_its_file(write, stored):
    lacking = CLIPText(replace(TINY_CLIP_G, projection=None)).state_dict()
    whole, path = write("whole.safetensors", stored), write("g.safetensors", lacking)
    with pytest.raises(BadModelFile, match=r"^g\.safetensors has no text_projection of 96 x 96"):
        load_checkpoint(whole, chosen={"text_encoder_g": path})
    others = {name: tensor for name, tensor in stored.items() if not name.startswith(CLIP_G)}
    own = {CLIP_G + name: tensor for name, tensor in to_open_clip(lacking).items()}
    with pytest.raises(BadModelFile, match=r"^own\.safetensors has no text_projection"):
        load_checkpoint(write("own.safetensors", others | own))


@pytest.mark.parametrize(("positions", "tokens"), [(76, 49408), (77, 49407)])
def test_a_text_encoder_that_is_too_small_for_a_prompt_is_told(write, stored, positions, tokens):
    small = CLIPText(replace(TINY_CLIP_L, positions=positions, vocabulary=tokens)).state_dict()
    chosen = {"text_encoder_l": write("l.safetensors", small)}
    words = rf"l\.safetensors: CLIP-L cannot be read: .* {positions} positions and {tokens} tokens .* 77 and 49408\."
    with pytest.raises(BadModelFile, match=words):
        load_checkpoint(write("whole.safetensors", stored), chosen=chosen)


def test_a_text_encoder_may_know_more_tokens_and_longer_texts(write, stored):
    """Long-CLIP has 248 positions."""
    large = CLIPText(replace(TINY_CLIP_L, positions=248, vocabulary=49409)).state_dict()
    chosen = {"text_encoder_l": write("l.safetensors", large)}
    assert load_checkpoint(write("whole.safetensors", stored), chosen=chosen).clip_l.config.positions == 248


def test_a_part_keeps_the_type_that_the_device_wants(write, stored):
    chosen = {"vae": write("v.safetensors", cut(stored, VAE)), "text_encoder_g": write("g.safetensors", stored)}
    found = load_checkpoint(
        write("whole.safetensors", stored), chosen=chosen, vae_dtype=torch.float32, text_dtype=torch.bfloat16
    )
    assert found.vae.quant_conv.weight.dtype == torch.float32
    assert found.clip_g.text_projection.dtype == torch.bfloat16
