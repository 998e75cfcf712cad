"""Names in LoRA files against the layouts that diffusers and transformers build of the published sizes."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.models.clip import CLIPText
from core.models.configs import CLIP_G, CLIP_L, REFINER, SD15, SDXL, SSD_1B, VEGA
from core.models.unet import UNet
from core.weights.embeddings import SIDES
from core.weights.lora_format import KINDS, grouped
from core.weights.lora_names import is_text_key, network_names, normal_key, text_encoder_names
from tools import make_layout_lists as peer

FAMILIES = {
    "sdxl": (SDXL, peer.SDXL),
    "refiner": (REFINER, peer.REFINER),
    "sd15": (SD15, peer.SD15),
    "ssd-1b": (SSD_1B, peer.SSD_1B),
    "vega": (VEGA, peer.VEGA),
}


def modules_of(network):
    return [name.removesuffix(".weight") for name, _ in network.named_parameters() if name.endswith(".weight")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_is_found_by_its_name_in_both_layouts(family):
    """The single-file layout's name, and diffusers' as diffusers' own network has it; with dots and underscores."""
    config, theirs = FAMILIES[family]
    with torch.device("meta"):
        modules = modules_of(UNet(config))
        other = UNet2DConditionModel(**theirs).state_dict()
    names = network_names(modules, config)
    by_identity = {f"{name}": torch.empty(0) for name in other}
    pairs = dict(zip(by_identity, peer.unet_to_ldm(by_identity), strict=True))
    found = set()
    for diffusers_name, ldm_name in pairs.items():
        if not ldm_name.endswith(".weight"):
            continue
        module, theirs = ldm_name.removesuffix(".weight"), diffusers_name.removesuffix(".weight")
        for key in (
            f"lora_unet_{module.replace('.', '_')}",
            f"lora_unet_{theirs.replace('.', '_')}",
            f"lycoris_{theirs.replace('.', '_')}",
            f"unet.{theirs}",
            f"base_model.model.{theirs}",
            f"unet.base_model.model.{theirs}",
            f"diffusion_model.{module}",
            f"model.diffusion_model.{module}",
            theirs,
            module,
        ):
            assert names[normal_key(key)] == module, key
        found.add(module)
    assert found == set(modules)


def test_attention_processors_have_names_of_their_own():
    with torch.device("meta"):
        names = network_names(modules_of(UNet(SDXL)), SDXL)
    block = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor"
    inside = "input_blocks.4.1.transformer_blocks.0.attn1"
    assert names[f"{block}.to_q"] == f"{inside}.to_q"
    assert names[f"{block}.to_out"] == f"{inside}.to_out.0"


@pytest.mark.parametrize(("number", "alone"), [(1, False), (2, False), (2, True)])
def test_text_encoders_are_told_apart_by_number(number, alone):
    with torch.device("meta"):
        modules = modules_of(CLIPText(CLIP_G))
    names = text_encoder_names(modules, number, alone=alone)
    module = "text_model.encoder.layers.7.self_attn.out_proj"
    first = number == 1 or alone
    expected = {
        "lora_te_text_model_encoder_layers_7_self_attn_out_proj": first,
        "lora_te1_text_model_encoder_layers_7_self_attn_out_proj": number == 1,
        "lora_te2_text_model_encoder_layers_7_self_attn_out_proj": number == 2,
        f"text_encoder.{module}": first,
        f"text_encoder_2.{module}": number == 2,
        "text_encoder.text_model.encoder.layers.7.self_attn.to_out": first,
        "text_encoder_2.encoder.layers.7.self_attn.out_proj": number == 2,
        f"clip_l.transformer.{module}": number == 1,
        f"clip_g.transformer.{module}": number == 2,
        f"clip_l.{module}": number == 1,  # OMI, as OneTrainer writes it
        f"clip_g.{module}": number == 2,
        f"text_encoders.clip_l.transformer.{module}": number == 1,  # the parameters of ComfyUI
        f"text_encoders.clip_g.transformer.{module}": number == 2,
    }
    assert {key: names.get(key) == module for key in expected} == expected
    assert all(is_text_key(key) for key in expected)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te2_text_projection",
        "text_encoder_2.text_projection",
        "clip_g.transformer.text_projection",
        "clip_g.text_projection",
        "text_encoders.clip_g.transformer.text_projection",
    ],
)
def test_the_text_projection_has_names_of_its_own(key):
    assert text_encoder_names(["text_projection"], 2, alone=False)[key] == "text_projection"


