"""Fooocus's metadata: both schemes, old logs, and the defects of its own reader that ours must not have."""

import json

import pytest
import torch
from foreign_samples import (
    A1111,
    COMFYUI,
    FOOOCUS,
    FOOOCUS_LOG,
    FOOOCUS_RECORD,
    FOOOCUS_TEXT,
    TEXTS,
    comment,
    png,
    with_exif,
)

from core.errors import BadMetadata, BadSetting
from core.output.literals import numbers, words
from core.output.metadata import read_settings, read_settings_text
from core.output.reading import Named
from core.performance import MODES
from core.sampling.samplers import SAMPLERS
from core.sampling.schedules import calculate_sigmas_all
from core.sampling.tables import discrete_table
from core.settings import Settings


def fooocus(**changes):
    return read_settings_text(json.dumps({**FOOOCUS_RECORD, **changes}))


def test_the_json_scheme_fills_every_setting():
    read = read_settings_text(FOOOCUS)
    assert (read.source, read.unknown) == ("fooocus", {})
    assert read.settings == {
        "prompt": "a lighthouse at dusk", "negative_prompt": "blurry", "performance": "speed", "steps": 30, "width": 896,
        "height": 1152, "guidance_scale": 4.0, "sharpness": 2.0, "adm_scaler_positive": 1.5, "adm_scaler_negative": 0.8,
        "adm_scaler_end": 0.3, "refiner_model": "", "refiner_switch": 0.5, "clip_skip": 2, "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras", "vae": "", "seed": 2**63 - 1, "noise_device": "device",
        "prompt_expansion": "a lighthouse at dusk, glowing, intricate",
    }  # fmt: skip
    assert read.named == (
        Named(field="styles", name="Fooocus V2"),
        Named(field="styles", name="Fooocus Enhance"),
        Named(field="styles", name="Painter's Delight"),
        Named(field="base_model", name="juggernautXL_v8Rundiffusion", hash="aeb7e9e689"),
        Named(field="loras", name="sd_xl_offset_example-lora_1.0", hash="4852686128", weight=0.1),
    )


def test_the_text_scheme_fills_every_setting():
    read = read_settings_text(FOOOCUS_TEXT)
    assert (read.source, read.unknown) == ("fooocus", {})
    assert read.embedded == ("cinematic still a fox . emotional, harmonious", "anime, cartoon, ugly")
    assert read.settings == {
        "prompt": "a fox", "negative_prompt": "ugly", "steps": 40, "performance": "custom", "seed": 77, "width": 1152,
        "height": 896, "guidance_scale": 4.0, "sharpness": 3.5, "adm_scaler_positive": 1.5, "adm_scaler_negative": 0.8,
        "adm_scaler_end": 0.3, "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "vae": "", "refiner_swap": "separate",
        "refiner_switch": 0.75, "adaptive_cfg": 5.0, "clip_skip": 2, "freeu": True, "freeu_b1": 1.01, "freeu_b2": 1.02,
        "freeu_s1": 0.99, "freeu_s2": 0.95, "noise_device": "device",
    }  # fmt: skip
    assert read.named == (
        Named(field="base_model", name="sd_xl_base_1.0", hash="31e35c80fc"),
        Named(field="refiner_model", name="sd_xl_refiner_1.0", hash="7440042bbd"),
        Named(field="loras", name="ink", hash="0123456789", weight=-0.5),
    )


def test_defect_d32_the_default_sampler_survives_and_the_schedule_is_read_from_the_suffix():
    plain = "a fox\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 1, Size: 512x512, Version: Fooocus v2.3.0"
    assert read_settings_text(plain).settings["sampler"] == "dpmpp_2m_sde_gpu"
    assert read_settings_text(plain).settings["scheduler"] == "karras"


def test_defect_d34_the_default_vae_is_restored():
    assert read_settings_text(FOOOCUS).settings["vae"] == ""
    assert read_settings_text(FOOOCUS_TEXT).settings["vae"] == ""
    assert [one.name for one in fooocus(vae="x").named if one.field == "vae"] == ["x"]


def test_defect_d35_old_logs_with_labels_are_read_as_new_ones_are():
    read = read_settings_text(FOOOCUS_LOG)
    assert (read.source, read.unknown) == ("fooocus", {})
    assert read.settings["performance"] == "extreme_speed"
    assert (read.settings["width"], read.settings["height"], read.settings["prompt"]) == (1024, 1024, "a fox")
    assert [(one.field, one.name) for one in read.named] == [
        ("styles", "SAI Anime"), ("base_model", "sub/animaPencilXL.safetensors"), ("loras", "ink.safetensors"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "strict"),
    [
        ({}, False),
        ({"scheduler": "turbo"}, True),  # Q01
        ({"scheduler": "align_your_steps"}, True),
        ({"scheduler": "lcm"}, True),  # Q05
        ({"scheduler": "tcd"}, True),
        ({"scheduler": "edm_playground_v2.5"}, True),
        ({"resolution": "(1000, 520)"}, False),
        ({"resolution": "(1000, 520)", "adm_guidance": "(1.5, 0.8, 0.0)"}, True),  # 16.3
        ({"resolution": "(1024, 512)", "adm_guidance": "(1.5, 0.8, 0.0)"}, False),
        ({"sampler": "uni_pc"}, False),
        ({"sampler": "uni_pc", "refiner_model": "sd15.safetensors", "refiner_swap_method": "vae"}, True),  # Q41
        ({"scheduler": "turbo", "seed": "lost"}, False),
    ],
)
def test_fooocuss_mistakes_are_asked_for_where_they_are_in_the_picture(changes, strict):
    assert fooocus(**changes).settings.get("strict_compatibility", False) is strict
    assert Settings(**fooocus(**changes).settings).strict_compatibility is strict


