"""Keeping presets: saving, renaming, deleting with a way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import BadSetting
from core.presets import list_presets, load_preset
from core.presets_store import delete_preset, preset_diff, rename_preset, restore_preset, save_preset, trashed_presets
from core.settings import Lora, Settings

NOW = Settings(prompt="a cat", negative_prompt="dogs", seed=7, steps=12, loras=(Lora("a.safetensors", 0.5),))


def test_only_what_differs_is_saved_and_comes_back(tmp_path: Path) -> None:
    file = save_preset("My look", NOW, tmp_path / "new", description="soft")
    values = json.loads(file.read_text(encoding="utf-8"))
    assert set(values) == {"version", "description", "negative_prompt", "steps", "loras"}
    preset = load_preset("My look", tmp_path / "new")
    assert preset.description == "soft" and not preset.notes
    assert Settings(**{**preset.settings, "prompt": "a cat", "seed": 7}) == NOW


def test_what_would_be_saved_is_told_before_and_never_holds_the_seed() -> None:
    assert preset_diff(NOW, Settings()) == {
        "negative_prompt": ("", "dogs"),
        "steps": (30, 12),
        "loras": ((), (Lora("a.safetensors", 0.5),)),
    }
    other = Settings(steps=12, negative_prompt="dogs")
    assert preset_diff(NOW, other, with_prompt=True).keys() == {"prompt", "loras"}


def test_what_the_checkpoint_would_make_otherwise_is_saved_too() -> None:
    recommended = Settings(steps=12, guidance_scale=7.0, sharpness=0.0)
    held = preset_diff(NOW, Settings(), recommended)
    assert held["guidance_scale"] == (7.0, Settings().guidance_scale) and held["sharpness"] == (0.0, 2.0)
    assert held["steps"] == (30, 12)  # it differs from the defaults alone


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    own, program = tmp_path / "own", tmp_path / "program"
    program.mkdir()
    (program / "fast.json").write_text("{}")
    save_preset("look", NOW, own)
    for name in ("look", "LOOK", "fast", "Fast"):
        with pytest.raises(BadSetting, match="already"):
            save_preset(name, Settings(steps=3), own, taken=[program])
    assert load_preset("look", own).settings["steps"] == 12
    assert list_presets(own) == ["look"]


def test_replacing_keeps_description_and_downloads_and_the_old_file_in_the_trash(tmp_path: Path) -> None:
    downloads = {"loras": {"a.safetensors": {"url": "https://huggingface.co/a"}}}
    (tmp_path / "look.json").write_text(json.dumps({"description": "mine", "downloads": downloads, "steps": 5}))
    save_preset("look", NOW, tmp_path, replace=True)
    preset = load_preset("look", tmp_path)
    assert preset.description == "mine" and preset.settings["steps"] == 12 and preset.downloads["loras"]
    assert json.loads(trashed_presets(tmp_path)[0].path.read_text())["steps"] == 5


def test_replacing_a_preset_of_the_reference_keeps_its_downloads_and_older_models(tmp_path: Path) -> None:
    address = "https://huggingface.co/a/b/resolve/main/"
    theirs = {
        "default_cfg_scale": 3.0,
        "previous_default_models": ["old.safetensors"],
        "checkpoint_downloads": {"model.safetensors": f"{address}model.safetensors"},
        "lora_downloads": {"a.safetensors": f"{address}a.safetensors"},
    }
    (tmp_path / "look.json").write_text(json.dumps(theirs))
    before = load_preset("look", tmp_path)
    save_preset("look", NOW, tmp_path, replace=True)
    after = load_preset("look", tmp_path)
    assert (after.previous, after.downloads) == (before.previous, before.downloads) and len(after.downloads) == 2
    assert "guidance_scale" not in after.settings and not after.notes


def test_a_deleted_preset_can_be_brought_back(tmp_path: Path) -> None:
    save_preset("look", NOW, tmp_path)
    before = (tmp_path / "look.json").read_bytes()
    trashed = delete_preset("look", tmp_path)
    assert list_presets(tmp_path) == [] and trashed_presets(tmp_path) == [trashed]
    assert restore_preset(trashed, tmp_path).read_bytes() == before
    assert list_presets(tmp_path) == ["look"] and trashed_presets(tmp_path) == []


def test_the_trash_holds_several_of_one_name_and_none_replaces_a_new_one(tmp_path: Path) -> None:
    save_preset("look", NOW, tmp_path)
    first = delete_preset("look", tmp_path)
    save_preset("look", Settings(steps=3), tmp_path)
    second = delete_preset("look", tmp_path)
    assert first.path != second.path and len(trashed_presets(tmp_path)) == 2
    restore_preset(first, tmp_path)
    assert load_preset("look", tmp_path).settings["steps"] == 12
    assert restore_preset(second, tmp_path).stem == "look 2"
    assert load_preset("look", tmp_path).settings["steps"] == 12
    assert load_preset("look 2", tmp_path).settings["steps"] == 3
    assert trashed_presets(tmp_path) == []


def test_a_preset_gets_another_name_unless_it_is_taken(tmp_path: Path) -> None:
    save_preset("look", NOW, tmp_path)
    save_preset("other", NOW, tmp_path)
    with pytest.raises(BadSetting, match="already"):
        rename_preset("look", "Other", tmp_path)
    rename_preset("look", "better look", tmp_path)
    rename_preset("other", "Other", tmp_path)
    assert list_presets(tmp_path) == ["better look", "Other"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "con", "a\nb", "x" * 100])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:  # E11
    folder = tmp_path / "own"
    save_preset("look", NOW, folder)
    for attempt in (
        lambda: save_preset(name, NOW, folder),
        lambda: save_preset(name, NOW, folder, replace=True),
        lambda: rename_preset("look", name, folder),
        lambda: rename_preset(name, "new", folder),
        lambda: delete_preset(name, folder),
    ):
        with pytest.raises(BadSetting):
            attempt()
    assert [path.name for path in tmp_path.rglob("*.json")] == ["look.json"]


def test_the_programs_presets_cannot_be_deleted_or_renamed(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="the program's own are never changed"):
        delete_preset("default", tmp_path)
    with pytest.raises(BadSetting, match="never changed"):
        rename_preset("default", "mine", tmp_path)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="cannot be stored in"):
        save_preset("look", NOW, tmp_path / "file" / "presets")
