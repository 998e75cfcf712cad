"""The Page menu, the languages, sound and notification, and the page without a mouse; over the stand-in engine."""

import pytest

from tests.browser.chromium import arrive, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

PROMPT = "#positive_prompt textarea"
HEAR = """() => {
  window.notes = 0;
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...args) { window.notes += 1; return start.apply(this, args); };
}"""
HIDE = """() => {
  window.told = [];
  window.Notification = class extends EventTarget {
    static permission = 'granted';
    static requestPermission() { return Promise.resolve('granted'); }
    constructor(title, options) { super(); window.told.push(`${title}: ${options.body}`); }
    close() {}
  };
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => window.away === true });
}"""


def choose_language(page, code):
    page.click("#page_menu_button")
    page.select_option("#page_language", code)
    page.keyboard.press("Escape")


def generate(page, prompt, steps=4):
    page.fill("#steps input[type=number]", str(steps))
    page.fill(PROMPT, prompt)
    page.keyboard.press("Control+Enter")


def test_a_language_is_seen_at_once_is_remembered_and_can_be_left_again(page, address):
    choose_language(page, "de")
    expect(page.locator("#generate_button")).to_have_text("Erzeugen")
    expect(page.locator(PROMPT)).to_have_attribute("placeholder", "Was soll das Bild zeigen?")
    arrive(page, address)
    expect(page.locator("#generate_button")).to_have_text("Erzeugen")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    choose_language(page, "en")
    expect(page.locator("#generate_button")).to_have_text("Generate")
    expect(page.locator(PROMPT)).to_have_attribute("placeholder", "What shall the picture show?")


def test_what_comes_later_is_translated_and_what_people_wrote_is_not(page):
    choose_language(page, "fr")
    generate(page, "Settings", steps=40)  # a prompt that is one of the page's words
    expect(page.locator("ul.tasks .excerpt")).to_have_text("Settings")
    expect(page.locator("#progress-bar .text")).to_contain_text("Étape")
    expect(page.locator("#progress-bar .text")).to_contain_text("Terminé en")
    expect(page.locator(PROMPT)).to_have_value("Settings")
    assert page.locator("#final_gallery img").get_attribute("alt") == "Settings"
    page.fill("#width input", "100")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#message")).to_contain_text("Largeur vaut 100 ; il faut un multiple de 8, par exemple 96.")


@pytest.mark.parametrize(
    ("english", "german"),
    [
        (  # a sentence in a sentence, and one behind it
            "m.safetensors is damaged: its header is not JSON. A whole safetensors file was wanted; download it again.",
            "m.safetensors ist beschädigt: ihr Kopf ist kein JSON. Gebraucht wird eine vollständige safetensors-Datei; "
            "laden Sie sie noch einmal herunter.",
        ),
        (  # lists, of our words and of names
            "m.safetensors lacks the autoencoder (VAE) and the text encoder CLIP-G. Choose vae (a file in vae/), or take a "
            "whole SDXL checkpoint as base model.",
            "In m.safetensors fehlt: der Autoencoder (VAE) und der Text-Encoder CLIP-G. Wählen Sie vae (eine Datei in vae/), "
            "oder nehmen Sie einen vollständigen SDXL-Checkpoint als Basismodell.",
        ),
        (
            "These could not be used: Steps, later KSampler, cat and dog.",
            "Diese konnten nicht verwendet werden: Schritte, späterer KSampler, cat and dog.",
        ),
        (  # the translation that says most, not a shorter one that fits as well
            "There is no LoRA 'x', so its tag does nothing. Did you mean 'y'?",
            "Es gibt kein LoRA 'x', deshalb bewirkt sein Tag nichts. Meinten Sie 'y'?",
        ),
        ("4 tasks · about 5 min of work", "4 Aufträge · etwa 5 min Arbeit"),
        ("A sentence of nobody's.", "A sentence of nobody's."),
    ],
)
def test_sentences_in_sentences_are_translated(page, english, german):
    choose_language(page, "de")
    expect(page.locator("#generate_button")).to_have_text("Erzeugen")
    assert page.evaluate("(text) => window.easel.language.say(text)", english) == german


def test_a_closed_list_shows_its_choice_translated_and_keeps_its_value(page):
    choose_language(page, "es")
    chosen = page.locator("#performance .secondary-wrap")
    expect(chosen).to_have_attribute("data-shown", "Personalizado")
    expect(chosen.locator("input")).to_have_value("Custom")
    chosen.locator("input").click()
    page.get_by_role("option", name="Calidad").click()
    expect(chosen.locator("input")).to_have_value("Quality")
    expect(chosen).to_have_attribute("data-shown", "Calidad")


@pytest.mark.parametrize(
    ("locale", "words"), [("ja-JP", "生成"), ("zh-CN", "生成"), ("ru", "Создать"), ("it-IT", "Generate")]
)
def test_without_a_choice_the_browser_decides(browser, address, locale, words):
    with visit(browser, address, locale=locale) as page:
        expect(page.locator("#generate_button")).to_have_text(words)


