"""The helpers of the prompt in a browser: completions, and the panel of what the prompt becomes."""

import pytest

from tests.browser.chromium import visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

PROMPT, NEGATIVE, STEPS = "#positive_prompt textarea", "#negative_prompt textarea", "#steps input[type=number]"
LIST = "#prompt_completions"


def begin(page, text, where=PROMPT):
    page.fill(where, "")
    page.locator(where).press_sequentially(text)


def options(page):
    return page.locator(f"{LIST} [role=option]")


def panel(page):
    return page.locator("#becomes")


def open_panel(page):
    page.locator("#becomes summary").click()
    expect(panel(page).locator(".found")).not_to_be_empty()


def test_a_wildcard_is_completed_by_arrows_and_enter(idle):
    begin(idle, "a __col")
    expect(options(idle)).to_have_text(["color", "color_flower"])
    expect(options(idle).first).to_have_attribute("aria-selected", "true")
    idle.keyboard.press("ArrowDown")
    chosen = idle.locator(PROMPT).get_attribute("aria-activedescendant")
    expect(idle.locator(f"#{chosen}")).to_have_text("color_flower")
    idle.keyboard.press("Enter")
    expect(idle.locator(PROMPT)).to_have_value("a __color_flower__")
    expect(idle.locator(LIST)).to_be_hidden()
    assert idle.locator(PROMPT).get_attribute("aria-activedescendant") is None
    idle.keyboard.type(" garden")
    expect(idle.locator(PROMPT)).to_have_value("a __color_flower__ garden")


@pytest.mark.parametrize(
    ("typed", "where", "key", "becomes"),
    [
        ("<lora:fe", PROMPT, "Tab", "<lora:felt:1>"),
        ("<style:low p", NEGATIVE, "Enter", "<style:Low Poly>"),
        ("(embedding:g", NEGATIVE, "Enter", "(embedding:gentle_hands:1)"),
        ("embedding:ge", PROMPT, "Tab", "embedding:gentle_hands"),
    ],
)
def test_loras_styles_and_embeddings_are_completed_in_both_prompts(idle, typed, where, key, becomes):
    begin(idle, typed, where)
    expect(options(idle)).to_have_count(1)
    idle.keyboard.press(key)
    expect(idle.locator(where)).to_have_value(becomes)
    expect(idle.locator(where)).to_be_focused()


def test_enter_before_the_answer_takes_what_the_answer_brings(idle):
    """A quick hand does not get the best of the letters before."""
    begin(idle, "__")
    expect(options(idle).first).to_have_text("animal")
    idle.keyboard.type("sea")
    idle.keyboard.press("Enter")
    expect(idle.locator(PROMPT)).to_have_value("__season__")


def test_a_completion_can_be_taken_back(idle):
    begin(idle, "a __anim")
    expect(options(idle)).to_have_count(1)
    idle.keyboard.press("Enter")
    expect(idle.locator(PROMPT)).to_have_value("a __animal__")
    idle.keyboard.press("Control+z")
    expect(idle.locator(PROMPT)).to_have_value("a __anim")


def test_the_mouse_takes_one_too_and_characters_of_two_units_shift_nothing(idle):
    begin(idle, "🦊 x __ani y")
    for _ in range(2):
        idle.keyboard.press("ArrowLeft")
    idle.keyboard.type("m")
    expect(options(idle)).to_have_count(1)
    options(idle).first.click()
    expect(idle.locator(PROMPT)).to_have_value("🦊 x __animal__ y")


