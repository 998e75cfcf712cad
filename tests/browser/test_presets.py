"""Presets in the page of the whole program: choosing one, keeping one's own, what one needs."""

import pytest

from tests.browser.chromium import visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PROMPT, STEPS = "#positive_prompt textarea", "#steps input[type=number]"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


def choose(page, name):
    page.click("#preset input")
    page.get_by_role("option", name=name, exact=True).click()


def test_a_preset_keeps_the_prompt_and_says_what_it_needs(page):
    page.fill(PROMPT, "a lighthouse at dusk")
    choose(page, "Anime")
    expect(page.locator("#preset_told")).to_contain_text("which is not there")
    expect(page.locator("#preset_told .needs li").first).to_contain_text("GB")
    expect(page.locator("#fetch_preset")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dusk")
    choose(page, "Default")
    expect(page.locator("#fetch_preset")).to_have_count(0)
    expect(page.locator(PROMPT)).to_have_value("a lighthouse at dusk")


def test_one_keeps_renames_deletes_and_takes_back_a_preset(page):
    page.fill(STEPS, "11")
    page.click("#preset_keeping button")
    expect(page.locator("#preset_changes")).to_contain_text("steps")
    page.fill("#preset_name input, #preset_name textarea", "../my-look")
    page.click("#preset_save")
    expect(page.locator("#message .problem")).to_contain_text("cannot be called")
    page.fill("#preset_name input, #preset_name textarea", "my-look")
    page.click("#preset_save")
    expect(page.locator("#message")).to_contain_text("The preset is kept.")
    choose(page, "Default")
    expect(page.locator(STEPS)).not_to_have_value("11")
    choose(page, "my-look")
    expect(page.locator(STEPS)).to_have_value("11")
    page.fill("#preset_name input, #preset_name textarea", "mine")
    page.click("#preset_rename")
    expect(page.locator("#preset input")).to_have_value("mine")
    page.click("#preset_delete")
    expect(page.locator("#message")).to_contain_text("in the trash")
    page.click("#preset_restore")
    expect(page.locator("#preset input")).to_have_value("mine")
    page.click("#preset_delete")
    expect(page.locator("#preset input")).to_have_value("Default")
