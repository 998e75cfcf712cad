"""Model files in the page of the whole program: what a mode lacks is told at once, and a download outlives a reload."""

import json

import pytest

from tests.browser.chromium import arrive, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HYPER = "sdxl_hyper_sd_4step_lora.safetensors"
RUNNING = {"busy": True, "done": False, "problem": "", "name": HYPER, "share": 0.25, "bytes": 197e6, "total": 787e6}
DONE = {**RUNNING, "busy": False, "done": True}
STOPPED = {**RUNNING, "busy": False, "problem": "Stopped. The next download goes on from here."}


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


@pytest.fixture
def server(page):
    """Answers about downloads in the program's place, which would fetch from elsewhere: `now` is how one stands."""
    told = {"now": RUNNING, "sent": []}

    def answer(route):
        if route.request.method == "POST":
            told["sent"].append(json.loads(route.request.post_data))
            told["now"] = RUNNING if told["sent"][-1] else STOPPED
        route.fulfill(json=told["now"])

    page.route("**/easel/downloads", answer)
    return told


def choose_mode(page, name):
    page.click("#performance input")
    page.get_by_role("option", name=name, exact=True).click()


def test_what_a_mode_lacks_is_shown_beside_it_and_fetched_by_a_press(page, server):
    box, strip = page.locator("#performance_needs"), page.locator("#download")
    choose_mode(page, "Hyper-SD")
    expect(box.locator("li")).to_have_text(f"{HYPER} 787 MB huggingface.co")
    expect(strip).to_have_count(0)
    box.get_by_role("button", name="Download").click()
    expect(strip).to_contain_text("197 MB / 787 MB")
    assert server["sent"] == [{"names": [HYPER]}]
    page.route("**/easel/needs?*", lambda route: route.fulfill(json={"performance": "", "refiner_model": ""}))
    doing = strip.locator(".doing")
    server["now"] = {**RUNNING, "text": "Trying again: the connection broke."}
    expect(doing).to_have_text("Trying again")
    expect(doing).to_have_attribute("title", "Trying again: the connection broke.")
    server["now"] = {**RUNNING, "text": "Checking"}
    expect(doing).to_have_text("Checking")
    server["now"] = DONE
    expect(strip).to_contain_text("Everything is there.")
    expect(doing).to_have_text("")
    expect(box).to_be_hidden()
    strip.get_by_role("button", name="Close").click()
    expect(strip).to_have_count(0)


def test_a_download_that_brings_nothing_of_the_preset_changes_nothing(page, server):
    """What one of its files does is in tests/webui/test_presets_card.py."""
    page.click("#preset input")
    page.get_by_role("option", name="Anime", exact=True).click()
    expect(page.locator("#preset_told [data-fetch]")).to_be_visible()
    page.fill("#steps input[type=number]", "17")
    choose_mode(page, "Hyper-SD")
    page.locator("#performance_needs").get_by_role("button", name="Download").click()
    expect(page.locator("#download")).to_contain_text(HYPER)
    server["now"] = DONE
    expect(page.locator("#download")).to_contain_text("Everything is there.")
    choose_mode(page, "Custom")
    page.locator("#preset_told [data-fetch]").click()
    expect(page.locator("#download")).to_contain_text(HYPER)
    server["now"] = DONE
    expect(page.locator("#download")).to_contain_text("Everything is there.")
    page.wait_for_timeout(1500)  # longer than the server needs for its answer
    expect(page.locator("#steps input[type=number]")).to_have_value("17")
    expect(page.locator("#preset_told [data-fetch]")).to_be_visible()


def test_a_file_of_unknown_size_is_downloaded_only_after_its_host_was_asked(page, server, outputs):
    theirs = {
        "default_model": "own.safetensors",
        "checkpoint_downloads": {"own.safetensors": "https://huggingface.co/nobody/own.safetensors"},
    }
    (outputs / "presets").mkdir(exist_ok=True)
    file = outputs / "presets" / "theirs.json"
    file.write_text(json.dumps(theirs))
    box = page.locator("#preset_told .needs-box")
    try:
        page.reload()
        page.click("#preset input")
        page.get_by_role("option", name="theirs", exact=True).click()
        box.get_by_role("button", name="Ask how large it is").click()
        expect(box).to_contain_text("its host does not tell the size")  # or there is no network at all
        assert server["sent"] == []
        box.get_by_role("button", name="Download").click()
        expect(page.locator("#download")).to_contain_text("197 MB / 787 MB")
        assert server["sent"] == [{"preset": "theirs"}]
        page.click("#preset_undo")
        expect(box).to_have_count(0)
    finally:
        file.unlink()


