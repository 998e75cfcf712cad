"""What settings from elsewhere change in the page, and what they leave alone."""

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from foreign_samples import A1111, COMFYUI, FOOOCUS, FOOOCUS_RECORD, INVOKEAI_OLD
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.requests import Request

from core.errors import UserError
from core.output.metadata import read_settings, read_settings_text, to_json
from core.output.reading import MOST_UNKNOWN
from core.output.record import Record
from core.presets import load_preset
from core.settings import Lora, Settings
from tests.webui.stand_in import settings_of
from webui.controls import CONTROLS, shown
from webui.reuse import PLAIN, TAKEN_AT_ONCE, as_text, read_route, reused, understood
from webui.visitors import COOKIE

PAGE = Settings(
    prompt="a bear", negative_prompt="fog", base_model="small.safetensors", width=256, height=320, image_number=3, seed=7,
    steps=12, styles=("Line Art",), loras=(Lora("ink.safetensors", 0.5),), freeu=True, output_format="webp", vae="soft.safetensors",
)  # fmt: skip


@pytest.fixture
def app(app):
    preset = {"styles": ("Low Poly",), "performance": "lightning", "sharpness": 9.0}
    return replace(app, defaults=lambda name: replace(settings_of(name), **preset), recommended=settings_of)


def changed(text, app, **page):
    changes, found = reused(text, app, shown(replace(PAGE, **page)))
    assert changes.keys() <= {*CONTROLS, "any_seed"}
    return changes, found


def dropped(text, app, **page):
    """The same for a picture that has `text` in it: its settings come by way of the browser."""
    return changed(understood(read_settings(png_of(text)), app).to_text(), app, **page)


