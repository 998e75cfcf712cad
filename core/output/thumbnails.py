"""thumbnails: small pictures for the history, made when they are first looked at and kept beside the outputs."""

from __future__ import annotations

import secrets
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from core.output.embedded import open_picture

SIDE = 256  # pixels of the longer side
FOLDER = ".thumbnails"
MOST_PIXELS = 100_000_000  # of the picture; a larger one gets no thumbnail


class Thumbnails:
    """WebP files of at most 256 x 256 pixels in a folder, named after their picture's fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def kept(self, fingerprint: str) -> bytes | None:
        """The thumbnail, if it has been made."""
        with suppress(OSError):
            return self._place(fingerprint).read_bytes()
        return None

    def get(self, file: Path, fingerprint: str) -> bytes | None:
        """The thumbnail of the picture `file`; None if it cannot be read as one. A disk that is full does not matter."""
        if (kept := self.kept(fingerprint)) is not None:
            return kept
        data = make_thumbnail(file)
        if data is not None:
            with suppress(OSError):
                _write(self._place(fingerprint), data)
        return data

    def forget(self, fingerprint: str) -> None:
        """Delete the thumbnail of a picture that is gone."""
        with suppress(OSError):
            self._place(fingerprint).unlink(missing_ok=True)

    def _place(self, fingerprint: str) -> Path:
        return self.folder / fingerprint[:2] / f"{fingerprint}.webp"


def make_thumbnail(file: Path) -> bytes | None:
    """A WebP of at most 256 x 256 pixels without any metadata; None if `file` is no picture that can be read."""
    from PIL import ImageOps

    data = BytesIO()
    try:
        with open_picture(file) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at a fraction of its size
            image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
            upright = ImageOps.exif_transpose(image)
            has_alpha = "A" in upright.getbands() or "transparency" in upright.info
            upright.convert("RGBA" if has_alpha else "RGB").save(data, "WEBP", quality=80, method=2, exif=b"")
    except Exception:  # Pillow answers damaged files with nearly every kind of exception
        return None
    return data.getvalue()


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