def test_escape_closes_the_list_and_nothing_else(page):
    page.fill(STEPS, "200")
    page.fill(PROMPT, "a fox")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stop_button")).to_be_visible()
    begin(page, "__col")
    expect(options(page)).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.locator(LIST)).to_be_hidden()
    expect(page.locator("#stop_button")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#stop_button")).to_be_hidden()


def test_an_open_list_does_not_hold_up_generating_or_weighing(page):
    page.fill(STEPS, "1")
    begin(page, "a __col")
    expect(options(page)).to_have_count(2)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", "a __col")
    begin(page, "a __col")
    expect(options(page)).to_have_count(2)
    page.keyboard.press("Control+ArrowUp")
    expect(page.locator(PROMPT)).to_have_value("a (__col:1.1)")


def test_a_weight_given_by_keys_can_be_taken_back(idle):
    idle.fill(PROMPT, "")
    idle.locator(PROMPT).press_sequentially("a red fox")
    for text in ("a red (fox:1.1)", "a red (fox:1.2)"):
        idle.keyboard.press("Control+ArrowUp")
        expect(idle.locator(PROMPT)).to_have_value(text)
    assert idle.evaluate("getSelection().toString()") == "fox"
    idle.keyboard.press("Control+z")
    expect(idle.locator(PROMPT)).to_have_value("a red (fox:1.1)")
    idle.keyboard.press("Control+z")
    expect(idle.locator(PROMPT)).to_have_value("a red fox")
    idle.keyboard.press("Control+ArrowDown")
    expect(idle.locator(PROMPT)).to_have_value("a red (fox:0.9)")
    idle.keyboard.press("Control+ArrowUp")
    expect(idle.locator(PROMPT)).to_have_value("a red fox")


def test_plain_words_are_not_asked_about(idle):
    asked = []
    idle.on("request", lambda request: asked.append(request.url) if "prompt/complete" in request.url else None)
    begin(idle, "a red fox: (snow), <b>")
    idle.wait_for_timeout(200)
    assert asked == []


def test_the_panel_shows_what_the_prompt_becomes_and_follows_it(idle):
    idle.fill(PROMPT, "a [[red, green]] fox <lora:ink:0.5> <style:Low Poly>\nsnow")
    open_panel(idle)
    words = panel(idle).locator(".texts").first
    expect(words).to_contain_text("3d render of a red fox")
    expect(words).to_contain_text("snow")
    expect(panel(idle).locator(".pairs").last).to_contain_text("ink.safetensors→0.5")
    idle.fill(PROMPT, "a wolf <b>")
    expect(words).to_contain_text("a wolf <b>")
    expect(words).not_to_contain_text("snow")
    idle.fill(PROMPT, "a " + "__animal__ " * 1001)
    expect(panel(idle).locator("[role=alert]")).to_contain_text("more than 1000 wildcards")
    idle.fill(PROMPT, "a __nowhere__ wolf")
    expect(panel(idle).locator(".notices")).to_contain_text("There is no wildcard file nowhere.txt")
    idle.locator("#becomes summary").click()


def test_the_pictures_of_a_request_are_turned_and_chance_is_drawn_again(page):
    page.fill("#image_number input[type=number]", "2")
    page.fill(PROMPT, "a [[red, green]] fox")
    open_panel(page)
    words = panel(page).locator(".texts").first
    expect(words).to_contain_text("red")
    expect(panel(page).get_by_role("button", name="Draw again")).to_be_hidden()
    page.get_by_role("button", name="Next picture", exact=True).click()
    expect(words).to_contain_text("green")
    expect(page.get_by_role("button", name="Next picture", exact=True)).to_be_disabled()
    page.fill(PROMPT, "__animal__ __color__ __flower__ __place__")
    expect(panel(page)).to_contain_text("The seed is random")
    expect(panel(page).locator(".pairs li")).to_have_count(4)
    first = words.inner_text()
    page.get_by_role("button", name="Draw again").click()
    expect(words).not_to_have_text(first)


def test_a_given_seed_shows_what_will_really_be_drawn(page):
    page.locator("#random_seed input").uncheck()
    page.fill("#seed input", "9223372036854775807")
    page.fill(PROMPT, "a __animal__ in __place__ with __flower__")
    open_panel(page)
    expect(panel(page).locator(".pairs li")).to_have_count(3)
    shown = panel(page).locator(".texts .words").first.inner_text()
    page.fill(STEPS, "1")
    page.locator(PROMPT).press("Control+Enter")
    expect(page.locator("#final_gallery a")).to_have_count(1)
    page.get_by_role("button", name="Latest picture").click()
    expect(page.get_by_role("button", name="Latest picture")).to_have_attribute("aria-pressed", "true")
    expect(panel(page).locator(".texts .words").first).to_have_text(shown)


def test_the_latest_picture_tells_its_own_prompt_whatever_is_typed_since(page):
    page.fill(STEPS, "1")
    page.fill(PROMPT, "a bear")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#final_gallery a")).to_have_count(1)
    page.fill(PROMPT, "a wolf")
    open_panel(page)
    words = panel(page).locator(".texts").first
    expect(words).to_contain_text("a wolf")
    page.get_by_role("button", name="Latest picture").click()
    expect(words).to_contain_text("a bear")
    page.fill(PROMPT, "a fox")
    page.locator(PROMPT).press("Control+Enter")
    expect(words).to_contain_text("a fox")
    page.get_by_role("button", name="Next pictures").click()
    expect(words).to_contain_text("a fox")


def test_the_text_that_continues_the_prompt_is_one_more_text(idle):
    """The answer is made up: the stand-in has no models, so that nothing could be told ahead."""
    told = {
        "positive": [{"text": "a fox", "source": "prompt"}], "negative": [], "styles": ["Fooocus V2"], "expansion": True,
        "choices": [], "combinations": 1, "notices": [], "loras": [], "index": 0, "images": 1, "seed": "1", "chance": True,
    }  # fmt: skip
    answers = [{"continued": "a fox, <b>soft light", "foretold": True}, {"continued": None, "foretold": False}]
    idle.route("**/easel/prompt/becomes", lambda route: route.fulfill(json=told | answers[0]))
    idle.fill(PROMPT, "a fox")
    open_panel(idle)
    expect(panel(idle).locator(".texts .words")).to_have_text(["a fox", "a fox, <b>soft light"])
    expect(panel(idle).locator(".texts .source").last).to_have_text("Continued prompt")
    expect(panel(idle)).not_to_contain_text("is drawn when the picture is made")
    expect(panel(idle)).to_contain_text("The seed is random")
    answers.pop(0)
    idle.get_by_role("button", name="Draw again").click()
    expect(panel(idle).locator(".texts .words")).to_have_text(["a fox"])
    expect(panel(idle)).to_contain_text("What the expansion model adds is drawn when the picture is made.")
    expect(panel(idle).get_by_role("button", name="Draw again")).to_be_hidden()
    idle.unroute_all()
    idle.locator("#becomes summary").click()


def test_the_settings_of_the_prompt_are_among_the_advanced_ones(idle):
    idle.get_by_role("tab", name="Advanced").click()
    for name in ("prompt_syntax", "read_wildcards_in_order", "seed_increment"):
        expect(idle.locator(f"#{name}")).to_be_visible()
    idle.fill(PROMPT, "a [[red, green]] fox")
    open_panel(idle)
    words = panel(idle).locator(".texts").first
    expect(words).to_contain_text("a red fox")
    idle.locator("#prompt_syntax input").uncheck()
    expect(words).to_contain_text("a [[red, green]] fox")
    idle.locator("#prompt_syntax input").check()
    idle.locator("#becomes summary").click()


def test_the_helpers_fit_a_narrow_phone(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        page.fill(PROMPT, "a " + "very " * 12)
        page.locator(PROMPT).press_sequentially("__")
        expect(options(page).first).to_be_visible()
        box = page.locator(LIST).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 740
        page.keyboard.press("Escape")
        open_panel(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
