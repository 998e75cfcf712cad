"""Whether files and folders are there, wherever they are and whoever may read them."""

import errno
import os
from pathlib import Path

import pytest

from core.there import is_file, is_folder, why_unreadable


def test_what_is_there_and_what_is_not(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place, answers in (
        (file, (True, False, "")),
        (tmp_path, (False, True, "")),
        (tmp_path / "dangling", (False, False, "")),
        (tmp_path / "nothing", (False, False, "")),
        (file / "below", (False, False, "")),
        (Path("a\0b"), (False, False, "")),
    ):
        assert (is_file(place), is_folder(place), why_unreadable(place)) == answers


def test_a_folder_that_may_not_be_entered_is_no_error(tmp_path, unreadable):
    below = tmp_path / "private" / "below"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"")
    unreadable(tmp_path / "private")
    assert not is_folder(below) and not is_file(below / "file")
    assert why_unreadable(below) == why_unreadable(tmp_path / "private") == "Permission denied"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_no_error(tmp_path, monkeypatch, number):
    def fails(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "stat", fails)
    monkeypatch.setattr(os, "scandir", fails)
    assert not is_file(tmp_path) and not is_folder(tmp_path) and why_unreadable(tmp_path) == os.strerror(number)
