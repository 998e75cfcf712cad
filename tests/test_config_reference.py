"""Configuration files of the reference, and the models of other programs, read where they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import arguments
from core.config import Config, make_config_file
from core.config_keys import KEYS, READERS
from core.errors import BadConfig
from core.performance import effective
from core.reference_keys import KEYS as REFERENCE_KEYS
from core.reference_keys import meaning_of, read_reference
from core.settings import Lora, Settings
from core.weights.files import Catalog
from tools.make_configuration_docs import DOC, text

# Every key that a config.txt of the reference may hold.
ALL = """path_checkpoints path_loras path_embeddings path_vae_approx path_vae path_upscale_models path_inpaint path_controlnet
path_clip_vision path_fooocus_expansion path_wildcards path_safety_checker path_sam path_outputs
temp_path temp_path_cleanup_on_launch default_model previous_default_models default_refiner default_refiner_switch
default_loras_min_weight default_loras_max_weight default_loras default_max_lora_number default_cfg_scale default_sample_sharpness
default_sampler default_scheduler default_vae default_styles default_prompt_negative default_prompt default_performance
default_image_prompt_checkbox default_enhance_checkbox default_advanced_checkbox default_developer_debug_mode_checkbox
default_image_prompt_advanced_checkbox default_max_image_number default_output_format default_image_number checkpoint_downloads
lora_downloads embeddings_downloads vae_downloads available_aspect_ratios default_aspect_ratio default_inpaint_engine_version
default_selected_image_input_tab_id default_uov_method default_controlnet_image_count default_ip_image_1 default_ip_type_2
default_ip_stop_at_3 default_ip_weight_4 default_inpaint_advanced_masking_checkbox default_inpaint_method default_cfg_tsnr
default_clip_skip default_overwrite_step default_overwrite_switch default_overwrite_upscale example_inpaint_prompts
example_enhance_detection_prompts default_enhance_tabs default_enhance_uov_method default_enhance_uov_processing_order
default_enhance_uov_prompt_type default_sam_max_detections default_black_out_nsfw default_save_only_final_enhanced_image
default_save_metadata_to_images default_metadata_scheme metadata_created_by default_invert_mask_checkbox
default_inpaint_mask_model default_enhance_inpaint_mask_model default_inpaint_mask_cloth_category
default_inpaint_mask_sam_model default_describe_apply_prompts_checkbox default_describe_content_type"""
PATHS = [key for key in ALL.split() if key.startswith("path_")]
OTHERS = [key for key in ALL.split() if key not in PATHS]


def load(root: Path, *argv: str, environ: dict[str, str] | None = None) -> Config:
    return Config.load(vars(arguments.parse(argv)), environ or {}, root)


def write(root: Path, values: dict[str, Any], name: str = "config.txt") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(values))


def tensors(file: Path, *names: str) -> Path:
    """A sound safetensors file with tensors of these names."""
    header = json.dumps(
        {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate(names)}
    ).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(len(names)))
    return file


@pytest.mark.parametrize("key", [*PATHS, *OTHERS])
def test_every_key_of_the_reference_is_in_the_table(key: str) -> None:
    meaning = meaning_of(key)
    assert meaning is not None and meaning.to
    if meaning.place == "settings":
        assert set(meaning.to.split(", ")) <= Settings().to_dict().keys()
    elif meaning.place == "config":
        assert meaning.to in READERS
    if key in PATHS:
        assert meaning.place == "config"


def test_the_table_has_no_key_that_the_reference_has_not() -> None:
    assert REFERENCE_KEYS.keys() <= {*PATHS, *OTHERS}


def test_a_config_txt_is_read_in_our_names(tmp_path: Path) -> None:
    before = {
        "path_checkpoints": [str(tmp_path / "a"), str(tmp_path / "b")],
        "path_loras": "more/loras",
        "path_embeddings": [str(tmp_path / "e")],
        "path_outputs": str(tmp_path / "out"),
        "default_model": "model.safetensors",
        "default_cfg_scale": 6.5,
        "default_performance": "Quality",
        "default_loras": [["x.safetensors", 0.3]],
        "default_vae": "Default (model)",
        "default_aspect_ratio": "1024*1024",
        "default_prompt_negative": "",
        "default_refiner": None,
        "available_aspect_ratios": ["1024*1024", "896*1152"],
        "default_max_image_number": 12,
        "default_max_lora_number": 7,
        "default_loras_min_weight": -1,
        "previous_default_models": ["old.safetensors"],
        "default_uov_method": "Disabled",
    }
    write(tmp_path, before)
    config = load(tmp_path)
    assert config.checkpoints == (tmp_path / "a", tmp_path / "b")
    assert config.model_folders["loras"] == (tmp_path / "more/loras",)
    assert config.model_folders["embeddings"] == (tmp_path / "e",)  # D51: a list works for every kind
    assert config.outputs == tmp_path / "out"
    made = Settings(**config.defaults.settings)
    assert (made.base_model, made.guidance_scale, made.performance) == ("model.safetensors", 6.5, "quality")
    assert made.loras == (Lora("x.safetensors", 0.3),) and (made.width, made.height) == (1024, 1024)
    assert config.defaults.previous == ("old.safetensors",)
    assert config.aspect_ratios == ((1024, 1024), (896, 1152))
    assert (config.max_image_number, config.lora_rows, config.lora_min_weight) == (12, 7, -1.0)
    assert config.notices == ("In config.txt: these mean nothing here: default_uov_method.",)
    assert json.loads((tmp_path / "config.txt").read_text()) == before


def test_d8_a_folder_for_temporary_files_is_told_to_mean_nothing_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "holiday.jpg").write_bytes(b"mine")
    write(tmp_path, {"temp_path": str(tmp_path / "media"), "temp_path_cleanup_on_launch": True})
    config = load(tmp_path)
    assert (tmp_path / "media" / "holiday.jpg").read_bytes() == b"mine"
    assert config.notices == ("In config.txt: these mean nothing here: temp_path, temp_path_cleanup_on_launch.",)


def test_values_that_do_not_fit_are_told_and_left_out() -> None:  # D27, D28, D52
    reading = read_reference(
        {
            "default_cfg_scale": "high",
            "default_sampler": "magic",
            "default_refiner_switch": 0.05,
            "default_image_number": True,
            "default_loras": [[True, "x", 0.5], 5],
            "default_performance": "Turbo",
            "default_aspect_ratio": "wide",
            "default_clip_skip": 3,
            "default_negative_prompt": "x",
        }
    )
    assert reading.settings == {"clip_skip": 3}
    told = " ".join(reading.problems)
    for words in ("default_cfg_scale", "magic", "0.05", "default_image_number", "on, file, weight", "Turbo", "wide"):
        assert words in told
    assert "no key 'default_negative_prompt'. Did you mean 'default_prompt_negative'?" in told


def test_forced_steps_act_and_the_mode_no_longer_forces_its_own() -> None:
    values = {"default_performance": "Speed", "default_overwrite_step": 22}
    assert read_reference(values).settings == {"steps": 22, "performance": "custom"}
    assert read_reference({**values, "default_overwrite_step": -1}).settings == {"performance": "speed"}


def switch_of(**values: Any) -> tuple[int, int]:
    """The step after which the refiner takes over, and how many steps there are."""
    made = Settings(**read_reference({f"default_{name}": value for name, value in values.items()}).settings)
    made = effective(made)
    return made.switch_step, made.steps


def test_steps_forced_over_a_fast_mode_are_made_with_all_else_that_it_does():
    values = {"default_performance": "Extreme Speed", "default_overwrite_step": 12}
    loras = [["sdxl_lcm_lora.safetensors", 0.3], ["ink.safetensors", 0.5]]
    settings = Settings(**read_reference({**values, "default_loras": loras}).settings)
    mode = Settings(performance="extreme_speed")
    assert effective(settings) == replace(
        effective(mode),
        performance="custom",
        steps=12,
        loras=(Lora("ink.safetensors", 0.5), Lora("sdxl_lcm_lora.safetensors", 1.0)),
    )
    assert read_reference({**values, "default_overwrite_step": 8}).settings["performance"] == "extreme_speed"


def test_the_refiner_takes_over_at_the_step_of_the_modes_own_number_of_steps() -> None:
    """Kept from the reference (engine.md 3.2), so that its files give the same picture: of Speed's 30 steps, not the forced 50."""
    assert switch_of(performance="Speed", overwrite_step=50, refiner_switch=0.5) == (15, 50)
    assert switch_of(performance="Quality", overwrite_step=90, refiner_switch=0.75) == (45, 90)
    assert switch_of(overwrite_step=20, refiner_switch=0.5) == (15, 20)
    assert switch_of(performance="Speed", overwrite_step=-1, refiner_switch=0.5) == (15, 30)


