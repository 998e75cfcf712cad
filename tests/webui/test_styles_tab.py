"""The Styles tab in a browser: finding, choosing, marking, by mouse and by keys."""

import io
import json

import pytest
from PIL import Image

from tests.browser.chromium import arrive, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

SEARCH, COUNT = ".styles .query", ".styles .number"
KEPT = "#styles textarea, #styles input"


def show(page):
    page.get_by_role("tab", name="Styles").click()
    expect(page.locator(".styles .tile").first).to_be_visible()


@pytest.fixture(scope="module")
def shared(browser, address):
    with visit(browser, address) as page:
        show(page)
        yield page


@pytest.fixture
def page(shared):
    """The tab with nothing chosen, searched or marked."""
    shared.unroute_all()
    shared.get_by_role("tab", name="Styles").click()
    if shared.locator(".styles .only[aria-pressed=true]").count():
        shared.locator(".styles .only").click()
    shared.evaluate(
        """kept => {
            const control = document.querySelector(kept);
            control.value = "[]";
            control.dispatchEvent(new Event("input", {bubbles: true}));
            localStorage.clear();
            document.querySelectorAll(".styles .tile").forEach((tile) => tile.remove()); // Refresh draws them again
        }""",
        KEPT,
    )
    shared.fill(SEARCH, "")
    shared.get_by_role("button", name="Refresh").click()
    shared.select_option(".styles .group", value="")
    expect(tile(shared, "Fooocus V2")).to_be_visible()
    expect(chips(shared)).to_have_count(0)
    return shared


def tile(page, name):
    return page.get_by_role("checkbox", name=name, exact=True)


def chosen(page):
    return json.loads(page.locator(KEPT).input_value())


def chips(page):
    return page.locator(".styles .away > :first-child")


def seen(page):
    # What has just come into sight has no text before it is drawn.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return [name for name in page.locator(".styles .tile:visible .name").all_inner_texts() if name]


def library(*styles, **more):
    """What the server would answer."""
    return {"styles": list(styles), "aliases": {}, "problems": [], "samples": None} | more


def style(name, group="Mine", prompt="{prompt}", negative=""):
    return {"name": name, "group": group, "prompt": prompt, "negative": negative}


def test_a_search_over_names_and_groups_narrows_as_one_types(page):
    every = int(page.locator(COUNT).inner_text())
    assert every >= 152  # 150 of our own and two that are no styles
    page.locator(SEARCH).press_sequentially("3D ba")
    expect(page.locator(COUNT)).not_to_have_text(str(every))
    names = seen(page)
    assert "Inflated Balloon" in names and len(names) == int(page.locator(COUNT).inner_text())
    page.fill(SEARCH, "no style is called like this")
    expect(page.locator(COUNT)).to_have_text("0")
    page.fill(SEARCH, "")
    expect(page.locator(COUNT)).to_have_text(str(every))
    page.select_option(".styles .group", label="Line art")
    expect(page.get_by_role("heading", name="Line art")).to_be_visible()
    expect(page.locator(".styles h3:visible")).to_have_count(1)


def test_what_is_chosen_stands_first_can_be_removed_there_and_is_asked_for(page):
    tile(page, "Line Art").click()
    tile(page, "Low Poly").click()
    expect(chips(page)).to_have_text(["Line Art", "Low Poly"])
    expect(tile(page, "Line Art")).to_have_attribute("aria-checked", "true")
    assert chosen(page) == ["Line Art", "Low Poly"]
    page.get_by_role("button", name="Line Art Remove").click()
    expect(chips(page)).to_have_text(["Low Poly"])
    expect(tile(page, "Line Art")).to_have_attribute("aria-checked", "false")
    tile(page, "Low Poly").click()
    expect(chips(page)).to_have_count(0)
    assert chosen(page) == []
    tile(page, "Line Art").click()
    tile(page, "Low Poly").click()
    page.get_by_role("button", name="Remove all").click()
    expect(chips(page)).to_have_count(0)