def test_an_answer_that_does_not_come_loses_no_running_download(page, server):
    strip = page.locator("#download")
    choose_mode(page, "Hyper-SD")
    page.locator("#performance_needs").get_by_role("button", name="Download").click()
    expect(strip).to_contain_text("197 MB / 787 MB")
    page.evaluate(  # in the page, because the browser itself reports what fails as an error
        """() => { const before = window.fetch; window.missed = 0; window.fetch = (address, how) => {
          if (String(address) !== 'easel/downloads' || (window.missed && !how.method)) return before(address, how);
          window.missed += 1;
          return Promise.reject(new TypeError('Failed to fetch'));
        }; }"""
    )
    page.wait_for_function("window.missed === 1")
    expect(strip).to_contain_text("197 MB / 787 MB")
    server["now"] = {**RUNNING, "bytes": 400e6}
    expect(strip).to_contain_text("400 MB / 787 MB")
    strip.get_by_role("button", name="Stop").click()
    expect(strip).to_contain_text("Easel did not answer. Press again in a moment.")
    expect(strip).to_contain_text("400 MB / 787 MB")


def test_stopping_is_told_and_what_stays_missing_is_not_called_there(page, server):
    strip, asked = page.locator("#download"), []
    choose_mode(page, "Hyper-SD")
    page.locator("#performance_needs").get_by_role("button", name="Download").click()
    server["now"] = {**RUNNING, "text": "Stopping"}
    expect(strip.locator(".doing")).to_have_text("Stopping")
    page.route("**/easel/needs?*", lambda route: (asked.append(1), route.fulfill(json={})))
    told = "own.safetensors is not there, and Easel does not know where it is published. Put it into models/loras."
    server["now"] = {**RUNNING, "busy": False, "came": True, "problem": told}
    expect(strip).to_contain_text(told)
    expect(strip).not_to_contain_text("Everything is there.")
    expect(page.locator("#performance_needs")).to_be_hidden()
    assert asked  # what came is no longer offered


def test_a_lora_that_came_is_known_to_the_rows_and_nobody_loses_what_they_write(page, server):
    names = ["other.safetensors"]
    page.route("**/easel/lora?*", lambda route: route.fulfill(json={}))
    page.route("**/easel/loras", lambda route: route.fulfill(json=names))
    choose_mode(page, "Hyper-SD")
    page.locator("#performance_needs").get_by_role("button", name="Download").click()
    expect(page.locator("#download")).to_contain_text(HYPER)
    page.get_by_role("tab", name="Models").click()
    page.click("#refresh_models")
    known = "count => document.querySelectorAll('#lora_names option').length === count"
    page.wait_for_function(known, arg=1)
    name = page.locator(".lora.empty .lora-name").first
    name.fill("hyper")
    names.append(HYPER)
    server["now"] = DONE
    page.wait_for_function(known, arg=2)
    expect(name).to_be_focused()
    name.press("Enter")
    expect(page.locator(".lora:not(.empty) .lora-name")).to_have_value(HYPER.removesuffix(".safetensors"))


def test_another_mode_takes_the_box_away(page):
    choose_mode(page, "DMD2")
    expect(page.locator("#performance_needs")).to_contain_text("Licence: CC BY-NC 4.0")
    choose_mode(page, "Quality")
    expect(page.locator("#performance_needs")).to_be_hidden()


def test_a_running_download_is_seen_after_a_reload_and_can_be_stopped(page, address, server):
    arrive(page, address)
    strip = page.locator("#download")
    expect(strip.locator("progress")).to_have_attribute("value", "0.25")
    expect(strip).to_contain_text(HYPER)
    strip.get_by_role("button", name="Stop").click()
    expect(strip).to_contain_text("Stopped. The next download goes on from here.")
    expect(strip.locator("progress")).to_be_hidden()
    arrive(page, address)
    expect(page.locator("#generate_button")).to_be_visible()
    expect(strip).to_have_count(0)  # an end is told once
