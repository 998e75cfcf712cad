"""Axes: how values are written, which requests come of them, what is refused."""

from dataclasses import fields
from itertools import pairwise

import pytest

from core.axes import MOST_CELLS, SETTINGS, Axis, Grid, example, read_axis
from core.errors import BadSetting
from core.settings import SAMPLERS, Lora, Settings

FILES = {
    "checkpoints": ["sdxl/base.safetensors", "sdxl/base_refiner.safetensors", "Toy.safetensors"],
    "vae": ["soft.safetensors"],
    "styles": ["Ink", "Oil Paint", "Fooocus V2"],
}


def names(kind):
    return FILES.get(kind, [])


def axis(setting, text):
    return read_axis(setting, text, names)


@pytest.mark.parametrize(
    ("setting", "text", "values"),
    [
        ("steps", "1, 2, 3", ("1", "2", "3")),
        ("steps", "1\n2\n\n3,4,", ("1", "2", "3", "4")),
        ("steps", "1-9 (+2)", ("1", "3", "5", "7", "9")),
        ("steps", "1-4", ("1", "2", "3", "4")),
        ("steps", "4-1", ("4", "3", "2", "1")),
        ("steps", "10-1 (-4), 50", ("10", "6", "2", "50")),
        ("steps", "1-10 [4]", ("1", "4", "7", "10")),
        ("steps", "5, 5, 5", ("5",)),
        ("guidance_scale", "2-3 (+0.25)", ("2", "2.25", "2.5", "2.75", "3")),
        ("freeu_b1", "0.1-0.3 (+0.1)", ("0.1", "0.2", "0.3")),  # tenths, not 0.30000000000000004
        ("sampler", "euler, DPM_2 ancestral", ("euler", "dpm_2_ancestral")),
        ("sampler", "all", SAMPLERS),
        ("freeu", "true, false", ("true", "false")),
        ("strict_compatibility", "false, true", ("false", "true")),
        ("base_model", "toy, base.safetensors", ("Toy.safetensors", "sdxl/base.safetensors")),
        ("base_model", "sdxl/base, base", ("sdxl/base.safetensors",)),
        ("base_model", r"SDXL\Base", ("sdxl/base.safetensors",)),
        ("refiner_model", "none, _refiner", ("", "sdxl/base_refiner.safetensors")),
        ("styles", "none, ink, oil paint + Ink", ("", "Ink", "Oil Paint + Ink")),
        ("prompt", 'apple, "a pear, cut"', ("apple", "a pear, cut")),
        ("loras", "0.2-0.6 (+0.2), ink:-0.5", ("0.2", "0.4", "0.6", "ink:-0.5")),
        ("seed", "9223372036854775806-9223372036854775807", ("9223372036854775806", "9223372036854775807")),
    ],
)
def test_values_are_read_as_they_are_written(setting, text, values):
    assert axis(setting, text).values == values


def test_a_whole_path_comes_before_the_same_name_in_a_folder():
    there = ["anime/foo.safetensors", "foo.safetensors", "old/bar.safetensors"]
    read = read_axis("vae", "foo, anime/foo, bar", lambda kind: there)
    assert read.values == ("foo.safetensors", "anime/foo.safetensors", "old/bar.safetensors")


@pytest.mark.parametrize(
    ("setting", "text", "words"),
    [
        ("image_number", "1, 2", "cannot be an axis"),
        ("nothing", "1", "cannot be an axis"),
        ("steps", " , ", "no values for steps"),
        ("steps", "0-9", "from 1 to 200"),
        ("steps", "many", "whole number"),
        ("width", "512, 513", "multiple of 8"),
        ("steps", "1-9 (-2)", "no range"),
        ("steps", "1-9 (+0)", "no range"),
        ("freeu_b1", "0.1-0.9", "no range"),  # the distance is missing
        ("steps", "1-200", "at most 100"),
        ("steps", "1-9 [1]", "2 to 100"),
        ("seed", "1-99999999999999999999", "at most 100"),
        ("sampler", "euler, eular", "must be one of"),
        ("base_model", "sdxl", "could be sdxl/base"),
        ("base_model", "none", "No file"),
        ("vae", "hard", "There are: soft"),
        ("styles", "Inc", "no style 'Inc'"),
        ("prompt", "apple", "at least one to put there"),
        ("loras", "ink:strong", "no weight"),
        ("steps", "9" * 6000, "at most 5000"),
        ("steps", "9" * 4900, "whole number"),
    ],
)
def test_what_makes_no_axis_is_explained(setting, text, words):
    with pytest.raises(BadSetting, match=words):
        axis(setting, text)


