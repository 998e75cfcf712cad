"""InvokeAI, NovelAI and SwarmUI: what their pictures say, under our names."""

import json
from contextlib import suppress

import numpy as np
import pytest
from foreign_samples import (
    INVOKEAI,
    INVOKEAI_DREAM,
    INVOKEAI_OLD,
    NOVELAI,
    NOVELAI_COMMENT,
    SWARMUI,
    comment,
    png,
    with_exif,
    with_hidden,
)
from PIL import Image

from core.errors import BadMetadata
from core.output.foreign import comfyui, invokeai, novelai, swarmui
from core.output.foreign.novelai import emphasis
from core.output.metadata import read_settings, read_settings_text
from core.output.reading import Named
from core.settings import SAMPLERS, SCHEDULERS
from core.text.emphasis import parse_weights


def test_invokeai_fills_every_setting():
    read = read_settings(png({"invokeai_metadata": INVOKEAI, "invokeai_graph": "{}"}))
    assert read.source == "invokeai"
    assert read.settings == {
        "prompt": "a lighthouse", "negative_prompt": "fog", "width": 1024, "height": 1152, "seed": 1906425342,
        "noise_device": "cpu", "guidance_scale": 6.0, "guidance_rescale": 0.25, "steps": 32, "sampler": "dpmpp_2m_sde",
        "scheduler": "karras",
    }  # fmt: skip
    assert read.named == (
        Named(field="base_model", name="Juggernaut XL v9"),  # its hash is of another kind
        Named(field="vae", name="sdxl-vae-fp16-fix"),
        Named(field="loras", name="ink", weight=0.75),
    )
    assert read.unknown == {"positive_style_prompt": "oil on canvas", "strength": "0.6"}


def test_invokeai_weights_are_written_in_our_way_and_functions_are_listed():
    values = json.loads(INVOKEAI) | {
        "positive_prompt": "a lighthouse++, (calm sea)0.8",
        "negative_prompt": '("fog", "rain").and()',
    }
    read = read_settings_text(json.dumps(values))
    assert read.settings["prompt"] == "a (lighthouse:1.21), (calm sea:0.8)"
    assert read.settings["negative_prompt"] == '("fog", "rain").and()'
    assert read.unknown["function of negative_prompt"] == '("fog", "rain").and()'


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a <neg>, b", "a embedding:neg, b"),
        ("a cat<neg>b", "a cat embedding:neg b"),
        ("<neg.v2>++ cat", "(embedding:neg.v2:1.21) cat"),
        ("(<my neg>, cat)1.2", "(embedding:my_neg, cat:1.2)"),
        ("<lora:x:1> a < b > c?", "<lora:x:1> a embedding:b c?"),
        ("a <> b <3 c", "a <> b <3 c"),
    ],
)
def test_invokeai_s_embeddings_are_named_in_our_way(theirs, ours):
    values = json.loads(INVOKEAI) | {"positive_prompt": theirs, "negative_prompt": theirs}
    read = read_settings_text(json.dumps(values))
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == (ours, ours)


def test_the_first_invokeai_3_had_other_names_for_models():
    values = json.loads(INVOKEAI) | {
        "model": {"model_name": "stable-diffusion-xl-base-1-0", "base_model": "sdxl", "model_type": "main"},
        "loras": [{"lora": {"model_name": "ink", "base_model": "sdxl"}, "weight": 0.5}, None, {"lora": 3}],
        "scheduler": "euler_a", "refiner_model": {"model_name": "refiner"}, "refiner_start": 0.8,
    }  # fmt: skip
    read = read_settings_text(json.dumps(values))
    assert [(one.field, one.name) for one in read.named] == [
        ("base_model", "stable-diffusion-xl-base-1-0"), ("refiner_model", "refiner"), ("vae", "sdxl-vae-fp16-fix"), ("loras", "ink"),
    ]  # fmt: skip
    assert (read.settings["sampler"], read.settings["scheduler"]) == ("euler_ancestral", "normal")
    assert read.settings["refiner_switch"] == 0.8


