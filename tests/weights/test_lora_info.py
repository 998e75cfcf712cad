"""What the page is told of a LoRA file, from headers good and mad."""

import json
import subprocess
import sys

import pytest
import torch
from loras import write, write_lora
from safetensors.torch import save_file

from core.errors import BadModelFile, ModelNotFound
from core.weights.lora_info import FAMILIES, lora_info

UP, DOWN = ".lora_up.weight", ".lora_down.weight"


def info_of(folder, metadata=None, tensors=None):
    if tensors is None:
        return lora_info(write_lora(folder / "a.safetensors", rank=3, metadata=metadata, dtype=torch.float16))
    return lora_info(write(folder / "a.safetensors", tensors, metadata))


def test_kind_rank_size_and_parts(tmp_path):
    info = info_of(tmp_path)
    assert (info.name, info.kind, info.rank, info.text_encoder) == ("a.safetensors", "LoRA", 3, True)
    assert info.size == (tmp_path / "a.safetensors").stat().st_size
    assert not lora_info(write_lora(tmp_path / "b.safetensors", text=False)).text_encoder


@pytest.mark.parametrize(
    ("width", "family"), [(2048, "sdxl"), (1280, "sdxl-refiner"), (768, "sd15"), (1024, "sd2"), (160, "")]
)
@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_a_attn2_to_k.lora_down.weight",
        "unet.a.attn2.to_k.lora_A.weight",
        "unet.a.attn2.processor.to_k_lora.down.weight",
    ],
)
def test_the_family_is_told_by_the_width_of_the_text(tmp_path, key, width, family):
    other = key.replace("down", "up").replace("lora_A", "lora_B")
    assert info_of(tmp_path, {}, {key: torch.zeros(2, width), other: torch.zeros(2, 2)}).family == family


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
        ({"modelspec.architecture": "\0" * 1000}, ""),
    ],
)
def test_without_cross_attention_the_metadata_tell_the_family(tmp_path, metadata, family):
    tensors = {
        "lora_unet_conv_in.lora_up.weight": torch.zeros(2, 2),
        "lora_unet_conv_in.lora_down.weight": torch.zeros(2, 2),
    }
    info = info_of(tmp_path, metadata, tensors)
    assert info.family == family and family in FAMILIES
    assert info.fits_sdxl is (family in ("sdxl", ""))
    assert info.fits_refiner is (family in ("sdxl-refiner", "sd15"))


def test_trigger_words_are_what_the_maker_says_and_tags_are_counted(tmp_path):
    metadata = {
        "modelspec.title": "Ink",
        "modelspec.trigger_phrase": "inkstyle, drawn in ink,, inkstyle ",
        "ss_tag_frequency": json.dumps({"10_ink": {"ink": 7, "tree": 2}, "5_more": {"ink": 1, "house": 2}}),
    }
    info = info_of(tmp_path, metadata)
    assert info.title == "Ink"
    assert info.trigger_words == ("inkstyle", "drawn in ink")
    assert info.tags == (("ink", 8), ("house", 2), ("tree", 2))


MAD = [
    "",
    "{",
    "[]",
    "null",
    "7",
    '{"a": 7}',
    '{"a": {"b": "many"}}',
    '{"a": {"b": true}}',
    '{"a": {"b": -1}}',
    '{"a": {"b": 1e400}}',
    '{"a": {"b": ' + "9" * 5000 + "}}",
    '{"a": {"b": [[]]}}',
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"a": {"\\ud800": 3}}',
]


@pytest.mark.parametrize("text", MAD, ids=range(len(MAD)))
def test_mad_metadata_are_passed_over(tmp_path, text):
    keys = ("ss_tag_frequency", "ss_trigger_words", "trigger_words", "ss_base_model_version")
    info = info_of(tmp_path, dict.fromkeys(keys, text))
    assert all(type(count) is int and 0 < count < 2**31 for _, count in info.tags)
    for words in (*info.trigger_words, *(tag for tag, _ in info.tags)):
        words.encode("utf-8")
        assert words.isprintable() and len(words) <= 100


def test_long_and_strange_texts_become_short_plain_lines(tmp_path):
    strange = "a\0b\n\u202ec\x1b[31m<script>" + "x" * 10_000
    metadata = {
        "modelspec.title": strange,
        "modelspec.trigger_phrase": ",".join(f"{strange}{n}" for n in range(3)) + "," + ",".join(map(str, range(500))),
        "ss_tag_frequency": json.dumps({"a": {f"{n}\n{strange}": n + 1 for n in range(100)}}),
    }
    info = info_of(tmp_path, metadata)
    assert len(info.trigger_words) == 30 and len(info.tags) == 30
    for text in (info.title, *info.trigger_words, *(tag for tag, _ in info.tags)):
        assert text and text.isprintable() and len(text) <= 100 and "\u202e" not in text


def test_what_is_no_lora_is_told(tmp_path):
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadModelFile, match=r"model\.safetensors is no LoRA"):
        lora_info(tmp_path / "model.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 50)
    with pytest.raises(BadModelFile):
        lora_info(tmp_path / "cut.safetensors")
    with pytest.raises(ModelNotFound):
        lora_info(tmp_path / "none.safetensors")


def test_scalars_where_matrices_were_wanted_do_no_harm(tmp_path):
    tensors = {f"lora_unet_a_attn2_to_k{UP}": torch.tensor(1.0), f"lora_unet_a_attn2_to_k{DOWN}": torch.tensor(1.0)}
    info = info_of(tmp_path, {}, tensors)
    assert info.rank is None and info.family == ""


def test_asking_takes_no_torch():
    code = "import sys, core.weights.lora_info; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
