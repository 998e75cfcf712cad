"""The tables of texts, and a visitor's own files beside them."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.performance import MODES
from webui.controls import CONTROLS
from webui.tabs.advanced import GROUPS
from webui.texts import NAMES, USUAL, own_keys, own_texts, read_languages, texts_route

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("code", NAMES)
def test_every_language_has_the_same_keys_and_takes_the_same_pieces(code):
    table = own_texts(code)
    assert list(table) == list(own_keys())
    for english, text in table.items():
        assert text.strip(), english
        taken = [0]
        for number in re.findall(r"\{=?(\d*)\}", text):
            taken.append(int(number) if number else taken[-1] + 1)
        assert len(taken) == len(set(taken)), (english, text)
        assert max(taken) <= english.count("{}"), (english, text)


@pytest.mark.parametrize(
    ("code", "letters"), [("ja", r"[\u3040-\u30ff\u4e00-\u9fff]"), ("zh", r"[\u4e00-\u9fff]"), ("ru", r"[а-яё]")]
)
def test_whole_sentences_are_in_the_letters_of_their_language(code, letters):
    sentences = {english: text for english, text in own_texts(code).items() if english.endswith(".") and " " in english}
    assert len(sentences) > 100
    assert [text for text in sentences.values() if not re.search(letters, text, re.IGNORECASE)] == []


def test_the_labels_of_all_controls_are_translated():
    told = [control.keywords for control in CONTROLS.values() if isinstance(control, partial)]
    wanted = {each[name] for each in told for name in ("label", "info", "placeholder") if each.get(name)}
    wanted |= set(GROUPS) | {mode.label for mode in MODES.values()}
    assert wanted - set(own_keys()) == set()


def test_a_file_of_the_user_adds_a_language_and_goes_over_one_of_ours(tmp_path):
    (tmp_path / "klingon.json").write_text('{"Generate": "chen", "Style": "", "rtl": true, "odd": 3}', "utf-8")
    (tmp_path / "de.json").write_text('{"GENERATE": "Los", "Only Mine": "Nur meins"}', "utf-8")
    languages = read_languages([tmp_path])
    added, german = languages.by_code["klingon"], languages.by_code["de"]
    assert (added.name, added.texts, added.right_to_left) == ("klingon", {"Generate": "chen"}, True)
    assert (german.texts["Generate"], german.texts["Only Mine"], german.texts["Stop"]) == (
        "Los",
        "Nur meins",
        "Anhalten",
    )
    assert list(languages.menu()) == ["en", *NAMES, "klingon"]


def test_a_file_called_default_is_taken_where_nobody_has_chosen(tmp_path):
    assert read_languages([tmp_path]).usual == ""
    (tmp_path / "default.json").write_text('{"Stop": "Halt"}', "utf-8")
    assert read_languages([tmp_path]).usual == USUAL
    assert read_languages([tmp_path], "fr").usual == "fr"


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_a_broken_file_is_told_and_left_out(tmp_path, text):
    (tmp_path / "mine.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    languages = read_languages([tmp_path])
    assert "mine" not in languages.by_code
    assert "mine.json is left out" in languages.problems[0]


def test_a_language_that_there_is_not_is_told(tmp_path):
    languages = read_languages([tmp_path], "xx")
    assert languages.usual == ""
    assert languages.problems[0].startswith("There is no language 'xx'. There are: en, de,")
    assert read_languages([tmp_path], "fr").problems == ()


def test_the_page_fetches_a_table_by_its_code():
    """D12: texts come as JSON of their own, never inside a script element."""
    client = TestClient(Starlette(routes=[texts_route(read_languages())]))
    assert client.get("/easel/texts/de").json() == {"texts": own_texts("de"), "rightToLeft": False}
    assert client.get("/easel/texts/..%2Fde").status_code == 404
    assert client.get("/easel/texts/en").status_code == 404


def test_no_key_is_written_twice():
    for code in NAMES:
        text = (ROOT / "webui" / "assets" / "texts" / f"{code}.json").read_text(encoding="utf-8")
        keys = [key for key, _ in json.loads(text, object_pairs_hook=list)]
        assert len(keys) == len(set(keys))


def test_the_page_knows_which_names_of_presets_are_the_program_s_own():
    """Those are translated in the list; what a user calls a preset is not."""
    script = (ROOT / "webui" / "assets" / "texts.js").read_text(encoding="utf-8")
    ours = re.search(r"PRESETS = new Set\((.*)\);", script)
    assert ours and set(json.loads(ours[1])) == {
        path.stem.replace("_", " ").capitalize() for path in (ROOT / "presets").glob("*.json")
    }
