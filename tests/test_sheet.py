"""Sheets of all pictures: what stands where, labels, bounds, the file."""

import json

import numpy as np
import pytest
from PIL import Image

from core import sheet
from core.axes import Axis, Grid
from core.errors import HistoryError
from core.events import Saved, Warned
from core.output.metadata import read_settings
from core.output.record import Record
from core.settings import Settings
from core.sheet import draw, in_rows, of_grid, sheets
from core.task import AsyncTask

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]


@pytest.fixture
def pictures(tmp_path):
    """Writes pictures of one colour each; returns their paths by number."""

    def write(count, size=(96, 64)):
        paths = {}
        for number in range(count):
            paths[number] = tmp_path / f"{number}.png"
            Image.new("RGB", size, COLOURS[number % 6]).save(paths[number])
        return paths

    return write


def grid_task(**settings):
    grid = Grid(Axis("steps", ("10", "20", "30")), Axis("guidance_scale", ("2", "4")))
    return AsyncTask(Settings(prompt="a cat", seed=5, **settings), "me", grid=grid)


def where(image, colour):
    """The box (left, top, right, bottom) of the pixels of `colour`."""
    found = (np.asarray(image).astype(int) == colour).all(axis=2)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_pictures_stand_row_by_row_as_square_as_may_be_and_the_rest_is_black(pictures):
    image = draw(in_rows(list(pictures(5).values())))
    assert image.size == (3 * 96, 2 * 64)  # ceil(sqrt(5)) columns
    for number, colour in enumerate(COLOURS[:5]):
        left, top = number % 3 * 96, number // 3 * 64
        assert where(image, colour) == (left, top, left + 96, top + 64)
    assert where(image, (0, 0, 0)) == (192, 64, 288, 128)


def test_the_cells_of_a_grid_stand_in_their_columns_and_rows(pictures):
    task = grid_task()
    image = draw(of_grid(task, pictures(6)))
    boxes = {(c.column, c.row): where(image, COLOURS[n]) for n, c in enumerate(task.cells)}
    assert all(box[2] - box[0] == 96 and box[3] - box[1] == 64 for box in boxes.values())
    assert boxes[0, 0][0] < boxes[1, 0][0] < boxes[2, 0][0] and boxes[0, 0][1] < boxes[0, 1][1]
    assert boxes[1, 0][1] == boxes[0, 0][1] and boxes[0, 1][0] == boxes[0, 0][0]


def test_every_column_and_row_has_its_label_and_labels_differ(pictures):
    task = grid_task()
    image = np.asarray(draw(of_grid(task, pictures(6))).convert("L"))
    first = where(draw(of_grid(task, pictures(6))), COLOURS[0])
    left, top = first[0], first[1]
    columns = [image[:top, left + n * 98 : left + n * 98 + 96] for n in range(3)]
    rows = [image[top + n * 66 : top + n * 66 + 64, :left] for n in range(2)]
    assert all((label < 128).sum() > 20 for label in (*columns, *rows))
    assert not np.array_equal(columns[0], columns[1]) and not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    "value", ["a word " * 60, "x" * 300, "日本語の長い値です", "مرحبا", "a\nb\tc", "<b>&amp;", "\U0001f98a", ""]
)
def test_any_label_fits_its_column(pictures, value):
    grid = Grid(Axis("prompt", ("a", value)))
    task = AsyncTask(Settings(prompt="a"), grid=grid)
    image = draw(of_grid(task, pictures(2)))
    assert image.width < 250 and image.height < 64 + 120


def test_a_picture_that_is_gone_or_was_skipped_leaves_its_cell_empty(pictures):
    task, paths = grid_task(), pictures(6)
    paths[1].unlink()
    paths[2].write_bytes(b"no picture")
    del paths[3]
    image = draw(of_grid(task, paths))
    for number in (0, 4, 5):
        assert where(image, COLOURS[number])[2:] > (0, 0)
    for number in (1, 2, 3):
        assert not (np.asarray(image).astype(int) == COLOURS[number]).all(axis=2).any()


def test_pictures_of_different_sizes_keep_their_shape(tmp_path):
    sizes, paths = [(64, 96), (128, 64)], []
    for number, size in enumerate(sizes):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, COLOURS[number]).save(paths[-1])
    image = draw(in_rows(paths))
    assert image.size == (256, 96)
    for number, size in enumerate(sizes):
        left, top, right, bottom = where(image, COLOURS[number])
        assert (right - left, bottom - top) == size


