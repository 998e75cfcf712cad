"""The A1111 text of other programs: every key of ours is filled in, every other one is listed."""

import json

import pytest
from foreign_samples import A1111

from core.errors import BadMetadata
from core.output.a1111 import from_text, to_text
from core.output.metadata import read_settings_text
from core.output.reading import Named
from core.output.record import Record
from core.settings import Lora, Settings

LINE = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


def test_a1111_text_fills_every_setting_and_lists_the_rest():
    read = read_settings_text(A1111)
    assert read.source == "a1111"
    assert read.settings == {
        "prompt": "masterpiece, a lighthouse at dusk , waves second line",  # a line feed is white space there
        "negative_prompt": "blurry, lowres",
        "steps": 28,
        "sampler": "dpmpp_2m_sde",
        "scheduler": "karras",
        "guidance_scale": 6.5,
        "seed": 2**32 - 1,
        "width": 832,
        "height": 1216,
        "clip_skip": 2,
        "noise_device": "cpu",
        "refiner_switch": 0.75,
    }
    assert read.named == (
        Named(field="base_model", name="sd_xl_base_1.0", hash="31e35c80fc"),
        Named(field="refiner_model", name="sd_xl_refiner_1.0", hash="7440042bbd"),
        Named(field="vae", name="sdxl_vae.safetensors", hash="63aeecb90f"),
        Named(field="loras", name="oil_paint", hash="a1b2c3d4e5f6", weight=0.7),
        Named(field="loras", name="sub detail", hash="0123456789ab"),
    )
    assert (read.model, read.model_hash) == ("sd_xl_base_1.0", "31e35c80fc")
    assert read.unknown == {
        "Denoising strength": "0.35",
        "Hires upscale": "1.5",
        "Hires steps": "12",
        "Hires upscaler": "4x-UltraSharp",
        "TI hashes": "easyneg: 66a7279a88",
        "<lora:sub detail:1:0.5>": "0.5",
    }