def test_the_choice_comes_back_after_a_reload_and_goes_with_a_reset(page, address):
    tile(page, "Line Art").click()
    page.wait_for_function("(localStorage['easel-session'] || '').includes('Line Art')")
    arrive(page, address)
    show(page)
    expect(chips(page)).to_have_text(["Line Art"])
    page.get_by_role("tab", name="Settings").click()
    page.click("#reset_settings")
    page.get_by_role("tab", name="Styles").click()
    expect(chips(page)).to_have_count(0)
    expect(tile(page, "Line Art")).to_have_attribute("aria-checked", "false")


def test_settings_from_elsewhere_choose_styles(page):
    tile(page, "Line Art").click()
    page.evaluate("window.easel.useSettings(JSON.stringify({prompt: 'a bear', styles: ['Low Poly']}))")
    expect(chips(page)).to_have_text(["Low Poly"])
    expect(tile(page, "Low Poly")).to_have_attribute("aria-checked", "true")
    expect(tile(page, "Line Art")).to_have_attribute("aria-checked", "false")


def come_back(page, address, *names):
    """Arrive with `names` chosen at the last visit."""
    page.evaluate(
        """names => {
            sessionStorage.setItem('easel-session', JSON.stringify({styles: JSON.stringify(names)}));
            Storage.prototype.setItem = () => {}; // nothing that this page still has to store comes on top
        }""",
        names,
    )
    arrive(page, address)
    show(page)


def test_a_chosen_style_that_is_not_there_any_more_is_marked(page, address):
    come_back(page, address, "Low Poly", "Gone <b>Style")
    expect(chips(page)).to_have_text(["Low Poly", "Gone <b>Style"])
    expect(page.locator(".styles .unknown")).to_have_count(1)
    expect(tile(page, "Low Poly")).to_have_attribute("aria-checked", "true")


def test_a_style_of_the_reference_is_shown_as_the_one_that_stands_for_it(page, address):
    come_back(page, address, "SAI Line Art")
    expect(chips(page)).to_have_text(["SAI Line Art"])
    expect(page.locator(".styles .unknown")).to_have_count(0)
    expect(page.locator(".styles [aria-checked=true]")).to_have_count(1)
    page.locator(".styles [aria-checked=true]").click()
    expect(chips(page)).to_have_count(0)


def test_favourites_are_kept_by_the_browser(page, address):
    """D18: what somebody likes is theirs; no order of styles is shared by all who use the page."""
    tile(page, "Low Poly").hover()
    page.locator(".tile", has=tile(page, "Low Poly")).get_by_role("button", name="Favourite").click()
    assert chosen(page) == []
    page.get_by_role("button", name="Favourites").click()
    assert seen(page) == ["Low Poly"]
    arrive(page, address)
    show(page)
    page.get_by_role("button", name="Favourites").click()
    assert seen(page) == ["Low Poly"]
    tile(page, "Low Poly").focus()
    page.keyboard.press("f")
    expect(page.locator(COUNT)).to_have_text("0")


def test_everything_can_be_done_by_keys(page):
    page.locator("#theme_toggle").focus()
    page.keyboard.press("/")
    expect(page.locator(SEARCH)).to_be_focused()
    page.keyboard.type("3d ")
    names = seen(page)
    page.keyboard.press("ArrowDown")
    expect(tile(page, names[0])).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tile(page, names[1])).to_be_focused()
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('.styles .tiles')).gridTemplateColumns.split(' ').length"
    )
    page.keyboard.press("ArrowDown")
    expect(tile(page, names[1 + columns])).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(chips(page)).to_have_text([names[1 + columns], names[0]])
    page.keyboard.press("End")
    expect(tile(page, names[-1])).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    expect(page.locator(SEARCH)).to_be_focused()
    page.keyboard.press("Enter")  # takes the first that is found away again
    expect(chips(page)).to_have_text([names[1 + columns]])
    assert page.locator(".styles .choice[tabindex='0']").count() == 1


