"""Presets in the page of the whole program: choosing one, keeping one's own, what one needs."""

import pytest

from tests.browser.chromium import visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PROMPT, NEGATIVE, STEPS = "#positive_prompt textarea", "#negative_prompt textarea", "#steps input[type=number]"
NAME = "#preset_name input, #preset_name textarea"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


def choose(page, name):
    page.click("#preset input")
    page.get_by_role("option", name=name, exact=True).click()


def keep(page, name, told="The preset is kept."):
    """Save what is set now as the preset `name`, in the group that is open."""
    page.fill(NAME, name)
    page.click("#preset_save")
    expect(page.locator("#message")).to_contain_text(told)


def throw_away(page):
    page.click("#preset_delete")
    expect(page.locator("#message")).to_contain_text("in the trash")


def test_a_preset_keeps_the_prompt_and_says_what_it_needs(page):
    page.fill(PROMPT, "a lighthouse at dusk")
    choose(page, "Anime")
    expect(page.locator("#preset_told")).to_contain_text("which is not there")
    expect(page.locator("#preset_told .needs li").first).to_contain_text("GB")
    expect(page.locator("#preset_told [data-fetch]")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dusk")
    choose(page, "Default")
    expect(page.locator("#preset_told [data-fetch]")).to_have_count(0)
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dusk")


def test_one_keeps_renames_deletes_and_takes_back_a_preset(page):
    page.fill(STEPS, "11")
    page.click("#preset_keeping button")
    expect(page.locator("#preset_changes")).to_contain_text("Steps")
    page.fill(STEPS, "12")
    expect(page.locator("#preset_changes tbody")).to_contain_text("12")
    page.fill(STEPS, "11")
    keep(page, "../my-look", told="cannot be called")
    keep(page, "my-look")
    choose(page, "Default")
    expect(page.locator(STEPS)).not_to_have_value("11")
    choose(page, "my-look")
    expect(page.locator(STEPS)).to_have_value("11")
    page.fill(NAME, "mine")
    page.click("#preset_rename")
    expect(page.locator("#preset input")).to_have_value("mine")
    throw_away(page)
    expect(page.locator("#preset input")).to_have_value("Default")
    expect(page.locator(STEPS)).not_to_have_value("11")
    page.click("#preset_restore")
    expect(page.locator("#preset input")).to_have_value("mine")
    expect(page.locator(STEPS)).to_have_value("11")
    page.click("#preset_delete")
    expect(page.locator("#preset input")).to_have_value("Default")


def test_the_presets_and_the_chosen_one_are_there_after_a_reload(page, address):
    page.click("#preset_keeping button")
    page.fill(STEPS, "13")
    keep(page, "kept")
    page.fill(STEPS, "14")
    page.wait_for_function("(sessionStorage['easel-session'] || '').includes('\"steps\":14')")
    page.reload()
    expect(page.locator("#preset input")).to_have_value("kept")
    expect(page.locator(STEPS)).to_have_value("14")
    choose(page, "Default")
    expect(page.locator(STEPS)).to_have_value("14")  # touched since, and the preset does not speak of it
    page.click("#preset_undo")
    expect(page.locator("#preset input")).to_have_value("kept")
    page.click("#reset_settings")
    expect(page.locator(STEPS)).to_have_value("13")
    page.click("#preset_keeping button")
    throw_away(page)


def test_choosing_a_preset_says_what_changed_and_can_be_taken_back(page):
    """D48: a diff and a way back."""
    page.fill(PROMPT, "a lighthouse at dusk")
    page.click("#preset_keeping button")
    page.fill(STEPS, "17")
    keep(page, "slow")
    choose(page, "Default")
    expect(page.locator(STEPS)).not_to_have_value("17")
    page.click("#preset_told .changed summary")
    expect(page.locator("#preset_told .changed")).to_contain_text("17")
    page.fill(PROMPT, "a lighthouse at dawn")
    page.click("#preset_undo")
    expect(page.locator("#preset input")).to_have_value("slow")
    expect(page.locator("#preset_told .changed")).to_have_count(0)
    expect(page.locator("#preset_undo")).to_have_count(0)
    expect(page.locator(STEPS)).to_have_value("17")
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dawn")
    throw_away(page)


def test_taking_back_a_preset_takes_its_prompts_away_and_leaves_what_was_typed_since(page):
    page.click("#preset_keeping button")
    page.fill(PROMPT, "a lighthouse at dusk")
    page.fill(NEGATIVE, "blurry")
    page.check("#preset_with_prompt input")
    keep(page, "with prompts")
    page.fill(PROMPT, "")
    page.fill(NEGATIVE, "")
    choose(page, "Default")
    choose(page, "with prompts")
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dusk")
    expect(page.locator(NEGATIVE)).to_have_value("blurry")
    page.fill(PROMPT, "a lighthouse at dawn")
    page.click("#preset_undo")
    expect(page.locator(NEGATIVE)).to_have_value("")
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dawn")
    choose(page, "with prompts")
    expect(page.locator(NEGATIVE)).to_have_value("blurry")
    throw_away(page)


def test_leaving_a_list_or_refreshing_it_changes_nothing(page):
    """A list reports a choice when it is left, too."""
    page.fill(STEPS, "9")
    page.click("#preset input")
    page.keyboard.press("Escape")
    page.locator("#preset input").blur()
    page.get_by_role("tab", name="Models").click()
    page.click("#base_model input")
    page.keyboard.press("Escape")
    page.locator("#base_model input").blur()
    page.click("#refresh_models")
    page.wait_for_timeout(1500)  # longer than the server needs for a wrong answer
    page.get_by_role("tab", name="Settings").click()
    expect(page.locator(STEPS)).to_have_value("9")


def test_a_name_that_is_taken_is_replaced_only_when_asked(page):
    page.click("#preset_keeping button")
    for steps, then in (("21", "The preset is kept."), ("22", "Press Replace")):
        page.fill(STEPS, steps)
        keep(page, "twice", told=then)
    keep(page, "default", told="Choose another name.")
    expect(page.locator("#preset_replace")).to_have_count(0)
    keep(page, "TWICE", told="Press Replace")
    page.click("#preset_replace")
    expect(page.locator("#message")).to_contain_text("The preset is kept.")
    expect(page.locator("#preset_replace")).to_have_count(0)
    page.click("#preset_restore")
    expect(page.locator("#preset input")).to_have_value("twice 2")
    page.click("#reset_settings")
    expect(page.locator(STEPS)).to_have_value("21")
    page.click("#preset_delete")
    expect(page.locator("#preset input")).to_have_value("Default")
    choose(page, "twice")
    expect(page.locator(STEPS)).to_have_value("22")
    page.click("#preset_delete")
    expect(page.locator("#preset input")).to_have_value("Default")
