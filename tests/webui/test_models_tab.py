"""The Models tab and the performance modes in a browser, over the stand-in engine."""

import json

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.browser

USED = ".lora:not(.empty)"  # the rows that hold a LoRA


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def loras(page):
    return json.loads(page.locator("#loras textarea").input_value() or "[]")


def test_loras_are_added_searched_weighed_switched_off_and_removed(page):
    open_tab(page, "Models")
    page.click("#add_lora")
    page.click("#add_lora")
    first, second = page.locator(".lora").nth(0), page.locator(".lora").nth(1)
    expect(first.locator(".lora-name")).to_have_value("felt")
    expect(second.locator(".lora-name")).to_have_value("ink")
    expect(first.locator(".lora-note")).to_contain_text("wool")
    second.locator(".lora-weight").fill("-0.35")
    second.locator(".lora-weight").blur()
    first.locator("input[type=checkbox]").uncheck()
    assert loras(page) == [
        {"name": "felt.safetensors", "weight": 1, "enabled": False},
        {"name": "ink.safetensors", "weight": -0.35, "enabled": True},
    ]
    first.get_by_role("button", name="Remove").click()
    expect(page.locator(USED)).to_have_count(1)
    assert [entry["name"] for entry in loras(page)] == ["ink.safetensors"]


def test_loras_follow_the_settings_of_a_picture(page):
    given = {"prompt": "a bear", "loras": [{"name": "ink.safetensors", "weight": 0.4, "enabled": True}], "steps": 3}
    page.evaluate("text => window.easel.useSettings(text)", json.dumps(given))
    open_tab(page, "Models")
    expect(page.locator(f"{USED} .lora-name")).to_have_value("ink")
    expect(page.locator(f"{USED} .lora-weight")).to_have_value("0.4")


def test_rows_wait_for_loras_and_take_them_by_name(page):
    open_tab(page, "Models")
    empty = page.locator(".lora.empty")
    expect(empty).to_have_count(5)
    empty.nth(2).locator(".lora-name").fill("no such thing")
    empty.nth(2).locator(".lora-name").blur()
    assert loras(page) == []
    empty.nth(2).locator(".lora-name").fill("ink")
    empty.nth(2).locator(".lora-name").blur()
    expect(page.locator(f"{USED} .lora-name")).to_have_value("ink")
    expect(empty).to_have_count(4)
    slider = page.locator(f"{USED} input[type=range]")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("-2", "2")
    assert loras(page) == [{"name": "ink.safetensors", "weight": 1, "enabled": True}]


def test_the_keyboard_stays_in_the_list_where_a_row_is_named_or_emptied(page):
    open_tab(page, "Models")
    names, weights = page.locator(".lora .lora-name"), page.locator(f"{USED} .lora-weight")
    names.nth(2).fill("ink")
    names.nth(2).press("Enter")
    expect(weights.first).to_be_focused()
    names.nth(1).fill("felt")
    names.nth(1).press("Tab")  # on to the next row, which is still there
    expect(page.locator(".lora.empty .lora-name").first).to_be_focused()
    names.nth(3).fill("ink")
    names.nth(3).press("Enter")
    expect(weights.nth(2)).to_be_focused()
    names.nth(1).fill("")
    names.nth(1).press("Enter")
    expect(weights).to_have_count(2)
    expect(names.nth(1)).to_be_focused()
    expect(names.nth(1)).to_have_value("ink")
    page.locator(USED).nth(1).get_by_role("button", name="Remove").click()
    expect(names.nth(1)).to_be_focused()
    assert [entry["name"] for entry in loras(page)] == ["ink.safetensors"]


def test_a_lora_whose_name_is_unknown_does_nothing_and_one_without_a_name_goes(page):
    open_tab(page, "Models")
    page.click("#add_lora")
    name, used = page.locator(f"{USED} .lora-name").first, page.locator(f"{USED} input[type=checkbox]").first
    name.fill("no such thing")
    name.blur()
    expect(name).to_have_class("lora-name unknown")
    expect(used).not_to_be_checked()
    assert loras(page) == [{"name": "felt.safetensors", "weight": 1, "enabled": False}]
    name.fill("ink")
    name.blur()
    expect(used).to_be_checked()
    assert loras(page) == [{"name": "ink.safetensors", "weight": 1, "enabled": True}]
    name.fill("")
    name.blur()
    expect(page.locator(USED)).to_have_count(0)
    expect(page.locator(".lora.empty")).to_have_count(5)
    assert loras(page) == []


NAMES = [
    "felt.safetensors",
    "anime/ink.safetensors",
    "anime/Felt tip.safetensors",
    "a/cat.safetensors",
    "b/cat.safetensors",
]
UNKNOWN = "There is no LoRA of this name; the row is off."


