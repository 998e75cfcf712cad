"""What visitors read in place of the folders of the machine."""

from pathlib import Path, PureWindowsPath

import pytest

from core.private_paths import without

PLACES = {
    Path("/srv/easel"): "…",
    Path("/home/ann"): "~",
    Path("/home/ann/sd/loras"): "…/loras",
    Path("/"): "nothing",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Put it into /srv/easel/models/loras (5 MB).", "Put it into …/models/loras (5 MB)."),
        ("It is not in /home/ann/sd/loras, /home/ann/sd.", "It is not in …/loras, ~/sd."),
        ("[Errno 13] denied: '/home/ann/sd/loras/x.safetensors'", "[Errno 13] denied: '…/loras/x.safetensors'"),
        ("There is nothing in /srv/easel.", "There is nothing in …."),
        ("in /srv/easel2, /srv/easel-old and /data/srv/easel", "in /srv/easel2, /srv/easel-old and /data/srv/easel"),
        ("from https://example.org/srv/easel/x or a/b", "from https://example.org/srv/easel/x or a/b"),
    ],
)
def test_folders_are_put_in_other_words_and_nothing_else(text, shown):
    assert without(PLACES)(text) == shown


def test_slashes_of_windows_are_found_however_they_are_written():
    shown = without({PureWindowsPath(r"C:\easel"): "…"})
    assert shown(r"C:\easel\x, 'C:\\easel\\x', C:/easel/x") == r"…\x, '…\\x', …/x"


def test_without_places_a_text_stays():
    assert without({Path("/"): "nothing"})("/srv/easel") == "/srv/easel"