@pytest.mark.parametrize(("longest", "most"), [(400, 10**9), (10**6, 50_000)])
def test_a_large_sheet_is_made_smaller_as_a_whole(pictures, longest, most):
    image = draw(of_grid(grid_task(), pictures(6, size=(512, 256))), longest, most)
    assert max(image.size) <= longest and image.width * image.height <= most
    boxes = [where(image, colour) for colour in COLOURS]
    for left, top, right, bottom in boxes:
        assert abs((right - left) / (bottom - top) - 2) < 0.1


def test_a_hundred_cells_of_sdxl_s_size_stay_within_bounds(pictures, tmp_path):
    """D61: the size of a sheet is bounded, however many pictures it has."""
    path = tmp_path / "large.png"
    Image.new("RGB", (1024, 1024), COLOURS[0]).save(path)
    grid = Grid(Axis("steps", tuple(map(str, range(1, 11)))), Axis("seed", tuple(map(str, range(10)))))
    task = AsyncTask(Settings(), grid=grid)
    image = draw(of_grid(task, dict.fromkeys(range(100), path)), longest=2000, most=3_000_000)
    assert max(image.size) <= 2000 and image.width * image.height <= 3_000_000


def saved(task, outputs, remember=None):
    return list(sheets(task, Record(task.settings), outputs, remember))


def test_the_sheet_is_a_png_beside_the_pictures_that_says_its_axes_and_gives_the_settings_back(pictures, tmp_path):
    """D61: it is saved."""
    task = grid_task(output_format="jpeg")
    task.made.update({number: str(path) for number, path in pictures(6).items()})
    remembered = []
    [event] = saved(task, tmp_path / "out", lambda *told: remembered.append(told))
    assert event.sheet and event.path.endswith("_5_sheet.png")
    with Image.open(event.path) as image:
        assert image.size == (event.width, event.height)
        told = json.loads(image.text["easel_sheet"])
    assert told["x"] == {"setting": "steps", "values": ["10", "20", "30"]}
    assert told["y"] == {"setting": "guidance_scale", "values": ["2", "4"]}
    assert told["pictures"] == [f"{n}.png" for n in range(6)]
    assert read_settings(event.path).settings["prompt"] == "a cat"
    assert [str(path) for path, _ in remembered] == [event.path]
    assert "_sheet.png" in (tmp_path / "out").rglob("log.html").__next__().read_text()


def test_a_plain_sheet_comes_only_where_it_is_asked_for_and_of_two_pictures_or_more(pictures, tmp_path):
    paths = {number: str(path) for number, path in pictures(3).items()}
    asked, not_asked = Settings(image_number=3, image_grid=True), Settings(image_number=3)
    assert saved(AsyncTask(not_asked, made=paths), tmp_path) == []
    assert saved(AsyncTask(asked, made={0: paths[0]}), tmp_path) == []
    [event] = saved(AsyncTask(asked, made=paths), tmp_path)
    assert event.path.endswith("_grid.png") and (event.width, event.height) == (192, 128)


def test_metadata_can_be_left_out_of_the_sheet_too(pictures, tmp_path):
    paths = {number: str(path) for number, path in pictures(2).items()}
    task = AsyncTask(Settings(image_number=2, image_grid=True, save_metadata=False), made=paths)
    [event] = saved(task, tmp_path)
    with Image.open(event.path) as image:
        assert not image.text


def test_a_sheet_that_cannot_be_saved_or_entered_is_told_and_ends_nothing(pictures, tmp_path):
    paths = {number: str(path) for number, path in pictures(2).items()}
    task = AsyncTask(Settings(image_number=2, image_grid=True), made=paths)
    (tmp_path / "out").write_text("a file where the folder should be")
    [event] = saved(task, tmp_path / "out")
    assert isinstance(event, Warned) and "cannot be saved" in event.message

    def fail(*_):
        raise HistoryError("The history is busy.")

    warning, event = saved(task, tmp_path / "elsewhere", fail)
    assert warning == Warned(message="The history is busy.") and isinstance(event, Saved)


@pytest.mark.parametrize("how", ["stop", "skip"])
def test_d20_stop_ends_a_sheet_that_is_being_drawn(pictures, tmp_path, monkeypatch, how):
    task, read = grid_task(), []
    task.made.update({number: str(path) for number, path in pictures(6).items()})
    small = sheet._small
    monkeypatch.setattr(sheet, "_small", lambda *given: (read.append(1), getattr(task, how)(), small(*given))[2])
    assert not list(sheets(task, Record(task.settings), tmp_path / "out")) and len(read) == 1
