"""The modes' values as the specification lists them, and what carrying out a request in one of them means."""

import json

import pytest

from core.errors import BadSetting, ModelNotFound
from core.performance import MODES, as_wanted, effective, forced, with_mode_lora
from core.settings import PERFORMANCES, Lora, Settings
from core.weights.files import Files
from core.weights.sources import source

OFF = {
    "refiner_model": "",
    "sharpness": 0.0,
    "guidance_scale": 1.0,
    "adaptive_cfg": 1.0,
    "refiner_switch": 1.0,
    "adm_scaler_positive": 1.0,
    "adm_scaler_negative": 1.0,
    "adm_scaler_end": 0.0,
}
# name: steps, steps of upscale, LoRA, weight, sampler, scheduler (app.md 2.9)
TABLE = {
    "extreme_speed": (8, 8, "sdxl_lcm_lora.safetensors", 1.0, "lcm", "lcm"),
    "lightning": (4, 4, "sdxl_lightning_4step_lora.safetensors", 1.0, "euler", "sgm_uniform"),
    "hyper_sd": (4, 4, "sdxl_hyper_sd_4step_lora.safetensors", 0.8, "dpmpp_sde_gpu", "karras"),
}
FAST = (*TABLE, "dmd2")


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "loras"
    (folder / "fast").mkdir(parents=True)
    (folder / "ink.safetensors").touch()
    for name in FAST[:2]:
        (folder / MODES[name].lora.file).touch()
    (folder / "fast" / MODES["hyper_sd"].lora.file).touch()
    return Files([folder], "loras")


def test_every_mode_of_the_settings_has_its_line():
    assert set(MODES) == set(PERFORMANCES)


@pytest.mark.parametrize("name", TABLE)
def test_a_fast_mode_forces_what_the_table_says_and_nothing_else(name):
    steps, upscale_steps, lora, weight, sampler, scheduler = TABLE[name]
    assert forced(name) == {**OFF, "steps": steps, "sampler": sampler, "scheduler": scheduler}
    mode = MODES[name]
    assert (mode.upscale_steps, mode.lora.file, mode.lora.weight) == (upscale_steps, lora, weight)
    assert source(mode.lora.file).kind == "loras"


@pytest.mark.parametrize(("name", "steps", "upscale_steps"), [("quality", 60, 36), ("speed", 30, 18)])
def test_quality_and_speed_force_the_number_of_steps_alone(name, steps, upscale_steps):
    assert forced(name) == {"steps": steps}
    assert MODES[name].upscale_steps == upscale_steps and MODES[name].lora is None


def test_custom_forces_nothing():
    settings = Settings(steps=7, sharpness=9.0)
    assert effective(settings) == settings


@pytest.mark.parametrize("name", PERFORMANCES)
def test_carrying_out_a_request_keeps_all_that_its_mode_does_not_force(name):
    asked = Settings(prompt="x", performance=name, refiner_model="r.safetensors", steps=50, sharpness=5.0, seed=3)
    done = effective(asked)
    assert done.to_dict() == {**asked.to_dict(), **forced(name)}
    assert effective(done) == done
    assert effective(Settings.from_dict(json.loads(json.dumps(done.to_dict())))) == done


def test_the_modes_lora_comes_last_and_counts_against_no_limit(files):
    own = tuple(Lora("ink.safetensors", 0.1) for _ in range(50))
    found = with_mode_lora(own, "lightning", files)
    assert found == (*own, Lora("sdxl_lightning_4step_lora.safetensors", 1.0))


def test_rows_that_are_off_do_not_act(files):
    rows = (Lora("ink.safetensors", 0.5, enabled=False), Lora("b.safetensors"))
    assert with_mode_lora(rows, "custom", files) == (Lora("b.safetensors"),)


def test_the_modes_lora_is_found_in_a_folder_below_and_acts_once(files):
    rows = (Lora("fast/sdxl_hyper_sd_4step_lora.safetensors", 0.3), Lora("ink.safetensors"))
    found = with_mode_lora(rows, "hyper_sd", files)
    assert found == (Lora("ink.safetensors"), Lora("fast/sdxl_hyper_sd_4step_lora.safetensors", 0.8))


def test_a_missing_lora_is_told_with_its_command_address_and_folder(files):
    with pytest.raises(ModelNotFound) as told:
        with_mode_lora((), "dmd2", files)
    file = MODES["dmd2"].lora.file
    parts = ("DMD2", f"`python launch.py download {file}`", source(file).url, str(files.folders[0]))
    assert all(part in str(told.value) for part in parts)


def test_steps_that_are_wanted_over_a_preset_in_a_mode_of_steps_are_made():
    settings = as_wanted(Settings(performance="speed", steps=20, sampler="euler"), {"steps": 20})
    assert (settings.performance, effective(settings).steps, settings.sampler) == ("custom", 20, "euler")
    agreed = Settings(performance="speed", steps=30)
    assert as_wanted(agreed, {"steps": 30, "sampler": "euler"}) is agreed


@pytest.mark.parametrize(
    ("performance", "wanted", "told"),
    [
        ("lightning", {"steps": 6}, "steps=6 would have no effect: the mode lightning sets steps to 4"),
        ("dmd2", {"refiner_model": "r.safetensors"}, "sets refiner_model to nothing"),
        ("speed", {"performance": "speed", "steps": 20}, "add performance=custom"),
    ],
)
def test_what_a_mode_cannot_give_is_refused(performance, wanted, told):
    with pytest.raises(BadSetting, match=told):
        as_wanted(Settings(**{"performance": performance, **wanted}), wanted)
