"""The page in a browser, over the stand-in engine: what a person does with it and what they must then see."""

import base64
import io

import numpy as np
import pytest
from foreign_samples import A1111
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.output.record import Record
from core.output.save import encode_picture
from core.settings import Settings
from tests.browser.chromium import arrive, free_port, running, visit
from webui.controls import CONTROLS

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

PROMPT, STEPS = "#positive_prompt textarea", "#steps input[type=number]"
LEAVE = """text => {
    sessionStorage.clear();
    localStorage.setItem('easel-session', text);
    Storage.prototype.setItem = () => {}; // nothing that this page still has to store comes on top
}"""
HOSTILE = "<img src=x onerror=\"document.title='run'\"> ${document.title='run'} {{value}} </textarea>"


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


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
    generate(page, "a red apple", steps=20)
    expect(page.locator("#progress-bar")).to_contain_text("of 20")
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
    page.locator("ul.tasks li", has_text="second").locator("[data-action=cancel]").click()
    expect(page.locator("ul.tasks li")).to_have_count(2)
    expect(page.locator("ul.tasks")).not_to_contain_text("second")
    page.keyboard.press("Escape")
    expect(page.locator("#final_gallery a")).to_have_count(1)
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", "third")


def test_escape_stops_nothing_while_it_is_for_something_nearer(page):
    generate(page, "a fox", steps=200)
    expect(page.locator("#stop_button")).to_be_visible()
    page.click("#page_menu_button")
    page.focus("#page_language")
    page.keyboard.press("Escape")
    expect(page.locator("#page_menu")).to_be_hidden()
    open_tab(page, "Styles")
    page.fill("#styles_browser input[type=search]", "line")
    page.keyboard.press("Escape")
    page.focus(PROMPT)
    composing = "new KeyboardEvent('keydown', {key: 'Escape', isComposing: true, bubbles: true})"
    page.evaluate(f"document.activeElement.dispatchEvent({composing})")
    page.wait_for_timeout(600)  # longer than a stop takes
    expect(page.locator("#stop_button")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#stop_button")).to_be_hidden()


def test_a_key_that_is_held_down_asks_for_one_picture(page):
    page.fill(STEPS, "200")
    page.fill(PROMPT, "a fox")
    page.keyboard.down("Control")
    for _ in range(4):  # the second and later ones come as repeats
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    expect(page.locator("#stop_button")).to_be_visible()
    page.wait_for_timeout(600)
    expect(page.locator("ul.tasks li")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#stop_button")).to_be_hidden()


def test_a_reload_finds_the_running_task_its_settings_and_its_picture(page, address):
    generate(page, "a fox", steps=70)
    expect(page.locator("#stage img.preview")).to_be_visible()
    arrive(page, address)
    expect(page.locator("#stage img.preview")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a fox")
    expect(page.locator(STEPS)).to_have_value("70")
    expect(page.locator("#final_gallery a")).to_have_count(1, timeout=60_000)


def test_another_browser_sees_nothing_of_it(page, browser, address):
    generate(page, "my secret", steps=200)
    expect(page.locator("#stage img.preview")).to_be_visible()
    with visit(browser, address) as other:
        other.wait_for_timeout(500)
        assert "my secret" not in other.content()
        expect(other.locator("#stage img.preview")).to_have_count(0)
    expect(page.locator("#stage img.preview")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#stop_button")).to_be_hidden()


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
    generate(page, HOSTILE, steps=40)
    expect(page.locator("ul.tasks .excerpt").first).to_have_text(" ".join(HOSTILE.split())[:79] + "…")
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", HOSTILE)
    page.locator("#stage a.shot").click()
    expect(page.locator("#viewer .caption")).to_contain_text(HOSTILE)
    assert page.title() == title


@pytest.mark.parametrize("language", ["en", "de"])
def test_on_a_phone_all_that_the_viewer_offers_can_be_reached(browser, address, language):
    with visit(browser, address, width=360, height=740) as page:
        page.evaluate("(code) => easel.language.choose(code)", language)
        generate(page, "a fox", steps=1)
        page.locator("#final_gallery a").click()
        boxes = [tool.bounding_box() for tool in page.locator("#viewer .tools > *").all()]
        assert len(boxes) == 6
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 360 for box in boxes)
        lowest = max(box["y"] + box["height"] for box in boxes)
        assert lowest <= page.evaluate("parseFloat(getComputedStyle(document.querySelector('#viewer img')).paddingTop)")


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


def test_back_closes_the_viewer_and_leaves_the_page_only_when_there_is_none(browser, address):
    with visit(browser, address, 360, 740, has_touch=True) as page:
        generate(page, "one", steps=1)
        shot, viewer = page.locator("#final_gallery a"), page.locator("#viewer")
        for close in ("history.back()", "document.querySelector('#viewer .close').click()"):
            before = page.evaluate("history.length")
            shot.click()
            expect(viewer).to_be_visible()
            page.evaluate(close)
            expect(viewer).to_be_hidden()
            page.wait_for_function("history.state === null")
            assert page.evaluate("history.length") <= before + 1
        shot.click()
        page.keyboard.press("Escape")
        page.wait_for_function("history.state === null")
        page.go_back()
        assert page.url == "about:blank"


def test_the_viewer_s_caption_is_translated_but_for_the_prompt(page):
    page.evaluate("easel.language.choose('de')")
    generate(page, "Settings · seed 1", steps=1)
    shot = page.locator("#final_gallery a")
    shot.click()
    size, seed = (shot.get_attribute(f"data-{name}") for name in ("size", "seed"))
    expect(page.locator("#viewer .caption")).to_have_text(f"Settings · seed 1 · {size} · Seed {seed}")


def test_only_a_press_and_release_beside_the_picture_closes_the_viewer(page):
    generate(page, "one two three", steps=1)
    page.locator("#final_gallery a").click()
    page.locator("#viewer .caption").hover()
    page.mouse.down()  # as one marks the caption to copy it
    page.mouse.move(640, 300)
    page.mouse.up()
    expect(page.locator("#viewer")).to_be_visible()
    page.mouse.click(640, 300)
    expect(page.locator("#viewer")).to_be_hidden()


def test_what_is_typed_beside_the_controls_outlives_a_reload_until_it_is_used(page, address):
    fields = {"prompt_list": "a fox\na cat", "grid_x_values": "3, 4"}
    for group in ("batch_list", "batch_grid"):
        page.locator(f"#{group} button").first.click()
    for name, text in fields.items():
        page.fill(f"#{name} textarea, #{name} input", text)
    page.click("#grid_x input")
    page.get_by_role("option", name="Guidance scale", exact=True).click()
    page.wait_for_function("(sessionStorage['easel-session'] || '').includes('\"grid_x\":\"guidance_scale\"')")
    arrive(page, address)
    for group in ("batch_list", "batch_grid"):
        page.locator(f"#{group} button").first.click()
    for name, text in fields.items():
        expect(page.locator(f"#{name} textarea, #{name} input")).to_have_value(text)
    expect(page.locator("#grid_x input")).to_have_value("Guidance scale")
    page.click("#queue_list")
    expect(page.locator("#final_gallery a")).to_have_count(2)
    assert {tuple(shot.get_attribute("data-prompt") for shot in page.locator("#final_gallery a").all())} == {
        ("a cat", "a fox")
    }
    arrive(page, address)
    page.locator("#batch_list button").first.click()
    expect(page.locator("#prompt_list textarea")).to_have_value("")


def test_choosing_a_model_brings_its_settings_and_sizes(idle):
    open_tab(idle, "Models")
    idle.click("#base_model input")
    idle.get_by_role("option", name="large").click()
    open_tab(idle, "Settings")
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
        ("<lora:felt:0.5>", (8, 8), "ArrowUp", "<lora:felt:0.55>"),
        ("<style:3D Render>", (9, 9), "ArrowUp", "<style:3D Render>"),  # what begins with a number is no weight yet
        ("<lora:2d_style>", (8, 8), "ArrowUp", "<lora:2d_style>"),
        ("(scene: 2 cats)", (3, 3), "ArrowUp", "((scene:1.1): 2 cats)"),
        ("(time 12:30 clock)", (2, 2), "ArrowUp", "((time:1.1) 12:30 clock)"),
        ("[[cat, dog]]", (3, 3), "ArrowUp", "[[(cat:1.1), dog]]"),
        ("embedding:toy, red", (12, 12), "ArrowUp", "(embedding:toy:1.1), red"),
        ("(embedding:toy)", (13, 13), "ArrowUp", "(embedding:toy:1.2)"),
        (r"embedding:a/neg_\(1\), red", (15, 15), "ArrowUp", r"(embedding:a/neg_\(1\):1.1), red"),
    ]:
        idle.fill(PROMPT, before)
        idle.evaluate(f"document.querySelector('{PROMPT}').setSelectionRange({selection[0]}, {selection[1]})")
        idle.keyboard.press(f"Control+{key}")
        expect(idle.locator(PROMPT)).to_have_value(after)


def test_what_was_set_comes_back_after_a_reload_without_having_been_sent(page, address):
    page.fill(PROMPT, "a half-written se")
    page.fill("#height input", "320")
    page.locator("#random_seed input").uncheck()
    page.fill("#seed input", "9223372036854775807")
    open_tab(page, "Advanced")
    page.fill("#sharpness input[type=number]", "7")
    page.wait_for_function("(localStorage['easel-session'] || '').includes('\"sharpness\":7')")
    arrive(page, address)
    expect(page.locator(PROMPT)).to_have_value("a half-written se")
    expect(page.locator("#height input")).to_have_value("320")
    expect(page.locator("#seed input")).to_have_value("9223372036854775807")
    expect(page.locator("#random_seed input")).not_to_be_checked()
    open_tab(page, "Advanced")
    expect(page.locator("#sharpness input[type=number]")).to_have_value("7")
    open_tab(page, "Settings")
    page.click("#reset_settings")
    expect(page.locator("#height input")).to_have_value("256")
    expect(page.locator(PROMPT)).to_have_value("a half-written se")


def test_what_was_typed_in_the_very_moment_before_a_reload_comes_back(page, address):
    page.fill("#height input", "328")
    page.fill(PROMPT, "just now")
    arrive(page, address)
    expect(page.locator(PROMPT)).to_have_value("just now")
    expect(page.locator("#height input")).to_have_value("328")


def test_each_tab_has_its_own_form_and_a_new_one_the_latest(page, address):
    page.fill(PROMPT, "a fox in the snow")
    page.wait_for_function("(sessionStorage['easel-session'] || '').includes('snow')")
    other = page.context.new_page()
    arrive(other, address)
    expect(other.locator(PROMPT)).to_have_value("a fox in the snow")
    other.fill(PROMPT, "a cat")
    other.wait_for_function("(localStorage['easel-session'] || '').includes('a cat')")
    arrive(page, address)
    expect(page.locator(PROMPT)).to_have_value("a fox in the snow")


def test_a_damaged_memory_of_the_last_visit_harms_nothing(page, address):
    for memory in ("{", "[1]", '{"steps": "<b>", "width": 1e99, "seed": [], "prompt": 3, "height": 320}'):
        page.evaluate(LEAVE, memory)
        arrive(page, address)
        expect(page.locator(STEPS)).to_have_value("4")
    expect(page.locator("#height input")).to_have_value("320")


def test_settings_from_elsewhere_are_shown_and_what_is_unknown_is_told(page):
    page.evaluate("window.easel.useSettings(JSON.stringify({prompt: 'a bear', steps: 9, seed: 5, hat: 1}))")
    expect(page.locator(PROMPT)).to_have_value("a bear")
    expect(page.locator(STEPS)).to_have_value("9")
    expect(page.locator("#seed input")).to_have_value("5")
    expect(page.locator("#random_seed input")).not_to_be_checked()
    expect(page.locator("#message")).to_contain_text("These could not be used: hat (1).")
    page.evaluate("window.easel.useSettings('no settings at all')")
    expect(page.locator("#message")).to_contain_text("parameters")
    expect(page.locator(PROMPT)).to_have_value("a bear")


def test_the_advanced_settings_are_searched_as_one_types(idle):
    open_tab(idle, "Advanced")
    idle.fill("#advanced_search", "hint negative")
    expect(idle.locator("#adm_scaler_negative")).to_be_visible()
    expect(idle.locator("#adm_scaler_positive")).to_be_hidden()
    expect(idle.locator("#sampler")).to_be_hidden()
    idle.fill("#advanced_search", "")
    expect(idle.locator("#sampler")).to_be_visible()
    open_tab(idle, "Settings")


def test_a_page_goes_on_by_itself_when_its_server_was_ended_and_started_again(browser, tmp_path):
    """D64: that the server is gone is told by the connection itself."""
    port = free_port()
    command, address = ["-m", "tests.webui.stand_in", str(port), str(tmp_path), "0.05"], f"http://127.0.0.1:{port}"
    context = browser.new_context()
    page = context.new_page()
    with running(command, address):
        arrive(page, address)
        page.fill(PROMPT, "a fox in the snow")
        page.wait_for_function("(localStorage['easel-session'] || '').includes('snow')")
    expect(page.locator("#server_gone")).to_be_visible()
    page.evaluate("window.old = true")
    with running(command, address):
        page.wait_for_function(
            "!window.old && document.activeElement && document.activeElement.closest('#positive_prompt')",
            timeout=60_000,
        )
        expect(page.locator(PROMPT)).to_have_value("a fox in the snow")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#final_gallery a")).to_have_count(1)
    context.close()


def test_every_control_stands_in_the_page_once(idle):
    for tab in ("Styles", "Models", "Advanced", "Settings"):  # a tab is made when it is first opened
        open_tab(idle, tab)
    for name in CONTROLS:
        expect(idle.locator("#positive_prompt" if name == "prompt" else f"#{name}")).to_have_count(1)


def test_a_narrow_window_and_a_wish_for_stillness_are_heeded_outside_the_page_s_own_part_too(browser, address):
    with visit(browser, address, width=600, reduced_motion="reduce") as page:
        padding = "getComputedStyle(document.querySelector('.gradio-container')).paddingInline"
        assert page.evaluate(padding) == "12px"
        outside = "document.body.append(easel.make('p', { id: 'outside', style: 'transition: opacity 2s' }))"
        page.evaluate(outside)
        assert page.evaluate("getComputedStyle(document.querySelector('#outside')).transitionProperty") == "none"
        page.set_viewport_size({"width": 1000, "height": 900})
        assert page.evaluate(padding) == "24px"


def test_an_example_fills_the_prompt(idle):
    idle.locator(".chip", has_text="a red apple").click()
    expect(idle.locator(PROMPT)).to_have_value("a red apple")


def test_everything_fits_a_narrow_phone(browser, address):
    with visit(browser, address, width=360, height=740) as page:
        generate(page, "a" * 200, steps=40)
        expect(page.locator("#stop_button")).to_be_visible()
        for tab in ("Settings", "Models", "Advanced"):
            open_tab(page, tab)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            wide = "e => { const r = e.getBoundingClientRect(); return r.width && (r.right > 361 || r.left < -1) }"
            assert (
                page.evaluate(f"[...document.querySelectorAll('button, input, textarea')].filter({wide}).length") == 0
            )
            expect(page.locator("#final_gallery a")).to_have_count(1)


def test_a_dropped_picture_gives_its_settings_back(page, tmp_path):
    made = tmp_path / "made.png"
    record = Record(Settings(prompt="a bear", steps=9, seed=2**63 - 1, base_model="gone.safetensors"))
    made.write_bytes(encode_picture(np.zeros((64, 64, 3), np.uint8), record)[0])
    page.set_input_files("#read_picture", made)
    expect(page.locator(PROMPT)).to_have_value("a bear")
    expect(page.locator(STEPS)).to_have_value("9")
    expect(page.locator("#seed input")).to_have_value(str(2**63 - 1))
    expect(page.locator("#message")).to_contain_text("gone")
    other = tmp_path / "other.png"
    other.write_bytes(b"no picture at all")
    page.set_input_files("#read_picture", other)
    expect(page.locator("#message")).to_contain_text("no PNG, JPEG or WebP")


def png_of(text):
    """A picture that carries `text` as AUTOMATIC1111's and Fooocus's do."""
    file, info = io.BytesIO(), PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def test_dropping_a_foreign_picture_fills_the_controls(page):
    """D25: what it does not say is as its checkpoint recommends; what is the page's own stays."""
    open_tab(page, "Settings")
    page.fill(PROMPT, "a bear")
    page.fill("#image_number input[type=number]", "3")
    page.evaluate(
        """base64 => {
            const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "made elsewhere.png", { type: "image/png" }));
            for (const type of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(png_of(A1111)).decode(),
    )
    expect(page.locator(PROMPT)).to_have_value("masterpiece, a lighthouse at dusk , waves second line")
    expect(page.locator("#negative_prompt textarea")).to_have_value("blurry, lowres")
    expect(page.locator(STEPS)).to_have_value("28")
    expect(page.locator("#guidance_scale input[type=number]")).to_have_value("6.5")
    expect(page.locator("#height input")).to_have_value("1216")
    expect(page.locator("#seed input")).to_have_value("4294967295")
    expect(page.locator("#random_seed input")).not_to_be_checked()
    expect(page.locator("#image_number input[type=number]")).to_have_value("3")
    expect(page.locator("#message")).to_contain_text("Written by A1111 or a program like it.")
    expect(page.locator("#message")).to_contain_text("Denoising strength (0.35)")
    expect(page.locator("body")).not_to_have_class("dropping")


def test_settings_from_elsewhere_are_a_notice_and_a_long_list_of_what_could_not_be_used_opens_within_bounds(page):
    understood = "a bear\nSteps: 9, Sampler: Euler, Seed: 5"
    page.evaluate("text => window.easel.useSettings(text)", understood)
    expect(page.locator("#message .notice")).to_have_text("Written by A1111 or a program like it.")
    keys = ", ".join(f"<b>key</b> {number}: {number}" for number in range(150))
    page.evaluate("text => window.easel.useSettings(text)", f"{understood}, {keys}")
    told = page.locator("#message .problem")
    expect(told).to_contain_text("and 138 more.")
    told.locator("summary").click()
    entries = told.locator("li")
    expect(entries).to_have_count(150)
    entries.last.scroll_into_view_if_needed()
    expect(entries.last).to_be_in_viewport()
    assert told.bounding_box()["height"] < page.viewport_size["height"] / 2


def test_a_part_of_settings_leaves_the_rest_of_the_page_as_it_is(page):
    """D25: pasting {"steps": 20} used to empty the prompts, set the seed to 0 and untick Random."""
    open_tab(page, "Settings")
    page.fill(PROMPT, "a bear")
    page.fill("#negative_prompt textarea", "fog")
    page.fill("#height input", "320")
    page.evaluate("window.easel.useSettings(JSON.stringify({steps: 20}))")
    expect(page.locator(STEPS)).to_have_value("20")
    expect(page.locator(PROMPT)).to_have_value("a bear")
    expect(page.locator("#negative_prompt textarea")).to_have_value("fog")
    expect(page.locator("#height input")).to_have_value("320")
    expect(page.locator("#random_seed input")).to_be_checked()


def test_settings_from_elsewhere_are_stronger_than_the_mode_that_the_page_was_in(page):
    open_tab(page, "Settings")
    page.fill(STEPS, "12")
    page.fill("#guidance_scale input[type=number]", "6")
    page.click("#performance input")
    page.get_by_role("option", name="Lightning").click()
    expect(page.locator(STEPS)).to_be_disabled()
    page.evaluate("window.easel.useSettings(JSON.stringify({steps: 20}))")
    expect(page.locator("#performance input")).to_have_value("Custom")
    expect(page.locator(STEPS)).to_be_enabled()
    page.wait_for_timeout(500)  # the change of the mode is answered, too
    expect(page.locator(STEPS)).to_have_value("20")
    expect(page.locator("#guidance_scale input[type=number]")).to_have_value("6")


def test_that_a_picture_is_read_is_told_at_once_and_of_two_the_later_one_counts(page, tmp_path):
    kept, left = [], []
    page.on("requestfailed", lambda request: left.append(request.url))
    page.route("**/easel/read", lambda route: kept.append(route) if not kept else route.continue_())
    for name in ("first", "second"):
        (tmp_path / f"{name}.png").write_bytes(png_of(f"{name}\nSteps: 9, Sampler: Euler, Seed: 5"))
    page.set_input_files("#read_picture", tmp_path / "first.png")
    line = page.locator("#reading_picture")
    expect(line).to_have_text("Reading the picture")
    expect(line).to_be_in_viewport()
    page.set_input_files("#read_picture", tmp_path / "second.png")
    expect(page.locator(PROMPT)).to_have_value("second")
    expect(line).to_be_hidden()
    assert any(url.endswith("/easel/read") for url in left)  # given up; Gradio gives up requests of its own


def test_the_settings_of_a_picture_that_is_gone_are_explained_away(page):
    generate(page, "a bear", steps=1)
    expect(page.locator("#final_gallery a")).to_have_count(1)
    page.locator("#final_gallery a").click()
    page.evaluate(  # in the page, because the browser itself reports a file that is not there as an error
        """gone => { const before = window.fetch; window.fetch = (address, ...rest) =>
            String(address).endsWith(gone) ? Promise.resolve(new Response("", { status: 404 })) : before(address, ...rest); }""",
        page.locator("#final_gallery a").get_attribute("href"),
    )
    page.locator("#viewer .use").click()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#message")).to_contain_text("The picture could not be fetched; it may have been deleted.")


def test_a_pasted_text_of_settings_is_offered_to_be_used(page):
    page.fill(PROMPT, "a wolf\nSteps: 7, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 256x320")
    page.click("#settings_offer")
    expect(page.locator(PROMPT)).to_have_value("a wolf")
    expect(page.locator("#height input")).to_have_value("320")
    expect(page.locator("#settings_offer")).to_be_hidden()
