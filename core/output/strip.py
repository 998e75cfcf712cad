"""The same picture without its metadata: chunks and segments are left out, pixels are copied as they are in the file.

What is needed to show the picture as before stays: colour profile, gamma, transparency, animation, and whether it is to be
turned. Whatever follows the end of the picture goes too.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import BadMetadata
from core.output.exif import orientation, orientation_block
from core.output.pieces import EXIF_HEAD, PNG_SIGNATURE, Piece, jpeg_pieces, kind_of, png_pieces, riff_pieces, size_of

PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD pHYs acTL fcTL fdAT".split()
)
WEBP_KEPT = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"))
JFIF_HEAD, ICC_HEAD = b"JFIF\0", b"ICC_PROFILE\0"

_APP0, _APP1, _APP2, _ADOBE, _COMMENT, _SCAN = b"\xe0", b"\xe1", b"\xe2", b"\xee", b"\xfe", b"\xda"
_HAS_EXIF, _HAS_XMP = 0x08, 0x04  # in the first byte of VP8X
_FRAME_HEAD = 16  # bytes of ANMF before its own chunks
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # FF 00 is a pixel's byte, FF D0 to FF D7 a restart


def without_metadata(file: BinaryIO) -> bytes:
    """The bytes of the file without metadata. Raises BadMetadata if it is no PNG, JPEG or WebP or is damaged."""
    data = {"png": _png, "jpeg": _jpeg, "webp": _webp}[kind_of(file)](file)
    if data is None:
        raise BadMetadata("The picture is damaged: it ends too early. Choose one that can be shown.")
    return data


def _png(file: BinaryIO) -> bytes | None:
    out, turned, kind = [PNG_SIGNATURE], b"", b""
    for piece in png_pieces(file):
        kind = piece.kind
        data = piece.read(file)
        if kind == b"eXIf" and not turned:
            turned = _turn(data)
            if turned:
                out.append(_chunk(kind, turned))
        elif kind in PNG_KEPT:
            # The name of a profile is free text, and no more than that: an empty one is as good.
            out.append(_chunk(kind, b"icc\0" + data.partition(b"\0")[2] if kind == b"iCCP" else data))
    return b"".join(out) if kind == b"IEND" else None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _turn(exif: bytes) -> bytes:
    """An Exif block that turns the picture as `exif` does, b"" if it does not."""
    value = orientation(exif)
    return orientation_block(value) if value != 1 else b""


def _webp(file: BinaryIO) -> bytes | None:
    whole = size_of(file)
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")  # what follows is not of the picture
    if end > whole + 1:
        return None
    pieces = list(riff_pieces(file, end=min(end, whole)))
    turned = next((_turn(piece.read(file)) for piece in pieces if piece.kind == b"EXIF"), b"")
    body = b"WEBP" + b"".join(_webp_pieces(file, pieces, bool(turned)))
    if turned:
        body += _riff(b"EXIF", turned)
    return b"RIFF" + struct.pack("<I", len(body)) + body if len(body) > 4 else None


def _webp_pieces(file: BinaryIO, pieces: list[Piece], turned: bool) -> Iterator[bytes]:
    for piece in pieces:
        if piece.kind not in WEBP_KEPT:
            continue
        data = piece.read(file)
        if piece.kind == b"VP8X" and data:
            data = bytes([data[0] & ~(_HAS_EXIF | _HAS_XMP) | (_HAS_EXIF if turned else 0)]) + data[1:]
        elif piece.kind == b"ANMF":
            inner = list(riff_pieces(file, piece.start + _FRAME_HEAD, piece.start + piece.length))
            kept = [_riff(one.kind, one.read(file)) for one in inner if one.kind in WEBP_KEPT]
            data = data[:_FRAME_HEAD] + b"".join(kept)
        yield _riff(piece.kind, data)


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _jpeg(file: BinaryIO) -> bytes | None:
    out, turned = [b"\xff\xd8"], b""
    scan: Piece | None = None
    for piece in jpeg_pieces(file):
        data = piece.read(file)
        if piece.kind == _APP1 and data.startswith(EXIF_HEAD):
            turned = turned or _turn(data)
        elif piece.kind == _SCAN:
            scan = piece
        elif _jpeg_kept(piece.kind, data):
            out.append(_segment(piece.kind, data))
    if scan is None:
        return None
    pixels = _pixels(file, scan)
    if turned:
        at = 2 if len(out) > 1 and out[1][1:2] == _APP0 else 1
        out.insert(at, _segment(_APP1, EXIF_HEAD + turned))
    return b"".join([*out, pixels]) if pixels else None


def _jpeg_kept(marker: bytes, data: bytes) -> bool:
    if marker == _APP0:
        return data.startswith(JFIF_HEAD) and len(data) == 14  # without a thumbnail
    if marker == _APP2:
        return data.startswith(ICC_HEAD)
    return marker == _ADOBE or not (b"\xe0" <= marker <= b"\xef" or marker == _COMMENT)


def _segment(marker: bytes, data: bytes) -> bytes:
    return b"\xff" + marker + struct.pack(">H", len(data) + 2) + data


def _pixels(file: BinaryIO, scan: Piece) -> bytes:
    """All scans up to the end of the picture, without the comments between them; b"" if there is no end."""
    file.seek(scan.start - 4)
    data = file.read()
    out: list[bytes] = []
    done = after = 0
    for marker in _MARKER.finditer(data):
        at = marker.end() - 2
        if at < after:  # inside a segment
            continue
        if marker[1] == b"\xd9":
            return b"".join([*out, data[done : at + 2]])
        after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not _jpeg_kept(marker[1], data[at + 4 : after]):
            out.append(data[done:at])
            done = after
    return b""