def test_where_the_forced_steps_end_before_that_step_the_share_is_taken_of_them() -> None:
    """D31: there the reference's refiner never runs."""
    assert switch_of(performance="Speed", overwrite_step=10, refiner_switch=0.5) == (5, 10)


def test_a_forced_switch_step_is_taken_as_a_share_of_the_steps_that_are_made() -> None:
    assert switch_of(performance="Quality", overwrite_switch=12, refiner_switch=0.5) == (12, 60)
    assert switch_of(performance="Speed", overwrite_step=50, overwrite_switch=35) == (35, 50)
    assert switch_of(overwrite_step=10, overwrite_switch=15) == (10, 10)
    assert switch_of(overwrite_switch=-1, refiner_switch=0.5) == (15, 30)
    reading = read_reference({"default_overwrite_switch": 1, "default_performance": "Speed"})
    assert "refiner_switch" not in reading.settings
    assert reading.problems[0].startswith("default_overwrite_switch: refiner_switch is 0.03")
    for value in (True, "10", 10**400, float("nan"), float("inf")):
        Settings(**read_reference({"default_overwrite_switch": value}).settings)


def test_variables_may_be_written_as_python_writes_them(tmp_path: Path) -> None:
    """Section 7.1 of the specification: its literals, and text that only looks like one."""
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles/mine.json").write_text('[{"name": "a", "prompt": "x"}, {"name": "b\'s", "prompt": "y"}]')
    environ = {
        "default_styles": "['a', \"b's\"]",
        "default_loras": "[[True, 'x.safetensors', 0.5], ('y.safetensors', -1)]",
        "default_save_metadata_to_images": "True",
        "default_prompt": "True",
        "default_prompt_negative": "1.0",
        "default_cfg_scale": "5",
        "checkpoint_downloads": "{'m.safetensors': 'https://huggingface.co/a/b/resolve/main/m.safetensors'}",
    }
    config = load(tmp_path, environ=environ)
    made = Settings(**config.defaults.settings)
    assert made.styles == ("a", "b's")
    assert made.loras == (Lora("x.safetensors", 0.5), Lora("y.safetensors", -1.0))
    assert (made.save_metadata, made.prompt, made.negative_prompt, made.guidance_scale) == (True, "True", "1.0", 5.0)
    assert list(config.defaults.downloads["checkpoints"]) == ["m.safetensors"]
    assert load(tmp_path, environ={"EASEL_ASPECT_RATIOS": "['1024*1024', '896*1152']"}).aspect_ratios[1] == (896, 1152)


