"""damaged: whether a model file that is there is what it should be, as far as size and header tell. No torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from core.errors import BadModelFile, ModelNotFound
from core.weights.header import is_safetensors, read_header

# A download never writes over a file: what is damaged stays in its way until a person takes it away.
WHAT_TO_DO = "Easel leaves it as it is. Move it away or delete it, then download again."


def damage(path: Path, exact_size: int | None = None) -> str:
    """What is wrong with the file at `path` and what to do, in sentences; "" if nothing is.

    `exact_size` in bytes where it is known. Weights are not read: other damage than a cut is for the loader to find.
    """
    with suppress(OSError):
        size = path.stat().st_size
        if exact_size not in (None, size):
            return (
                f"{path} is there already, with {size} bytes instead of {exact_size}: another file, or a damaged one. "
                f"{WHAT_TO_DO}"
            )
    if is_safetensors(path.name):
        try:
            read_header(path)
        except (BadModelFile, ModelNotFound):  # none: a link that leads nowhere
            return (
                f"{path} is there already, but its safetensors header cannot be read: another file, or a damaged one. "
                f"{WHAT_TO_DO}"
            )
    return ""
