from dataclasses import fields

import pytest

from core.errors import BadSetting
from core.settings import MAX_SEED, Settings
from webui.controls import CONTROLS, RECOMMENDED, settings_from, shown


def test_every_control_is_named_after_a_setting():
    assert set(CONTROLS) <= {field.name for field in fields(Settings)}
    assert set(RECOMMENDED) < set(CONTROLS)


def test_what_the_controls_show_leads_back_to_the_same_settings():
    settings = Settings(
        prompt="a fox", negative_prompt="rain", base_model="a.safetensors", width=512, height=640, image_number=3,
        seed=MAX_SEED, steps=12, guidance_scale=5.5, sampler="euler", scheduler="normal", sharpness=0.0, adaptive_cfg=6.0,
        adm_scaler_positive=1.0, adm_scaler_negative=1.0, adm_scaler_end=0.0, clip_skip=1, prediction="v",
        zero_terminal_snr="on", output_format="webp", save_metadata=False,
    )  # fmt: skip
    assert settings_from(shown(settings), Settings(), any_seed=False) == settings


def test_what_the_page_does_not_show_comes_from_the_recommended_settings():
    recommended = Settings(noise_device="device", preview=False)
    values = {
        name: value
        for name, value in shown(Settings(prompt="a fox")).items()
        if name not in ("noise_device", "preview")
    }
    made = settings_from(values, recommended, any_seed=False)
    assert (made.prompt, made.noise_device, made.preview) == ("a fox", "device", False)


def test_a_random_seed_differs_from_time_to_time_whatever_the_box_says():
    values = shown(Settings()) | {"seed": "not a number"}
    seeds = {settings_from(values, Settings(), any_seed=True).seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "٣x", str(MAX_SEED + 1), "9" * 5000])
def test_a_seed_that_is_none_is_refused_with_the_range_that_is_possible(text):
    with pytest.raises(BadSetting, match=f"seed.*{MAX_SEED}"):
        settings_from(shown(Settings()) | {"seed": text}, Settings(), any_seed=False)


def test_an_emptied_size_box_is_named():
    with pytest.raises(BadSetting, match="height is empty"):
        settings_from(shown(Settings()) | {"height": None}, Settings(), any_seed=True)


def test_without_a_chosen_model_the_recommended_one_is_taken():
    made = settings_from(shown(Settings()) | {"base_model": None}, Settings(base_model="small"), any_seed=True)
    assert made.base_model == "small"
