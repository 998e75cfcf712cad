"""Which model a file is, from its header alone: the published layouts, small ones, and what is none."""

import json
from pathlib import Path

import pytest
from layouts import layout
from tiny import write_checkpoint

from core.errors import BadModelFile
from core.weights.header import Header, TensorEntry
from core.weights.info import FAMILIES, info_of, model_info

UNET = "model.diffusion_model."


def header(shapes, metadata=None):
    tensors = {name: TensorEntry("F16", tuple(shape), 0, 0) for name, shape in shapes.items()}
    return Header(Path("m.safetensors"), 1000, tensors, metadata or {})


def info(shapes, metadata=None):
    return info_of(header(shapes, metadata), "m.safetensors")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


@pytest.mark.parametrize("family", ["sdxl", "ssd-1b", "vega"])
def test_published_layouts_that_can_be_the_base_model(family):
    found = info(layout(family))
    assert (found.family, found.problem, found.missing) == (family, "", ())
    found.check_base()


@pytest.mark.parametrize("family, words", [("sd15", "Stable Diffusion 1.5"), ("sdxl-refiner", "an SDXL refiner")])
def test_published_layouts_that_cannot_are_refused_by_name(family, words):
    found = info(layout(family))
    assert found.family == family
    with pytest.raises(
        BadModelFile, match=f"^m.safetensors is .*{words}.*; Easel needs an SDXL checkpoint as base model.$"
    ):
        found.check_base()


def edited(family, **shapes):
    """The layout of `family` with some of the network's tensors in other shapes."""
    return {**layout(family), **{UNET + name.replace("__", "."): shape for name, shape in shapes.items()}}


def sd2(in_channels=4):
    shapes = {name: shape for name, shape in layout("sd15").items() if name.startswith(UNET)}
    for name, shape in shapes.items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            shapes[name] = (shape[0], 1024)
        if name.endswith((".1.proj_in.weight", ".1.proj_out.weight")):
            shapes[name] = shape[:2]
    return shapes | {f"{UNET}input_blocks.0.0.weight": (320, in_channels, 3, 3)}


OTHERS = {
    "sd15-inpaint": edited("sd15", input_blocks__0__0__weight=(320, 9, 3, 3)),
    "zero123": edited("sd15", input_blocks__0__0__weight=(320, 8, 3, 3)),
    "sd2": sd2(),
    "unclip": sd2() | {f"{UNET}label_emb.0.0.weight": (1280, 1536)},
    "x4-upscaler": sd2(in_channels=7),
    "svd": sd2() | {f"{UNET}input_blocks.1.1.time_stack.0.norm1.weight": (320,)},
    "sdxl-inpaint": edited("sdxl", input_blocks__0__0__weight=(320, 9, 3, 3)),
    "unknown": edited("sdxl", label_emb__0__0__weight=(1280, 100)),
}


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_are_refused_by_name(family):
    """Before anything is loaded (register: Q25, Q39)."""
    found = info(OTHERS[family])
    assert found.family == family
    assert FAMILIES[family] in found.problem


def test_small_models_in_sdxls_layout_are_sdxl(tiny):
    found = model_info(tiny)
    assert (found.family, found.problem, found.name) == ("sdxl", "", "tiny.safetensors")
    assert found.native_size == (64, 64)
    assert found.size == tiny.stat().st_size


@pytest.mark.parametrize(
    "prefix, words",
    [
        ("first_stage_model.", "the autoencoder"),
        ("conditioner.embedders.0.", "the text encoder CLIP-L"),
        ("conditioner.embedders.1.", "the text encoder CLIP-G"),
    ],
)
def test_missing_parts_are_named(prefix, words):
    found = info({name: shape for name, shape in layout("sdxl").items() if not name.startswith(prefix)})
    assert found.family == "sdxl" and len(found.missing) == 1
    assert f"m.safetensors lacks {words}" in found.problem


@pytest.mark.parametrize(
    "names, words",
    [
        (["double_blocks.0.img_attn.qkv.weight"], "a Flux model"),
        (["lora_unet_input_blocks_4_1.lora_up.weight"], "a LoRA"),
        (["first_stage_model.encoder.conv_in.weight"], "an autoencoder"),
        (["down_blocks.0.resnets.0.norm1.weight"], "diffusers' layout"),
        (["encoder.down_blocks.0.resnets.0.norm1.weight"], "an autoencoder"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["something.else"], "no model that Easel knows"),
        ([], "empty"),
    ],
)
def test_files_that_are_no_checkpoint_are_told_by_what_they_are(names, words):
    with pytest.raises(BadModelFile, match=f"m.safetensors is .*{words}.*; a checkpoint"):
        info(dict.fromkeys(names, (1,)))


@pytest.mark.parametrize(
    "name, shape",
    [
        ("input_blocks.0.0.weight", (320,)),
        ("input_blocks.0.0.weight", (0, 4, 3, 3)),
        ("input_blocks.4.0.out_layers.3.weight", (641, 640, 3, 3)),
        ("input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", (640,)),
        ("out.2.weight", (4, 320)),
    ],
)
def test_a_network_with_impossible_shapes_is_refused(name, shape):
    with pytest.raises(BadModelFile, match=r"m\.safetensors holds a network that Easel cannot read"):
        info({**layout("sdxl"), UNET + name: shape})


@pytest.mark.parametrize(
    "keys, metadata, prediction",
    [
        ((), {}, "epsilon"),
        (("v_pred",), {}, "v"),
        (("edm_mean", "edm_std"), {}, "edm"),
        ((), {"modelspec.prediction_type": "v"}, "v"),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon"),
    ],
)
def test_the_prediction_is_told_by_the_files_own_keys(keys, metadata, prediction):
    assert info(layout("sdxl") | dict.fromkeys(keys, (1,)), metadata).prediction == prediction


def test_v_prediction_on_edm_levels_is_noted():
    assert "EDM" in info(layout("sdxl") | {"edm_vpred.sigma_max": (1,)}).note


def test_zero_terminal_snr_is_told_by_the_files_own_key():
    assert info(layout("sdxl") | {"ztsnr": (1,)}).zero_terminal_snr
    assert not info(layout("sdxl")).zero_terminal_snr


@pytest.mark.parametrize(
    "text, size",
    [
        ("256x256", (256, 256)),
        ("1152 x 896", (1152, 896)),
        ("1x1", (1024, 1024)),
        ("big", (1024, 1024)),
        ("100x99", (96, 96)),
    ],
)
def test_native_size_comes_from_the_metadata(text, size):
    assert info(layout("sdxl"), {"modelspec.resolution": text}).native_size == size
    assert info(layout("sdxl")).native_size == (1024, 1024)


def test_recommended_settings_come_from_the_metadata():
    settings = {"steps": 20, "sampler": "euler"}
    assert info(layout("sdxl"), {"easel.settings": json.dumps(settings)}).settings == settings
    for broken in ("{", "[1]", "[" * 100_000):
        assert info(layout("sdxl"), {"easel.settings": broken}).settings == {}
