"""The page in a browser, over the stand-in engine: what a person does with it and what they must then see."""

import pytest

from tests.browser.chromium import arrive, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

PROMPT, STEPS = "#positive_prompt textarea", "#steps input[type=number]"
HOSTILE = "<img src=x onerror=\"document.title='run'\"> ${document.title='run'} {{value}} </textarea>"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def idle(browser, address):
    """One page for the tests that start no task."""
    with visit(browser, address) as page:
        yield page


def generate(page, prompt, steps=4):
    page.fill(STEPS, str(steps))
    page.fill(PROMPT, prompt)
    page.keyboard.press("Control+Enter")


def test_a_prompt_becomes_previews_and_then_the_picture_in_the_gallery(page):
    page.evaluate(
        """() => { window.previews = new Set(); new MutationObserver(() => {
            const image = document.querySelector('#stage img.preview'); if (image) window.previews.add(image.src);
        }).observe(document.getElementById('stage'), {subtree: true, childList: true, attributes: true}); }"""
    )
    generate(page, "a red apple", steps=6)
    expect(page.locator("#progress-bar")).to_contain_text("of 6")
    shot = page.locator("#final_gallery img")
    expect(shot).to_have_count(1)
    assert page.evaluate("window.previews.size") >= 3
    assert page.evaluate("document.querySelector('#final_gallery img').decode().then(() => true)")
    expect(page.locator("#stop_button")).to_be_hidden()
    expect(page.locator("#progress-bar")).to_contain_text("Done in")


def test_two_requests_run_one_after_the_other_and_the_waiting_one_can_be_cancelled(page):
    generate(page, "first", steps=200)
    expect(page.locator("ul.tasks li")).to_have_count(1)
    generate(page, "second")
    generate(page, "third", steps=1)
    expect(page.locator("ul.tasks li")).to_have_count(3)
    page.locator("ul.tasks li", has_text="second").get_by_role("button").click()
    expect(page.locator("ul.tasks li")).to_have_count(2)
    expect(page.locator("ul.tasks")).not_to_contain_text("second")
    page.keyboard.press("Escape")
    expect(page.locator("#final_gallery a")).to_have_count(1)
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", "third")


def test_a_reload_finds_the_running_task_its_settings_and_its_picture(page, address):
    generate(page, "a fox", steps=25)
    expect(page.locator("#stage img.preview")).to_be_visible()
    arrive(page, address)
    expect(page.locator("#stage img.preview")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a fox")
    expect(page.locator(STEPS)).to_have_value("25")
    expect(page.locator("#final_gallery a")).to_have_count(1)


def test_another_browser_sees_nothing_of_it(page, browser, address):
    generate(page, "my secret", steps=10)
    expect(page.locator("#stage img.preview")).to_be_visible()
    with visit(browser, address) as other:
        other.wait_for_timeout(500)
        assert "my secret" not in other.content()
        expect(other.locator("#stage img.preview")).to_have_count(0)


def test_a_bad_setting_is_explained_beside_the_button_and_starts_nothing(page):
    page.fill("#width input", "100")
    page.fill(PROMPT, "a fox")
    page.click("#generate_button")
    expect(page.locator("#message")).to_contain_text("width is 100; it must be a multiple of 8")
    expect(page.locator("ul.tasks li")).to_have_count(0)
    page.fill("#width input", "128")
    page.click("#generate_button")
    expect(page.locator("#message")).to_be_hidden()
    expect(page.locator("#final_gallery a")).to_have_attribute("data-size", "128 × 256")


def test_an_error_of_the_engine_is_shown(page):
    generate(page, "break")
    expect(page.locator("#stage [role=alert]")).to_contain_text("the engine broke <b>badly</b>")


def test_a_hostile_prompt_is_only_text(page):
    title = page.title()
    generate(page, HOSTILE)
    expect(page.locator("ul.tasks .excerpt").first).to_have_text(" ".join(HOSTILE.split())[:79] + "…")
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", HOSTILE)
    page.locator("#stage a.shot").click()
    expect(page.locator("#viewer .caption")).to_contain_text(HOSTILE)
    assert page.title() == title


def test_the_viewer_turns_pages_and_closes_by_keys(page):
    generate(page, "one", steps=1)
    expect(page.locator("#final_gallery a")).to_have_count(1)
    generate(page, "two", steps=1)
    expect(page.locator("#final_gallery a")).to_have_count(2)
    page.locator("#final_gallery a").first.click()
    caption = page.locator("#viewer .caption")
    expect(caption).to_contain_text("two")
    page.keyboard.press("ArrowRight")
    expect(caption).to_contain_text("one")
    page.keyboard.press("ArrowRight")
    expect(caption).to_contain_text("two")
    page.locator("#viewer .reuse").click()
    expect(page.locator("#viewer")).to_be_hidden()
    seed = page.locator("#final_gallery a").first.get_attribute("data-seed")
    expect(page.locator("#seed input")).to_have_value(seed)
    expect(page.locator("#random_seed input")).not_to_be_checked()
    page.locator("#final_gallery a").last.click()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_choosing_a_model_brings_its_settings_and_sizes(idle):
    idle.click("#base_model input")
    idle.get_by_role("option", name="large").click()
    expect(idle.locator("#width input")).to_have_value("1152")
    expect(idle.locator(STEPS)).to_have_value("30")
    expect(idle.locator("#aspect input")).to_have_value("1152 × 896 ∣ 9:7")
    idle.click("#aspect input")
    idle.get_by_role("option", name="832 × 1216 ∣ 13:19").click()
    expect(idle.locator("#height input")).to_have_value("1216")
    idle.fill("#height input", "1000")
    expect(idle.locator("#aspect input")).to_have_value("Custom")


def test_light_and_dark_are_remembered(page, address):
    expect(page.locator("body")).not_to_have_class("dark")
    page.click("#theme_toggle")
    expect(page.locator("body.dark")).to_have_count(1)
    arrive(page, address)
    expect(page.locator("body.dark")).to_have_count(1)


def test_control_and_arrows_weigh_a_word_of_the_prompt(idle):
    for before, selection, key, after in [
        ("a red apple", (3, 3), "ArrowUp", "a (red:1.1) apple"),
        ("a (red:1.1) apple", (5, 5), "ArrowUp", "a (red:1.2) apple"),
        ("a (red:1.1) apple", (5, 5), "ArrowDown", "a red apple"),
        ("a red apple", (2, 11), "ArrowDown", "a (red apple:0.9)"),
        ("a <red:0.95> apple", (4, 4), "ArrowUp", "a <red:1.0> apple"),
    ]:
        idle.fill(PROMPT, before)
        idle.evaluate(f"document.querySelector('{PROMPT}').setSelectionRange({selection[0]}, {selection[1]})")
        idle.keyboard.press(f"Control+{key}")
        expect(idle.locator(PROMPT)).to_have_value(after)


def test_an_example_fills_the_prompt(idle):
    idle.locator(".chip", has_text="a red apple").click()
    expect(idle.locator(PROMPT)).to_have_value("a red apple")


def test_everything_fits_a_narrow_phone(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        generate(page, "a" * 200, steps=8)
        expect(page.locator("#stop_button")).to_be_visible()
        page.locator("#advanced button").first.click()
        for _ in range(2):
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            wide = "e => { const r = e.getBoundingClientRect(); return r.width && (r.right > 361 || r.left < -1) }"
            assert (
                page.evaluate(f"[...document.querySelectorAll('button, input, textarea')].filter({wide}).length") == 0
            )
            expect(page.locator("#final_gallery a")).to_have_count(1)