def test_invokeai_2_is_read_in_both_its_forms():
    read = read_settings(png({"sd-metadata": INVOKEAI_OLD, "Dream": INVOKEAI_DREAM}))
    assert read.settings == {
        "prompt": "a lighthouse", "negative_prompt": "fog, rain", "steps": 50, "guidance_scale": 7.5, "height": 512,
        "width": 768, "seed": 3357757885, "sampler": "euler_ancestral", "scheduler": "normal",
    }  # fmt: skip
    assert read.model_hash == "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516"
    assert read.unknown == {"perlin": "0.2"}
    dream = read_settings(png({"Dream": INVOKEAI_DREAM}))
    assert dream.settings == {
        "prompt": 'a "small" lighthouse', "negative_prompt": "fog", "steps": 50, "guidance_scale": 7.5, "height": 640,
        "width": 512, "seed": 3357757885, "sampler": "lms", "scheduler": "normal",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", '"', '"a', "a cat", '"' * 1000, "-s 5", '"\\'])
def test_a_damaged_command_line_is_an_error_or_a_prompt(text):
    with suppress(BadMetadata):
        assert invokeai.read_dream(text).settings.keys() == {"prompt", "negative_prompt"}


def test_novelai_fills_every_setting():
    read = read_settings(png(NOVELAI))
    assert read.source == "novelai"
    assert read.settings == {
        "prompt": r"1girl, (lighthouse:1.103), (rain:0.9524), hat \(red\), (big hat:1.5)", "negative_prompt": "lowres, (bad:1.05)",
        "steps": 28, "height": 1216, "width": 832, "guidance_scale": 5.0, "guidance_rescale": 0.2, "seed": 2614183361,
        "scheduler": "karras", "sampler": "euler_ancestral",
    }  # fmt: skip
    assert read.unknown == {"sm": "True", "Source": "NovelAI Diffusion V4 37442FCA"}


def test_novelai_s_comment_alone_and_all_its_texts_can_be_pasted():
    assert read_settings_text(NOVELAI_COMMENT).settings["seed"] == 2614183361
    assert read_settings_text(json.dumps(NOVELAI)).settings["seed"] == 2614183361


def test_novelai_s_prompt_is_taken_from_the_description_where_the_comment_has_none():
    values = json.loads(NOVELAI_COMMENT)
    del values["prompt"]
    assert read_settings(png(NOVELAI | {"Comment": json.dumps(values)})).settings["prompt"].startswith("1girl")


def test_novelai_4_has_a_text_for_every_figure():
    values = json.loads(NOVELAI_COMMENT) | {
        "v4_prompt": {"caption": {"base_caption": "two girls", "char_captions": [{"char_caption": "girl, {red}", "centers": []}, 3]}},
        "v4_negative_prompt": {"caption": {"base_caption": "", "char_captions": []}},
    }  # fmt: skip
    read = read_settings_text(json.dumps(values))
    assert read.settings["prompt"] == "two girls\ngirl, (red:1.05)"
    assert read.settings["negative_prompt"] == "lowres, (bad:1.05)"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a {b} c", [("a ", 1), ("b", 1.05), (" c", 1)]),
        ("{{a}, b}", [("a", 1.05**2), (", b", 1.05)]),
        ("[[a]]", [("a", 1.05**-2)]),
        ("2::a, b:: c", [("a, b", 2), (" c", 1)]),
        ("-1::a::", [("a", -1)]),
        ("{1.5::a::}", [("a", 1.05 * 1.5)]),
        (r"a (b:2)", [("a (b:2)", 1)]),
        (":: a }}} b", [(" a ", 1), ("b", 1.05**-3)]),
    ],
)
def test_novelai_s_emphasis_weighs_the_same_in_our_words(text, weights):
    pieces = [(piece.text.strip(" ,"), round(piece.weight, 3)) for piece in parse_weights(emphasis(text))]
    assert [piece for piece in pieces if piece[0]] == [
        (word.strip(" ,"), pytest.approx(weight, abs=2e-3)) for word, weight in weights
    ]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_a_text_hidden_in_the_lowest_bit_of_alpha_is_read(packed, output_format, tmp_path):
    pixels = with_hidden(json.dumps(NOVELAI).encode(), packed)
    path = tmp_path / "picture"
    Image.fromarray(pixels).save(path, output_format, lossless=True, exact=True)
    for source in (path, path.read_bytes()):
        read = read_settings(source)
        assert (read.source, read.settings["seed"]) == ("novelai", 2614183361)