def test_more_pictures_to_start_with_than_the_page_offers_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"default_image_number": 50, "default_max_image_number": 10})
    config = load(tmp_path)
    assert config.max_image_number == 10 and "image_number" not in config.defaults.settings
    assert config.notices == (
        "In config.txt: default_image_number is 50; it must be at most max_image_number, which is 10. It is not used.",
    )
    write(tmp_path, {"default_image_number": 10, "default_max_image_number": 10})
    assert load(tmp_path).defaults.settings == {"image_number": 10}
    write(tmp_path, {"defaults": {"image_number": 50}}, "config.json")
    with pytest.raises(BadConfig, match="image_number is 50; it must be at most max_image_number, which is 10"):
        load(tmp_path)


@pytest.mark.parametrize(("given", "kept"), [("Ann & Bo", "Ann & Bo"), ("", ""), (None, ""), ("None", "None")])
def test_who_made_the_pictures_is_a_choice_of_the_installation(tmp_path: Path, given: Any, kept: str) -> None:
    """D67: an empty name is nobody; it never becomes the word None."""
    assert load(tmp_path).created_by == ""
    write(tmp_path, {"metadata_created_by": given})
    assert load(tmp_path).created_by == kept
    write(tmp_path, {"created_by": given or ""}, "config.json")
    assert load(tmp_path).created_by == kept


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        10**30,
        10**400,
        1e308,
        float("inf"),
        "x",
        "\ud800",
        "x" * 10**5,
        [],
        [[]],
        [[[]]],
        {},
        {"a": {}},
        [None] * 99,
    ],
    ids=lambda value: repr(value)[:12],
)
def test_no_value_of_any_key_stops_a_start(tmp_path: Path, value: Any) -> None:
    write(tmp_path, dict.fromkeys([*PATHS, *OTHERS], value))
    config = load(tmp_path)
    Settings(**config.defaults.settings)