def test_light_dark_and_automatic_go_round(page):
    seen = []
    for _ in range(3):
        page.click("#theme_toggle")
        seen.append((page.locator("#theme_toggle").get_attribute("data-choice"), page.locator("body.dark").count()))
    assert seen == [("dark", 1), ("light", 0), ("auto", 0)]


def test_the_title_tells_how_far_it_is(page):
    generate(page, "a red apple", steps=12)
    page.wait_for_function("/^[1-9]\\d? % · Easel$/.test(document.title)")
    page.wait_for_function("document.title === 'Easel'")


def test_the_end_of_a_task_is_heard_only_where_that_is_switched_on(page):
    page.evaluate(HEAR)
    generate(page, "a red apple", steps=2)
    expect(page.locator("#final_gallery img")).to_have_count(1)
    assert page.evaluate("window.notes") == 0
    page.click("#page_menu_button")
    page.check("#page_sound")
    expect(page.locator("#page_menu input[type=range]")).to_be_enabled()
    page.keyboard.press("Escape")
    page.evaluate("window.notes = 0")
    generate(page, "a fox", steps=2)
    page.wait_for_function("window.notes === 2")


def show_bar(page, state, task):
    page.evaluate(
        """([state, task]) => { document.querySelector('#progress-bar').innerHTML =
          `<div class="bar ${state}" role="progressbar" data-task="${task}" aria-valuenow="0"></div>`; }""",
        [state, task],
    )


def test_a_waiting_task_that_is_moved_or_cancelled_is_no_end(page):
    page.evaluate(HEAR)
    page.evaluate("localStorage.setItem('easel-page', JSON.stringify({ sound: true }))")
    for state, task in (("waiting", "a"), ("waiting", "b"), ("running", "c")):
        show_bar(page, state, task)
        page.wait_for_timeout(50)
    assert page.evaluate("window.notes") == 0
    show_bar(page, "waiting", "a")
    page.wait_for_function("window.notes === 2")


def test_a_browser_that_lets_no_page_make_a_notice_still_sees_one_end_as_one(page):
    page.evaluate(HEAR)
    page.evaluate(HIDE)
    page.evaluate(
        """() => { window.Notification = class { static permission = 'granted'; constructor() { throw new TypeError('Illegal constructor'); } };
        window.away = true; localStorage.setItem('easel-page', JSON.stringify({ sound: true, notify: true })); }"""
    )
    show_bar(page, "running", "a")
    page.wait_for_timeout(50)
    for task in ("b", "b", "b"):
        show_bar(page, "waiting", task)
        page.wait_for_timeout(50)
    assert page.evaluate("window.notes") == 2


def test_a_hidden_page_notifies_of_the_end_and_a_visible_one_does_not(page):
    page.evaluate(HIDE)
    page.click("#page_menu_button")
    page.check("#page_notify")
    page.keyboard.press("Escape")
    generate(page, "a red apple", steps=2)
    expect(page.locator("#final_gallery img")).to_have_count(1)
    assert page.evaluate("window.told") == []
    generate(page, "a fox", steps=40)
    page.evaluate("window.away = true")
    page.wait_for_function("window.told.length === 1")
    assert page.evaluate("window.told") == ["Easel: A task has ended."]
    page.wait_for_function("document.title === '✓ Easel'")


def test_a_link_before_everything_else_leads_to_the_prompt(page):
    page.focus("#theme_toggle")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("a.skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(PROMPT)).to_be_focused()


def test_arrows_go_from_tab_to_tab_and_the_focus_can_be_seen(page):
    page.get_by_role("tab", name="Settings").focus()
    for name in ("Styles", "Models", "Advanced", "History", "Settings"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_question_mark_lists_the_keys_except_while_typing(page):
    page.fill(PROMPT, "")
    page.focus(PROMPT)
    page.keyboard.type("why?")
    expect(page.locator("dialog#keys")).to_have_count(0)
    page.locator(PROMPT).blur()
    page.keyboard.press("?")
    expect(page.locator("dialog#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog#keys")).to_have_count(0)


def test_the_list_of_keys_closes_by_a_click_beside_it_alone(page):
    page.locator(PROMPT).blur()
    page.keyboard.press("?")
    keys = page.locator("dialog#keys")
    box = keys.bounding_box()
    inside, beside = (box["x"] + 6, box["y"] + 6), (box["x"] - 20, box["y"] + 6)
    page.mouse.click(*inside)
    page.locator("#keys td").first.hover()
    page.mouse.down()
    page.mouse.move(*beside)
    page.mouse.up()
    expect(keys).to_be_visible()
    page.mouse.click(*beside)
    expect(keys).to_have_count(0)


def test_every_control_of_every_tab_can_be_reached_with_the_tab_key(page):
    for name in ("Settings", "Models", "Advanced"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(page.locator("#tabs input:visible").first).to_be_visible()
        missed = page.evaluate(
            """() => [...document.querySelectorAll('#tabs input, #tabs button, #tabs textarea, #tabs select')]
              .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.disabled && one.tabIndex < 0)
              .filter((one) => !one.closest('[role=tablist]')).map((one) => one.outerHTML.slice(0, 120))"""
        )
        assert missed == [], name
