"""Wildcards: which file, which line, which chance, and where it ends."""

import os
import time
from pathlib import Path
from random import Random

import pytest

from core.errors import BadSetting
from core.prompt.wildcards import LARGEST_FILE, MOST_DRAWS, Drawing, Wildcards

FILES = {
    "color": "red\ngreen\nblue\n",
    "flower": "rose\n\n   \ntulip\n",
    "color_flower": "__color__ __flower__",
    "plants/tree": "oak\nbirch",
    "plants/color": "moss",
    "empty": "\n\n",
    "circle": "a __circle__",
    "double": "__double__ __double__",
    "with__two": "yes",
}


@pytest.fixture
def wildcards(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "wildcards" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Wildcards([tmp_path / "wildcards"], own=None)


def drawing(wildcards, seed=0, **options):
    return Drawing(wildcards.files, wildcards.lines, chance=Random(seed), **options)


def expand(wildcards, text, seed=0, **options):
    return drawing(wildcards, seed, **options).expand(text)


def test_draws_are_those_of_pythons_own_generator_left_to_right(wildcards):
    """KEEP of the reference: each occurrence draws by itself from Random(seed)."""
    for seed in range(20):
        chance = Random(seed)
        expected = " ".join(chance.choice(["red", "green", "blue"]) for _ in range(4))
        assert expand(wildcards, "__color__ __color__ __color__ __color__", seed) == expected


@pytest.mark.parametrize(
    ("seed", "text"),
    [(0, "green tulip"), (1, "red rose"), (2, "red rose"), (12345, "green rose"), (2**63 - 1, "green rose")],
)
def test_a_seed_gives_the_text_it_always_gave(wildcards, seed, text):
    """Recorded from CPython 3.10 and 3.13, which agree."""
    assert expand(wildcards, "__color__ __flower__", seed) == text


def test_wildcards_in_lines_are_replaced_round_by_round(wildcards):
    for seed in range(20):
        chance = Random(seed)
        colors, flowers = ["red", "green", "blue"], ["rose", "tulip"]
        chance.choice(["__color__ __flower__"])
        first = chance.choice(colors)  # round 1: color_flower, then the plain color
        inner = chance.choice(colors), chance.choice(flowers)  # round 2
        assert expand(wildcards, "__color_flower__, __color__", seed) == f"{inner[0]} {inner[1]}, {first}"


def test_in_order_takes_the_line_of_the_pictures_place_for_all_occurrences(wildcards):
    got = [expand(wildcards, "__color__ __color__ __flower__", index=i, in_order=True) for i in range(4)]
    assert got == ["red red rose", "green green tulip", "blue blue rose", "red red tulip"]


def test_in_order_leaves_chance_alone(wildcards):
    chance = Random(7)
    Drawing(wildcards.files, wildcards.lines, chance=chance, in_order=True).expand("__color__")
    assert chance.random() == Random(7).random()


def test_adjacent_wildcards_and_names_with_double_underscores_are_told_apart(wildcards):
    """Defect D47 of the reference: it reads the first two as one long name."""
    text = "__color____flower__ __with__two__ __color__s ____ __ _____"
    assert expand(wildcards, text, index=1, in_order=True) == "greentulip yes greens ____ __ _____"


def test_names_may_lead_into_sub_folders_and_the_first_of_two_stems_counts(wildcards):
    assert expand(wildcards, "__tree__ __plants/tree__ __plants/color__ __color__", in_order=True) == "oak oak moss red"
    assert wildcards.names() == [
        "circle", "color", "color_flower", "double", "empty", "flower", "plants/color", "tree", "with__two",
    ]  # fmt: skip


def test_the_first_folder_counts_and_the_programs_own_come_last(tmp_path):
    (tmp_path / "color.txt").write_text("mine")
    wildcards = Wildcards([tmp_path])
    assert expand(wildcards, "__color__") == "mine"
    assert "animal" in wildcards.names()


def test_an_unknown_wildcard_becomes_its_bare_name_and_is_told_once(wildcards):
    """Defect D23: the reference says so on the console only."""
    drawn = drawing(wildcards)
    assert drawn.expand("__colour__ __colour__ a") == "colour colour a"
    [notice] = drawn.notices
    assert "colour.txt" in notice and "__color__" in notice


def test_an_empty_file_and_one_that_is_no_text_give_the_bare_name_and_are_told(wildcards, tmp_path):
    (tmp_path / "wildcards" / "latin.txt").write_bytes("café".encode("latin-1"))
    drawn = drawing(wildcards)
    assert drawn.expand("__empty__ __latin__") == "empty latin"
    assert "empty.txt is empty" in drawn.notices[0] and "UTF-8" in drawn.notices[1]


def test_a_byte_order_mark_is_no_part_of_the_first_line(wildcards, tmp_path):
    (tmp_path / "wildcards" / "bom.txt").write_text("only", encoding="utf-8-sig")
    assert expand(wildcards, "__bom__") == "only"


def test_wildcards_that_lead_back_to_themselves_are_an_error_that_names_one(wildcards):
    with pytest.raises(BadSetting, match="__circle__ leads"):
        expand(wildcards, "__circle__")


def test_growth_without_bounds_is_an_error(wildcards):
    began = time.perf_counter()
    with pytest.raises(BadSetting, match="double"):
        expand(wildcards, "__double__")
    assert time.perf_counter() - began < 2


def test_a_prompt_has_a_bounded_number_of_wildcards(wildcards):
    assert expand(wildcards, "__color__" * MOST_DRAWS)
    with pytest.raises(BadSetting, match=f"more than {MOST_DRAWS}"):
        expand(wildcards, "__color__" * (MOST_DRAWS + 1))


def test_a_prompt_does_not_grow_beyond_what_can_be_recorded(wildcards, tmp_path):
    (tmp_path / "wildcards" / "long.txt").write_text("x" * 15_000)
    assert len(expand(wildcards, "__long__")) == 15_000
    with pytest.raises(BadSetting, match="20000 characters"):
        expand(wildcards, "__long__ __long__")


@pytest.mark.parametrize("name", ["../secret", "../../secret", "plants/../../secret", "/etc/passwd"])
def test_no_name_leads_out_of_the_folders(wildcards, tmp_path, name):
    (tmp_path / "secret.txt").write_text("hidden")
    assert "hidden" not in expand(wildcards, f"__{name}__")


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_that_leads_out_of_its_folder_is_not_followed(wildcards, tmp_path):
    (tmp_path / "secret.txt").write_text("hidden")
    (tmp_path / "wildcards" / "out.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "wildcards" / "inside.txt").symlink_to(tmp_path / "wildcards" / "color.txt")
    assert expand(wildcards, "__out__ __inside__", in_order=True) == "out red"


def test_a_changed_file_is_read_again(wildcards, tmp_path):
    file = tmp_path / "wildcards" / "color.txt"
    assert expand(wildcards, "__color__", in_order=True) == "red"
    file.write_text("violet and more")
    assert expand(wildcards, "__color__", in_order=True) == "violet and more"


def test_a_huge_file_is_not_read(wildcards, tmp_path):
    with (tmp_path / "wildcards" / "huge.txt").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    drawn = drawing(wildcards)
    assert drawn.expand("__huge__") == "huge"
    assert "MB" in drawn.notices[0]


@pytest.mark.parametrize("text", ["_" * 100_000, "__" + "a-" * 50_000, "__a" * 1500, "__a__" * 900])
def test_no_text_takes_long(wildcards, text):
    began = time.perf_counter()
    expand(wildcards, text)
    assert time.perf_counter() - began < 5


def test_the_programs_own_wildcards_are_complete():
    wildcards = Wildcards()
    assert len(wildcards.names()) >= 10
    drawn = drawing(wildcards)
    assert "__" not in drawn.expand(" ".join(f"__{name}__" for name in wildcards.names()))
    assert not drawn.notices
    assert all(isinstance(path, Path) for path in wildcards.files().values())