def test_a_broken_file_of_the_reference_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.txt").write_text('{"path_outputs": "C:\\outputs",}')
    config = load(tmp_path)
    assert config.outputs == tmp_path / "outputs"
    assert "config.txt cannot be read" in config.notices[0] and "write it twice" in config.notices[0]


def test_a_broken_file_that_a_variable_names_is_told_too(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"config_path": "x" * 5000}).notices[0].endswith("there is no such file.")
    assert "~nobody/x" in load(tmp_path, environ={"config_path": "~nobody/x"}).notices[0]


def test_what_is_left_out_is_told_once_with_where_it_is_from(tmp_path: Path) -> None:
    """D28: these are the sentences that the page shows."""
    write(
        tmp_path,
        {"default_cfg_scale": "high", "default_max_lora_number": 0, "checkpoint_downloads": {"x": "http://a/b"}},
    )
    write(tmp_path, {"lorafile_path": 5, "default_sampler": "magic"}, "user_path_config.txt")
    write(tmp_path, {"defaults": {"default_uov_method": "Disabled", "downloads": {"cakes": {}}}}, "config.json")
    notices = load(tmp_path, environ={"default_scheduler": "slow"}).notices
    for where, words in (
        ("config.txt", "default_cfg_scale: guidance_scale is 'high'"),
        ("config.txt", "default_max_lora_number is 0; it must be a whole number from 1 to 50."),
        ("config.txt", "'x' is no safetensors file"),
        ("user_path_config.txt", "path_loras is 5"),
        ("user_path_config.txt", "default_sampler: sampler is 'magic'"),
        ("the environment", "default_scheduler: scheduler is 'slow'"),
        (f"defaults of {tmp_path / 'config.json'}", "these mean nothing here: default_uov_method."),
        (f"defaults of {tmp_path / 'config.json'}", "downloads has 'cakes'"),
    ):
        assert [notice for notice in notices if words in notice and notice.startswith(f"In {where}: ")], (
            words,
            notices,
        )
    assert len(notices) == 8


@pytest.mark.parametrize(
    ("theirs", "ours", "kept"),
    [
        ({"default_loras_min_weight": 3}, {}, (-2.0, 2.0)),
        ({"default_loras_min_weight": 3, "default_loras_max_weight": -3}, {}, (-2.0, 2.0)),
        ({"default_loras_min_weight": 1, "default_loras_max_weight": 3}, {"lora_max_weight": 0}, (-2.0, 0.0)),
    ],
)
def test_a_least_lora_weight_above_the_greatest_is_told_and_left_out(
    tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], kept: tuple[float, float]
) -> None:
    write(tmp_path, theirs)
    write(tmp_path, ours, "config.json")
    config = load(tmp_path)
    assert (config.lora_min_weight, config.lora_max_weight) == kept
    assert config.notices[0].startswith("In config.txt: with default_loras_min_weight ")


def test_what_is_not_offered_is_told_and_left_out(tmp_path: Path) -> None:
    """Section 3.3: styles that there are, a size of the list, a list of several sizes, a whole step."""
    values = {
        "default_styles": ["Fooocus V2", "No such style"],
        "available_aspect_ratios": ["1024*1024", "896*1152"],
        "default_aspect_ratio": "768*768",
        "default_overwrite_switch": 12.5,
    }
    write(tmp_path, values)
    config = load(tmp_path)
    assert config.defaults.settings == {} and len(config.notices) == 3
    for words in ("'No such style'; there is no such style", "it must be one of: 1024*1024, 896*1152", "whole number"):
        assert words in " ".join(config.notices)
    write(tmp_path, {**values, "default_styles": ["fooocus v2", "SAI Anime"], "available_aspect_ratios": ["768*768"]})
    config = load(tmp_path)
    assert config.defaults.settings == {"styles": ("fooocus v2", "SAI Anime")}
    assert "two or more sizes" in config.notices[0] and len(config.aspect_ratios) == 26


def test_a_variable_may_name_several_folders(tmp_path: Path) -> None:
    config = load(tmp_path, environ={"path_loras": f'["{tmp_path / "a"}", "{tmp_path / "b"}"]', "path_vae": "[v]"})
    assert config.model_folders["loras"] == (tmp_path / "a", tmp_path / "b")
    assert config.model_folders["vae"] == (tmp_path / "[v]",)


