"""Style files of the reference and of A1111, whole and broken."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.prompt.style_files import Style, group_name, read_styles, style_files, style_name


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
    return path


def test_a_folder_that_may_not_be_read_has_no_style_files(tmp_path, unreadable):
    write(tmp_path / "private" / "styles" / "mine.json", [])
    assert style_files(tmp_path / "private" / "styles")
    unreadable(tmp_path / "private")
    assert style_files(tmp_path / "private" / "styles") == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("sai-line art", "SAI Line Art"),
        ("mre-sumi-e-symbolic", "MRE Sumi E Symbolic"),
        ("sai-3d-model", "SAI 3D Model"),
        ("Default (slightly Cinematic)", "Default (Slightly Cinematic)"),
        ("MK-Van Gogh", "Mk Van Gogh"),
        ("game-gta", "Game Gta"),
        ("photo-HDR", "Photo Hdr"),
        ("flat 2D art", "Flat 2d Art"),
        ("Fooocus Enhance", "Fooocus Enhance"),
    ],
)
def test_names_are_written_as_the_reference_shows_them(written, shown):
    """Sections 5.1 and 5.2 of the specification."""
    assert style_name(written) == shown
    assert style_name(shown) == shown


def test_the_references_json_is_read_with_either_part_missing(tmp_path):
    file = write(
        tmp_path / "sdxl_styles_test.json",
        [
            {"name": "sai-anime", "prompt": "anime {prompt}", "negative_prompt": "photo"},
            {"name": "only negative", "negative_prompt": "ugly"},
            {"name": "only-positive", "prompt": "nice"},
        ],
    )
    assert read_styles(file) == (
        [
            Style("SAI Anime", "anime {prompt}", "photo", "Test"),
            Style("Only Negative", "", "ugly", "Test"),
            Style("Only Positive", "nice", "", "Test"),
        ],
        [],
    )


def test_the_files_of_a_folder_are_read_in_the_references_order_its_own_last(tmp_path):
    for name in ("marc_k3nt3l", "sai", "fooocus", "zebra", "diva", "twri", "mre"):
        write(tmp_path / f"sdxl_styles_{name}.json", [])
    write(tmp_path / "sub" / "mine.json", [])
    write(tmp_path / ".hidden.json", [])
    write(tmp_path / "readme.txt", "no")
    stems = [file.stem.removeprefix("sdxl_styles_") for file in style_files(tmp_path)]
    assert stems == ["zebra", "mine", "fooocus", "sai", "mre", "twri", "diva", "marc_k3nt3l"]
    assert style_files(tmp_path / "missing") == []


def test_a1111s_styles_csv_is_read(tmp_path):
    text = (
        "\ufeffname,prompt,negative_prompt\r\n"
        '"HDR photo","{prompt}, hdr, ""vivid""","gray, {prompt}, dull"\r\n'
        '"---- mine ----",,\r\n'
        '"two lines","one\r\ntwo",\r\n'
    )
    (tmp_path / "styles.csv").write_text(text, encoding="utf-8", newline="")
    styles, problems = read_styles(tmp_path / "styles.csv")
    assert not problems
    assert [(s.name, s.prompt.split(), s.negative_prompt) for s in styles] == [
        ("HDR photo", ["{prompt},", "hdr,", '"vivid"'], "gray, dull"),
        ("two lines", ["one", "two"], ""),
    ]


def test_the_oldest_csv_calls_the_prompt_text(tmp_path):
    file = write(tmp_path / "styles.csv", "name,text\nold,{prompt} in oil\n")
    assert read_styles(file)[0] == [Style("old", "{prompt} in oil", "", "Styles")]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"name": "x"}', "no JSON list"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.csv", "first,second\n1,2\n", "first line"),
        ("a.csv", "", "first line"),
        ("a.csv", "name,prompt\n" + '"' + "x" * 200_000, "cannot be read"),
    ],
)
def test_a_broken_file_is_left_out_with_a_sentence_that_names_it(tmp_path, name, text, word):
    styles, [problem] = read_styles(write(tmp_path / name, text))
    assert not styles and name in problem and word in problem


def test_a_file_that_is_no_text_is_left_out(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00[")
    assert "a.json" in read_styles(tmp_path / "a.json")[1][0]


@pytest.mark.parametrize(
    "bad", [7, {"prompt": "no name"}, {"name": " "}, {"name": "x", "prompt": ["list"]}, {"name": "x" * 201}, None]
)
def test_a_broken_entry_is_left_out_and_the_rest_is_read(tmp_path, bad):
    """The reference leaves out all that follows a broken entry."""
    file = write(tmp_path / "a.json", [{"name": "one"}, bad, {"name": "two"}])
    styles, [problem] = read_styles(file)
    assert [style.name for style in styles] == ["One", "Two"]
    assert "entry 2" in problem


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
def test_no_file_brings_the_library_down(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("styles")
    for ending in ("json", "csv"):
        (folder / f"a.{ending}").write_bytes(data)
        styles, problems = read_styles(folder / f"a.{ending}")
        assert all(isinstance(style, Style) for style in styles) and all(map(str, problems))


@pytest.mark.parametrize(
    ("stem", "name"),
    [("sdxl_styles_twri", "Twri"), ("flat_and_vector", "Flat & vector"), ("3d", "3D"), ("styles", "Styles")],
)
def test_a_group_is_called_after_its_file(stem, name):
    assert group_name(stem) == name
