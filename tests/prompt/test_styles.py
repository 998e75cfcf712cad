"""The library of styles, and how styles are put around a prompt."""

import json
import time

import pytest

from core.errors import BadSetting
from core.prompt.style_files import PLACE, Style, style_name
from core.prompt.styles import PSEUDO, StyleLibrary, Text, styled

OWN = StyleLibrary().read()


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def texts(parts):
    return [part.text for part in parts]


def test_the_programs_own_library_is_large_whole_and_grouped():
    assert len(OWN) >= 150 and not OWN.problems
    assert len({style.group for style in OWN}) >= 12
    assert "3D" in {style.group for style in OWN} and "Moods & light" in {style.group for style in OWN}
    for style in OWN:
        assert style.name == style_name(style.name)
        assert style.prompt.count(PLACE) <= 1 and PLACE not in style.negative_prompt
        assert style.negative_prompt and not any(
            text.endswith((",", ".")) for text in (style.prompt, style.negative_prompt)
        )
    assert sum(PLACE in style.prompt for style in OWN) >= 150
    assert len({style.prompt for style in OWN if style.prompt}) == sum(bool(style.prompt) for style in OWN)


@pytest.mark.parametrize("words", ["3d", "flat", "drawing", "line art", "on a blue background"])
def test_some_styles_speak_the_embedded_models_words(words):
    assert sum(words in style.prompt for style in OWN) >= 1 + 9 * (words != "on a blue background")


@pytest.mark.parametrize(
    "name",
    ["Fooocus Enhance", "Fooocus Sharp", "Fooocus Semi Realistic", "Fooocus Masterpiece", "Fooocus Photograph",
     "Fooocus Negative", "Fooocus Pony", "Fooocus Cinematic", "Fooocus Anime", "SAI Line Art", "sai-3d-model"],
)  # fmt: skip
def test_the_styles_of_the_references_presets_have_counterparts(name):
    """Old names too: defect D26 of the reference is that they make the whole run fail."""
    assert OWN.find(name)


def test_every_counterpart_is_there():
    assert all(key in OWN.by_key for key in OWN.aliases.values())
    assert not set(OWN.aliases) & set(OWN.by_key)


def test_a_name_is_found_in_any_spelling():
    assert OWN.find("line-art") == OWN.find("LINE ART") == OWN.find("Line Art")
    assert OWN.find("lime art") is None and OWN.near("lime art") == "Line Art"


def test_what_may_be_chosen_begins_with_the_two_that_are_no_styles():
    assert OWN.names()[:2] == ["Fooocus V2", "Random Style"] == list(PSEUDO)


def test_the_users_file_wins_over_ours_and_over_the_counterpart(tmp_path):
    write(
        tmp_path / "sdxl_styles_mine.json",
        [{"name": "line art", "prompt": "mine"}, {"name": "fooocus-sharp", "prompt": "x"}],
    )
    styles = StyleLibrary([tmp_path]).read()
    assert styles.find("Line Art").prompt == "mine"
    assert styles.find("Fooocus Sharp").prompt == "x"
    assert len(styles) == len(OWN) + 1


def test_of_two_definitions_the_later_one_wins_and_the_references_files_come_last(tmp_path):
    write(tmp_path / "sdxl_styles_sai.json", [{"name": "sai-anime", "prompt": "theirs"}])
    write(
        tmp_path / "zzz.json",
        [{"name": "SAI Anime", "prompt": "mine"}, {"name": "A", "prompt": "1"}, {"name": "a", "prompt": "2"}],
    )
    styles = StyleLibrary([tmp_path], own=None).read()
    assert [(s.name, s.prompt) for s in styles] == [("SAI Anime", "theirs"), ("A", "2")]


def test_a_broken_file_leaves_the_library_alive_and_is_told(tmp_path, caplog):
    (tmp_path / "broken.json").write_text("[{")
    write(tmp_path / "good.json", [{"name": "good"}, {"name": "Fooocus V2"}])
    styles = StyleLibrary([tmp_path], own=None).read()
    assert [style.name for style in styles] == ["Good"]
    assert "broken.json" in styles.problems[0] and "Fooocus V2" in styles.problems[1]
    assert "broken.json" in caplog.text


def test_files_are_read_again_only_when_one_changes_comes_or_goes(tmp_path):
    library = StyleLibrary([tmp_path], own=None)
    assert len(library.read()) == 0
    write(tmp_path / "a.json", [{"name": "one"}])
    first = library.read()
    assert len(first) == 1 and library.read() is first
    write(tmp_path / "a.json", [{"name": "one"}, {"name": "two"}])
    assert len(library.read()) == 2
    (tmp_path / "a.json").unlink()
    assert len(library.read()) == 0


def test_a_library_of_thousands_is_there_at_once(tmp_path):
    write(tmp_path / "many.json", [{"name": f"style {i}", "prompt": f"{{prompt}} {i}"} for i in range(5000)])
    library = StyleLibrary([tmp_path])
    library.read()
    began = time.perf_counter()
    for i in range(100):
        assert library.read().find(f"Style {i}")
    assert time.perf_counter() - began < 2


def test_the_prompt_stands_in_the_templates_that_have_a_place_for_it():
    styles = [Style("A", "a {prompt} b\nsecond line", "no a"), Style("B", "plain", "no b\nnor b")]
    positive, negative = styled("fox", styles)
    assert positive == [Text("a fox b", "A"), Text("second line", "A"), Text("plain", "B")]
    assert texts(negative) == ["no a", "no b", "nor b"]


def test_without_a_place_in_any_template_the_prompt_comes_first():
    positive, _ = styled("fox", [Style("B", "plain"), Style("C", "")])
    assert positive == [Text("fox", "prompt"), Text("plain", "B")]
    assert styled("fox", []) == ([Text("fox", "prompt")], [])


def test_every_place_of_a_template_is_filled_and_braces_in_the_prompt_are_text():
    assert texts(styled("{prompt}!", [Style("A", "{prompt} and {prompt}")])[0]) == ["{prompt}! and {prompt}!"]


def test_templates_that_repeat_a_long_prompt_without_end_are_an_error():
    with pytest.raises(BadSetting, match="'A'"):
        styled("x" * 20_000, [Style("A", "{prompt}" * 2000)])
