"""The A1111 text form: what others read in it, and that it gives every setting back."""

import json
import random
from dataclasses import fields, replace
from datetime import datetime, timezone

import pytest

from core.errors import BadMetadata
from core.output.a1111 import MOST_BROKEN, NOT_OF_THE_PICTURE, from_text, to_text
from core.output.record import Record
from core.settings import SAMPLERS, SCHEDULERS, Settings

WHEN = datetime(2026, 11, 23, 18, 30, 5, tzinfo=timezone.utc)
SHA = "0123456789abcdef" * 4


def record(**changes):
    settings = Settings(prompt="a red apple", base_model="sub/Easel Mini.safetensors", seed=7)
    return Record(replace(settings, **changes), SHA, created=WHEN)


def assert_comes_back(written):
    read = from_text(to_text(written))
    for f in fields(Settings):
        if f.name not in NOT_OF_THE_PICTURE:
            assert read.settings[f.name] == getattr(written.settings, f.name), f.name
    assert read.unknown == {}
    return read


def test_the_text_has_the_lines_and_words_that_other_programs_look_for():
    text = to_text(record(negative_prompt="blurry", sampler="dpmpp_2m", steps=30))
    lines = text.split("\n")
    assert lines[:2] == ["a red apple", "Negative prompt: blurry"]
    assert lines[2].startswith(
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 1152x896, Clip skip: 2, "
        "Model hash: 0123456789, Model: Easel Mini, Sharpness: 2, "
    )
    assert ", Easel base_model: sub/Easel Mini.safetensors, " in text
    assert "Easel sampler" not in text  # the display name says it exactly
    assert text.endswith(", Version: Easel 0.1.0")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_comes_back_with_every_scheduler(sampler):
    for scheduler in SCHEDULERS:
        assert_comes_back(record(sampler=sampler, scheduler=scheduler))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a\nb",
        "  spaces at both ends ",
        "\n\nleading lines",
        "a\r\nb",
        "Negative prompt: not one",
        "a\nNegative prompt: not one\nb",
        "Steps: 1, Sampler: Euler, Seed: 3, Size: 64x64",
        'quotes " and \\ and , and :',
        "日本 😀 \u202e \u2028 \x85",
        "nul \x00 and \x1f",
        "(a:1.2), <lora:x:0.5>",
        "[a] [[b, c]]\n[d|e] [f:g:0.5]",
        "{a|b} cat",
    ],
)
def test_every_prompt_comes_back_exactly(prompt):
    assert_comes_back(record(prompt=prompt))
    assert_comes_back(record(negative_prompt=prompt))
    assert_comes_back(record(prompt=prompt, negative_prompt=prompt))


def test_every_field_comes_back_with_values_that_are_not_the_defaults():
    read = assert_comes_back(
        record(
            width=64, height=4096, seed=2**63 - 1, steps=199, guidance_scale=7.123456789012345, sharpness=0.1, adaptive_cfg=4 / 3,
            adm_scaler_positive=1.0, adm_scaler_negative=0.7, adm_scaler_end=0.0, clip_skip=1, prediction="v",
            zero_terminal_snr="on", noise_device="device", strict_compatibility=True, base_model="a, b: c.safetensors",
        )
    )  # fmt: skip
    assert (read.model, read.model_hash) == ("a, b: c", "0123456789")


def test_random_prompts_come_back():
    chance = random.Random(2)
    parts = [
        "a",
        " ",
        "\n",
        ",",
        ":",
        '"',
        "\\",
        "Negative prompt:",
        "Steps: 3, Seed: 4, Size: 8x8",
        "é",
        "日",
        "\x00",
        "\r",
        "{",
        "Easel ",
    ]
    for _ in range(3000):
        prompt, negative = ("".join(chance.choices(parts, k=chance.randrange(8))) for _ in range(2))
        assert_comes_back(record(prompt=prompt, negative_prompt=negative))


def test_another_programs_text_is_read_as_far_as_it_is_understood():
    read = from_text(
        "masterpiece, a cat\non a mat\nNegative prompt: bad\nworse\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 123, Size: 512x768, Model hash: abcdef1234, "
        'Model: sd_xl_base_1.0, Denoising strength: 0.5, Lora hashes: "x: 1, y: 2", Hashes: {"model": "ab", "vae": "c"}, Version: v1.9'
    )
    assert read.settings == {
        "prompt": "masterpiece, a cat on a mat",
        "negative_prompt": "bad worse",
        "steps": 20,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "guidance_scale": 7.5,
        "seed": 123,
        "width": 512,
        "height": 768,
    }
    assert (read.model, read.model_hash) == ("sd_xl_base_1.0", "abcdef1234")
    assert read.unknown["Denoising strength"] == "0.5"
    assert read.unknown["Lora hashes"] == "x: 1, y: 2"


