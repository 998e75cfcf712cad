"""The whole program, from `python launch.py` to the picture on disk, through the eyes of a browser."""

from pathlib import Path

import pytest

from tests.browser.chromium import arrive, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PROMPT, STEPS = "#positive_prompt textarea", "#steps input[type=number]"
SLOW = 240_000  # milliseconds: the first picture waits for the model to load, on a machine that does other things too
COLLECT_PREVIEWS = """() => {
  window.previews = new Set();
  new MutationObserver(() => {
    const shown = document.querySelector('#stage img.preview');
    if (!shown) return;
    const picture = new Image();
    picture.src = shown.src;
    picture.decode().then(() => window.previews.add(picture.src), () => {});
  }).observe(document.getElementById('stage'), {subtree: true, childList: true, attributes: true});
}"""


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


def generate(page, prompt, steps):
    page.fill("#width input", "256")
    page.fill("#height input", "256")
    page.fill(STEPS, str(steps))
    page.fill(PROMPT, prompt)
    page.click("#generate_button")


def files(outputs: Path) -> set[Path]:
    return set(outputs.rglob("*.png"))


def test_a_prompt_becomes_previews_a_picture_in_the_page_and_the_same_file_on_disk(page, outputs, address):
    before = files(outputs)
    page.evaluate(COLLECT_PREVIEWS)
    generate(page, "a red apple", steps=12)
    shot = page.locator("#final_gallery a")
    expect(shot).to_have_count(1, timeout=SLOW)
    assert page.evaluate("window.previews.size") >= 3
    (file,) = files(outputs) - before
    served = page.request.get(f"{address}/{shot.get_attribute('href')}")
    assert served.body() == file.read_bytes()
    assert shot.get_attribute("data-seed") in file.name
    width, height = page.evaluate(
        "document.querySelector('#stage a.shot img').decode().then(() => {"
        " const i = document.querySelector('#stage a.shot img'); return [i.naturalWidth, i.naturalHeight] })"
    )
    assert shot.get_attribute("data-size") == f"{width} × {height}"


def test_a_reload_in_mid_run_finds_the_preview_and_the_picture(page, outputs, address):
    before = files(outputs)
    generate(page, "a fox on a blue background", steps=140)
    expect(page.locator("#stage img.preview")).to_be_visible(timeout=SLOW)
    assert files(outputs) == before
    arrive(page, address)
    expect(page.locator("#stage img.preview")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a fox on a blue background")
    expect(page.locator("#final_gallery a")).to_have_count(1, timeout=SLOW)
    assert len(files(outputs) - before) == 1


def test_stop_ends_a_run_at_once_and_the_next_prompt_works(page, outputs):
    before = files(outputs)
    generate(page, "a cat", steps=200)
    expect(page.locator("#stage img.preview")).to_be_visible(timeout=SLOW)
    page.keyboard.press("Escape")
    expect(page.locator("#progress-bar")).to_contain_text("Stopped")
    expect(page.locator("#stop_button")).to_be_hidden()
    assert files(outputs) == before
    generate(page, "a slice of pizza", steps=4)
    expect(page.locator("#final_gallery a")).to_have_count(1, timeout=SLOW)


def test_a_second_prompt_waits_in_line_and_is_made(page, outputs):
    before = files(outputs)
    generate(page, "a red apple", steps=60)
    generate(page, "a sun with a face", steps=3)
    expect(page.locator("ul.tasks li")).to_have_count(2)
    expect(page.locator("#final_gallery a")).to_have_count(2, timeout=SLOW)
    assert len(files(outputs) - before) == 2


def test_a_bad_setting_is_explained_and_nothing_starts(page):
    page.fill("#width input", "100")
    page.fill(PROMPT, "a fox")
    page.click("#generate_button")
    expect(page.locator("#message")).to_contain_text("width is 100; it must be a multiple of 8, for example 96.")
    expect(page.locator("ul.tasks li")).to_have_count(0)


def test_what_a_quick_hand_is_told_outlasts_the_page_s_late_arrival(page):
    held = []

    def hold_the_first(route):
        held.append(route) if not held else route.continue_()

    page.route("**/run/predict*", hold_the_first)
    with page.expect_request("**/run/predict*"):  # its arrival, which may be asked for later than the hand can type
        page.reload()
    page.wait_for_function("document.activeElement && document.activeElement.closest('#positive_prompt')")
    page.fill("#width input", "100")
    page.fill(PROMPT, "a fox")
    watches = "**/queue/join*"  # what the page does next, after a press and after its arrival
    with page.expect_response(watches):
        page.click("#generate_button")
    told = page.locator("#message")
    expect(told).to_contain_text("width is 100")
    expect(page.locator("#aspect input")).to_have_value("Custom")
    with page.expect_response(watches):
        held[0].continue_()
    expect(told).to_contain_text("width is 100")
    expect(page.locator("#aspect input")).to_have_value("Custom")


def test_a_narrow_phone_needs_no_scrolling_sideways(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        generate(page, "a red apple", steps=40)
        expect(page.locator("#stop_button")).to_be_visible(timeout=SLOW)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.locator("#final_gallery a")).to_have_count(1, timeout=SLOW)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