def test_our_file_wins_over_theirs_and_their_variables_over_their_file(tmp_path: Path) -> None:
    write(
        tmp_path, {"path_outputs": "theirs", "default_cfg_scale": 5, "default_clip_skip": 3, "default_image_number": 4}
    )
    write(tmp_path, {"defaults": {"guidance_scale": 8}, "outputs": "ours"}, "config.json")
    config = load(
        tmp_path, environ={"default_clip_skip": "1", "path_outputs": "x", "default_save_metadata_to_images": "False"}
    )
    assert config.outputs == tmp_path / "ours"
    assert config.defaults.settings == {"guidance_scale": 8, "clip_skip": 1, "image_number": 4, "save_metadata": False}


def test_the_oldest_form_and_another_place_are_read_too(tmp_path: Path) -> None:
    write(tmp_path, {"modelfile_path": "old/models", "temp_outputs_path": "old/out"}, "user_path_config.txt")
    config = load(tmp_path)
    assert config.checkpoints == (tmp_path / "old/models",) and config.outputs == tmp_path / "old/out"
    write(tmp_path / "data", {"path_outputs": "elsewhere"}, "my_config.txt")
    config = load(
        tmp_path, environ={"config_path": str(tmp_path / "data/my_config.txt"), "HF_MIRROR": "https://m.example/"}
    )
    assert config.hf_mirror == "https://m.example"


def test_models_of_other_programs_are_used_in_place_after_ones_own(tmp_path: Path) -> None:
    fooocus, a1111, comfyui = tmp_path / "Fooocus", tmp_path / "webui", tmp_path / "ComfyUI"
    tensors(fooocus / "models/checkpoints/f.safetensors", "a")
    tensors(tmp_path / "disk/g.safetensors", "a")
    there = [str(tmp_path / "disk"), "~nobody_at_all/models", "\ud800", "models/checkpoints"]
    write(fooocus, {"path_checkpoints": there, "path_outputs": "/"})
    (fooocus / "wildcards").mkdir()
    tensors(a1111 / "models/Stable-diffusion/a.safetensors", "a")
    tensors(a1111 / "models/Lora/l.safetensors", "a")
    tensors(a1111 / "embeddings/e.safetensors", "a")
    tensors(comfyui / "models/checkpoints/sub/c.safetensors", "a")
    tensors(comfyui / "models/clip/t.safetensors", "a")
    tensors(comfyui / "models/unet/u.safetensors", "input_blocks.0.0.weight")
    before = sorted(tmp_path.rglob("*"))
    programs = {"fooocus": str(fooocus), "a1111": [str(a1111)], "comfyui": str(comfyui)}
    write(tmp_path / "easel", {"use_models_of": programs}, "config.json")
    config = load(tmp_path / "easel")
    catalog = Catalog(config.checkpoints, others=config.model_folders)
    assert catalog.names() == ["a.safetensors", "f.safetensors", "g.safetensors", "sub/c.safetensors", "u.safetensors"]
    assert [catalog.files(kind).names() for kind in ("loras", "embeddings", "text_encoders")] == [
        ["l.safetensors"],
        ["e.safetensors"],
        ["t.safetensors"],
    ]
    own = tmp_path / "easel"
    assert config.checkpoints[0] == own / "models/checkpoints" and config.outputs == own / "outputs"
    assert config.wildcards == (own / "wildcards", fooocus / "wildcards")
    assert sorted(path for path in tmp_path.rglob("*") if own not in (path, *path.parents)) == before