def test_a_hidden_a1111_text_is_read():
    pixels = with_hidden(b"a cat\nSteps: 3, Seed: 4, Sampler: Euler")
    assert read_settings(png({}, pixels=pixels)).settings["steps"] == 3


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff" * 100, b"{", b'{"Comment": [[[[', b"[" * 10_000, b"x" * 1000, b'{"Comment": 3, "Description": {}}'],
)
def test_a_hidden_text_that_is_none_is_an_error(payload):
    with pytest.raises(BadMetadata):
        read_settings(png({}, pixels=with_hidden(payload)))


def test_a_hidden_zip_bomb_and_a_hidden_length_beyond_the_picture_are_errors():
    pixels = with_hidden(b"0" * 9_000_000, height=1200)
    with pytest.raises(BadMetadata):
        read_settings(png({}, pixels=pixels))
    alpha = pixels[..., 3].T.reshape(-1)
    alpha[120:152] |= 1  # 2**32 - 1 bits
    pixels[..., 3] = alpha.reshape(pixels.shape[1], -1).T
    with pytest.raises(BadMetadata):
        read_settings(png({}, pixels=pixels))


def test_a_picture_with_an_alpha_channel_and_nothing_in_it_has_no_settings():
    for pixels in (np.full((40, 40, 4), 255, dtype=np.uint8), np.zeros((1, 1, 4), dtype=np.uint8)):
        with pytest.raises(BadMetadata, match="carries no settings"):
            read_settings(png({}, pixels=pixels))


@pytest.mark.parametrize(
    "source",
    [
        png({"parameters": SWARMUI}, "iTXt"),
        with_exif({0x9286: comment(SWARMUI)}),
        with_exif({0x9286: b"ASCII\0\0\0" + SWARMUI.encode()}, "webp"),
    ],
    ids=["png", "jpeg", "webp"],
)
def test_swarmui_fills_every_setting(source):
    read = read_settings(source)
    assert read.source == "swarmui"
    assert read.settings == {
        "prompt": "a lighthouse", "negative_prompt": "fog", "seed": 1185430318, "steps": 20, "guidance_scale": 7.0,
        "width": 1024, "height": 1024, "sampler": "dpmpp_2m", "scheduler": "karras", "clip_skip": 2, "refiner_switch": 0.8,
    }  # fmt: skip
    assert {(one.field, one.name, one.weight) for one in read.named} == {
        ("base_model", "OfficialStableDiffusion/sd_xl_base_1.0", 1.0), ("vae", "sdxl_vae", 1.0), ("loras", "ink", 0.4),
        ("refiner_model", "OfficialStableDiffusion/sd_xl_refiner_1.0", 1.0), ("loras", "style/watercolor", 0.6),
    }  # fmt: skip
    assert read.unknown == {"refinermethod": "StepSwap", "variationseed": "12"}


LINES, LINE = "a cat,\n  a dog\n", "a cat, a dog"


@pytest.mark.parametrize(
    ("sample", "positive", "negative"),
    [
        (INVOKEAI, "positive_prompt", "negative_prompt"),
        (NOVELAI_COMMENT, "prompt", "uc"),
        (json.dumps(json.loads(SWARMUI)["sui_image_params"]), "prompt", "negativeprompt"),
    ],
    ids=["invokeai", "novelai", "swarmui"],
)
def test_a_line_feed_is_a_blank_as_it_is_for_the_program_that_wrote_it(sample, positive, negative):
    """Here each line is a text of its own, encoded alone: the same words would make another picture."""
    values = json.loads(sample) | {positive: LINES, negative: LINES}
    if "cfgscale" in values:
        values = {"sui_image_params": values}
    read = read_settings_text(json.dumps(values))
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == (LINE, LINE)


def test_the_line_feeds_of_one_prompt_are_blanks_and_several_prompts_are_lines():
    old = json.loads(INVOKEAI_OLD)
    old["image"]["prompt"] = [{"prompt": LINES}, {"prompt": "a\nfox [\nfog]"}]
    assert read_settings_text(json.dumps(old)).settings["prompt"] == f"{LINE}\na fox"
    assert read_settings(png({"Dream": f'"{LINES}" -s 50'})).settings["prompt"] == LINE
    figures = [{"char_caption": "girl,\nred"}, {"char_caption": "boy"}]
    novelai = json.loads(NOVELAI_COMMENT) | {
        "v4_prompt": {"caption": {"base_caption": LINES, "char_captions": figures}}
    }
    assert read_settings_text(json.dumps(novelai)).settings["prompt"] == f"{LINE}\ngirl, red\nboy"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("<embed:neg>, blurry", "embedding:neg, blurry"),
        ("(<embed:neg>:1.2) a", "(embedding:neg:1.2) a"),
        ("a<embedding:sub/my neg (1).safetensors>", r"a embedding:sub/my_neg_\(1\).safetensors"),
        ("<Embed:a><embed:b>c", "embedding:a  embedding:b c"),
        ("<embed:>", "<embed:>"),
    ],
)
def test_swarmui_s_embeddings_are_named_in_our_way(theirs, ours):
    params = {"prompt": theirs, "negativeprompt": theirs, "used_embeddings": ["neg"]}
    read = read_settings_text(json.dumps({"sui_image_params": params}))
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == (ours, ours)
    assert read.unknown == {}


def test_swarmui_s_own_words_for_none_are_values():
    params = {
        "prompt": "x",
        "automaticvae": True,
        "refinermodel": "(Use Base)",
        "loras": "a, b",
        "loraweights": "0.1,x",
    }
    read = read_settings_text(json.dumps({"sui_image_params": params}))
    assert read.settings == {"prompt": "x", "vae": ""}
    assert [(one.name, one.weight) for one in read.named] == [("a", 0.1)]
    assert read.unknown == {"loras": "b: x"}


def test_every_table_of_foreign_names_leads_to_names_of_ours():
    for table in (comfyui.SAMPLER_NODES, invokeai.SAMPLERS, novelai.SAMPLERS):
        assert set(table.values()) <= set(SAMPLERS)
    for table in (comfyui.SCHEDULER_NODES, novelai.SCHEDULERS):
        assert set(table.values()) <= set(SCHEDULERS)
    assert set(swarmui.CHOICES.values()) == {"sampler", "scheduler"}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"sui_image_params": 3}',
        '{"Comment": 3}',
        '{"uc": [], "scale": []}',
        '{"app_id": "invoke-ai", "image": 3}',
    ],
)
def test_objects_with_the_right_name_and_nothing_in_them_are_errors(text):
    with pytest.raises(BadMetadata):
        read_settings_text(text)
    with pytest.raises(BadMetadata):
        read_settings(png({"parameters": text, "Comment": text}))