@pytest.mark.parametrize(
    ("pairs", "sampler", "scheduler"),
    [
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m", "karras"),  # both in one, before 1.9
        ("Sampler: DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("Sampler: Euler a", "euler_ancestral", "normal"),
        ("Sampler: DPM++ 2M", "dpmpp_2m", "normal"),
        ("Sampler: DDIM", "ddim", "ddim_uniform"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "karras"),
        ("Sampler: DPM++ 3M SDE, Schedule type: Automatic", "dpmpp_3m_sde", "exponential"),
        ("Sampler: Euler, Schedule type: Automatic", "euler", "normal"),
        ("Sampler: Euler, Schedule type: Uniform", "euler", "normal"),
        ("Sampler: Euler, Schedule type: SGM Uniform", "euler", "sgm_uniform"),
        ("Sampler: Euler, Schedule type: Align Your Steps", "euler", "align_your_steps"),
        ("Sampler: Euler, Schedule type: Polyexponential", "euler", "exponential"),
        ("Sampler: LCM, Schedule type: Simple", "lcm", "simple"),
    ],
)
def test_schedules_are_known_by_their_old_and_new_names(pairs, sampler, scheduler):
    read = from_text(f"a cat\nSteps: 20, {pairs}, CFG scale: 7, Seed: 1")
    assert (read.settings["sampler"], read.settings["scheduler"], read.unknown) == (sampler, scheduler, {})


def test_a_sampler_or_schedule_that_is_not_here_is_listed_and_not_guessed():
    read = from_text("a cat\nSteps: 20, Sampler: Kohaku_LoNyu_Yog, Schedule type: KL Optimal, Seed: 1")
    assert read.settings.keys() & {"sampler", "scheduler"} == set()
    assert read.unknown == {"Sampler": "Kohaku_LoNyu_Yog", "Schedule type": "KL Optimal"}


def test_values_that_are_json_are_taken_whole():
    resources = '[{"type":"checkpoint","modelName":"A, b: c"},{"type":"lora","weight":0.8}]'
    read = from_text(f"{LINE}, Civitai resources: {resources}, Civitai metadata: {{}}, Clip skip: 3")
    assert read.unknown == {"Civitai resources": resources, "Civitai metadata": "{}"}
    assert read.settings["clip_skip"] == 3


def test_hashes_of_the_json_key_belong_to_the_model_and_the_loras():
    hashes = json.dumps({"model": "31E35C80FC", "vae": "63aeecb90f", "lora:ink": "0123456789ab"})
    read = from_text(f"a <lora:ink:0.5> cat\n{LINE[6:]}, Model: base, VAE: x, Hashes: {hashes}")
    assert {(one.name, one.hash) for one in read.named} == {
        ("base", "31e35c80fc"), ("x", "63aeecb90f"), ("ink", "0123456789ab"),
    }  # fmt: skip
    assert read.unknown == {}
    assert from_text(f"{LINE}, Hashes: {hashes}").model_hash == "31e35c80fc"


def test_lora_tags_of_every_form_are_read():
    read = from_text(f"<lora:a:0.5><lyco:b:te=0.3:unet=0.3>, x <lora:c>\n{LINE[6:]}")
    assert [(one.name, one.weight) for one in read.named] == [("a", 0.5), ("b", 0.3), ("c", 1.0)]
    assert read.settings["prompt"] == ", x"
    assert from_text(f"<lora:a:99>\n{LINE[6:]}").unknown == {"<lora:a:99>": "a: 99"}
    assert from_text(f"<lora:a:nan>\n{LINE[6:]}").unknown == {"<lora:a:nan>": "a: nan"}


def test_a_text_behind_the_parameters_does_not_hide_them():
    read = from_text(f"{LINE}\nTemplate: __animal__, {{a|b}}, c: d, e: f\nNegative Template: bad")
    assert read.settings["steps"] == 20
    assert read.unknown["Text after the parameters"].startswith("Template: __animal__")


@pytest.mark.parametrize("vae", ["Automatic", "None"])
def test_the_words_for_no_vae_are_a_value(vae):
    assert from_text(f"{LINE}, VAE: {vae}").settings["vae"] == ""


def test_forge_freeu_and_noise_schedule_are_read():
    read = from_text(
        f"{LINE}, freeu_enabled: True, freeu_b1: 1.1, freeu_b2: 1.2, freeu_s1: 0.9, freeu_s2: 0.2, "
        "Noise Schedule: Zero Terminal SNR, RNG: NV"
    )
    assert read.settings["freeu"] is True
    assert [read.settings[f"freeu_{name}"] for name in ("b1", "b2", "s1", "s2")] == [1.1, 1.2, 0.9, 0.2]
    assert read.settings["zero_terminal_snr"] == "on"
    assert read.unknown == {"RNG": "NV"}


@pytest.mark.parametrize("prompt", ["a cat,\n  a dog", "a cat,\r\na dog", "a cat,\n\n\na dog ", "a cat, \x85 a dog"])
def test_a_line_feed_is_a_blank_as_it_is_for_the_program_that_wrote_it(prompt):
    """Here each line is a text of its own, encoded alone: the same words would make another picture."""
    read = from_text(f"{prompt}\nNegative prompt: {prompt}\n{LINE[6:]}, Version: f2.0.1v1.10.1")
    assert (read.settings["prompt"], read.settings["negative_prompt"]) == ("a cat, a dog", "a cat, a dog")
    assert read.unknown == {}


def test_the_lines_of_ours_and_of_fooocus_are_kept():
    fooocus = from_text(f"a cat\na dog\n{LINE[6:]}, Version: Fooocus v2.5.5")
    assert fooocus.settings["prompt"] == "a cat\na dog"
    assert from_text(f"a [cat]\na dog\n{LINE[6:]}, Version: Easel 0.1.0").settings["prompt"] == "a [cat]\na dog"


def test_square_brackets_weigh_in_our_words_and_those_that_exchange_words_are_listed():
    read = from_text(f"a [tall] man <lora:[ink]:1>\nNegative prompt: [cat:dog:0.5], [red|blue] [sky]\n{LINE[6:]}")
    assert read.settings["prompt"] == "a (tall:0.909) man"
    assert read.settings["negative_prompt"] == "[cat:dog:0.5], [red|blue] (sky:0.909)"
    assert read.unknown == {"Prompt editing in negative_prompt": "[cat:dog:0.5], [red|blue]"}
    assert [one.name for one in read.named] == ["[ink]"]


def test_what_looks_like_our_prompt_syntax_is_taken_as_it_stands():
    assert from_text(f"[[red|green] door|gate]\n{LINE[6:]}").settings["prompt_syntax"] is False
    assert from_text(f"dark __forest__\n{LINE[6:]}").settings["prompt_syntax"] is False
    assert "prompt_syntax" not in from_text(LINE).settings
    assert "prompt_syntax" not in read_settings_text('{"prompt": "__animal__"}').settings


OURS = Settings(
    prompt="a cat, [[red, blue]]", negative_prompt="bad", loras=(Lora("a/ink.safetensors", 0.8), Lora("off.safetensors", 1, False)),
    vae="x/sdxl_vae.safetensors", refiner_model="refiner.safetensors", refiner_switch=0.6, refiner_swap="separate",
    styles=("It's \"a\" style, with: all", "Zwei\n日本"), freeu=True, freeu_b1=1.3, performance="quality", text_encoder_l="l.safetensors",
)  # fmt: skip
HASHES = {"a/ink.safetensors": "ab" * 32, "refiner.safetensors": "cd" * 32}


def test_our_loras_stand_in_our_text_as_other_programs_look_for_them():
    text = to_text(Record(OURS, "", hashes=HASHES))
    first, _, line = text.split("\n")
    assert first == "a cat, [[red, blue]] <lora:ink:0.8>"
    for pair in (
        'Lora hashes: "ink: abababababab"', 'Lora weights: "ink: 0.8"', "VAE: sdxl_vae", "Refiner: refiner [cdcdcdcdcd]",
        "Refiner switch at: 0.6", 'ADM Guidance: "(1.5, 0.8, 0.3)"', "Scheduler: karras",
    ):  # fmt: skip
        assert f", {pair}, " in line
    other = from_text(text.replace("Easel", "Other"))  # as a program reads it that does not know ours
    assert [(one.name, one.weight) for one in other.named if one.field == "loras"] == [("ink", 0.8)]
    assert other.settings["prompt"] == "a cat, (red, blue:0.826)"  # brackets that only weigh there


@pytest.mark.parametrize(
    "prompt", ["", "a cat", "a cat <lora:ink:0.8>", "<lora:ink:0.8>", " <lora:ink:0.8>", "a\nb", "[a]\n[b|c]"]
)
def test_our_text_with_loras_gives_every_setting_back(prompt):
    settings = Settings(**{**OURS.to_dict(), "prompt": prompt})
    read = from_text(to_text(Record(settings, "", hashes=HASHES)))
    assert read.unknown == {}
    assert Settings(**read.settings) == settings


def test_nothing_but_prompts_is_no_metadata():
    with pytest.raises(BadMetadata):
        from_text("a cat\nNegative prompt: x\nFoo: 1, Bar: 2, Baz: 3")