def png_of(text):
    info, file = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def asked(story):
    """The result of a coroutine, on a loop of its own: in this thread playwright may be running one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, story).result()


def upload(receive):
    """A request for the settings of the picture that `receive` gives."""
    return Request(
        {"type": "http", "method": "POST", "headers": [(b"cookie", f"{COOKIE}={'a' * 43}".encode())]}, receive
    )


def test_few_pictures_are_taken_into_memory_at_once_and_the_next_ones_wait_unsent(app):
    async def story():
        route, send, begun = read_route(app), asyncio.Event(), []

        async def receive():
            begun.append(None)
            await send.wait()
            return {"type": "http.request", "body": png_of('{"steps": 20}'), "more_body": False}

        answers = [asyncio.create_task(route.endpoint(upload(receive))) for _ in range(TAKEN_AT_ONCE + 2)]
        await asyncio.sleep(0.05)
        before = len(begun)
        send.set()
        return before, [json.loads((await answer).body)["settings"] for answer in answers]

    before, found = asked(story())
    assert before == TAKEN_AT_ONCE and [each["steps"] for each in found] == [20] * (TAKEN_AT_ONCE + 2)


@pytest.mark.parametrize("ends", [False, True])
def test_a_picture_that_does_not_come_keeps_nobody_waiting(app, monkeypatch, ends):
    monkeypatch.setattr("webui.reuse.SLOWEST", 0.05)

    async def receive():
        await asyncio.sleep(0 if ends else 3600)
        return {"type": "http.disconnect"}

    assert asked(read_route(app).endpoint(upload(receive))).status_code == 408


def test_d25_a_part_of_settings_changes_only_what_it_contains(app):
    """D25: pasting {"steps": 20} used to empty every other control, set the seed to 0 and untick Random."""
    assert changed('{"steps": 20}', app)[0] == {"steps": 20}
    assert changed('{"seed": 5}', app)[0] == {"seed": "5", "any_seed": False}
    assert changed('{"styles": ["Low Poly"], "vae": ""}', app)[0] == {"styles": '["Low Poly"]', "vae": ""}
    assert changed('{"Sharpness": 4, "Image Number": 2}', app)[0] == {"sharpness": 4.0, "image_number": 2}


@pytest.mark.parametrize("part", [{"prompt": "a fox", "metadata_scheme": "fooocus"}, {"prompt": "a fox", "steps": 9}])
def test_d25_a_picture_with_a_part_of_settings_changes_only_what_it_contains(app, part):
    assert dropped(json.dumps(part), app)[0] == {name: part[name] for name in part if name != "metadata_scheme"}


def test_only_a_picture_of_fooocus_turns_its_mistakes_and_its_noise_on_and_the_next_one_turns_them_off(app):
    page = {"strict_compatibility": True, "noise_device": "device"}
    changes, found = dropped(json.dumps(FOOOCUS_RECORD | {"scheduler": "turbo"}), app)
    assert {name: changes[name] for name in page} == page and found.unused == ()
    for text in (A1111, to_json(Record(PAGE))):
        changes, _ = dropped(text, app, **page)
        assert (changes["strict_compatibility"], changes["noise_device"]) == (False, "cpu")
    assert changed('{"scheduler": "turbo"}', app)[0] == {"scheduler": "turbo"}


def test_a_whole_picture_stays_one_when_some_of_it_cannot_be_used(app):
    """Fooocus notes the size of an enlarged picture, which may be none that a picture can be made in."""
    for record in (FOOOCUS, json.dumps(FOOOCUS_RECORD | {"sampler": "magic", "resolution": "(1023, 1531)"})):
        changes, found = dropped(record, app)
        assert found.whole and (changes["negative_prompt"], changes["loras"], changes["freeu"]) == (
            "blurry",
            "[]",
            False,
        )


def test_d25_no_settings_are_an_error_and_change_nothing(app):
    """D25: an empty object used to count as one that resets the page."""
    with pytest.raises(UserError, match="no setting"):
        changed("{}", app)


@pytest.mark.parametrize("text", [A1111, COMFYUI, INVOKEAI_OLD])
def test_a_picture_of_another_program_starts_from_its_checkpoint_and_from_nothing_else(app, text):
    """D25: what the picture does not say came from the preset: its styles, LoRAs and mode."""
    changes, _ = changed(text, app)
    read = read_settings_text(text)
    assert json.loads(changes["styles"]) == json.loads(changes["loras"]) == []
    assert (changes["performance"], changes["vae"], changes["freeu"]) == ("custom", "", False)
    assert {name: changes[name] for name in PLAIN} == PLAIN  # its program has no such helps
    assert changes["base_model"] == "small.safetensors"  # its own is not here
    assert changes["guidance_scale"] == read.settings["guidance_scale"]
    assert changes.keys().isdisjoint({"image_number", "output_format", "save_metadata", "preview", "image_grid"})


def test_the_preset_without_helps_turns_off_the_same_ones():
    settings = load_preset("plain_sdxl", Path(__file__).parents[2] / "presets").settings
    assert {name: settings[name] for name in PLAIN} == PLAIN


def test_the_recommendation_is_that_of_the_checkpoint_that_the_picture_names(app):
    text = "a cat\nSteps: 7, Sampler: Euler, Seed: 1, Model: large"
    changes, _ = changed(text, app)
    assert (changes["base_model"], changes["width"], changes["steps"]) == ("large.safetensors", 1152, 7)
    assert changed(text.replace("large", "gone"), app)[0]["width"] == 256


def test_a_seed_is_touched_only_if_there_is_one(app):
    changes, _ = changed("a cat\nSteps: 7, Sampler: Euler, CFG scale: 3", app)
    assert changes.keys().isdisjoint({"seed", "any_seed"})


def test_a_whole_picture_of_ours_gives_all_of_its_settings_back_however_it_comes(app):
    """The history's object has no wrapping; a key that Fooocus has too must not make it one of Fooocus's."""
    settings = replace(PAGE, prompt="a fox", image_number=2, seed=2**63 - 1, final_decoder="preview", freeu=False)
    for text in (as_text(settings), json.dumps(settings.to_dict()), to_json(Record(settings))):
        changes, found = changed(text, app)
        assert changes == shown(settings) | {"any_seed": False}
        assert (found.program, found.missing, found.unused) == ("", (), ())


def test_an_older_picture_of_ours_takes_nothing_from_the_page(app):
    old = {"prompt": "a fox", "seed": 1, "width": 256, "height": 256, "steps": 3, "sampler": "euler"}
    changes, _ = changed(json.dumps({"settings": old}), app)
    assert (changes["freeu"], changes["styles"], changes["negative_prompt"]) == (False, "[]", "")


def test_the_number_of_pictures_is_capped_at_the_configured_most(app):
    app = replace(app, max_image_number=8)
    assert changed('{"image_number": 50}', app)[0] == {"image_number": 8}


def test_a_value_that_the_mode_of_the_page_would_overrule_ends_the_mode(app):
    assert changed('{"steps": 20}', app, performance="lightning")[0] == {"steps": 20, "performance": "custom"}
    assert changed('{"steps": 4}', app, performance="lightning")[0] == {"steps": 4}
    assert changed('{"steps": 20, "performance": "speed"}', app)[0] == {"steps": 20, "performance": "speed"}


def test_the_text_of_the_settings_does_not_stay_in_the_prompt(app):
    assert changed('{"steps": 20}', app, prompt='{"steps": 20}')[0] == {"steps": 20, "prompt": ""}


def test_what_is_named_and_not_here_is_not_what_the_page_had(app):
    changes, found = changed('{"loras": [{"name": "lost", "weight": 1}], "base_model": "lost too"}', app)
    assert changes == {"loras": "[]"}
    assert found.missing == ("lost too", "lost")


def test_renamed_files_are_found_by_the_hashes_that_are_known(app):
    known = {"checkpoints": {"large.safetensors": "31e35c80fc" + "0" * 54}, "loras": {"felt.safetensors": "a1b2c3d4e5f6" + "0" * 52}}  # fmt: skip
    changes, found = changed(A1111, replace(app, hashes=lambda kind: known.get(kind, {})))
    assert changes["base_model"] == "large.safetensors"
    assert json.loads(changes["loras"]) == [{"name": "felt.safetensors", "weight": 0.7, "enabled": True}]
    assert "oil_paint" not in found.missing


def test_the_styles_of_a_fooocus_text_are_recovered_with_the_library_of_the_page(app):
    style = next(
        style for style in app.resources.styles.read() if "{prompt}" in style.prompt and "\n" not in style.prompt
    )
    text = (
        f"{style.prompt.replace('{prompt}', 'a fox')}\nNegative prompt: {style.negative_prompt}\n"
        'Steps: 30, Sampler: Euler, Seed: 1, Raw prompt: "a fox", Raw negative prompt: "", Version: Fooocus v2.5.5'
    )
    changes, found = changed(text, app)
    assert json.loads(changes["styles"]) == [style.name]
    assert (found.program, found.missing, found.unused) == ("Fooocus", (), ())


def test_all_that_cannot_be_used_is_named_within_reason(app):
    keys = {f"key{i:03}": i for i in range(1000)}
    loras = [{"name": f"lora{i:02}", "weight": 1} for i in range(14)]
    found = understood(read_settings_text(json.dumps({"steps": 1, "loras": loras, **keys})), app)
    assert found.missing == tuple(lora["name"] for lora in loras)
    assert found.unused == tuple(f"key{i:03} ({i})" for i in range(MOST_UNKNOWN))


def test_a_value_that_cannot_be_used_is_told_if_it_is_short(app):
    found = understood(read_settings_text(A1111), app)
    assert {"Denoising strength (0.35)", "Hires steps (12)"} <= {*found.unused}
    found = understood(read_settings_text('{"steps": 1, "a": {"b": 1}, "c": "two words", "d": ""}'), app)
    assert found.unused == ("a ({...})", "c", "d")
