"""Presets, and which of defaults, checkpoint, preset and user decides a setting."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from core.config import Config
from core.errors import BadSetting
from core.performance import effective
from core.presets import REFERENCE_NAMES, left_out, list_presets, load_preset, settings_for
from core.prompt.styles import StyleLibrary
from core.settings import Lora, Settings
from core.weights.sources import SOURCES


@dataclass(frozen=True)
class Info:
    settings: Mapping[str, Any] = field(default_factory=dict)
    native_size: tuple[int, int] = (1024, 1024)


def test_with_nothing_said_the_defaults_hold() -> None:
    assert settings_for(None, {}, {}) == Settings()
    assert settings_for(Info(), {}, {}) == Settings()


def test_the_user_wins_over_the_preset_and_the_preset_over_the_checkpoint() -> None:
    info = Info({"steps": 11, "sampler": "euler", "scheduler": "normal"})
    made = settings_for(info, {"steps": 12, "sampler": "heun"}, {"steps": 13})
    assert (made.steps, made.sampler, made.scheduler) == (13, "heun", "normal")


def test_a_small_checkpoint_gets_its_own_size() -> None:
    small = Info(native_size=(256, 256))
    made = settings_for(small, {}, {})
    assert (made.width, made.height) == (256, 256)
    assert settings_for(small, {}, {"width": 320}).width == 320
    recommending = Info({"width": 192, "height": 320}, (256, 256))
    made = settings_for(recommending, {}, {})
    assert (made.width, made.height) == (192, 320)


def test_a_checkpoint_has_no_say_in_what_is_made_or_kept(caplog: pytest.LogCaptureFixture) -> None:
    greedy = Info(
        {
            "prompt": "an advertisement",
            "image_number": 100,
            "save_metadata": False,
            "steps": 9000,
            "nonsense": 1,
            "clip_skip": 1,
        }
    )
    made = settings_for(greedy, {}, {})
    assert made == Settings(clip_skip=1)
    assert "steps is 9000" in caplog.text


def test_an_unknown_field_that_the_user_gives_is_told() -> None:
    with pytest.raises(BadSetting, match="'stepps'"):
        settings_for(None, {}, {"stepps": 3})


def test_presets_are_listed_by_name_the_default_first(tmp_path: Path) -> None:
    """D65: not as the folder happens to list them."""
    for name in ("b.json", "default.json", "a.json", "notes.txt", ".hidden.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert list_presets(tmp_path) == ["default", "a", "b"]
    assert list_presets(tmp_path / "none") == []


def test_a_file_whose_name_no_preset_can_have_is_told_of(tmp_path: Path) -> None:
    for stem in ("anime (1)", "SDXL, warm", "film+", "R&B", "O'Keeffe", "плохой", "my look!", "x" * 61, ".hidden"):
        (tmp_path / f"{stem}.json").write_text("{}")
    assert list_presets(tmp_path) == ["anime (1)", "film+", "O'Keeffe", "R&B", "SDXL, warm", "плохой"]
    assert load_preset("anime (1)", tmp_path).name == "anime (1)"
    told = left_out(tmp_path)
    assert len(told) == 2 and "'my look!.json' is left out" in told[0]


@pytest.mark.parametrize("name", ["../auth", "a/b", "a\\b", "", "..", "a\0b", "a\nb", "C:x", "x" * 200, ".hidden"])
def test_a_preset_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    """D3: no name from the page becomes a path."""
    with pytest.raises(BadSetting, match="no path"):
        load_preset(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"guidance_scal": 3}', "Did you mean 'guidance_scale'"),
        ('{"default_promt": "x"}', "Did you mean 'default_prompt'"),
        ('{"default_cfg_scal": 3}', "Did you mean 'default_cfg_scale'"),
        ('{"zzz": 3}', "The settings are: prompt,"),
        ('{"steps": 0}', "p.json: steps is 0"),
        ('{"steps": ', "cannot be read"),
        ("[]", "JSON object"),
    ],
)
def test_a_wrong_preset_is_told_with_file_and_field(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(BadSetting, match=told):
        load_preset("p", tmp_path)


def test_a_missing_preset_names_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "fast.json").write_text("{}")
    with pytest.raises(BadSetting, match="There are: fast"):
        load_preset("slow", tmp_path)


SHIPPED = Path(__file__).parents[1] / "presets"


@pytest.mark.parametrize("name", list_presets(SHIPPED))
def test_every_preset_that_is_shipped_loads_and_says_only_what_it_has_to(name: str) -> None:
    preset = load_preset(name, SHIPPED)
    usual = Settings().to_dict()
    assert name in REFERENCE or all(usual[key] != value for key, value in preset.settings.items())
    assert preset.description and not preset.notes


# The reference's presets: base, LoRA, guidance, size, styles, and what the others have not.
REFERENCE = {
    "general": ("juggernautXL_v8Rundiffusion", ("sd_xl_offset_example-lora_1.0", 0.1), 4.0, (1152, 896), 3, {}),
    "anime": ("animaPencilXL_v500", None, 6.0, (896, 1152), 3, {}),
    "realistic": ("realisticStockPhoto_v20", ("SDXL_FILM_PHOTOGRAPHY_STYLE_V1", 0.25), 3.0, (896, 1152), 3, {}),
    "lcm": ("juggernautXL_v8Rundiffusion", None, 4.0, (1152, 896), 3, {"performance": "extreme_speed"}),
    "lightning": ("juggernautXL_v8Rundiffusion", None, 4.0, (1152, 896), 3, {"performance": "lightning"}),
    "playground": (
        "playground-v2.5-1024px-aesthetic.fp16", None, 2.0, (1024, 1024), 1,
        {"sampler": "dpmpp_2m", "scheduler": "edm_playground_v2.5"},
    ),
    "pony": ("ponyDiffusionV6XL", None, 7.0, (896, 1152), 1, {"vae": "ponyDiffusionV6XL_vae.safetensors"}),
    "sai": (
        "sd_xl_base_1.0_0.9vae", ("sd_xl_offset_example-lora_1.0", 0.5), 7.0, (1152, 896), 2,
        {"refiner_model": "sd_xl_refiner_1.0_0.9vae.safetensors", "refiner_switch": 0.75},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCE)
def test_the_references_presets_are_there_with_their_facts(name: str) -> None:
    model, lora, guidance, size, styles, rest = REFERENCE[name]
    preset = load_preset(name, SHIPPED)
    made = Settings(**preset.settings)
    assert made.base_model == f"{model}.safetensors" and made.base_model in SOURCES
    assert [(entry.name, entry.weight) for entry in made.loras] == (
        [(f"{lora[0]}.safetensors", lora[1])] if lora else []
    )
    assert (made.guidance_scale, (made.width, made.height), len(made.styles)) == (guidance, size, styles)
    assert made.sharpness == 2.0 and bool(made.negative_prompt) == (name == "realistic")
    common = {"refiner_model": "", "refiner_switch": 0.5, "vae": "", "performance": "speed"}
    common |= {"sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras"}
    assert {key: getattr(made, key) for key in common} == common | rest
    assert len(preset.previous) == {"anime": 7, "realistic": 1, "general": 5, "lcm": 5, "lightning": 5}.get(name, 0)


@pytest.mark.parametrize("name", REFERENCE)
def test_a_preset_of_the_reference_always_comes_to_the_same(name: str) -> None:
    said = dict(load_preset(name, SHIPPED).settings)
    changed = Settings(
        guidance_scale=9.0, sharpness=9.0, steps=50, sampler="euler", scheduler="normal", performance="quality",
        width=512, height=512, vae="other.safetensors", loras=(Lora("other.safetensors"),), styles=("Easel Pony",),
        refiner_model="other.safetensors", refiner_switch=0.9, base_model="other.safetensors",
    )  # fmt: skip
    assert effective(replace(changed, **said)) == effective(Settings(**said))


@pytest.mark.parametrize("name", ["anime", "lcm", "lightning", "playground_v2.5", "pony_v6", "realistic", "sai"])
def test_the_references_presets_are_found_by_its_names(name: str, tmp_path: Path) -> None:
    ours = REFERENCE_NAMES.get(name, name)
    assert load_preset(name, tmp_path, SHIPPED).name == ours
    config = Config.load({"preset": name}, {}, SHIPPED.parent)
    assert config.preset == ours  # what the page finds in its list
    (tmp_path / f"{name}.json").write_text('{"steps": 3}')
    assert load_preset(name, tmp_path, SHIPPED).settings == {"steps": 3}  # a file of that very name wins


def test_every_style_of_the_programs_presets_can_be_chosen() -> None:
    known = StyleLibrary().read().names()
    presets = [load_preset(name, SHIPPED) for name in list_presets(SHIPPED)]
    used = {style for preset in presets for style in preset.settings.get("styles", ())}
    assert used and used <= set(known)


def test_the_model_that_comes_with_the_program_has_a_preset() -> None:
    from launch import STAND_IN

    name = load_preset(STAND_IN, SHIPPED).settings["base_model"]
    assert (SHIPPED.parent / "models/checkpoints" / name).is_file()


def test_the_users_preset_wins_over_the_programs_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "fast.json").write_text('{"steps": 3}')
    assert load_preset("fast", tmp_path, SHIPPED).settings == {"steps": 3}
    assert load_preset("plain_sdxl", tmp_path, SHIPPED).name == "plain_sdxl"
    assert list_presets(tmp_path, SHIPPED).count("fast") == 1
    (tmp_path / "broken.json").write_text("{")
    for name in list_presets(tmp_path, SHIPPED):
        if name != "broken":
            assert load_preset(name, tmp_path, SHIPPED).name == name
    with pytest.raises(BadSetting, match=r"broken\.json cannot be read"):
        load_preset("broken", tmp_path, SHIPPED)


def test_a_preset_of_a_newer_version_loads_without_what_is_not_known_here(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"version": "99.0", "steps": 9, "guidance_scal": 3, "$note": "mine"}')
    preset = load_preset("p", tmp_path)
    assert preset.settings == {"steps": 9}
    newer, unknown = preset.notes
    assert "written by Easel 99.0" in newer and "Did you mean 'guidance_scale'" in unknown


def test_a_preset_of_the_reference_does_not_decide_what_pictures_carry(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"default_save_metadata_to_images": false, "default_cfg_scale": 3.0}')
    preset = load_preset("p", tmp_path)
    assert preset.settings == {"guidance_scale": 3.0}
    assert "means nothing in a preset of Easel: default_save_metadata_to_images" in preset.notes[0]


def test_a_preset_of_the_reference_works_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(
        """{
            "default_model": "model.safetensors", "default_refiner": "None", "default_refiner_switch": 0.5,
            "default_loras": [[true, "a.safetensors", 0.1], [true, "None", 1.0], ["b.safetensors", -0.5]],
            "default_cfg_scale": 4.0, "default_sample_sharpness": 2.0, "default_performance": "Extreme Speed",
            "default_sampler": "euler", "default_scheduler": "normal", "default_prompt": "", "default_prompt_negative": "",
            "default_styles": ["Fooocus V2"], "default_aspect_ratio": "896*1152", "default_overwrite_step": -1,
            "default_inpaint_engine_version": "None", "default_loras_min_weight": -3, "previous_default_models": ["old.safetensors"],
            "checkpoint_downloads": {"model.safetensors": "https://huggingface.co/a/b/resolve/main/model.safetensors"},
            "embeddings_downloads": {}, "lora_downloads": {"../x.safetensors": "https://evil.example/x"}
        }"""
    )
    preset = load_preset("theirs", tmp_path)
    made = Settings(**preset.settings)
    assert (made.base_model, made.refiner_model, made.performance) == ("model.safetensors", "", "extreme_speed")
    assert made.loras == (Lora("a.safetensors", 0.1), Lora("b.safetensors", -0.5))
    assert (made.width, made.height, made.styles) == (896, 1152, ("Fooocus V2",))
    assert "prompt" not in preset.settings  # an empty one never takes away what was typed
    assert preset.previous == ("old.safetensors",)
    assert list(preset.downloads) == ["checkpoints"] and list(preset.downloads["checkpoints"]) == ["model.safetensors"]
    told = " ".join(preset.notes)
    assert (
        "'../x.safetensors' is no file name" in told
        and "default_inpaint_engine_version, default_loras_min_weight." in told
    )


def test_downloads_of_a_preset_are_checked_before_they_are_offered(tmp_path: Path) -> None:
    good = {"url": "https://huggingface.co/x", "bytes": 5, "sha256": "AB" * 32}
    downloads = {
        "checkpoints": {
            "good.safetensors": good,
            "b.safetensors": {"url": "https://evil.example/x"},
            "c.safetensors": 5,
        },
        "loras": {"d.safetensors": {**good, "bytes": "5"}, "e.safetensors": {**good, "sha256": "xyz"}, "f.ckpt": good},
        "programs": {"g.safetensors": good},
    }
    (tmp_path / "p.json").write_text(json.dumps({"downloads": downloads}))
    preset = load_preset("p", tmp_path)
    source = preset.downloads["checkpoints"]["good.safetensors"]
    assert (source.size, source.sha256, source.exact_size) == (5, "ab" * 32, 5)
    assert [list(files) for files in preset.downloads.values()] == [["good.safetensors"]]
    assert len(preset.notes) == 6
    assert "b.safetensors" in load_preset("p", tmp_path, hosts=["evil.example"]).downloads["checkpoints"]


@pytest.mark.parametrize("name", ["con", "NUL", "lpt1.x", "end.", "end ", "a:b", "a*b", "a?b", 'a"b', "a<b"])
def test_names_that_some_system_cannot_store_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSetting, match="no path"):
        load_preset(name, tmp_path)


def test_a_name_may_have_spaces_and_accents_in_either_spelling(tmp_path: Path) -> None:
    (tmp_path / (unicodedata.normalize("NFD", "Größe zwei") + ".json")).write_text('{"steps": 2}')
    assert list_presets(tmp_path) == ["Größe zwei"]
    assert load_preset("Größe zwei", tmp_path).settings == {"steps": 2}