def test_each_cell_has_the_values_of_its_column_and_row_and_nothing_else_changes():
    base = Settings(prompt="a cat", seed=7, image_number=4, image_grid=True)
    cells = Grid(axis("steps", "10, 20"), axis("guidance_scale", "2, 3, 5")).cells(base)
    found = {(c.column, c.row): (c.settings.steps, c.settings.guidance_scale) for c in cells}
    assert found == {(i, j): (s, g) for i, s in enumerate((10, 20)) for j, g in enumerate((2.0, 3.0, 5.0))}
    for cell in cells:
        values = cell.settings.to_dict() | {"steps": base.steps, "guidance_scale": base.guidance_scale}
        assert values == base.to_dict() | {"image_number": 1, "image_grid": False}


def test_the_setting_that_is_dear_to_change_changes_least_often():
    models, steps = axis("base_model", "toy, sdxl/base"), axis("steps", "1-3")
    for grid in (Grid(models, steps), Grid(steps, models)):
        made = [cell.settings.base_model for cell in grid.cells(Settings())]
        assert sum(one != other for one, other in pairwise(made)) == 1


def test_words_of_the_prompt_are_sought_and_replaced():
    cells = Grid(axis("prompt", "apple, pear")).cells(Settings(prompt="an apple, a red apple"))
    assert [cell.settings.prompt for cell in cells] == ["an apple, a red apple", "an pear, a red pear"]
    assert [cell.settings.prompt for cell in Grid(axis("prompt", ".*, \\\\1")).cells(Settings(prompt="a.*"))] == [
        "a.*",
        "a\\\\1",
    ]
    both = Grid(axis("prompt", "red, green"), axis("prompt", "apple, pear")).cells(Settings(prompt="red apple"))
    assert sorted(c.settings.prompt for c in both) == ["green apple", "green pear", "red apple", "red pear"]
    with pytest.raises(BadSetting, match="'plum' is not in the prompt"):
        Grid(axis("prompt", "plum, pear")).cells(Settings(prompt="apple"))


def test_what_one_axis_puts_into_the_prompt_is_not_sought_by_the_other():
    grid = Grid(axis("prompt", "cat, dog"), axis("prompt", "dog, bird"))
    cells = {(c.column, c.row): c.settings.prompt for c in grid.cells(Settings(prompt="a cat and a dog"))}
    assert cells == {
        (0, 0): "a cat and a dog",
        (1, 0): "a dog and a dog",
        (0, 1): "a cat and a bird",
        (1, 1): "a dog and a bird",
    }
    longer = Grid(axis("prompt", "fox, wolf"), axis("prompt", "red fox, blue bird"))
    made = [cell.settings.prompt for cell in longer.cells(Settings(prompt="a red fox, a fox"))]
    assert made == ["a red fox, a fox", "a red fox, a wolf", "a blue bird, a fox", "a blue bird, a wolf"]


@pytest.mark.parametrize("values", ["fox, cat", "red fox, cat"])
def test_two_axes_that_seek_the_same_words_are_refused(values):
    with pytest.raises(BadSetting, match="Both axes vary prompt"):
        Grid(axis("prompt", "red fox, wolf"), axis("prompt", values)).cells(Settings(prompt="a red fox"))