def test_a_slash_in_the_prompt_is_a_slash(page):
    page.fill("#positive_prompt textarea", "")
    page.locator("#positive_prompt textarea").press_sequentially("1/2")
    expect(page.locator("#positive_prompt textarea")).to_have_value("1/2")


def test_a_preview_tells_what_a_style_adds(page):
    tile(page, "Low Poly").hover()
    preview = page.locator("#style_preview")
    expect(preview).to_contain_text("{prompt}")
    expect(preview).to_contain_text("Against: smooth curves")
    expect(tile(page, "Low Poly")).to_have_attribute("aria-describedby", "style_preview")
    page.keyboard.press("Escape")
    expect(preview).to_be_hidden()


def test_faults_of_the_library_are_told_and_a_refresh_reads_it_again(page):
    answers = [
        library(style("Ink"), problems=["The style file <b>mine.json</b> cannot be read."]),
        library(style("Ink"), style("Wool")),
    ]
    page.route("**/easel/styles", lambda route: route.fulfill(json=answers.pop(0)))
    page.get_by_role("button", name="Refresh").click()
    page.get_by_text("Some style files have faults").click()
    expect(page.locator(".styles .problems li")).to_have_text("The style file <b>mine.json</b> cannot be read.")
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".styles .problems")).to_be_hidden()
    assert seen(page) == ["Fooocus V2", "Random Style", "Ink", "Wool"]


def test_a_style_shows_its_own_cell_of_the_sheet_of_samples(page):
    """Four cells in one picture; the tile of the last one shows that cell's colour, one without a sample none."""
    sheet = Image.new("RGB", (64, 64), "red")
    sheet.paste("blue", (32, 32, 64, 64))
    data = io.BytesIO()
    sheet.save(data, "WEBP", lossless=True)
    samples = {"url": "easel/styles/samples.webp?v=1", "columns": 2, "rows": 2, "cells": {"Ink": 3}}
    page.route(
        "**/easel/styles/samples.webp?v=1", lambda route: route.fulfill(body=data.getvalue(), content_type="image/webp")
    )
    page.route(
        "**/easel/styles", lambda route: route.fulfill(json=library(style("Ink"), style("Wool"), samples=samples))
    )
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".styles .drawn")).to_have_count(1)
    for _ in range(100):  # until the sheet is there and painted
        shot = Image.open(io.BytesIO(tile(page, "Ink").locator(".sample").screenshot())).convert("RGB")
        places = ((int(shot.width * x), int(shot.height * y)) for x, y in ((0.1, 0.5), (0.5, 0.2), (0.5, 0.9)))
        colours = [shot.getpixel(place) for place in places]
        if all(colour[2] > 200 and colour[0] < 50 for colour in colours):
            return
        page.wait_for_timeout(100)
    pytest.fail(str(colours))


def test_a_search_among_five_hundred_makes_and_removes_nothing(page):
    """Only attributes change, so that a key is answered before the next one, whatever the number.

    When it is cleared, the one that is chosen comes first.
    """
    many = [style(f"Style {n}", f"Group {n % 20}", "a picture of {prompt}, " + "word " * 30) for n in range(500)]
    page.route("**/easel/styles", lambda route: route.fulfill(json=library(*many)))
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(COUNT)).to_have_text("502")
    page.evaluate(
        """() => { window.made = 0; new MutationObserver((all) => { window.made += all.length; })
            .observe(document.querySelector('.styles .grid'), {childList: true, subtree: true}); }"""
    )
    page.locator(SEARCH).press_sequentially("style 49")
    expect(page.locator(COUNT)).to_have_text("15")  # 49, 149, ..., 449 and 490 to 499
    tile(page, "Style 499").click()
    assert page.evaluate("window.made") == 0
    page.fill(SEARCH, "")
    expect(page.locator(COUNT)).to_have_text("502")
    assert page.evaluate("window.made") == 2  # away from there, and in here