def test_no_name_means_two_places_or_is_that_of_an_embedding_or_of_a_checkpoints_tensor():
    with torch.device("meta"):
        network, encoders = UNet(SDXL), [CLIPText(CLIP_L), CLIPText(CLIP_G)]
    names = [network_names(modules_of(network), SDXL)]
    names += [
        text_encoder_names([*modules_of(e), "text_projection"], n, alone=False) for n, e in enumerate(encoders, 1)
    ]
    assert len(set().union(*names)) == sum(map(len, names))
    assert not any(side in each for each in names for sides in SIDES.values() for side in sides)
    tensors = [f"conditioner.embedders.0.transformer.{name}" for name in encoders[0].state_dict()]
    tensors += [f"text_encoders.clip_g.transformer.{name}" for name in encoders[1].state_dict()]
    assert not grouped([*tensors, *(side for sides in SIDES.values() for side in sides)])[0]


ENDINGS = {  # how one key is spelled by those who write LoRAs
    "kohya": ["K.lora_up.weight", "K.lora_down.weight", "K.lora_mid.weight", "K.alpha"],
    "oldest diffusers": ["K_lora.up.weight", "K_lora.down.weight"],
    "transformers": ["K.lora_linear_layer.up.weight", "K.lora_linear_layer.down.weight"],
    "PEFT": ["K.lora_A.weight", "K.lora_B.weight"],
    "PEFT with a name": ["K.lora_A.default.weight", "K.lora_B.default.weight"],
    "DoRA of kohya": ["K.lora_up.weight", "K.lora_down.weight", "K.dora_scale", "K.alpha"],
    "DoRA of PEFT": ["K.lora_A.weight", "K.lora_B.weight", "K.lora_magnitude_vector"],
    "DoRA of PEFT with a name": [
        "K.lora_A.default.weight", "K.lora_B.default.weight", "K.lora_magnitude_vector.default.weight"
    ],
    "LoHa": ["K.hada_w1_a", "K.hada_w1_b", "K.hada_w2_a", "K.hada_w2_b", "K.hada_t1", "K.hada_t2", "K.alpha"],
    "LoKr": ["K.lokr_w1", "K.lokr_w2_a", "K.lokr_w2_b", "K.lokr_t2", "K.alpha"],
    "GLoRA": ["K.a1.weight", "K.a2.weight", "K.b1.weight", "K.b2.weight", "K.alpha"],
    "norm": ["K.w_norm"],
    "difference": ["K.diff"],
    "weight": ["K.set_weight"],
}  # fmt: skip


@pytest.mark.parametrize("spelling", ENDINGS)
def test_q08_the_tensors_of_every_format_come_together(spelling):
    keys, unknown = grouped(ENDINGS[spelling])
    assert not unknown
    assert list(keys) == ["K"]
    assert sorted(keys["K"].used().values()) == sorted(ENDINGS[spelling])
    kind = spelling if spelling in dict(KINDS) else "LoRA"
    assert keys["K"].kind == kind


@pytest.mark.parametrize("beginning", ["lora_unet_", "lora_te1_", "lycoris_"])
def test_a_module_that_is_spelled_with_dots_behind_an_underscored_beginning_is_the_same_as_without(beginning):
    """OneTrainer wrote the factors of a LoHa so, beside an alpha spelled as ever."""
    dotted, plain = f"{beginning}blocks_0_attn1.to_out.0", f"{beginning}blocks_0_attn1_to_out_0"
    factors = [f"{dotted}.hada_w{n}_{part}" for n in (1, 2) for part in "ab"]
    keys, unknown = grouped([*factors, f"{plain}.alpha"])
    assert not unknown and list(keys) == [plain]
    assert keys[plain].kind == "LoHa" and sorted(keys[plain].used().values()) == sorted([*factors, f"{plain}.alpha"])


def test_dots_of_other_spellings_stay():
    names = ["unet.blocks.0.attn1.to_q.lora_A.weight", "text_encoder.text_model.lora_layer.lora_B.weight"]
    assert list(grouped(names)[0]) == ["unet.blocks.0.attn1.to_q", "text_encoder.text_model.lora_layer"]


@pytest.mark.parametrize("names", [["K.lora_up.weight"], ["K.alpha"], ["K.hada_w1_a", "K.hada_w1_b"], ["K.dora_scale"]])
def test_half_a_patch_is_none(names):
    keys, _ = grouped(names)
    assert keys["K"].kind == ""


def test_endings_of_other_methods_are_unknown():
    assert grouped(["K.oft_blocks", "K", ".alpha", "K.lora_up.bias"])[1] == [
        "K.oft_blocks", "K", ".alpha", "K.lora_up.bias",
    ]  # fmt: skip