def test_a_sheet_names_a_file_without_its_folder_and_everything_else_as_it_is():
    def shown(setting, *values):
        one = Axis(setting, values)
        return [one.shown(n) for n in range(len(values))]

    assert shown("prompt", "50mm", "black/white f/1.8") == ["50mm", "black/white f/1.8"]
    assert shown("styles", "", "Ink/Oil") == ["none", "Ink/Oil"]
    assert shown("base_model", "sdxl/base.safetensors") == ["base"] and shown("vae", "") == ["none"]
    assert shown("loras", "0.5", "styles/ink:0.8") == ["0.5", "ink:0.8"]


def test_weights_reach_the_loras_they_are_meant_for():
    base = Settings(
        loras=(Lora("felt.safetensors", 1.0), Lora("ink.safetensors", 1.0), Lora("off.safetensors", 1.0, False))
    )
    cells = Grid(axis("loras", "0.5, ink:2")).cells(base)
    assert [tuple(lora.weight for lora in c.settings.loras) for c in cells] == [(0.5, 0.5, 1.0), (1.0, 2.0, 1.0)]
    with pytest.raises(BadSetting, match="No LoRA is chosen"):
        Grid(axis("loras", "0.5")).cells(Settings())
    with pytest.raises(BadSetting, match="No chosen LoRA is called 'gold'"):
        Grid(axis("loras", "gold:0.5")).cells(base)


def test_styles_are_exchanged_as_a_whole():
    cells = Grid(axis("styles", "none, ink + oil paint")).cells(Settings(styles=("Fooocus V2",)))
    assert [cell.settings.styles for cell in cells] == [(), ("Ink", "Oil Paint")]


def test_more_than_a_hundred_cells_are_refused_with_their_number():
    grid = Grid(Axis("steps", tuple(map(str, range(1, 12)))), Axis("seed", tuple(map(str, range(10)))))
    with pytest.raises(BadSetting, match=f"11 x 10 values are 110 pictures; at most {MOST_CELLS}"):
        grid.cells(Settings())


def test_an_axis_that_could_change_nothing_is_refused():
    with pytest.raises(BadSetting, match="mode Lightning decides over steps itself"):
        Grid(axis("steps", "2, 4")).cells(Settings(performance="lightning"))
    with pytest.raises(BadSetting, match="Both axes vary steps"):
        Grid(axis("steps", "2, 4"), axis("steps", "6, 8")).cells(Settings())


def test_a_value_that_does_not_suit_the_others_is_told_before_anything_starts():
    with pytest.raises(BadSetting, match="prompt has 20001 characters"):
        Grid(axis("prompt", f"a, {'b' * 4000}")).cells(Settings(prompt="a" + "c" * 16001))


def test_a_grid_comes_back_from_its_plain_form_and_from_its_text():
    grid = Grid(axis("prompt", 'apple, "a, ""b"""'), axis("refiner_model", "none, _refiner"))
    assert Grid.from_dict(grid.to_dict()) == grid
    assert Grid.from_dict(Grid(grid.x).to_dict()) == Grid(grid.x)
    for one in (grid.x, grid.y):
        assert read_axis(one.setting, one.text, names) == one


@pytest.mark.parametrize(
    "damaged",
    [{}, {"x": None}, {"x": {"setting": "hat", "values": ["1"]}}, {"x": {"setting": "steps", "values": []}}, {"x": 1}],
)
def test_a_damaged_grid_is_refused(damaged):
    with pytest.raises(BadSetting):
        Grid.from_dict(damaged)


def test_every_number_choice_and_file_of_a_request_can_be_an_axis_and_shows_how():
    wanted = {
        "steps",
        "guidance_scale",
        "seed",
        "sampler",
        "scheduler",
        "styles",
        "base_model",
        "loras",
        "prompt",
        "vae",
    }
    assert wanted <= set(SETTINGS)
    assert not {"image_number", "output_format", "preview"} & set(SETTINGS)
    for setting in SETTINGS:
        assert example(setting)


@pytest.mark.parametrize(
    "setting", [f.name for f in fields(Settings) if f.name in SETTINGS and f.type in ("int", "float")]
)
def test_every_example_of_numbers_is_taken_as_it_is_written(setting):
    lists, ranges = example(setting).split("or")
    assert len(axis(setting, lists).values) == 3
    assert len(axis(setting, ranges).values) > 2
