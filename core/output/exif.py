"""Exif: the few tags of a TIFF directory that can hold text, read whatever the block holds, and the one that turns a picture."""

from __future__ import annotations

import struct

from core.output.pieces import EXIF_HEAD

TEXTS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x9286: "UserComment",
    0x927C: "MakerNote",
    0x9C9C: "XPComment",
}
ORIENTATION = 0x0112

_SUB_DIRECTORY = 0x8769
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # bytes of one value by its type: byte, ASCII, short, long, undefined
_MOST_ENTRIES = 500
_CODE_LENGTH = 8  # a UserComment begins with the name of its character set


def exif_texts(block: bytes) -> dict[str, str]:
    """The texts of an Exif block by the names of their tags; of a tag that is there twice, the sub-directory's."""
    return {TEXTS[tag]: text for tag, data in _tags(block).items() if tag in TEXTS and (text := _text(tag, data))}


def orientation(block: bytes) -> int:
    """How the picture is to be turned before it is shown: 1 (as it is) to 8."""
    data = _tags(block).get(ORIENTATION, b"")
    value = int.from_bytes(data, "big" if _order(block) == ">" else "little") if len(data) == 2 else 1
    return value if 1 <= value <= 8 else 1


def orientation_block(value: int) -> bytes:
    """An Exif block, without head, that says nothing but the orientation."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, value, 0, 0)


def _tags(block: bytes) -> dict[int, bytes]:
    """The tags of the first directory and its Exif sub-directory, as the bytes of their values."""
    block = block.removeprefix(EXIF_HEAD)
    order = _order(block)
    if not order or len(block) < 8:
        return {}
    first = _directory(block, struct.unpack_from(order + "I", block, 4)[0], order)
    pointer = first.pop(_SUB_DIRECTORY, b"")
    second = _directory(block, struct.unpack(order + "I", pointer)[0], order) if len(pointer) == 4 else {}
    return first | {tag: data for tag, data in second.items() if data.strip(b"\0 ")}


def _order(block: bytes) -> str:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(block.removeprefix(EXIF_HEAD)[:4], "")


def _directory(block: bytes, at: int, order: str) -> dict[int, bytes]:
    if at + 2 > len(block):
        return {}
    count = struct.unpack_from(order + "H", block, at)[0]
    tags: dict[int, bytes] = {}
    for i in range(min(count, _MOST_ENTRIES)):
        entry = at + 2 + 12 * i
        if entry + 12 > len(block):
            break
        tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
        length = _SIZES.get(kind, 0) * number
        place = entry + 8 if length <= 4 else struct.unpack_from(order + "I", block, entry + 8)[0]
        wanted = tag in TEXTS or tag in (_SUB_DIRECTORY, ORIENTATION)
        if wanted and length and place + length <= len(block):
            tags[tag] = block[place : place + length]
    return tags


def _text(tag: int, data: bytes) -> str:
    if TEXTS[tag] == "UserComment":
        return _comment(data)
    if TEXTS[tag] == "XPComment":
        return data.decode("utf-16-le", "replace").rstrip("\0")
    return _plain(data)


def _comment(comment: bytes) -> str:
    """The text of a UserComment. Its UTF-16 should be in the file's byte order, but is not in every program's files."""
    code, text = comment[:_CODE_LENGTH], comment[_CODE_LENGTH:]
    if code == b"UNICODE\0":
        little = text[:2] == b"\xff\xfe" or text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff").rstrip("\0")
    return _plain(text if code in (b"ASCII\0\0\0", bytes(_CODE_LENGTH)) else comment)


def _plain(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\0")