def test_q12_noise_is_drawn_on_the_device_as_there_where_the_sampler_draws_any():
    for sampler in SAMPLERS:
        asked = []
        table = discrete_table()

        def noise(sigma, after, asked=asked):
            asked.append(sigma)
            return torch.zeros(1, 1, 1, 1)

        sigmas = calculate_sigmas_all(sampler, table, "karras", 20)
        list(SAMPLERS[sampler](lambda x, sigma: x / 2, torch.ones(1, 1, 1, 1), sigmas, noise=noise, table=table))
        expected = "device" if asked else None
        assert fooocus(sampler=sampler).settings.get("noise_device") == expected, sampler


def test_a_text_of_fooocus_is_made_again_as_it_was_and_what_is_no_picture_stays_as_it_is():
    read = read_settings_text(FOOOCUS_TEXT.replace("Scheduler: karras", "Scheduler: turbo"))
    assert (read.settings["strict_compatibility"], read.settings["noise_device"]) == (True, "device")
    for text in (A1111, COMFYUI, '{"Sampler": "lcm", "Scheduler": "lcm"}'):
        assert "strict_compatibility" not in read_settings_text(text).settings
    assert read_settings_text(FOOOCUS_LOG).settings["strict_compatibility"]


def test_defects_d1_and_e1_nothing_in_a_file_is_run(tmp_path):
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for key in ("styles", "resolution", "adm_guidance", "freeu", "lora_combined_1", "seed", "steps", "performance"):
        text = json.dumps({**FOOOCUS_RECORD, key: code})
        for source in (png({"parameters": text, "fooocus_scheme": "fooocus"}), with_exif({0x9286: comment(text)})):
            assert key in read_settings(source).unknown
    for key in ("ADM Guidance", "FreeU", "Styles", "Size"):
        read = read_settings_text(f'a\nSteps: 30, Seed: 1, {key}: "{code}", Version: Fooocus v2.5.5')
        assert key in read.unknown
    assert not canary.exists()


def test_defects_d26_and_d68_values_are_checked_and_those_that_cannot_be_are_listed():
    read = fooocus(
        sampler="magic", guidance_scale=float("nan"), sharpness=1e999, seed=-1, steps="9" * 300, performance="Warp 9"
    )
    assert read.settings.keys() & {"sampler", "guidance_scale", "sharpness", "seed", "steps", "performance"} == set()
    assert read.unknown.keys() == {"sampler", "guidance_scale", "sharpness", "seed", "steps", "performance"}


def test_defect_d70_modes_of_four_steps_are_told_by_their_name():
    for name, mode in (("Lightning", "lightning"), ("Hyper-SD", "hyper_sd")):
        forced = MODES[mode].forced
        lora = f"{MODES[mode].lora.file[:-12]} : {MODES[mode].lora.weight}"
        read = fooocus(
            performance=name, steps=4, sampler=forced["sampler"], scheduler=forced["scheduler"], guidance_scale=1.0,
            sharpness=0.0, adm_guidance="(1.0, 1.0, 0.0)", refiner_switch=1.0, lora_combined_2=lora,
        )  # fmt: skip
        assert read.settings["performance"] == mode
        assert [one.name for one in read.named if one.field == "loras"] == ["sd_xl_offset_example-lora_1.0"]


def test_a_mode_that_was_overruled_is_custom_and_keeps_its_lora():
    read = fooocus(performance="Lightning", steps=6, lora_combined_2="sdxl_lightning_4step_lora : 1.0")
    assert (read.settings["performance"], read.settings["steps"]) == ("custom", 6)
    assert "sdxl_lightning_4step_lora" in [one.name for one in read.named if one.field == "loras"]


def test_defect_d76_the_prompt_of_the_text_scheme_is_the_raw_one_and_no_style_is_guessed():
    read = read_settings_text(FOOOCUS_TEXT)
    assert read.settings["prompt"] == "a fox"
    assert not [one for one in read.named if one.field == "styles"]


