"""Shelf: a preset of one's own comes back as it was saved, whatever checkpoint and configuration would make of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from core.presets import Preset
from core.presets_shelf import Shelf
from core.settings import Settings
from core.weights.files import Catalog

ROOT = Path(__file__).parents[1]
EMBEDDED = "easel-emoji-256.safetensors"


def shelf(own: Path, **defaults: object) -> Shelf:
    catalog = Catalog([ROOT / "models" / "checkpoints"])
    return Shelf(catalog=catalog, own=own, program=ROOT / "presets", defaults=Preset(name="", settings=defaults))


def test_a_value_that_is_the_default_is_saved_where_the_checkpoint_recommends_another(tmp_path: Path) -> None:
    presets = shelf(tmp_path)
    plain = Settings()
    recommended = presets.settings("easel")
    assert (recommended.steps, recommended.sharpness) != (plain.steps, plain.sharpness)
    presets.save("mine", Settings(base_model=EMBEDDED))
    assert presets.settings("mine") == Settings(base_model=EMBEDDED)


def test_a_value_that_is_the_default_is_saved_where_the_configuration_has_another(tmp_path: Path) -> None:
    presets = shelf(tmp_path, scheduler="normal", output_format="webp")
    assert presets.settings("easel").output_format == "webp"
    presets.save("mine", Settings(base_model=EMBEDDED))
    assert presets.settings("mine") == Settings(base_model=EMBEDDED)


def test_a_checkpoint_that_is_gone_hinders_no_saving(tmp_path: Path) -> None:
    shelf(tmp_path).save("mine", Settings(base_model="gone.safetensors", steps=7))
    assert shelf(tmp_path).own_names() == ["mine"]


def test_what_a_deleted_preset_brought_goes_with_it_and_what_was_changed_since_stays(tmp_path: Path) -> None:
    presets = shelf(tmp_path)
    presets.save("mine", Settings(base_model=EMBEDDED, steps=7, prompt="a cat"), with_prompt=True)
    now = replace(presets.settings("mine"), image_number=9)
    settings, choice = presets.delete("mine", now)
    start = presets.settings("default")
    assert choice.preset.name == "default" and presets.own_names() == []
    assert (settings.steps, settings.image_number) == (start.steps, 9)
    assert presets.switched(settings, "default", presets.restore())[0] == now


def test_a_name_counts_as_taken_in_small_and_large_letters(tmp_path: Path) -> None:
    presets = shelf(tmp_path)
    presets.save("mine", Settings(steps=7))
    assert [presets.own_name(name) for name in ("MINE", "mine", "other", "default")] == ["mine", "mine", "", ""]
    presets.save(presets.own_name("MINE"), Settings(steps=8), overwrite=True)
    assert presets.own_names() == ["mine"] and presets.settings("mine").steps == 8


def test_what_was_deleted_last_comes_back_first_whenever_it_was_saved(tmp_path: Path) -> None:
    presets = shelf(tmp_path)
    for name, saved in (("old", 1_000), ("new", 2_000)):
        presets.save(name, Settings(steps=7))
        os.utime(tmp_path / f"{name}.json", (saved, saved))
    presets.delete("new", Settings(base_model=EMBEDDED))
    presets.delete("old", Settings(base_model=EMBEDDED))
    assert [presets.restore(), presets.restore()] == ["old", "new"]
