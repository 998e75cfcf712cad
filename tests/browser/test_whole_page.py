"""All of the page as one visitor goes through it: every text has its translations, and axe-core finds nothing serious."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.settings import AUTO_ON_OFF, NOISE_DEVICES, OUTPUT_FORMATS, PREDICTIONS, REFINER_SWAPS, SAMPLERS, SCHEDULERS
from tests.browser.chromium import visit
from webui.texts import NAMES

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.xdist_group("whole page")]

PROMPT = "#positive_prompt textarea"
FADE = 350  # milliseconds until what appears has its full colours
SLOW = 240_000  # milliseconds: the first picture waits for the model to load
ALL_RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# Names that are the same in every language: what a program or a file calls itself, and what prompts consist of.
SAME = {
    *SAMPLERS,
    *SCHEDULERS,
    *OUTPUT_FORMATS,
    *PREDICTIONS,
    *REFINER_SWAPS,
    *NOISE_DEVICES,
    *AUTO_ON_OFF,
    "easel-emoji-256",
    "easel-pixel-art",
}
VISIBLE_TEXTS = """() => {
  const untouched = 'script, style, textarea, code, pre, [translate=no], .notranslate, .excerpt, .chip, .shot, #viewer img';
  const found = new Set();
  const date = /\\d{4}, \\d|^\\d+[/.]\\d+[/.]/;
  const add = (text) => {
    if (date.test(text || '')) return;
    for (const part of (text || '').split(' · ')) if (/\\p{L}/u.test(part)) found.add(part.trim().replace(/\\s+/g, ' '));
  };
  for (const element of document.body.querySelectorAll('*')) {
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    if (!element.closest(untouched)) {
      for (const name of ['title', 'aria-label', 'alt']) add(element.getAttribute(name));
      for (const node of element.childNodes) if (node.nodeType === Node.TEXT_NODE) add(node.data);
    }
    add(element.getAttribute('placeholder'));
    if (element.matches('input[role=combobox], input[role=listbox]')) add(element.value);
  }
  return [...found];
}"""
KNOWN = "async ([code, texts]) => { await easel.language.choose(code); return texts.map((text) => easel.language.knows(text)); }"


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def walk(page: Any) -> Iterator[str]:
    """Go through the page, making two pictures on the way, and stop, by name, wherever something new is seen."""
    yield "empty"
    page.click("#page_menu_button")
    yield "the page's menu"
    page.click("#page_menu button")
    yield "the keys"
    page.keyboard.press("Escape")
    yield from settings(page)
    yield from styles(page)
    yield from other_tabs(page)
    yield from mistakes(page)
    yield from pictures(page)
    yield from history(page)


def settings(page: Any) -> Iterator[str]:
    open_tab(page, "Settings")
    for name in ("preset_keeping", "batch_list", "batch_grid"):
        page.locator(f"#{name} button").first.click()
    page.wait_for_timeout(500)
    yield "Settings"
    yield from lists(page, "preset", "performance", "aspect", "grid_x", "grid_y")


def lists(page: Any, *names: str) -> Iterator[str]:
    for name in names:
        page.click(f"#{name} input")
        page.wait_for_selector("[role=option]")
        page.wait_for_timeout(FADE)
        yield f"the list {name}"
        page.keyboard.press("Escape")
        page.locator(f"#{name} input").blur()


def styles(page: Any) -> Iterator[str]:
    open_tab(page, "Styles")
    page.wait_for_selector("#styles_browser .tile")
    page.locator("#styles_browser .tile .choice").first.click()
    page.locator("#styles_browser .tile .choice").nth(4).click()
    page.wait_for_timeout(300)
    yield "Styles"
    page.click("#styles_browser .clear")


def other_tabs(page: Any) -> Iterator[str]:
    open_tab(page, "Models")
    page.click("#add_lora")
    page.wait_for_timeout(300)
    yield "Models"
    yield from lists(page, "vae", "refiner_swap")
    open_tab(page, "Advanced")
    yield "Advanced"
    yield from lists(page, "prediction", "zero_terminal_snr", "noise_device")
    page.fill("#advanced_search", "noise")
    yield "a search in Advanced"
    page.fill("#advanced_search", "")


def mistakes(page: Any) -> Iterator[str]:
    open_tab(page, "Settings")
    page.fill("#width input", "100")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#message .problem")).to_be_visible()
    yield "a width that cannot be"
    page.fill("#width input", "256")
    page.fill("#height input", "256")
    page.click("#becomes summary")
    page.fill(PROMPT, "a [[red, blue]] fox __nothing__")
    page.wait_for_selector("#becomes .found .texts")
    page.wait_for_timeout(500)
    yield "what the prompt becomes"
    page.click("#becomes summary")
    page.evaluate("easel.useSettings('hello')")
    page.wait_for_timeout(500)
    yield "a text that is no settings"


def pictures(page: Any) -> Iterator[str]:
    page.fill("#steps input[type=number]", "60")
    page.fill(PROMPT, "a red apple")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#progress-bar .bar", timeout=SLOW)
    yield "a task under way"
    page.fill("#steps input[type=number]", "4")
    page.fill(PROMPT, "a fox on a blue background")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(300)
    yield "two tasks"
    expect(page.locator("#final_gallery a")).to_have_count(2, timeout=SLOW)
    yield "pictures"
    page.locator("#final_gallery a").first.click()
    page.wait_for_selector("#viewer[open]")
    yield "a picture in full size"
    page.keyboard.press("Escape")


def history(page: Any) -> Iterator[str]:
    open_tab(page, "History")
    page.evaluate("document.querySelector('#history').scrollIntoView()")  # it asks for nothing before it is seen
    page.wait_for_selector("#history .count:not(:empty)")
    page.wait_for_timeout(800)
    yield "History"
    page.locator("#history .tile .open").first.click()
    page.wait_for_selector("#history dialog.details")
    yield "a picture's details"
    page.keyboard.press("Escape")
    for tile in (0, 1):
        page.locator("#history .tile .pick").nth(tile).check()
    yield "two pictures selected"
    page.locator("#history .selection .main").click()
    page.wait_for_selector("#history dialog.compare")
    yield "two pictures compared"
    page.keyboard.press("Escape")
    page.locator("#history .selection .danger").click()
    page.wait_for_selector("#history .toast.shown")
    yield "pictures thrown away"
    page.locator("#history .view").nth(2).click()
    page.wait_for_timeout(500)
    page.locator("#history .facts .danger").click()
    page.wait_for_selector("#history dialog.ask")
    yield "the trash"
    page.keyboard.press("Escape")
    page.locator("#history .view").first.click()


def test_every_text_that_a_visitor_sees_has_its_translation_in_every_language(browser, address):
    with visit(browser, address) as page:
        seen: dict[str, str] = {}
        for stop in walk(page):
            for text in page.evaluate(VISIBLE_TEXTS):
                seen.setdefault(text, stop)
        texts = [text for text in seen if text not in SAME]
        assert len(texts) > 250
        for code in NAMES:
            known = page.evaluate(KNOWN, [code, texts])
            assert [(text, seen[text]) for text, there in zip(texts, known, strict=True) if not there] == [], code


def serious_findings(page: Any, run_only: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    """What axe-core finds that is serious or critical, each with the places where it is."""
    # What happens to lie half below the bar of the tabs is no finding: a turn of the wheel brings it out.
    page.evaluate("window.scrollTo(0, 0); document.querySelector('#settings').scrollTo(0, 0)")
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe_source())
    options = {"resultTypes": ["violations"], "runOnly": run_only, "rules": rules}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{rule['id']} ({rule['impact']}): {' '.join(node['target'][-1] for node in rule['nodes'][:4])}: {rule['help']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def axe_source() -> str:
    axe = pytest.importorskip(
        "axe_playwright_python", reason="pip install axe-playwright-python, which brings axe-core"
    )
    return (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


# The dark page differs in nothing but colours, a phone's in all but them.
@pytest.mark.parametrize(
    ("width", "theme", "run_only", "rules"),
    [
        (1280, "light", ALL_RULES, {}),
        (1280, "dark", {"type": "rule", "values": ["color-contrast"]}, {}),
        (360, "light", ALL_RULES, {"color-contrast": {"enabled": False}}),
    ],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing_serious_on_any_tab(browser, address, width, theme, run_only, rules):
    with visit(browser, address, width=width, reduced_motion="reduce") as page:
        page.evaluate("(theme) => easel.theme.choose(theme)", theme)
        page.wait_for_timeout(FADE)
        found: dict[str, list[str]] = {}
        for stop in walk(page):
            if stop.startswith("the list") and width == 360:  # the same lists as on a wide screen
                continue
            for finding in serious_findings(page, run_only, rules):
                found.setdefault(finding, []).append(stop)
        assert found == {}
