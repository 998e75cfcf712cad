"""Saving: names, no overwriting, nothing left behind, and errors that a user can read."""

import errno
import os
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import OutputError
from core.output import files, save
from core.output.metadata import read_settings
from core.output.record import PROGRAM, VERSION, Record
from core.output.save import check_outputs, save_and_log, save_picture
from core.settings import Settings

RECORD = Record(
    Settings(prompt="a red apple", seed=7, width=64, height=64),
    created=datetime(2026, 11, 23, 18, 30, 5, tzinfo=timezone.utc),
)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def with_format(output_format):
    return replace(RECORD, settings=replace(RECORD.settings, output_format=output_format))


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_lies_under_date_time_and_seed_and_can_be_made_again_from_itself(tmp_path, output_format):
    saved = save_picture(PIXELS, with_format(output_format), tmp_path / "outputs")
    assert saved.path == tmp_path / "outputs" / "2026-11-23" / f"18-30-05_7.{output_format}"
    assert saved.warnings == ()
    with Image.open(saved.path) as image:
        assert image.format == output_format.upper()
        assert image.size == (64, 64)
    assert Settings.from_dict(read_settings(saved.path).settings) == with_format(output_format).settings


def test_a_png_holds_the_very_pixels(tmp_path):
    with Image.open(save_picture(PIXELS, RECORD, tmp_path).path) as image:
        assert np.array_equal(np.asarray(image), PIXELS)


def test_jpegs_are_progressive_and_of_quality_95(tmp_path):
    with Image.open(save_picture(PIXELS, with_format("jpeg"), tmp_path).path) as image:
        assert image.info["progressive"]
        smooth = np.asarray(image)
        assert image.quantization[0][0] <= 2  # the first entry of the standard table is 16, at quality 95 it is 2
    assert smooth.shape == PIXELS.shape


def test_a_file_is_never_overwritten_even_by_many_threads_at_once(tmp_path):
    """D53: names are taken exclusively, with a number behind them where they are taken."""
    found, threads = [], 8
    barrier = threading.Barrier(threads)

    def save(shade):
        barrier.wait()
        found.extend((save_picture(np.full_like(PIXELS, shade), RECORD, tmp_path).path, shade) for _ in range(5))

    running = [threading.Thread(target=save, args=(shade,)) for shade in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    paths = [path for path, _ in found]
    assert len(set(paths)) == 40
    assert {path.name for path in paths} == {"18-30-05_7.png", *(f"18-30-05_7_{n}.png" for n in range(2, 41))}
    for path, shade in found:
        with Image.open(path) as image:
            assert np.asarray(image)[0, 0, 0] == shade
    assert len(list(tmp_path.rglob("*"))) == 41  # and the folder: no temporary file is left


def test_a_file_system_without_hard_links_never_overwrites_either(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    paths = [save_picture(np.full_like(PIXELS, shade), RECORD, tmp_path).path for shade in (1, 2)]
    assert [path.name for path in paths] == ["18-30-05_7.png", "18-30-05_7_2.png"]
    for path, shade in zip(paths, (1, 2), strict=True):
        with Image.open(path) as image:
            assert np.asarray(image)[0, 0, 0] == shade
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "not writable"),
        (errno.EROFS, "not writable"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch, number, says):
    def fails(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(OutputError, match=says) as caught:
        save_picture(PIXELS, RECORD, tmp_path)
    assert "--output-path" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["2026-11-23"]


def test_a_path_that_is_too_long_is_a_clear_error(tmp_path):
    with pytest.raises(OutputError, match="too long"):
        save_picture(PIXELS, RECORD, tmp_path / ("x" * 300))


def test_a_file_in_the_place_of_the_folder_is_a_clear_error(tmp_path):
    (tmp_path / "2026-11-23").write_text("in the way")
    with pytest.raises(OutputError, match="a file where a folder should be"):
        save_picture(PIXELS, RECORD, tmp_path)


def test_a_look_at_the_folder_makes_it_and_leaves_nothing_in_it(tmp_path):
    check_outputs(tmp_path / "new" / "outputs")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "outputs"]


def test_a_look_at_the_folder_tells_a_full_disk_and_one_that_may_not_be_written(tmp_path, monkeypatch):
    for number, says in ((errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable")):

        def fails(number=number, **given):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(save.tempfile, "TemporaryFile", fails)
        with pytest.raises(OutputError, match=says):
            check_outputs(tmp_path)


def test_saved_files_have_the_rights_the_user_gives_to_new_files(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    assert save_picture(PIXELS, RECORD, tmp_path).path.stat().st_mode == plain.stat().st_mode


def test_a_log_that_cannot_be_written_is_a_warning_and_the_picture_stays(tmp_path):
    (tmp_path / "2026-11-23" / "log.html").mkdir(parents=True)
    saved = save_and_log(PIXELS, RECORD, tmp_path)
    assert saved.path.exists()
    assert len(saved.warnings) == 1 and "log" in saved.warnings[0]


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_what_are_no_pixels_is_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match="uint8"):
        save_picture(pixels, RECORD, tmp_path)


def test_the_version_in_metadata_is_the_projects():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{VERSION}"' in project
    assert PROGRAM == "Easel"
