"""damaged: whether a model file that is there is what it should be, as far as size and header tell. No torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from core.errors import BadModelFile, ModelNotFound
from core.weights.header import is_safetensors, read_header

# A download never writes over a file: what is damaged stays in its way until a person takes it away.
WHAT_TO_DO = "Easel leaves it as it is. Move it away or delete it, then download again."


def damage(path: Path, exact_size: int | None = None, rough_size: int | None = None) -> str:
    """What is wrong with the file at `path` and what to do, in sentences; "" if nothing is.

    Sizes in bytes where they are known. Weights are not read: other damage than a cut is for the loader to find.
    """
    safetensors = is_safetensors(path.name)
    with suppress(OSError):
        if not safetensors and is_web_page(path):
            return f"{path} is a web page, not a model. {WHAT_TO_DO}"
        size = path.stat().st_size
        too_small = exact_size is None and not safetensors and is_far_from_whole(size, rough_size)
        wanted = rough_size if too_small else exact_size
        if wanted not in (None, size):
            return (
                f"{path} is there already, with {size} bytes instead of {wanted}: another file, or a damaged one. "
                f"{WHAT_TO_DO}"
            )
    if safetensors:
        try:
            read_header(path)
        except (BadModelFile, ModelNotFound):  # none: a link that leads nowhere
            return (
                f"{path} is there already, but its safetensors header cannot be read: another file, or a damaged one. "
                f"{WHAT_TO_DO}"
            )
    return ""


def is_web_page(path: Path) -> bool:
    """Whether the file at `path` begins as a web page does. Raises OSError.

    A safetensors file is not to be asked for: it begins with a length, of which "<" can be the first byte.
    """
    with path.open("rb") as file:
        return file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def is_far_from_whole(size: int, rough_size: int | None) -> bool:
    """Whether `size` bytes are less than half of those that a file has about."""
    return rough_size is not None and 2 * size < rough_size
