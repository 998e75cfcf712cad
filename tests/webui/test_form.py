"""The form of the page: what it shows for settings, what modes lock in it, and that nothing of the user's is lost."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import gradio as gr
import pytest

from core.errors import ModelNotFound
from core.performance import effective
from core.settings import Settings
from webui.app import App
from webui.controls import CONTROLS, FORCEABLE, shown
from webui.form import Beside, Form, mode_of, own_values, remembered_beside, told_mode
from webui.generate import Desk
from webui.orders import PUT_BACK, Orders
from webui.page import build_page
from webui.tabs.place import Placed

FILES = {"vae": ["soft.safetensors"], "text_encoders": []}
MODELS = ["anime.safetensors", "small.safetensors"]


def recommended(name: str) -> Settings:
    """The stand-in's models recommend different numbers of steps."""
    if name not in ("", *MODELS):
        raise ModelNotFound(f"There is no checkpoint {name!r}.")
    return Settings(base_model=name or MODELS[1], steps=20 if name == MODELS[0] else 25, guidance_scale=3.0)


def built(make):
    """What `make` gives, called where an event loop runs: Gradio makes one otherwise, and leaves it open."""

    async def story():
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, story()).result()


@pytest.fixture
def models():
    return list(MODELS)


@pytest.fixture
def form(app, models):
    plain = {field: getattr(app, field) for field in ("worker", "lora_info")}
    app = App(models=lambda: models, native_size=lambda name: (256, 256), defaults=recommended,
              files=lambda kind: FILES.get(kind, []), **plain)  # fmt: skip

    def make():
        with gr.Blocks():
            placed = Placed(recommended(""))
            for name in CONTROLS:
                options = {"choices": [(n, n) for n in models]} if name in ("base_model", "refiner_model") else {}
                options = {"choices": []} if name in ("vae", "text_encoder_l", "text_encoder_g") else options
                placed.put(name, **options)
            hidden = partial(gr.Textbox, visible="hidden")
            boxes = gr.Checkbox(), gr.Dropdown([]), gr.HTML(), gr.HTML(), hidden("{}"), hidden(MODELS[1])
            return Form(app, placed, *boxes)

    return built(make)


def page_of(form: Form, **values):
    """What the page would send: the controls' values, and in `own` and `model` what stands beside them."""
    beside = {form.own: json.dumps(values.pop("own", {})), form.model: values.pop("model", MODELS[1])}
    by_name = shown(recommended("")) | values
    return {**{form.controls[name]: by_name[name] for name in CONTROLS}, form.any_seed: False, **beside}


def after(form: Form, page, updates):
    """The page after `updates`, and which controls are locked then."""
    new, locked = dict(page), set()
    for component, update in updates.items():
        if isinstance(update, dict) and update.get("__type__") == "update":
            if "value" in update:
                new[component] = update["value"]
            if update.get("interactive") is False:
                locked.add(next(name for name, control in form.controls.items() if control is component))
        else:
            new[component] = update
    return new, locked


def test_settings_of_a_mode_are_shown_as_it_forces_them_and_locked(form):
    """D45: a mode that is there when the page is opened is shown and locked, too; the user's own values wait."""
    updates = form.filled(shown(replace(recommended(""), performance="lightning", steps=12)), only_changes=True)
    page, locked = after(form, page_of(form), updates)
    assert (page[form.controls["steps"]], page[form.controls["sampler"]]) == (4, "euler")
    assert {"steps", "sampler", "guidance_scale"} <= locked
    assert own_values(page[form.own])["steps"] == 12
    assert "Lightning LoRA" in updates[form.told_mode] and "Without effect" in updates[form.told_mode]
    assert form.current(page).steps == 12


