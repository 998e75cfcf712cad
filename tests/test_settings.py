"""Settings: what a request may hold, and what is said when it does not."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSetting
from core.settings import ASPECT_RATIOS, MAX_SEED, Lora, Settings, parse_setting, random_seed, written_setting


def test_defaults_are_those_of_the_reference_preset():
    settings = Settings()
    assert (settings.width, settings.height, settings.steps, settings.guidance_scale) == (1152, 896, 30, 4.0)
    assert (settings.sampler, settings.scheduler, settings.sharpness) == ("dpmpp_2m_sde_gpu", "karras", 2.0)
    assert (settings.adm_scaler_positive, settings.adm_scaler_negative, settings.adm_scaler_end) == (1.5, 0.8, 0.3)


def test_a_dict_makes_the_same_settings_again():
    settings = Settings(prompt="a cat", seed=MAX_SEED, width=704, height=1408)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 (our own bytes)


def test_whole_floats_pass_as_integers():
    assert Settings(steps=12.0).steps == 12
    assert isinstance(Settings(steps=12.0).steps, int)
    assert isinstance(Settings(guidance_scale=3).guidance_scale, float)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 100, "multiple of 8"),
        ("width", 8192, "from 64 to 4096"),
        ("width", 10**400, "from 64 to 4096"),
        ("guidance_scale", -(10**400), "from 1.0 to 30.0"),
        ("height", "tall", "whole number"),
        ("steps", 0, "from 1 to 200"),
        ("steps", 2.5, "whole number"),
        ("guidance_scale", float("nan"), "a number"),
        ("guidance_scale", 0.5, "from 1.0 to 30.0"),
        ("seed", -1, "from 0"),
        ("seed", MAX_SEED + 1, "from 0"),
        ("sampler", "eular", "one of: euler"),
        ("scheduler", "", "one of: normal"),
        ("output_format", "gif", "png, jpeg, webp"),
        ("prompt", 7, "must be text"),
        ("prompt", "a" * 20_001, "Shorten"),
        ("preview", 1, "true or false"),
        ("image_number", True, "whole number"),
    ],
)
def test_a_bad_value_is_named_with_what_was_wanted(field, value, words):
    with pytest.raises(BadSetting, match=field) as error:
        Settings(**{field: value})
    assert words in str(error.value)


@pytest.mark.parametrize(
    "values",
    [{"prompt": "a\ud800b"}, {"vae": "\udcff"}, {"styles": ["ok", "\udfff"]}, {"loras": [{"name": "a\udcff"}]}],
)
def test_half_a_letter_is_refused_with_its_place(values):
    """The picture would be written, and then neither the history nor the page could take its prompt."""
    with pytest.raises(BadSetting, match=rf"{next(iter(values))}.* as character \d, which is only part of one") as told:
        Settings(**values)
    str(told.value).encode()


def test_a_wrong_value_is_shown_in_part_however_long_it_is():
    for values in ({"sampler": "x" * 10**6}, {"steps": "\0" * 10**6}, {"preview": ["x"] * 10**6}, {"seed": 10**5000}):
        with pytest.raises(BadSetting) as told:
            Settings(**values)
        assert len(str(told.value)) < 1000


def test_an_unknown_field_is_named():
    with pytest.raises(BadSetting, match="'stepps'"):
        Settings.from_dict({"stepps": 3})


def test_values_from_the_command_line_take_the_type_of_their_field():
    assert parse_setting("steps", "12") == 12
    assert parse_setting("guidance_scale", "3") == 3.0
    assert parse_setting("preview", "off") is False
    assert parse_setting("prompt", "12") == "12"
    assert parse_setting("seed", str(MAX_SEED)) == MAX_SEED
    for name, text in [("steps", "many"), ("steps", "1.5"), ("preview", "maybe"), ("nothing", "1")]:
        with pytest.raises(BadSetting, match=name):
            parse_setting(name, text)


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "width", "steps", "seed", "sampler", "preview"]),
        st.none() | st.text() | st.integers() | st.floats(),
    )
)
def test_any_values_give_settings_or_a_bad_setting(values):
    try:
        settings = Settings.from_dict(values)
    except BadSetting:
        return
    assert settings.width % 8 == 0 and 0 <= settings.seed <= MAX_SEED


def test_random_seeds_are_in_range_and_differ():
    seeds = {random_seed() for _ in range(50)}
    assert len(seeds) == 50 and all(0 <= seed <= MAX_SEED for seed in seeds)


def test_the_aspect_ratios_have_about_a_million_pixels():
    assert len(ASPECT_RATIOS) == 26
    assert all(w % 64 == 0 and h % 64 == 0 and 0.88 < w * h / 1024**2 < 1.08 for w, h in ASPECT_RATIOS)


def test_lists_of_styles_and_loras_come_from_json_and_from_a_command_line() -> None:
    settings = Settings.from_dict(
        {"styles": ["Cinema", "Ink, wash"], "loras": [{"name": "a.safetensors", "weight": -0.5}]}
    )
    assert settings.loras == (Lora("a.safetensors", -0.5),)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    for name in ("styles", "loras"):
        value = getattr(settings, name)
        assert getattr(Settings.from_dict({name: parse_setting(name, written_setting(value))}), name) == value
    assert parse_setting("loras", "a.safetensors:0.8, b") == [{"name": "a.safetensors", "weight": 0.8}, {"name": "b"}]
    assert parse_setting("styles", "Cinema, Ink") == ["Cinema", "Ink"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"styles": "Cinema"}, "must be a list"),
        ({"styles": [3]}, "styles, entry 1 is 3; it must be text"),
        ({"loras": [{"weight": 1}]}, "loras, entry 1"),
        ({"loras": [{"name": "a", "weight": 11}]}, "from -10.0 to 10.0"),
        ({"loras": [{"name": "a", "enabled": 1}]}, "true or false"),
        ({"styles": ["a"] * 101}, "at most 100"),
    ],
)
def test_a_bad_list_is_refused_with_what_was_wanted(values: dict[str, object], wanted: str) -> None:
    with pytest.raises(BadSetting, match=wanted):
        Settings.from_dict(values)
