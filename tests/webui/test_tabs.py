"""The groups of the Advanced tab, and its search."""

import gradio as gr
import pytest

from core.reference_keys import KEYS
from core.settings import Settings
from tests.browser.chromium import visit
from tests.webui.test_form import built
from webui.controls import CONTROLS, names_of, search_words
from webui.tabs.advanced import GROUPS, words_elsewhere, words_here
from webui.tabs.place import Placed, card

OF_THE_TAB = [name for group in GROUPS.values() for name in group]


def test_a_setting_is_in_one_group_and_has_a_control():
    assert len(OF_THE_TAB) == len(set(OF_THE_TAB))
    assert set(OF_THE_TAB) <= set(CONTROLS)


def found(text):
    """As assets/page.js does it."""
    words = {name: "\n".join(words).lower() for name, words in words_here().items()}
    return {name for name in words if all(word in words[name] for word in text.lower().split())}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("karras", {"scheduler"}),
        ("euler", {"sampler"}),
        ("dpmpp 2m", {"sampler"}),
        ("restart", {"sampler"}),
        ("tcd", {"sampler", "scheduler"}),
        ("LCM", {"sampler", "scheduler"}),
        ("vae", {"final_decoder"}),
        ("metadata", {"save_metadata"}),
        ("expansion", {"expander", "prompt_expansion"}),
        ("ADM", {"adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end"}),
        ("adm end", {"adm_scaler_end"}),
        ("CFG", {"adaptive_cfg", "guidance_rescale"}),
        ("TSNR", {"adaptive_cfg", "zero_terminal_snr"}),
        ("mimicking", {"adaptive_cfg"}),
        ("deepcache", {"step_cache"}),
        ("freeu", {"freeu", "freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2"}),
        ("nothing of the kind", set()),
    ],
)
def test_a_setting_is_found_by_what_it_may_be_set_to_and_by_its_names_elsewhere(text, names):
    assert found(text) == names


def test_every_setting_is_found_by_the_names_in_the_files_of_fooocus():
    keys = {key: meaning.to.split(", ") for key, meaning in KEYS.items() if meaning.place == "settings"}
    assert len(keys) > 20
    for key, settings in keys.items():
        for name in settings:
            words = " ".join(search_words(name)).lower()
            assert [word for word in key.removeprefix("default_").split("_") if word not in words] == [], (key, name)


def test_it_knows_in_which_tabs_the_other_settings_are():
    def make():
        placed = Placed(Settings())
        with gr.Blocks():
            placed.put("prompt")
            with gr.Tab("Settings"), card("Making"):
                placed.put("steps")
            with gr.Tab("Models"):
                placed.put("vae", choices=[("soft", "soft.safetensors")])
            return words_elsewhere(placed)

    assert built(make) == {"Settings": {"Steps": names_of("steps")}, "Models": {"VAE": ["vae"]}}


@pytest.mark.browser
def test_what_is_typed_is_searched_in_words_that_are_not_seen(idle):
    from playwright.sync_api import expect

    idle.get_by_role("tab", name="Advanced").click()
    told = idle.locator("#advanced_found")
    assert told.get_attribute("role") == "status"
    idle.fill("#advanced_search", "KARRAS")
    expect(idle.locator("#scheduler")).to_be_visible()
    expect(idle.locator("#sampler")).to_be_hidden()
    expect(idle.locator("#advanced .card:visible")).to_have_count(1)
    expect(told).to_have_text("")
    idle.fill("#advanced_search", "vae")
    expect(idle.locator("#final_decoder")).to_be_visible()
    expect(told).to_have_text("In the tab Models: How the refiner takes over, VAE")
    idle.fill("#advanced_search", "hyper-sd")
    expect(told.locator("span").last).to_have_text("In the tab Settings: Performance")
    idle.fill("#advanced_search", "overwrite sampling")
    expect(told.locator("span")).to_have_text(["No setting here has these words.", "In the tab Settings: Steps"])
    expect(idle.locator("#advanced .card:visible")).to_have_count(0)
    idle.fill("#advanced_search", "")
    expect(idle.locator("#advanced .card:visible")).to_have_count(len(GROUPS))
    expect(told).to_have_text("")


@pytest.mark.browser
def test_a_translated_page_is_searched_in_both_languages(browser, address):
    from playwright.sync_api import expect

    with visit(browser, address) as page:
        page.evaluate("easel.language.choose('de')")
        page.get_by_role("tab", name="Erweitert").click()
        for text in ("Rauschen", "NOISE", "mimicking"):
            page.fill("#advanced_search", text)
            expect(page.locator("#sharpness")).to_be_hidden()
            shown = "#adaptive_cfg" if text == "mimicking" else "#noise_device"
            expect(page.locator(shown)).to_be_visible()
        page.fill("#advanced_search", "overwrite sampling")
        expect(page.locator("#advanced_found span")).to_have_text(
            ["Keine Einstellung hier enthält diese Wörter.", "Im Reiter Einstellungen: Schritte"]
        )
