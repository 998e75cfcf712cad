"""The pieces that PNG, JPEG and WebP files consist of, found without decoding a pixel; pixel data is skipped, not read."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from core.errors import BadMetadata

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIECES = 200_000  # a PNG of 256 MB in usual chunks of 8 KB has 32,000
EXIF_HEAD = b"Exif\0\0"
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # JPEG markers that are only two bytes
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class Piece(NamedTuple):
    """A chunk of a PNG or WebP, or a segment of a JPEG: what it is, and where its content is in the file."""

    kind: bytes  # a chunk's name; of a JPEG the marker's byte
    start: int  # of the content
    length: int

    def read(self, file: BinaryIO) -> bytes:
        """The content. Raises BadMetadata if the file ends before it does."""
        file.seek(self.start)
        data = file.read(self.length)
        if len(data) < self.length:
            raise BadMetadata("The picture is damaged: it ends too early.")
        return data


def kind_of(file: BinaryIO) -> str:
    """png, jpeg or webp, by the first bytes. Raises BadMetadata."""
    file.seek(0)
    head = file.read(12)
    if head.startswith(PNG_SIGNATURE):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "webp"
    raise BadMetadata("This is no PNG, JPEG or WebP picture.")


def size_of(file: BinaryIO) -> int:
    """The file's length in bytes."""
    return file.seek(0, os.SEEK_END)


def png_pieces(file: BinaryIO) -> Iterator[Piece]:
    """The chunks of a PNG, up to IEND or where the file breaks off."""
    end, at = size_of(file), len(PNG_SIGNATURE)
    for _ in range(MOST_PIECES):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if at + 12 + length > end:
            return
        yield Piece(kind, at + 8, length)
        at += 12 + length
        if kind == b"IEND":
            return


def riff_pieces(file: BinaryIO, at: int = 12, end: int | None = None) -> Iterator[Piece]:
    """The chunks of a WebP, or of the part of one from `at` to `end`. Each begins at an even place."""
    end = size_of(file) if end is None else end
    for _ in range(MOST_PIECES):
        file.seek(at)
        head = file.read(8) if at + 8 <= end else b""
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        if at + 8 + length > end:
            return
        yield Piece(kind, at + 8, length)
        at += 8 + length + length % 2


def jpeg_pieces(file: BinaryIO) -> Iterator[Piece]:
    """The segments of a JPEG up to the pixels, whose segment is the last."""
    end, at = size_of(file), 2
    for _ in range(MOST_PIECES):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        marker = head[1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2  # any number of FF may stand in front of a marker
            continue
        length = int.from_bytes(head[2:], "big")
        if marker == _END_OF_IMAGE or length < 2 or at + 2 + length > end:
            return
        yield Piece(bytes([marker]), at + 4, length - 2)
        if marker == _START_OF_SCAN:
            return
        at += 2 + length