def test_settings_that_leave_a_mode_are_not_overwritten_by_what_the_mode_had_replaced(form):
    page, _ = after(form, page_of(form), form.filled(shown(replace(recommended(""), performance="lightning"))))
    wanted = replace(recommended(""), performance="custom", steps=40, guidance_scale=7.0, sampler="heun")
    page, locked = after(form, page, form.filled(shown(wanted)))
    page, _ = after(form, page, form.follow_mode(page))  # the change of the mode is an event of its own
    assert not locked and own_values(page[form.own]) == {}
    got = form.current(page)
    assert (got.steps, got.guidance_scale, got.sampler) == (40, 7.0, "heun")


def test_a_mode_that_is_left_by_hand_gives_back_what_it_replaced(form):
    page = page_of(form, steps=12, performance="lightning")
    page, locked = after(form, page, form.follow_mode(page))
    assert page[form.controls["steps"]] == 4 and "steps" in locked
    page, locked = after(form, page | {form.controls["performance"]: "custom"}, {})
    page, locked = after(form, page, form.follow_mode(page))
    assert page[form.controls["steps"]] == 12 and not locked


def test_a_value_of_ones_own_that_the_mode_has_too_comes_back(form):
    """D45: it is the user's all the same."""
    mine = {"performance": "lightning", "sampler": "euler", "sharpness": 0.0, "steps": 4}
    page, _ = after(form, page_of(form), form.filled(shown(recommended("")) | mine))
    page |= {form.controls["performance"]: "custom"}
    page, _ = after(form, page, form.follow_mode(page))
    got = form.current(page)
    assert (got.sampler, got.sharpness, got.steps) == ("euler", 0.0, 4)
    for mode in ("lightning", "custom"):
        page |= {form.controls["performance"]: mode}
        page, _ = after(form, page, form.follow_mode(page))
    got = form.current(page)
    assert (got.sampler, got.sharpness, got.steps) == ("euler", 0.0, 4)


def test_what_a_mode_forced_on_a_picture_is_not_taken_for_the_users_own(form):
    made = effective(replace(recommended(""), performance="lightning"))
    page, _ = after(form, page_of(form), form.filled(shown(made), as_made=True))
    got, usual = form.current(page), recommended("")
    assert (got.steps, got.sampler, got.guidance_scale) == (usual.steps, usual.sampler, usual.guidance_scale)


def test_a_grid_of_modes_is_made_of_the_users_own_values(form):
    """The page is in a fast mode, whose values every other mode would be compared with otherwise."""
    desk = Desk(form.app)
    desk.app.worker.hold("me")  # it waits to be looked at
    orders = Orders(desk, form, form.aspect, form.aspect)
    page = page_of(form, steps=12, guidance_scale=5.0, performance="lightning") | {form.aspect: "Generate"}
    page, _ = after(form, page, form.follow_mode(page))
    axes = {"x": "performance", "x_values": "lightning, custom", "y": "", "y_values": ""}
    send = partial(desk.submit_grid, axes=axes)
    orders.sent(page, "me", form.aspect, send, plain=True)
    [task] = desk.app.worker.tasks("me")
    assert [effective(cell.settings).steps for cell in task.cells] == [4, 12]
    assert [effective(cell.settings).guidance_scale for cell in task.cells] == [1.0, 5.0]


@pytest.mark.parametrize("word", [chr(0xD800), float("inf"), ["Generate"], PUT_BACK])
def test_of_a_buttons_words_only_the_known_ones_are_handed_back(form, word):
    """A browser may send any, and an answer cannot hold half a character or a number without end."""
    desk = Desk(form.app)
    orders = Orders(desk, form, form.aspect, form.told_mode)
    page = page_of(form) | {form.aspect: "Generate", form.told_mode: word}
    answer = orders.sent(page, "me", form.aspect, desk.submit)
    assert answer[form.told_mode] == (PUT_BACK if word == PUT_BACK else form.told_mode.value)


