"""The History tab in a real browser: search, favourite, compare, trash and undo; by keyboard, and on a phone."""

import json
import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.browser.chromium import free_port, running, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

QUERY, TILES, COUNT = ".history .query", ".history .tile:visible", ".history .count"
MOVE_TO = """(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }"""

DAY_NAME = """language => new Date().toLocaleDateString(
    language, {weekday: 'long', year: 'numeric', month: 'long', day: 'numeric'})"""
SPEAK = """language => {
    document.documentElement.lang = language;
    document.dispatchEvent(new CustomEvent('easel:language', {detail: language}));
}"""
# Of the list's answers some fail, or leave out pictures as if they were not yet made.
BETWEEN = """() => {
    const real = window.fetch;
    window.fetch = async (url, options) => {
        if (window.broken && url.includes('before=')) throw new TypeError('broken');
        const answer = await real(url, options);
        if (!url.startsWith('easel/history?')) return answer;
        const body = await answer.json();
        if (window.unmade) body.pictures = body.pictures.filter((picture) => !picture.prompt.includes(window.unmade));
        if (window.reading) body.reading = {done: 1, total: 2};
        return Response.json(body);
    };
}"""
SHOT = """name => {
    document.querySelector('#final_gallery').innerHTML = `<a class="shot" href="#${name}"></a>`;
    window.unmade = '';
}"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def address(browser, outputs):
    port = free_port()
    with running(["-m", "tests.webui.history_alone", str(port), str(outputs)], f"http://127.0.0.1:{port}") as address:
        yield address


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        expect(page.locator(TILES).first).to_be_visible()
        yield page


def search(page, text, count):
    page.fill(QUERY, text)
    expect(page.locator(COUNT)).to_have_text("1 picture" if count == 1 else f"{count} pictures")
    expect(page.locator(TILES)).to_have_count(count)


def choose(page, *numbers):
    for number in numbers:
        tile = page.locator(TILES).nth(number)
        tile.hover()
        tile.locator(".pick").check()


def files(outputs):
    return {path.name for path in outputs.rglob("*.png") if ".trash" not in path.parts}


def test_search_as_you_type_shows_what_fits(page):
    page.locator(QUERY).press_sequentially("red fo", delay=20)
    expect(page.locator(TILES)).to_have_count(2)
    search(page, "model:other", 2)
    search(page, "model:other -castle", 1)
    expect(page.locator(TILES).first.locator(".open")).to_have_attribute("title", "a yellow boat")
    page.fill(QUERY, "zeppelin")
    expect(page.locator(COUNT)).to_have_text("No picture fits this search.")
    page.fill(QUERY, "date:soon")
    expect(page.locator(".history .remarks")).to_contain_text("'soon' is no date")


def test_scrolling_down_brings_the_older_ones(page):
    expect(page.locator(COUNT)).to_have_text("154 pictures")
    assert page.locator(TILES).count() < 154
    for _ in range(20):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(100)
    expect(page.locator(TILES)).to_have_count(154)
    keys = page.locator(TILES).evaluate_all("tiles => tiles.map((tile) => tile.dataset.key)")
    assert len(set(keys)) == 154


def test_back_at_the_top_all_that_was_loaded_is_still_there(page):
    page.locator(TILES).first.evaluate("tile => { tile.dataset.seen = 'yes'; }")
    while page.locator(TILES).count() < 154:
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(100)
    page.wait_for_timeout(1600)
    with page.expect_response(lambda response: "history?q=" in response.url):
        page.mouse.wheel(0, -100_000)
    page.wait_for_timeout(300)
    expect(page.locator(TILES)).to_have_count(154)
    expect(page.locator(TILES).first).to_have_attribute("data-seen", "yes")


def test_older_ones_that_do_not_come_can_be_asked_for_again(page):
    page.evaluate(BETWEEN)
    page.evaluate("window.broken = true")
    again = page.get_by_role("button", name="Try again")
    for _ in range(20):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(100)
    expect(again).to_be_in_viewport()
    expect(page.locator(".history .retry")).to_contain_text("The history does not answer.")
    before = page.locator(TILES).count()
    page.evaluate("window.broken = false")
    again.click()
    expect(page.locator(TILES).nth(before)).to_be_attached()
    expect(again).to_be_hidden()


def test_what_is_made_meanwhile_comes_to_the_front_unless_somebody_is_at_work(page):
    page.evaluate(BETWEEN)
    page.evaluate("window.unmade = 'larger'")
    page.fill(QUERY, "-number")
    expect(page.locator(TILES)).to_have_count(3)
    opens = page.locator(f"{TILES} .open")
    opens.first.focus()
    page.locator(TILES).first.evaluate("tile => { tile.dataset.seen = 'yes'; }")
    page.evaluate(SHOT, "one")
    page.wait_for_timeout(800)
    expect(page.locator(TILES)).to_have_count(3)
    page.focus(QUERY)
    expect(page.locator(TILES)).to_have_count(4)
    expect(opens.first).to_have_attribute("title", "a red fox on snow, larger")
    expect(page.locator(TILES).nth(1)).to_have_attribute("data-seen", "yes")
    page.evaluate("window.unmade = 'boat'")
    page.evaluate(SHOT.replace("window.unmade = ''", ""), "two")
    expect(page.locator(TILES)).to_have_count(3)
    page.evaluate(SHOT, "three")
    expect(page.locator(TILES)).to_have_count(4)
    expect(opens.nth(2)).to_have_attribute("title", "a yellow boat")


def test_while_the_folders_are_read_pictures_come_in_among_those_that_stay(page):
    page.evaluate(BETWEEN)
    page.evaluate("[window.reading, window.unmade] = [true, 'boat']")
    page.fill(QUERY, "-number")
    expect(page.locator(TILES)).to_have_count(3)
    expect(page.locator(".history .remarks")).to_have_text("Reading 1 of 2 pictures")
    page.locator(TILES).last.evaluate("tile => { tile.dataset.seen = 'yes'; }")
    page.evaluate("window.unmade = ''")
    expect(page.locator(TILES)).to_have_count(4)
    expect(page.locator(f"{TILES} .open").nth(2)).to_have_attribute("title", "a yellow boat")
    expect(page.locator(TILES).nth(3)).to_have_attribute("data-seen", "yes")
    page.evaluate("window.reading = false")
    expect(page.locator(".history .remarks")).to_be_hidden()


@pytest.mark.parametrize("lang, tag", [("pt_BR", "pt-BR"), ("zh-Hans", "zh-Hans"), ("my language", None), ("", None)])
def test_days_are_named_in_the_language_of_the_page_whatever_its_name(page, lang, tag):
    page.evaluate(SPEAK, lang)
    name = page.evaluate(DAY_NAME, tag or page.evaluate("navigator.language"))
    expect(page.locator(".history h3").first).to_have_text(name)
    search(page, "fox", 2)
    expect(page.locator(".history h3").first).to_have_text(name)
    page.locator(TILES).first.locator(".open").click()
    expect(page.locator("dialog.details")).to_be_visible()


def test_a_picture_is_under_the_day_that_it_has_where_the_browser_is(browser, address):
    zone = "Pacific/Kiritimati"  # 14 hours ahead of Greenwich
    noon = datetime.now().astimezone().replace(hour=12, minute=0)
    days = [str((noon - timedelta(days=n)).astimezone(ZoneInfo(zone)).date()) for n in range(2)]
    with visit(browser, address, timezone_id=zone) as page:
        search(page, "-number", 4)
        sections = page.locator(".history section[data-day]")
        assert sections.evaluate_all("all => all.map((section) => section.dataset.day)") == days
        link = sections.first.locator("a").get_attribute("href")
        assert page.request.get(f"{address}/{link}").text().count("<article>") == 2


def test_a_favourite_stays_one_after_a_reload(page, address):
    search(page, "boat", 1)
    page.locator(TILES).first.hover()
    star = page.locator(TILES).first.locator(".star")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.reload()
    page.get_by_role("button", name="Favourites").click()
    expect(page.locator(COUNT)).to_have_text("1 picture")
    star = page.locator(TILES).first.locator(".star")
    expect(star).to_have_attribute("aria-pressed", "true")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "false")


def test_two_pictures_are_compared_with_a_slider_and_their_settings(page):
    search(page, "-number", 4)
    choose(page, 0, 2)
    page.get_by_role("button", name="Compare").click()
    slider = page.locator("dialog.compare input[type=range]")
    expect(slider).to_be_focused()
    over = page.locator("dialog.compare img.over")
    for value in (0, 100, 25):
        slider.evaluate(MOVE_TO, value)
        assert f"{value}%" in over.evaluate("image => getComputedStyle(image).clipPath") or value == 0
        assert over.evaluate("image => image.closest('.stage').style.getPropertyValue('--at')") == f"{value}%"
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("25.5")
    loaded = "images => images.every((image) => image.complete && image.naturalWidth > 0)"
    page.wait_for_function(f"({loaded})([...document.querySelectorAll('dialog.compare img')])")
    rows = page.locator("dialog.compare tr").all_inner_texts()
    assert any(row.startswith("seed") and str(2**60 + 1) in row for row in rows)
    assert not any(row.startswith("steps") for row in rows)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_what_is_deleted_lies_in_the_trash_until_undo(page, outputs):
    before = files(outputs)
    search(page, "-number", 4)
    choose(page, 2, 3)
    page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    expect(page.locator(COUNT)).to_have_text("2 pictures")
    expect(page.locator(TILES)).to_have_count(2)
    assert len(files(outputs)) == len(before) - 2
    expect(page.locator(".history .toast")).to_contain_text("2 pictures are in the trash.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(TILES)).to_have_count(4)
    assert files(outputs) == before


def test_undo_in_the_trash_takes_the_picture_out_of_it(page):
    search(page, "-number", 4)
    page.locator(f"{TILES} .open").nth(3).focus()
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(3)
    page.get_by_role("button", name="Trash", exact=True).click()
    expect(page.locator(COUNT)).to_have_text("1 picture")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(TILES)).to_have_count(0)
    expect(page.locator(COUNT)).to_have_text("No picture fits this search.")


def test_undo_shows_the_picture_in_a_list_that_was_read_anew(page):
    search(page, "-number", 4)
    page.locator(f"{TILES} .open").nth(2).focus()
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(3)
    search(page, "-number -castle", 2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(TILES)).to_have_count(3)
    expect(page.locator(COUNT)).to_have_text("3 pictures")


def test_the_trash_gives_back_and_can_be_emptied(page, outputs):
    page.fill(QUERY, '"number 149"')
    expect(page.locator(TILES)).to_have_count(1)
    page.locator(TILES).first.locator(".open").focus()
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(0)
    page.get_by_role("button", name="Trash", exact=True).click()
    expect(page.locator(TILES)).to_have_count(1)
    choose(page, 0)
    page.get_by_role("button", name="Put back").click()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.locator(TILES)).to_have_count(1)
    page.locator(TILES).first.locator(".open").focus()
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(0)
    page.get_by_role("button", name="Trash", exact=True).click()
    page.get_by_role("button", name="Empty the trash").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.locator("dialog.ask").get_by_role("button", name="Empty the trash").click()
    expect(page.locator(TILES)).to_have_count(0)
    expect(page.locator(".history .toast")).to_contain_text("1 deleted for good.")
    assert not list((outputs / ".trash").rglob("*.png"))


def test_a_picture_opens_with_its_lineage_and_gives_its_settings_to_the_page(page):
    search(page, "larger", 1)
    page.locator(TILES).first.locator(".open").click()
    dialog = page.locator("dialog.details")
    expect(dialog.locator(".prompt")).to_have_text("a red fox on snow, larger")
    line = dialog.get_by_role("navigation", name="Made from", exact=True)
    expect(line.get_by_role("button")).to_have_count(2)
    expect(line.get_by_role("button").last).to_contain_text("upscaled")
    line.get_by_role("button").first.click()
    expect(dialog.locator(".prompt")).to_have_text("a red fox on snow")
    expect(dialog.get_by_role("navigation", name="Made from this picture").get_by_role("button")).to_have_count(1)
    dialog.get_by_role("button", name="Use these settings").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page).to_have_title(re.compile(r"^\{"))  # the stand-in for the page's hook puts them there
    given = page.title()
    assert json.loads(given)["settings"]["prompt"] == "a red fox on snow" and f'"seed": {2**60}' in given


def test_selecting_text_beyond_its_end_closes_no_dialog_and_a_click_beside_it_does(page):
    search(page, "castle", 1)
    page.locator(TILES).first.locator(".open").click()
    dialog = page.locator("dialog.details")
    text, box = dialog.locator(".prompt").bounding_box(), dialog.bounding_box()
    page.mouse.move(text["x"] + 5, text["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 6, text["y"] + 10, steps=4)  # the gap around its content
    page.mouse.up()
    page.mouse.move(text["x"] + 5, text["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 6, text["y"] + 10, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    expect(dialog).to_be_visible()
    page.mouse.click(box["x"] + box["width"] + 6, text["y"])
    expect(dialog).to_have_count(0)


def test_back_closes_the_dialog_whatever_was_turned_in_it(page):
    search(page, "-number", 4)
    page.locator(f"{TILES} .open").first.click()
    prompt = page.locator("dialog.details .prompt")
    before = prompt.inner_text()
    page.keyboard.press("ArrowRight")
    expect(prompt).not_to_have_text(before)
    page.evaluate("history.back()")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(TILES)).to_have_count(4)
    page.locator(f"{TILES} .open").first.click()
    expect(prompt).to_have_text(before)
    page.evaluate("window.backs = 0; window.addEventListener('popstate', () => { window.backs += 1; })")
    page.keyboard.press("Escape")
    page.locator(f"{TILES} .open").first.click()  # perhaps on the way back
    expect(prompt).to_have_text(before)
    page.wait_for_function("window.backs === 1 && history.state !== null")
    page.evaluate("history.back()")
    expect(page.locator("dialog")).to_have_count(0)


def test_everything_can_be_done_without_a_mouse(page):
    search(page, "-number", 4)
    page.focus(QUERY)
    page.keyboard.press("ArrowDown")
    opens = page.locator(f"{TILES} .open")
    expect(opens.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(opens.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(opens.nth(3)).to_be_focused()
    page.keyboard.press(" ")
    expect(page.locator(f"{TILES} .pick").nth(3)).to_be_checked()
    page.keyboard.press("Home")
    page.keyboard.press("f")
    expect(page.locator(f"{TILES} .star").nth(0)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("f")
    expect(page.locator(f"{TILES} .star").nth(0)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Enter")
    expect(page.locator("dialog.details")).to_be_visible()
    expect(page.get_by_role("button", name="Use these settings")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog.details .prompt")).to_have_text("a red fox on snow")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.get_by_role("button", name="Clear").click()
    opens.nth(3).focus()
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(3)
    expect(opens.nth(2)).to_be_focused()
    page.keyboard.press("Control+z")
    expect(page.locator(TILES)).to_have_count(4)


def test_a_hostile_prompt_is_only_text(page):
    alerts = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    search(page, "castle", 1)
    page.locator(TILES).first.locator(".open").click()
    expect(page.locator("dialog.details .prompt")).to_have_text("a blue castle <img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0 and alerts == []


def test_a_day_is_saved_as_a_page_that_stands_alone(page, tmp_path):
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save this day as a page").first.click()
    file = tmp_path / "day.html"
    waiting.value.save_as(file)
    requests = []
    other = page.context.new_page()
    other.on("request", lambda request: requests.append(request.url))
    other.goto(file.as_uri())
    expect(other.locator("article")).to_have_count(2)
    assert other.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    other.close()


def test_on_a_phone_nothing_needs_scrolling_sideways(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        expect(page.locator(TILES).first).to_be_visible()
        fits = "document.documentElement.scrollWidth <= 360"
        assert page.evaluate(fits)
        choose(page, 0, 1)
        expect(page.get_by_role("toolbar")).to_be_in_viewport()
        assert page.evaluate(fits)
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("dialog.compare")).to_be_visible()
        assert page.evaluate("document.querySelector('dialog').scrollWidth <= 360") and page.evaluate(fits)
        page.keyboard.press("Escape")
        page.locator(TILES).first.locator(".open").click()
        expect(page.locator("dialog.details .prompt")).to_be_visible()
        assert page.evaluate("document.querySelector('dialog').scrollWidth <= 360") and page.evaluate(fits)
