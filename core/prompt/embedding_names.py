"""What a prompt calls the files of textual inversion: `embedding:NAME`. No torch.

A file may be called what no prompt can say: words end at blanks, `(` and `[[` have a meaning, and so has `__`. Such
letters are written `_`, and parentheses `\\(` and `\\)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from unicodedata import normalize

MARK = "embedding:"  # a word that begins so, in any case, names a file with vectors; its colon is never a weight's
NAME = r"(?:\\[()]|[^\s,():])*"  # what a prompt says behind it, as a pattern

_BLANKS = re.compile(r"[\s_]+")
_UNSAYABLE = re.compile(r"(?:[\s_,:<>\[\]]|\.(?=\.*$))+")


def name_in(word: str) -> str:
    """What `word` says behind `embedding:`; "" if it does not begin so."""
    return word[len(MARK) :] if word[: len(MARK)].lower() == MARK else ""


def written(name: str) -> str:
    """The file's `name`, without ending, as it is written in a prompt."""
    return re.sub(r"([()])", r"\\\1", said(name))


def plain(text: str) -> str:
    """What a prompt says of a name, read: parentheses without their `\\`, one `_` for blanks."""
    return _BLANKS.sub("_", normalize("NFC", text.replace("\\(", "(").replace("\\)", ")")))


def said(name: str) -> str:
    """The file's `name` as `plain` reads what is written for it."""
    return _UNSAYABLE.sub("_", normalize("NFC", name))


def chosen(name: str, files: Iterable[str]) -> str | None:
    """Which of `files` is called `name`: with or without ending and folder, at best in the very spelling.

    Next best is another way to write blanks and the like, then another case. A safetensors file comes before others, a
    file further up before one in a folder below, then the alphabet decides.
    """
    if not name.strip("./\\"):
        return None
    wanted = normalize("NFC", PurePosixPath(name.replace("\\", "/")).as_posix())
    bare = {file: str(PurePosixPath(file).with_suffix("")) for file in files}
    for fold in (False, True):
        for loose in (False, True):
            asked = f"/{_alike(_BLANKS.sub('_', wanted) if loose else wanted, fold)}"
            found = [
                file
                for file, stem in bare.items()
                if any(
                    f"/{_alike(said(each) if loose else normalize('NFC', each), fold)}".endswith(asked)
                    for each in (file, stem)
                )
            ]
            if found:
                return min(found, key=lambda f: (not f.lower().endswith(".safetensors"), f.count("/"), f))
    return None


def _alike(text: str, fold: bool) -> str:
    return text.casefold() if fold else text