def test_no_event_has_gradio_look_at_what_the_form_holds(app):
    """An empty number would be told in words from inside Gradio."""
    for event in built(lambda: build_page(app)).fns.values():
        checked = {part.elem_id for part in event.inputs if isinstance(part, (gr.Number, gr.Slider, gr.Dropdown))}
        assert event.fn is None or not event.preprocess or not checked, (event.name, checked)


def test_leaving_the_list_of_models_with_the_same_model_changes_nothing(form):
    page = page_of(form, steps=7)
    new, _ = after(form, page, form.follow_model(page))
    assert {name: new[c] for name, c in form.controls.items()} == {name: page[c] for name, c in form.controls.items()}


def test_another_model_brings_its_settings(form):
    page = page_of(form, steps=7, base_model=MODELS[0])
    new, _ = after(form, page, form.follow_model(page))
    assert new[form.controls["steps"]] == 20 and new[form.model] == MODELS[0]


def test_another_model_brings_what_is_asked_for_it(form):
    page = page_of(form, steps=7, base_model=MODELS[0])
    new, _ = after(form, page, form.follow_model(page, lambda name: replace(recommended(name), steps=11)))
    assert new[form.controls["steps"]] == 11


def test_files_that_are_named_and_not_there_are_known(form):
    named = {"base_model": "gone.safetensors", "vae": "soft.safetensors", "refiner_model": "", "text_encoder_l": None}
    assert form.absent(named) == {"base_model": "gone.safetensors"}


def test_another_model_leaves_alone_what_a_mode_forces_and_its_word_waits(form):
    page = page_of(form, performance="lightning")
    page, _ = after(form, page, form.follow_mode(page))
    page |= {form.controls["base_model"]: MODELS[0]}
    page, _ = after(form, page, form.follow_model(page))
    assert page[form.controls["steps"]] == 4
    page |= {form.controls["performance"]: "custom"}
    page, _ = after(form, page, form.follow_mode(page))
    assert page[form.controls["steps"]] == 20


def test_fresh_lists_keep_what_is_chosen_and_drop_what_is_gone(form, models):
    models.append("new.safetensors")
    page = page_of(form, steps=7, vae="gone.safetensors")
    updates = form.refreshed(page)
    choices = dict(updates[form.controls["base_model"]]["choices"])
    assert "new.safetensors" in choices.values() and "value" not in updates[form.controls["base_model"]]
    assert updates[form.controls["vae"]]["value"] == ""
    models.remove(MODELS[1])
    assert form.refreshed(page)[form.controls["base_model"]]["value"] == MODELS[0]


def test_a_file_that_came_after_the_page_was_built_can_be_shown(form, models):
    """D19: after a download the lists of files are read again."""
    models.append("new.safetensors")
    updates = form.filled(shown(replace(recommended(""), refiner_model="new.safetensors")))
    update = updates[form.controls["refiner_model"]]
    assert update["value"] == "new.safetensors" and "new.safetensors" in dict(update["choices"]).values()
    gone = form.filled(shown(replace(recommended(""), vae="gone.safetensors")))[form.controls["vae"]]
    assert gone["value"] == ""


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"steps": "x"}', '{"steps": [1]}', '{"prompt": "a"}', None, 3, "[" * 9999]
)
def test_hidden_values_that_a_browser_made_up_count_as_none(text):
    assert own_values(text) == {}
    assert remembered_beside(str(text)) == Beside()


def test_a_mode_that_is_none_counts_as_custom():
    assert [mode_of({"performance": value}) for value in ("warp", None, ["speed"], "speed")] == [
        *["custom"] * 3,
        "speed",
    ]


def test_every_mode_but_custom_says_what_it_does():
    assert told_mode("custom") == "" and "60 steps" in told_mode("quality") and FORCEABLE


def test_no_tab_keeps_a_connection_open(app):
    """A browser has six connections to a host: Gradio's state would take one of them for each tab, for ever."""
    assert built(lambda: build_page(app)).config["connect_heartbeat"] is False