def test_lora_rows_are_read_with_and_without_a_switch():
    read = fooocus(
        lora_combined_1="True : a : b.safetensors : -1.5",
        lora_combined_2="False : c : 2",
        lora_combined_10="None : 1",
        lora_combined_3="x",
    )
    assert [(one.name, one.weight, one.enabled) for one in read.named if one.field == "loras"] == [
        ("a : b.safetensors", -1.5, True), ("c", 2.0, False),
    ]  # fmt: skip
    assert read.unknown == {"lora_combined_3": "x"}


def test_the_array_of_loras_is_used_where_there_are_no_rows():
    read = read_settings_text(
        json.dumps({"version": "Fooocus v2.5.5", "steps": 30, "loras": [["ink", 0.5, "0123456789"], 3, [1]]})
    )
    assert read.named == (Named(field="loras", name="ink", hash="0123456789", weight=0.5),)


def test_real_lists_are_read_as_well_as_written_ones():
    read = fooocus(styles=["a", "b"], resolution=[512, 768], adm_guidance=[1.0, 1.0, 0.0])
    assert [one.name for one in read.named if one.field == "styles"] == ["a", "b"]
    assert (read.settings["width"], read.settings["height"], read.settings["adm_scaler_end"]) == (512, 768, 0.0)


def test_a_group_of_numbers_is_taken_whole_or_not_at_all():
    read = fooocus(resolution="(512, 99999)", freeu="(1, 1, 1)")
    assert read.settings.keys() & {"width", "height", "freeu", "freeu_b1"} == set()
    assert read.unknown == {"resolution": "(512, 99999)", "freeu": "(1, 1, 1)"}


def test_the_refiner_takes_over_at_the_step_of_the_modes_own_number_of_steps():
    """Kept from the reference (engine.md 3.2): of Speed's 30 steps, not of the 50 that were forced."""
    settings = fooocus(performance="Speed", steps=50, refiner_switch=0.5).settings
    assert Settings(**settings).switch_step == 15
    assert fooocus(performance="Speed", steps=30, refiner_switch=0.5).settings["refiner_switch"] == 0.5
    assert fooocus(performance="Speed", steps=50, refiner_switch="x").settings.get("refiner_switch") is None


def test_the_overwritten_switch_is_a_share_of_the_steps():
    assert fooocus(overwrite_switch=15).settings["refiner_switch"] == 0.5
    assert fooocus(overwrite_switch=-1).unknown == {"overwrite_switch": "-1"}


@pytest.mark.parametrize(
    "source",
    [
        png({"parameters": FOOOCUS, "fooocus_scheme": "fooocus"}),
        png({"parameters": FOOOCUS_TEXT, "fooocus_scheme": "a1111"}),
        # JPEG and WebP have all three tags in the first directory, as plain text
        with_exif({0x9286: FOOOCUS.encode(), 0x0131: "Fooocus v2.5.5", 0x927C: "fooocus"}, sub=False),
        with_exif({0x9286: FOOOCUS_TEXT.encode(), 0x0131: "Fooocus v2.5.5", 0x927C: "a1111"}, "webp", sub=False),
    ],
    ids=["png json", "png text", "jpeg", "webp"],
)
def test_it_is_found_where_fooocus_stores_it(source):
    read = read_settings(source)
    assert read.source == "fooocus"
    Settings(**read.settings)


def test_defect_d24_a_camera_picture_has_no_settings():
    camera = with_exif(
        {0x010E: "OLYMPUS DIGITAL CAMERA", 0x010F: "Olympus", 0x0131: "v1.0", 0x9286: b"ASCII\0\0\0" + b" " * 40}
    )
    with pytest.raises(BadMetadata, match="carries no settings"):
        read_settings(camera)


def test_every_sample_is_told_by_itself():
    sources = {name: read_settings_text(text).source for name, text in TEXTS.items()}
    assert sources == {name: name.split()[0] for name in TEXTS}


def test_literals_are_read_and_nothing_else():
    assert numbers("(1, -2.5,.5 , 1e-3)", 4) == [1.0, -2.5, 0.5, 0.001]
    assert words(r"""['a', "it's", 'it\'s', 'x\\', '\u65e5\n\x41', ]""") == ["a", "it's", "it's", "x\\", "日\nA"]
    assert words("[]") == words("()") == []
    for bad in ("", "1, 2", "(1, 2", "(1; 2)", "(1, 2, 3)", "(1, nan)", "(1, __import__('os'))", "(" * 10_000):
        with pytest.raises(BadSetting):
            numbers(bad, 2)
    for bad in (
        "",
        "'a'",
        "['a' 'b']",
        "['a',,'b']",
        "['a'",
        "[a]",
        "[['a']]",
        "['" * 10_000,
        "['a', 'b'" + "," * 9 + "]",
        "['" + "\\" * 9 + "']",
    ):
        with pytest.raises(BadSetting):
            words(bad)
    texts = ["a", "b'c", 'd"e', "f'\"g", "\\", "\n\t\r", "日", "\x00\x7f", "😀", ""]
    assert words(repr(texts)) == texts
