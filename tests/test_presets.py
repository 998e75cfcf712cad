"""Presets, and which of defaults, checkpoint, preset and user decides a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSetting
from core.presets import list_presets, load_preset, settings_for
from core.settings import Settings


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
    for name in ("b.json", "default.json", "a.json", "notes.txt", ".hidden.json"):
        (tmp_path / name).write_text("{}")
    assert list_presets(tmp_path) == ["default", "a", "b"]
    assert list_presets(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["../auth", "a/b", "a\\b", "", "..", "a\0b", "a\nb", "C:x", "x" * 200, ".hidden"])
def test_a_preset_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSetting, match="no path"):
        load_preset(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"guidance_scal": 3}', "Did you mean 'guidance_scale'"),
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
def test_every_preset_that_is_shipped_loads_and_says_only_what_differs(name: str) -> None:
    values = load_preset(name, SHIPPED)
    usual = Settings().to_dict()
    assert all(usual[key] != value for key, value in values.items())