def test_whole_models_in_the_hugging_face_cache_are_told_by_what_they_hold(tmp_path: Path) -> None:
    hub = tmp_path / "hf/hub"

    def snapshot(repository: str, revision: str = "abc") -> Path:
        return hub / f"models--{repository}" / "snapshots" / revision

    blob = tensors(hub / "models--a--sdxl/blobs/1", "model.diffusion_model.x")
    for revision in ("abc", "def"):
        snapshot("a--sdxl", revision).mkdir(parents=True)
        (snapshot("a--sdxl", revision) / "sdxl.safetensors").symlink_to(blob)
    tensors(snapshot("b--lora") / "style.safetensors", "lora_unet_x.lora_down.weight")
    tensors(snapshot("g--lora") / "style.safetensors", "lora_unet_x.lora_down.weight", "another")
    tensors(snapshot("c--vae") / "vae.safetensors", "decoder.up.0.block.0.conv1.weight")
    tensors(snapshot("d--parts") / "unet/diffusion_pytorch_model.safetensors", "down_blocks.0.x")
    tensors(snapshot("d--parts") / "vae_1_0/diffusion_pytorch_model.safetensors", "decoder.up_blocks.0.x")
    tensors(snapshot("h--favourites") / "fav/anime.safetensors", "model.diffusion_model.y")
    tensors(snapshot("i--network") / "network.safetensors", "input_blocks.0.0.weight")
    tensors(snapshot("e--language") / "model-00001-of-00002.safetensors", "model.layers.0.mlp.up_proj.weight")
    (snapshot("f--broken")).mkdir(parents=True)
    (snapshot("f--broken") / "x.safetensors").write_bytes(b"nothing")
    write(tmp_path, {"use_models_of": {"huggingface": True}}, "config.json")
    config = load(tmp_path, environ={"HF_HOME": str(tmp_path / "hf")})
    catalog = Catalog(config.checkpoints, others=config.model_folders)
    whole = ["a--sdxl/sdxl.safetensors", "h--favourites/fav/anime.safetensors", "i--network/network.safetensors"]
    assert catalog.names() == whole and all(catalog.find(name).is_file() for name in whole)
    assert catalog.find("a--sdxl/sdxl.safetensors").read_bytes() == blob.read_bytes()
    assert catalog.files("vae").names() == ["c--vae/vae.safetensors"]
    # Repositories call their files alike.
    assert catalog.files("loras").names() == ["b--lora/style.safetensors", "g--lora/style.safetensors"]


def test_private_folders_of_another_program_are_told_and_all_others_used(
    tmp_path: Path, unreadable: Callable[[Path], None]
) -> None:
    fooocus = tmp_path / "Fooocus"
    tensors(fooocus / "models/checkpoints/f.safetensors", "a")
    (fooocus / "wildcards").mkdir()
    tensors(tmp_path / "easel/models/checkpoints/own.safetensors", "a")
    write(tmp_path / "easel", {"use_models_of": {"fooocus": str(fooocus)}}, "config.json")
    unreadable(fooocus / "models")
    config = load(tmp_path / "easel")
    assert Catalog(config.checkpoints, others=config.model_folders).names() == ["own.safetensors"]
    assert config.wildcards[-1] == fooocus / "wildcards"
    [notice] = config.notices
    assert f"{fooocus / 'models/checkpoints'}, " in notice and notice.endswith(" cannot be read: Permission denied.")


def test_what_is_broken_in_the_hugging_face_cache_is_passed_over(
    tmp_path: Path, unreadable: Callable[[Path], None]
) -> None:
    hub = tmp_path / "hub"
    for repository in ("a--gone", "b--private", "c--lora"):
        tensors(hub / f"models--{repository}/snapshots/abc/style.safetensors", "lora_unet_x.lora_down.weight")
    (hub / "models--a--gone/snapshots/def").symlink_to(tmp_path / "nowhere")
    (hub / "models--d--file").write_bytes(b"")
    unreadable(hub / "models--b--private")
    write(tmp_path, {"use_models_of": {"huggingface": str(hub)}}, "config.json")
    names = Catalog((), others=load(tmp_path).model_folders).files("loras").names()
    assert names == ["a--gone/style.safetensors", "c--lora/style.safetensors"]


def test_a_hugging_face_cache_that_may_not_be_read_is_told(tmp_path: Path, unreadable: Callable[[Path], None]) -> None:
    (tmp_path / "hub").mkdir()
    unreadable(tmp_path / "hub")
    write(tmp_path, {"use_models_of": {"huggingface": str(tmp_path / "hub")}}, "config.json")
    with pytest.raises(BadConfig, match=r"cannot be read \(Permission denied\)"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ({"comfyui": "nothing/here"}, "no folder of comfyui; it has none of: models/checkpoints"),
        ({"photoshop": "x"}, "the programs are: fooocus, a1111"),
        ({"huggingface": "nothing"}, "no Hugging Face cache at"),
        ("C:/ComfyUI", "must be a JSON object"),
        ({"comfyui": True}, "path of a folder"),
    ],
)
def test_a_folder_that_is_not_the_programs_is_told(tmp_path: Path, programs: Any, told: str) -> None:
    write(tmp_path, {"use_models_of": programs}, "config.json")
    with pytest.raises(BadConfig, match=told):
        load(tmp_path)