def a1111(prompt, hashes, key="TI hashes"):
    return from_text(
        f"{prompt}\nNegative prompt: {prompt}\nSteps: 20, Sampler: Euler, Seed: 1, {key}: {hashes}, Version: v1.9.0"
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("EasyNegative, blurry", "embedding:EasyNegative, blurry"),
        ("bad,easynegative", "bad,embedding:EasyNegative"),
        ("(EasyNegative:1.2) [EasyNegative]", "(embedding:EasyNegative:1.2) (embedding:EasyNegative:0.909)"),
        ("embedding:EasyNegative", "embedding:EasyNegative"),
        ("EasyNegative, EasyNegativeV2, not-EasyNegative", "embedding:EasyNegative, EasyNegativeV2, not-EasyNegative"),
        (r"neg \(1\), EasyNegative", r"embedding:neg_\(1\), embedding:EasyNegative"),
        ("neg, neg-v2, EasyNegative, [123]", "neg, embedding:neg-v2, embedding:EasyNegative, (embedding:123:0.909)"),
    ],
)
def test_the_words_that_a1111_took_for_embeddings_are_named_in_our_way(theirs, ours):
    names = [
        name for name in ("EasyNegative", "neg (1)", "neg-v2", "123") if f":{name}" in ours.replace("_\\(1\\)", " (1)")
    ]
    read = a1111(theirs, '"' + ", ".join(f"{name}: c74b4e810b03" for name in names) + '"')
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == (ours, ours)
    assert read.unknown == {}


def test_embeddings_of_a1111_are_known_by_other_keys_too_and_those_that_no_word_names_are_listed():
    assert a1111("a neg", '{"neg": "c74b4e810b03"}').settings["prompt"] == "a embedding:neg"
    assert a1111("a neg", '{"embed:neg": "c74b4e810b03"}', "Hashes").settings["prompt"] == "a embedding:neg"
    read = a1111("a cat", '"neg: c74b4e810b03, cat: 0123456789ab"')
    assert read.settings["prompt"] == "a embedding:cat"
    assert read.unknown == {"TI hashes": "neg: c74b4e810b03"}


def test_values_out_of_range_are_named_and_left_out():
    read = from_text("a cat\nSteps: 999999, Sampler: Magic, CFG scale: nan, Seed: -1, Size: 513x77777, Clip skip: 2")
    assert read.settings == {"clip_skip": 2, "prompt": "a cat", "negative_prompt": ""}
    assert read.unknown.keys() == {"Steps", "Sampler", "CFG scale", "Seed", "Size"}


def test_a_prompt_is_taken_though_all_that_follows_is_out_of_range():
    """D26."""
    read = from_text("a cat\nSteps: 99999, Sampler: Nope, CFG scale: nan, Seed: -3, Size: 99999x1, Version: v1.10")
    assert read.settings == {"prompt": "a cat", "negative_prompt": ""}
    assert read.unknown == {
        "Steps": "99999", "Sampler": "Nope", "CFG scale": "nan", "Seed": "-3", "Size": "99999x1",
    }  # fmt: skip
    with pytest.raises(BadMetadata, match="none that this program can use"):
        from_text("Steps: 99999, Sampler: Nope, Seed: -3")


def test_pairs_with_any_key_and_pieces_without_one_are_listed():
    read = from_text(
        'a (cat:1.2), a: dog\nSteps: 20, <b>Odd</b>: 1, DPM++ (2): "x, y", Seed: 7, alone, Clip skip: 2, '
        + "k" * 99
        + ": 3"
    )
    assert (read.settings["prompt"], read.settings["clip_skip"]) == ("a (cat:1.2), a: dog", 2)
    assert read.unknown == {"<b>Odd</b>": "1", "DPM++ (2)": "x, y", "alone": "", "k" * 99: "3"}


def test_a_prompt_with_colons_is_no_line_of_parameters():
    with pytest.raises(BadMetadata, match="no line of parameters"):
        from_text("a cat\n(red:1.2), (blue:1.1), (green:0.9), Seed: 1, Steps: 20")


@pytest.mark.parametrize("text", ["", "a cat", "a cat, a dog: 3", "a: 1, b: 2, c: 3, d: 4"])
def test_a_text_without_parameters_is_an_error(text):
    with pytest.raises(BadMetadata):
        from_text(text)


@pytest.mark.parametrize(
    "line",
    [
        "a" * 10**6,
        "a:" * 500_000,
        'a:"\\x,' * 140_000,
        'ab:"' * 250_000,
        '"' * 10**6,
        "a b-c/" * 160_000,
        ", " * 500_000,
        "a: {[" * 200_000,
    ],
)
@pytest.mark.timeout(60)  # milliseconds, unless the work grows with the square of the length
def test_hostile_lines_do_not_hang(line):
    with pytest.raises(BadMetadata):
        from_text(line)


def test_few_values_that_do_not_end_are_read_to_the_end_of_the_line(monkeypatch):
    tried = []

    class Decoder(json.JSONDecoder):
        def raw_decode(self, text, start=0):
            tried.append(start)
            return super().raw_decode(text, start)

    monkeypatch.setattr("core.output.a1111.json.JSONDecoder", Decoder)
    objects = "".join(f'"k{n}":{{"a":1,' for n in range(490))
    read = from_text(f"a cat\nSteps: 1, Sampler: Euler, Seed: 1, {objects}")
    assert read.settings["steps"] == 1 and len(tried) == MOST_BROKEN
