"""The texts that a picture file carries, by the names that they have in it: PNG keywords, Exif tags, XMP and comments.

Only metadata is read from the file, pixels are passed over. What is compressed is inflated up to a bound.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from core.errors import BadMetadata
from core.output.exif import exif_texts
from core.output.pieces import EXIF_HEAD, XMP_HEAD, Piece, jpeg_pieces, kind_of, png_pieces, riff_pieces

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

LONGEST_TEXT = 2**20  # characters; two prompts of 20,000 characters need half of it at worst
LARGEST_PIECE = 4 * LONGEST_TEXT  # bytes, packed or not
FORMATS = ("PNG", "JPEG", "WEBP")
MOST_TEXTS = 100

TOO_LONG = "\0too long"  # stands for a text that is longer than any that is read
COMMENT = "JPEG comment"
XMP = "XMP"

_XMP_TEXTS = re.compile(
    r"<(?:exif:UserComment|dc:description)\b[^>]{0,500}>(?:\s*<rdf:Alt>\s*<rdf:li\b[^>]{0,200}>)?([^<]+)<"
    r"|(?:exif:UserComment|dc:description|parameters)\s*=\s*\"([^\"]+)\"",
)


def texts_in(file: BinaryIO) -> dict[str, str]:
    """The texts in a PNG, JPEG or WebP by name; the first of several with one name. Raises BadMetadata, OSError."""
    read = {"png": _png, "jpeg": _jpeg, "webp": _webp}[kind_of(file)]
    texts: dict[str, str] = {}
    for name, text in read(file):
        if len(texts) < MOST_TEXTS and text.strip():
            texts.setdefault(name, text)
    return texts


def open_picture(file: Path | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image:
    """Pillow's image of `file`, whose texts may be as long as those that are read here; by itself it refuses 1 MB.

    Raises Pillow's errors, of which there are many.
    """
    from PIL import Image, PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = LARGEST_PIECE
    return Image.open(file, formats=formats)


def _png(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for piece in png_pieces(file):
        if piece.kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            continue
        if piece.length > LARGEST_PIECE:
            yield _keyword(Piece(piece.kind, piece.start, 80).read(file)), TOO_LONG
            continue
        data = piece.read(file)
        if int.from_bytes(file.read(4), "big") != zlib.crc32(piece.kind + data):
            continue
        if piece.kind == b"eXIf":
            yield from exif_texts(data).items()
        else:
            name, text = _keyword(data), _png_text(piece.kind, data.partition(b"\0")[2])
            yield from _xmp(text) if name == "XML:com.adobe.xmp" else [(name, text)]


def _keyword(data: bytes) -> str:
    return data.partition(b"\0")[0][:79].decode("latin-1")


def _png_text(kind: bytes, data: bytes) -> str:
    if kind == b"tEXt":
        return _decoded(data)
    if kind == b"zTXt":
        packed = inflated(data[1:])
        return TOO_LONG if packed is None else _decoded(packed)
    is_packed = data[:1] == b"\1"
    _, _, rest = data[2:].partition(b"\0")  # language
    _, _, text = rest.partition(b"\0")  # translated keyword
    unpacked = inflated(text) if is_packed else text
    return TOO_LONG if unpacked is None else unpacked.decode("utf-8", "replace")


def inflated(data: bytes, window: int = zlib.MAX_WBITS) -> bytes | None:
    """The unpacked `data`, b"" if it is damaged, None if it has more than LARGEST_PIECE bytes."""
    stream = zlib.decompressobj(window)
    try:
        text = stream.decompress(data, LARGEST_PIECE + 1)
    except zlib.error:
        return b""
    return text if len(text) <= LARGEST_PIECE else None


def _decoded(data: bytes) -> str:
    """Latin-1 is what the format says, UTF-8 what many programs write."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _jpeg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for piece in jpeg_pieces(file):
        if piece.kind == b"\xfe":
            yield COMMENT, _decoded(piece.read(file))
        elif piece.kind == b"\xe1":
            data = piece.read(file)
            if data.startswith(EXIF_HEAD):
                yield from exif_texts(data).items()
            elif data.startswith(XMP_HEAD):
                yield from _xmp(_decoded(data.removeprefix(XMP_HEAD)))


def _webp(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for piece in riff_pieces(file):
        if piece.length <= LARGEST_PIECE and piece.kind == b"EXIF":
            yield from exif_texts(piece.read(file)).items()
        elif piece.length <= LARGEST_PIECE and piece.kind == b"XMP ":
            yield from _xmp(_decoded(piece.read(file)))


def _xmp(packet: str) -> Iterator[tuple[str, str]]:
    """The first text in an XMP packet that a program could have put its settings in."""
    if len(packet) <= LONGEST_TEXT and (found := _XMP_TEXTS.search(packet)):
        yield XMP, html.unescape(found[1] or found[2]).strip()


def readable(text: str) -> str:
    """`text` unless it is longer than any that is read. Raises BadMetadata."""
    if text == TOO_LONG or len(text) > LONGEST_TEXT:
        raise BadMetadata(f"The text is too long: at most {LONGEST_TEXT} characters are read.")
    return text
