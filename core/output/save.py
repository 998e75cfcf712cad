"""A finished picture on disk: `outputs/<date>/<time>_<seed>.png`, whole or not at all, and never over another one."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import HistoryError, OutputError
from core.output.files import explained, move_to_free_name, write_new
from core.output.log import append_log
from core.output.metadata import JPEG_EXIF_LIMIT, exif_bytes, png_info
from core.output.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# PNG level 3: 0.2 s for 1024 x 1024 pixels; level 6 takes twice as long and saves a tenth of the size.
ENCODERS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 3},
    "jpeg": {"quality": 95, "optimize": True, "progressive": True},
    "webp": {"quality": 95},
}

LEAST_ROOM = 1 << 17  # bytes: a picture of 256 x 256


@dataclass(frozen=True)
class SavedPicture:
    """Where a picture is, and what the user should know about it."""

    path: Path  # absolute
    warnings: tuple[str, ...] = ()


def save_and_log(
    pixels: NDArray[np.uint8],
    record: Record,
    outputs: Path,
    remember: Callable[[Path, Record], object] | None = None,
) -> SavedPicture:
    """Save a picture, enter it in the day's log, and `remember` it in the history. Raises OutputError.

    A log or a history that cannot be written is a warning: the picture is there.
    """
    saved = save_picture(pixels, record, outputs)
    warnings = list(saved.warnings)
    for enter in filter(None, (append_log, remember)):
        try:
            enter(saved.path, record)
        except (OutputError, HistoryError) as problem:
            warnings.append(str(problem))
    return SavedPicture(saved.path, tuple(warnings))


def check_outputs(outputs: Path) -> None:
    """Find out whether `outputs` takes a picture, before hours of work depend on it; leaves nothing there.

    Raises OutputError.
    """
    folder = Path(outputs).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(LEAST_ROOM))
            probe.flush()
    except OSError as problem:
        raise OutputError(f"The picture cannot be saved in {folder}: {explained(problem)}") from problem


def save_picture(pixels: NDArray[np.uint8], record: Record, outputs: Path) -> SavedPicture:
    """Save uint8 `pixels` (H, W, 3) under `outputs`, in the format and with the metadata that the record's settings ask for.

    A second picture of the same second and seed gets `_2` behind its name, and so on. Raises OutputError if the file
    cannot be written; nothing is left behind then.
    """
    data, warnings = encode_picture(pixels, record)
    folder = Path(outputs).absolute() / record.created.strftime("%Y-%m-%d")
    stem = f"{record.created.strftime('%H-%M-%S')}_{record.settings.seed}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return SavedPicture(place(data, folder, stem, f".{record.settings.output_format}"), warnings)
    except OSError as problem:
        raise OutputError(f"The picture cannot be saved in {folder}: {explained(problem)}") from problem


def encode_picture(pixels: NDArray[np.uint8], record: Record) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of the file, and warnings. A JPEG has room for 64 KB of metadata; a longer one goes without."""
    from PIL import Image

    if pixels.dtype != "uint8" or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; uint8 (H, W, 3) was wanted.")
    settings = record.settings
    options = dict(ENCODERS[settings.output_format])
    warning = None
    if settings.save_metadata and settings.output_format == "png":
        options["pnginfo"] = png_info(record)
    elif settings.save_metadata:
        limit = JPEG_EXIF_LIMIT if settings.output_format == "jpeg" else None
        options["exif"], warning = exif_bytes(record, limit)
    data = BytesIO()
    Image.fromarray(pixels).save(data, format=settings.output_format, **options)
    return data.getvalue(), (warning,) if warning else ()


def place(data: bytes, folder: Path, stem: str, ending: str) -> Path:
    """Write `data` under a temporary name in `folder` and move it to the first free name. Raises OSError."""
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        write_new(part, data)
        number = 1
        while True:
            path = folder / (f"{stem}{ending}" if number == 1 else f"{stem}_{number}{ending}")
            if move_to_free_name(part, path):
                return path
            number += 1
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
