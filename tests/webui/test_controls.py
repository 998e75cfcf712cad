from dataclasses import fields

import pytest

from core.errors import BadSetting, UserError
from core.presets import RECOMMENDABLE
from core.settings import MAX_SEED, Lora, Settings
from webui.controls import CONTROLS, RECOMMENDED, asked_model, settings_from, shown


def test_every_control_is_named_after_a_setting():
    assert set(CONTROLS) <= {field.name for field in fields(Settings)}
    assert set(RECOMMENDED) == (set(CONTROLS) & set(RECOMMENDABLE)) | {"guidance_rescale"}  # that is for v-prediction


def test_what_the_controls_show_leads_back_to_the_same_settings():
    settings = Settings(
        prompt="a fox", negative_prompt="rain", base_model="a.safetensors", width=512, height=640, image_number=3,
        seed=MAX_SEED, steps=12, guidance_scale=5.5, sampler="euler", scheduler="normal", sharpness=0.0, adaptive_cfg=6.0,
        adm_scaler_positive=1.0, adm_scaler_negative=1.0, adm_scaler_end=0.0, clip_skip=1, prediction="v",
        zero_terminal_snr="on", strict_compatibility=True, output_format="webp", save_metadata=False,
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
    """D62: no random one is taken in its place."""
    with pytest.raises(BadSetting, match=f"seed.*{MAX_SEED}"):
        settings_from(shown(Settings()) | {"seed": text}, Settings(), any_seed=False)


def test_an_emptied_size_box_is_named():
    with pytest.raises(BadSetting, match="height is empty"):
        settings_from(shown(Settings()) | {"height": None}, Settings(), any_seed=True)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


FORGED = {
    "a list": ["a"], "an empty list": [], "a list of lists": [["a"], [1]], "a dict": {"name": "a"}, "an empty dict": {},
    "nan": float("nan"), "inf": float("inf"), "a huge float": 1e300, "a huge int": 10**400, "an unwritable int": 10**5000,
    "minus one": -1, "a float": 30.0, "true": True, "false": False, "none": None, "a nested list": nested(400),
    "a nest too deep to be shown": nested(50_000), "a nested dict": {"name": {"name": [{}]}},
    "a huge text": "a" * 1_000_000, "a huge list": ["a"] * 100_000, "wide letters": "\U0010ffff" * 500,
    "half a letter": "a\ud800b", "a nested text": "[" * 100_000, "a list as text": '[{"name": "a", "weight": 1e999}]',
    "a list of halves": '["\\ud800"]', "numbers as text": "[1, NaN, Infinity]", "zero byte": "a\0b", "no pair": "a:b:c",
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_whatever_a_page_sends_becomes_settings_or_a_short_message(name):
    """The values of Generate come as the browser sent them, or whoever writes requests by hand."""
    usual = shown(Settings())
    for kind, value in FORGED.items():
        try:
            made = settings_from(usual | {name: value}, Settings(), any_seed=False)
        except UserError as refused:
            assert name in str(refused) and len(str(refused)) < 1000, kind
            str(refused).encode()  # a message goes into the page
        else:
            assert isinstance(made, Settings), kind


def test_lists_may_come_as_lists_and_whole_numbers_as_floats():
    values = shown(Settings()) | {"styles": ["Ink"], "loras": [{"name": "a", "weight": 1}], "steps": 30.0, "seed": 7.0}
    made = settings_from(values, Settings(), any_seed=False)
    assert (made.styles, made.loras, made.steps, made.seed) == (("Ink",), (Lora("a", 1.0),), 30, 7)
    assert isinstance(made.seed, int)


@pytest.mark.parametrize("model", [["a"], {}, 7, True, [], 0, False])
def test_a_model_that_is_no_text_is_refused_before_a_file_is_looked_for(model):
    with pytest.raises(BadSetting, match=r"base_model is .*; it must be text"):
        asked_model({"base_model": model})


def test_without_a_chosen_model_the_recommended_one_is_taken():
    made = settings_from(shown(Settings()) | {"base_model": None}, Settings(base_model="small"), any_seed=True)
    assert made.base_model == "small"