def test_the_first_start_makes_a_file_that_changes_nothing_and_never_touches_it_again(tmp_path: Path) -> None:
    before = load(tmp_path)
    make_config_file(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    assert all(name.startswith("$") for name in values) and "docs/configuration.md" in values["$help"]
    assert load(tmp_path) == before
    file.write_text('{"port": 7000}')
    make_config_file(tmp_path)
    assert file.read_text() == '{"port": 7000}'


def test_a_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"port": 7001}')
    assert load(tmp_path).port == 7001


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"defaults": {"stepps": 3}},
            r"defaults of .*config\.json: there is no setting called 'stepps'. Did you mean 'steps'",
        ),
        ({"defaults": {"steps": 0}}, r"defaults of .*steps is 0"),
        (
            {"defaults": {"default_cfg_scale": "x"}},
            r"defaults of .*default_cfg_scale: guidance_scale is 'x'.* a number\.$",
        ),
        ({"defaults": {"default_cfg_scale": 5, "stepps": 3}}, "'stepps'. Did you mean 'steps'"),
        ({"defaults": {"styles": ["Ink Animee"]}}, r"'Ink Animee'; there is no such style\. Did you mean 'Ink Anime'"),
        ({"defaults": {"default_aspect_ratio": "768*768"}}, r"'768\*768'; it must be one of: 704\*1408, "),
        ({"defaults": []}, "must be a JSON object"),
        ({"default_cfg_scale": 3}, "a name of config.txt; here it is 'guidance_scale' in defaults"),
        ({"path_loras": "x"}, "here it is 'loras'"),
        ({"aspect_ratios": ["1000*1001"]}, "multiple of 8"),
        ({"aspect_ratios": ["wide"]}, "no size such as 1152"),
        ({"lora_min_weight": 3}, "lora_min_weight is 3, more than lora_max_weight, which is 2"),
        ({"lora_max_weight": float("nan")}, "a number from -10 to 10"),
        ({"lora_max_weight": 10**400}, "a number from -10 to 10"),
        ({"port": float("inf")}, "a whole number from 1 to 65535"),
        ({"outputs": "\ud800x"}, r"outputs in .* is '\\ud800x'; that is no folder"),
        ({"preset": "a\ud800"}, "a line of text"),
        ({"host": "not a host"}, r"host in .*config\.json is 'not a host'; it must be an address"),
        ({"host": "300.1.1.1"}, "it must be an address"),
        ({"max_image_number": 0}, "from 1 to 100"),
        ({"created_by": "two\nlines"}, "one line of text"),
        ({"created_by": 5}, "one line of text"),
        ({"hf_mirror": "http://mirror.example"}, "https://"),
        ({"download_hosts": "a,,b"}, "list of texts"),
    ],
)
def test_a_wrong_value_names_its_key_and_what_was_wanted(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    write(tmp_path, values, "config.json")
    with pytest.raises(BadConfig, match=told):
        load(tmp_path)


def test_lists_may_stand_in_variables_and_flags_name_the_mirror(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "--hf-mirror",
        "https://m.example",
        environ={
            "EASEL_CHECKPOINTS": json.dumps([str(tmp_path / "a"), str(tmp_path / "b")]),
            "EASEL_DEFAULTS": '{"steps": 9}',
        },
    )
    assert config.checkpoints == (tmp_path / "a", tmp_path / "b")
    assert config.defaults.settings == {"steps": 9} and config.hf_mirror == "https://m.example"


def test_the_reference_of_all_keys_is_up_to_date() -> None:
    assert DOC.read_text(encoding="utf-8") == text(), "run: python -m tools.make_configuration_docs"
    assert all(f"| `{name}` |" in text() for name in READERS) and all(key.help for key in KEYS.values())


def test_flags_of_the_reference_that_change_nothing_are_taken_and_told() -> None:
    args = arguments.parse(["--multi-user", "--temp-path", "/tmp/x", "--disable-analytics", "generate", "a cat"])
    assert args.command == "generate" and len(args.no_effect) == 3
    assert args.no_effect[0].startswith("--multi-user changes nothing: ")
    assert "no_effect" not in arguments.parse([])
