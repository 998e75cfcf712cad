"""The preset card over real files: a preset whose files are not there yet, and what happens when they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.presets import settings_of
from core.presets_shelf import Shelf
from core.weights.files import Catalog
from webui.app import App
from webui.page import build_page

ROOT = Path(__file__).parents[2]
EMBEDDED = "easel-emoji-256.safetensors"
HERS = {"base_model": "hers.safetensors", "steps": 33, "sampler": "heun", "negative_prompt": "bad"}


class Page:
    """A page without a browser: what its parts hold, and its events, called as they come."""

    def __init__(self, app: App) -> None:
        async def story() -> Any:  # where an event loop runs: Gradio makes one otherwise, and leaves it open
            return build_page(app)

        with ThreadPoolExecutor(1) as thread:
            self.blocks = thread.submit(asyncio.run, story()).result()
        self.parts = {part.elem_id: part for part in self.blocks.blocks.values() if getattr(part, "elem_id", None)}
        self.now = {part: getattr(part, "value", None) for part in self.parts.values()}
        self.act("", "load", json.dumps({}))

    def __getitem__(self, name: str) -> Any:
        return self.now[self.parts[name]]

    def act(self, name: str, event: str, *given: Any) -> None:
        """What `event` of the part `name` does, and what follows it."""
        part = self.parts[name]._id if name else self.blocks._id
        self._follow([fn for fn in self.blocks.fns.values() if (part, event) in fn.targets], given)

    def choose(self, name: str) -> None:
        self.now[self.parts["preset"]] = name
        self.act("preset", "input")

    def _follow(self, functions: list[Any], given: tuple[Any, ...]) -> None:
        for fn in functions:
            if fn.fn is None or fn.name == "watch":  # for the browser
                continue
            values = {part: self.now.get(part) for part in fn.inputs}
            request = [SimpleNamespace(headers={"cookie": "easel_owner=" + 43 * "a"})] if given else []
            updates = fn.fn(*given, *request) if given else fn.fn(values)
            for part, update in updates.items():
                is_update = isinstance(update, dict) and update.get("__type__") == "update"
                if not is_update or "value" in update:
                    self.now[part] = update["value"] if is_update else update
            self._follow([then for then in self.blocks.fns.values() if then.trigger_after == fn._id], ())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / EMBEDDED).symlink_to(ROOT / "models" / "checkpoints" / EMBEDDED)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "hers.json").write_text(json.dumps(HERS))
    return folder


@pytest.fixture
def page(app: App, files: Path) -> Iterator[Page]:
    catalog = Catalog([files])
    shelf = Shelf(catalog=catalog, own=files.parent / "presets", program=ROOT / "presets", stand_in="easel")
    yield Page(
        App(
            worker=app.worker,
            lora_info=app.lora_info,
            models=catalog.names,
            native_size=lambda name: catalog.info(name or catalog.default()).native_size,
            defaults=lambda name: settings_of(catalog, {}, {"base_model": name} if name else {}),
            shelf=shelf,
        )
    )


def come(files: Path) -> None:
    (files / "hers.safetensors").symlink_to(files / EMBEDDED)


def test_files_that_came_are_used_and_what_was_changed_since_the_choice_stays(page: Page, files: Path) -> None:
    page.now[page.parts["guidance_scale"]] = 5.5
    page.choose("hers")
    assert page["base_model"] == EMBEDDED and "which is not there" in page["preset_told"]
    page.now[page.parts["positive_prompt"]] = "a lighthouse"
    page.now[page.parts["sharpness"]] = 3.0
    page.act("preset_again", "click")
    assert page["base_model"] == EMBEDDED  # nothing has come
    come(files)
    page.act("preset_again", "click")
    assert (page["base_model"], page["steps"], page["sampler"]) == ("hers.safetensors", 33, "heun")
    assert (page["positive_prompt"], page["negative_prompt"]) == ("a lighthouse", "bad")
    assert (page["sharpness"], page["guidance_scale"]) == (3.0, 5.5)
    assert "which is not there" not in page["preset_told"]
    page.act("preset_undo", "click")
    assert (page["preset"], page["base_model"], page["negative_prompt"]) == ("default", EMBEDDED, "")
    assert (page["positive_prompt"], page["guidance_scale"]) == ("a lighthouse", 5.5)


def test_a_file_put_there_by_hand_is_used_after_refresh(page: Page, files: Path) -> None:
    page.choose("hers")
    come(files)
    page.act("refresh_models", "click")
    assert (page["base_model"], page["steps"]) == ("hers.safetensors", 33)
    assert "which is not there" not in page["preset_told"]


def test_a_file_that_came_while_no_page_was_open_is_used_when_one_is_opened(page: Page, files: Path) -> None:
    page.choose("hers")
    kept = {"preset": page["preset_before"], "came_to": page["preset_came_to"], "base_model": EMBEDDED, "steps": 21}
    come(files)
    page.act("", "load", json.dumps(kept))
    assert (page["base_model"], page["sampler"], page["steps"]) == ("hers.safetensors", "heun", 21)


def test_no_file_that_came_makes_other_settings_of_a_preset_that_lacked_none(page: Page, files: Path) -> None:
    page.now[page.parts["steps"]] = 9
    come(files)
    for part, event in (("refresh_models", "click"), ("preset_again", "click")):
        page.act(part, event)
    assert (page["base_model"], page["steps"]) == (EMBEDDED, 9)


def test_a_preset_that_is_undone_renamed_or_kept_says_what_it_lacks(page: Page) -> None:
    page.choose("hers")
    page.choose("default")
    assert "which is not there" not in page["preset_told"]
    page.act("preset_undo", "click")
    assert page["preset"] == "hers" and "which is not there" in page["preset_told"]
    page.now[page.parts["preset_name"]] = "theirs"
    page.act("preset_rename", "click")
    assert page["preset"] == "theirs" and "download --preset hers" not in page["preset_told"]
    assert "hers.safetensors" in page["preset_told"]
    page.now[page.parts["preset_name"]] = "of_today"
    page.act("preset_save", "click")
    assert page["preset"] == "of_today" and "which is not there" not in page["preset_told"]


def test_another_model_keeps_what_a_preset_says_that_is_for_any(page: Page, files: Path) -> None:
    come(files)
    page.choose("fast")
    assert (page["steps"], page["sampler"]) == (15, "dpmpp_2m")
    page.now[page.parts["base_model"]] = "hers.safetensors"
    page.act("base_model", "input")
    assert (page["steps"], page["sampler"], page["model_of_values"]) == (15, "dpmpp_2m", "hers.safetensors")
    page.choose("hers")
    page.now[page.parts["base_model"]] = EMBEDDED
    page.act("base_model", "input")
    assert (page["steps"], page["sampler"]) == (25, "dpmpp_2m")


def test_files_of_the_last_visit_that_are_gone_are_told_and_the_sizes_of_the_model_go_with_it(page: Page) -> None:
    kept = {
        "base_model": "gone.safetensors",
        "vae": "soft.safetensors",
        "width": 1152,
        "height": 896,
        "prompt": "a fox",
    }
    page.act("", "load", json.dumps(kept))
    assert "gone.safetensors" in page["message"] and "soft.safetensors" in page["message"]
    assert (page["base_model"], page["width"], page["positive_prompt"]) == (EMBEDDED, 256, "a fox")


def test_the_settings_of_a_grid_come_back_with_a_reload(page: Page) -> None:
    page.act("", "load", json.dumps({"grid_x": "guidance_scale", "grid_y": "seed"}))
    assert (page["grid_x"], page["grid_y"]) == ("guidance_scale", "seed")
    page.act("", "load", json.dumps({"grid_x": "hat", "grid_y": ["seed"]}))
    assert (page["grid_x"], page["grid_y"]) == ("guidance_scale", "seed")