def test_a_lora_is_found_without_regard_to_case_and_by_a_part_of_its_name(page):
    page.route("**/easel/loras", lambda route: route.fulfill(json=NAMES))
    open_tab(page, "Models")
    page.click("#refresh_models")
    page.wait_for_function("document.querySelectorAll('#lora_names option').length === 5")
    page.click("#add_lora")
    row = page.locator(USED)
    name = row.locator(".lora-name")
    for typed, meant in {
        "INK": "anime/ink", "FELT": "felt", "Anime/INK.safetensors": "anime/ink", "elsewhere\\ink": "anime/ink", "tip": "anime/Felt tip",
        "A/Cat": "a/cat", "b/cat.safetensors": "b/cat",
    }.items():  # fmt: skip
        name.fill(typed)
        name.blur()
        expect(name).to_have_value(meant)
        assert loras(page) == [{"name": f"{meant}.safetensors", "weight": 1, "enabled": True}]
    for typed in ("cat", "fel t", "no such thing"):
        name.fill(typed)
        name.blur()
        expect(row.locator(".lora-note")).to_have_text(UNKNOWN)
        expect(name).to_have_attribute("aria-invalid", "true")
        assert loras(page) == [{"name": "b/cat.safetensors", "weight": 1, "enabled": False}]
    name.fill("ink")
    name.blur()
    expect(name).not_to_have_attribute("aria-invalid", "true")
    expect(row.locator(".lora-note")).not_to_have_text(UNKNOWN)
    assert loras(page) == [{"name": "anime/ink.safetensors", "weight": 1, "enabled": True}]


def test_a_row_that_waits_says_that_there_is_no_such_lora(page):
    open_tab(page, "Models")
    row = page.locator(".lora.empty").first
    row.locator(".lora-name").fill("no such thing")
    row.locator(".lora-name").blur()
    expect(row.locator(".lora-note")).to_have_text(UNKNOWN)
    row.locator(".lora-name").fill("")
    row.locator(".lora-name").blur()
    expect(row.locator(".lora-note")).to_have_text("")
    expect(row.locator(".lora-name")).not_to_have_attribute("aria-invalid", "true")


def test_what_is_typed_into_a_row_counts_though_it_was_not_left(page):
    page.fill("#positive_prompt textarea", "a bear")
    open_tab(page, "Models")
    page.click("#add_lora")
    weight = page.locator(f"{USED} .lora-weight")
    weight.fill("0.")
    weight.press_sequentially("35")
    expect(weight).to_have_value("0.35")
    assert loras(page) == [{"name": "felt.safetensors", "weight": 0.35, "enabled": True}]
    page.locator(f"{USED} .lora-name").fill("ink")
    with page.expect_request(lambda request: "a bear" in (request.post_data or "")) as sent:
        page.keyboard.press("Control+Enter")
    assert "ink.safetensors" in sent.value.post_data


def test_names_of_loras_models_and_trigger_words_are_not_translated(page):
    page.route("**/easel/lora?*", lambda route: route.fulfill(json={"words": ["Anime", "Settings"]}))
    page.evaluate("easel.language.choose('de')")
    open_tab(page, "Modelle")
    page.click("#add_lora")
    expect(page.locator(".lora-note .words")).to_have_text("Anime, Settings")
    expect(page.get_by_label("Dieses LoRA verwenden")).to_be_visible()
    page.evaluate("document.querySelector('.lora').setAttribute('aria-label', 'Settings')")
    expect(page.locator("#refiner_model .secondary-wrap")).to_have_attribute("data-shown", "Keine")
    page.click("#vae input")
    options = page.get_by_role("option")
    expect(options.first).to_contain_text("Der des Checkpoints")
    options.last.evaluate("node => { node.textContent = 'Settings'; node.setAttribute('aria-label', 'Settings') }")
    page.wait_for_timeout(200)
    expect(options.last).to_have_text("Settings")
    expect(options.last).to_have_attribute("aria-label", "Settings")
    expect(page.locator("#base_model input")).to_have_attribute("aria-label", "Basismodell")
    assert page.locator(".lora").first.get_attribute("aria-label") == "Settings"


def test_a_mode_shows_what_it_forces_and_gives_it_back(page):
    steps, guidance = page.locator("#steps input[type=number]"), page.locator("#guidance_scale input[type=number]")
    steps.fill("12")
    page.click("#performance input")
    page.get_by_role("option", name="Lightning").click()
    expect(steps).to_have_value("4")
    expect(steps).to_be_disabled()
    expect(guidance).to_have_value("1")
    page.click("#performance input")
    page.get_by_role("option", name="Quality").click()
    expect(steps).to_have_value("60")
    expect(guidance).to_have_value("3")
    expect(guidance).to_be_enabled()
    page.click("#performance input")
    page.get_by_role("option", name="Custom").click()
    expect(steps).to_have_value("12")
    expect(steps).to_be_enabled()