def order(page):
    return page.locator(".styles .tile .name").all_text_contents()


def test_the_tiles_of_chosen_styles_come_first_but_never_while_one_clicks(page, address):
    usual = order(page)
    tile(page, "Line Art").click()
    tile(page, "Low Poly").click()
    assert order(page) == usual
    page.fill(SEARCH, "line")
    assert seen(page)[0] == "Line Art"
    page.fill(SEARCH, "")
    expect(page.locator(".styles .tile .name").first).to_have_text("Line Art")
    expect(page.get_by_role("heading", name="Chosen styles")).to_be_visible()
    assert order(page) == ["Line Art", "Low Poly", *(name for name in usual if name not in ("Line Art", "Low Poly"))]
    page.select_option(".styles .group", label="Line art")
    assert seen(page)[0] == "Line Art" and "Low Poly" not in seen(page)
    page.select_option(".styles .group", value="")
    tile(page, "Line Art").click()
    assert order(page)[0] == "Line Art"
    page.get_by_role("tab", name="Settings").click()  # opened anew
    show(page)
    expect(page.locator(".styles .tile .name").first).to_have_text("Low Poly")
    come_back(page, address, "Line Art")
    expect(page.locator(".styles .tile .name").first).to_have_text("Line Art")
    page.get_by_role("button", name="Line Art Remove").click()
    expect(page.get_by_role("heading", name="Chosen styles")).to_be_hidden()
    assert order(page) == usual


def test_tiles_go_back_to_their_groups_when_the_choice_is_emptied_and_when_one_goes_elsewhere(page):
    usual, heading = order(page), page.get_by_role("heading", name="Chosen styles")
    tile(page, "Line Art").click()
    tile(page, "Low Poly").click()
    expect(heading).to_be_hidden()
    page.click("#positive_prompt textarea")
    expect(heading).to_be_visible()
    assert order(page)[:2] == ["Line Art", "Low Poly"]
    page.get_by_role("button", name="Remove all").click()
    expect(heading).to_be_hidden()
    assert order(page) == usual


def test_names_in_the_chosen_language_are_shown_and_found(page, address):
    """A file of the reference's form names the styles, some as the reference calls them; the choice stays English."""
    texts = {"Low Poly": "Wenig Ecken", "SAI Line Art": "Strichführung", "Random Style": "Zufall <b>"}
    page.route("**/easel/texts/de", lambda route: route.fulfill(json={"texts": texts, "rightToLeft": False}))
    page.evaluate("window.easel.language.choose('de')")
    expect(page.locator(".tile", has=page.get_by_text("Low Poly", exact=True)).locator(".second")).to_have_text(
        "Wenig Ecken"
    )
    expect(page.locator(".styles .second:visible")).to_have_count(3)
    expect(page.locator(".styles .second").nth(1)).to_have_text("Zufall <b>")
    page.fill(SEARCH, "strichfuhrung")
    expect(page.locator(COUNT)).to_have_text("1")
    page.locator(".styles .tile:visible .choice").click()
    assert chosen(page) == ["Line Art"]
    page.fill(SEARCH, "ecken")
    assert seen(page) == ["Low Poly"]
    page.evaluate("window.easel.language.choose('en')")
    expect(page.locator(COUNT)).to_have_text("0")
    expect(page.locator(".styles .second:visible")).to_have_count(0)


def test_the_styles_fit_a_narrow_phone(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        page.get_by_role("tab", name="Styles").click()
        page.locator(SEARCH).scroll_into_view_if_needed()
        tile(page, "Low Poly").click()
        expect(chips(page)).to_have_text(["Low Poly"])
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        wide = "e => { const r = e.getBoundingClientRect(); return r.width && (r.right > 361 || r.left < -1) }"
        assert page.evaluate(f"[...document.querySelectorAll('.styles *')].filter({wide}).length") == 0
