"""Distilled checkpoints are known by their published names, and ordinary names stay ordinary."""

import pytest
from tiny import write_checkpoint

from core.presets import recommended, settings_for
from core.weights.distilled import KINDS, kind_of, settings_of
from core.weights.info import model_info


@pytest.mark.parametrize(
    ("name", "kind", "steps", "scale"),
    [
        ("sd_xl_turbo_1.0_fp16.safetensors", "SDXL Turbo", 4, 1.0),
        ("DreamShaperXL_v21TurboDPMSDE.safetensors", "Turbo", 8, 2.0),
        ("sdxl_lightning_8step.safetensors", "Lightning", 8, 1.0),
        ("sdxl_lightning_1step_x0.safetensors", "Lightning", 1, 1.0),
        ("juggernautXL_v9Rdphoto2Lightning.safetensors", "Lightning", 4, 1.0),
        ("Hyper-SDXL-1step-Unet-Comfyui.fp16.safetensors", "Hyper-SD", 1, 1.0),
        ("folder/dmd2_sdxl_4step_unet_fp16.safetensors", "DMD2", 4, 1.0),
        ("bigLust_v16-DMD2.safetensors", "DMD2", 4, 1.0),
        ("lcm-sdxl.safetensors", "LCM", 8, 1.0),
        ("Juggernaut_X_RunDiffusion_Hyper.safetensors", "Hyper-SD", 8, 1.0),
        ("chinoTurbo.safetensors", "Turbo", 8, 2.0),
    ],
)
def test_published_names_are_known(name, kind, steps, scale):
    assert kind_of(name).name == kind
    found = settings_of(name)
    assert (found["steps"], found["guidance_scale"], found["sharpness"]) == (steps, scale, 0.0)


@pytest.mark.parametrize(
    "name",
    [
        "juggernautXL_v8Rundiffusion.safetensors",
        "sd_xl_base_1.0.safetensors",
        "hyperrealistic_30steps.safetensors",
        "Hyper Realistic XL.safetensors",
        "hyper_realism_v3.safetensors",
        "modelXLnoTurbo_v1.safetensors",
        "non-turbo model.safetensors",
        "filmcm.safetensors",
        "lightning/ordinary.safetensors",
        "easel-emoji-256.safetensors",
    ],
)
def test_ordinary_names_say_nothing(name):
    assert kind_of(name) is None and settings_of(name) == {}


def test_every_recommendation_is_one_that_settings_take():
    for kind in KINDS:
        info = type("Info", (), {"settings": kind.settings, "native_size": (1024, 1024)})
        assert recommended(info) == dict(kind.settings)


def test_the_name_recommends_and_the_file_itself_and_the_user_have_the_last_word(tmp_path):
    write_checkpoint(tmp_path / "tinyTurbo.safetensors", metadata={"easel.settings": '{"steps": 5}'})
    info = model_info(tmp_path / "tinyTurbo.safetensors")
    settings = settings_for(info, {}, {"guidance_scale": 3.0})
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (5, "dpmpp_sde_gpu", 3.0)
    assert "Turbo" in info.note


def test_the_title_in_the_header_counts_too(tmp_path):
    write_checkpoint(tmp_path / "x.safetensors", metadata={"modelspec.title": "My SDXL Lightning 8-step"})
    assert model_info(tmp_path / "x.safetensors").settings["steps"] == 8
