"""A picture's settings inside its file: written so that any program finds them, read back whatever the file holds.

PNG: text chunks `parameters` (the A1111 text) and `easel` (our JSON). JPEG and WebP: Exif, with the A1111 text as the
UserComment of the Exif sub-IFD, our JSON as the ImageDescription and the program as Software. No torch; Pillow only when
a picture is read or written.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from core.errors import BadMetadata, BadSetting
from core.output.a1111 import checked, from_text, shown, to_text, whole_text
from core.output.record import PROGRAM, Record

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

Source: TypeAlias = "str | Path | bytes | BinaryIO | Image"

LONGEST_TEXT = 2**20  # characters; two prompts of 20,000 characters need half of it at worst
LARGEST_FILE = 2**28  # bytes
JPEG_EXIF_LIMIT = 65_533  # bytes of one JPEG segment

_SOFTWARE, _DESCRIPTION, _EXIF_IFD, _USER_COMMENT = 0x0131, 0x010E, 0x8769, 0x9286
_CODE_LENGTH = 8  # a UserComment begins with the name of its character set


@dataclass(frozen=True, kw_only=True)
class ReadMetadata:
    """What a picture or a text says of how it was made.

    `settings` holds only fields that were there and are valid; `unknown` what could not be used, by its own name.
    `source` is "easel" (our JSON: exact and complete) or "a1111" (the text form). `model` and `model_hash` name the
    checkpoint if the base model's file name is not known: its name without ending, and the first digits of its SHA-256.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    source: str
    model: str = ""
    model_hash: str = ""


def to_json(record: Record) -> str:
    """`record` as one JSON object in ASCII."""
    values = {
        "program": PROGRAM,
        "version": record.version,
        "created": record.created.isoformat(timespec="seconds"),
        "base_model_sha256": record.base_model_sha256,
        "settings": record.settings.to_dict(),
    }
    return json.dumps(values)


def png_info(record: Record) -> PngInfo:
    """The text chunks of a PNG."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", to_text(record))  # becomes an international chunk where Latin-1 is not enough
    info.add_text("easel", to_json(record))
    return info


def exif_bytes(record: Record, limit: int | None = None) -> tuple[bytes, str | None]:
    """The Exif block of a JPEG or WebP of at most `limit` bytes, and a warning if the settings have no room in it.

    If there is no room for both forms, the A1111 text is left out first.
    """
    from PIL.Image import Exif

    comment = b"UNICODE\0" + to_text(record).encode("utf-16-be")
    description = to_json(record)
    for has_description, has_comment in ((True, True), (True, False), (False, True), (False, False)):
        exif = Exif()  # big-endian, as the comment's UTF-16, which other readers take to be so in any case
        exif[_SOFTWARE] = f"{PROGRAM} {record.version}"
        if has_description:
            exif[_DESCRIPTION] = description
        if has_comment:
            exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
        block = exif.tobytes()
        if limit is None or len(block) <= limit:
            break
    if has_description or has_comment:
        return block, None
    return block, (
        "The prompts are too long to be stored in a JPEG file, so this picture does not carry its settings. "
        "The output formats png and webp have no such limit."
    )


def read_settings(source: Source) -> ReadMetadata:
    """The settings in a PNG, JPEG or WebP (a path, bytes, an open file or a Pillow image).

    Raises BadMetadata, whatever the file holds, if no settings can be read from it.
    """
    own, text = _embedded(source)
    problem: BadMetadata | None = None
    for form in (own, text):
        if form.strip():
            try:
                return read_settings_text(form)
            except BadMetadata as found:
                problem = problem or found
    raise problem or BadMetadata("The picture carries no settings. Choose one that was saved with its metadata.")


def read_settings_text(text: str) -> ReadMetadata:
    """The settings in a pasted text: our JSON, a JSON object of Settings fields, or the A1111 text.

    Raises BadMetadata if it is none of these, holds no setting that can be used or has over a million characters.
    """
    if len(text) > LONGEST_TEXT:
        raise BadMetadata(f"The text has {len(text)} characters; at most {LONGEST_TEXT} are read.")
    if text.lstrip().startswith("{"):
        read = _from_json(text)
    else:
        form = from_text(str(whole_text(text)))
        read = ReadMetadata(source="a1111", **asdict(form))
    if not read.settings:
        raise BadMetadata("There is no setting in it that this program knows.")
    return read


def _from_json(text: str) -> ReadMetadata:
    try:
        values = json.loads(text, parse_int=_whole, parse_float=_real)
    except (ValueError, RecursionError) as problem:
        raise BadMetadata(f"The settings are damaged: they are no JSON ({type(problem).__name__}).") from None
    if not isinstance(values, dict):
        raise BadMetadata("The settings are damaged: they are no JSON object.")
    given = values.get("settings", values)
    if not isinstance(given, dict):
        raise BadMetadata('The settings are damaged: "settings" is no JSON object.')
    settings: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for name, value in given.items():
        try:
            settings[name] = checked(name, value)
        except BadSetting:
            unknown[name] = shown(value)
    model_hash = values.get("base_model_sha256", "")
    return ReadMetadata(
        settings=settings,
        unknown=unknown,
        source="easel",
        model_hash=str(whole_text(model_hash))[:64] if isinstance(model_hash, str) else "",
    )


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 40 else math.inf  # no setting takes an infinity


def _real(digits: str) -> float:
    return float(digits) if len(digits) <= 400 else math.inf


def _embedded(source: Source) -> tuple[str, str]:
    """Our JSON and the A1111 text in a picture, "" for what is not there. Raises BadMetadata if it is no picture."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return _guarded(source)
    if isinstance(source, (str, Path)):
        try:
            size = Path(source).stat().st_size
        except (OSError, ValueError):
            raise BadMetadata("The picture cannot be found or opened.") from None
    else:
        size = len(source) if isinstance(source, bytes) else 0
    if size > LARGEST_FILE:
        raise BadMetadata(f"The file has {size >> 20} MB; pictures of up to {LARGEST_FILE >> 20} MB are read.")
    try:
        with Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=("PNG", "JPEG", "WEBP")
        ) as image:
            return _guarded(image)
    except BadMetadata:
        raise
    except Exception as problem:  # Pillow answers damaged files with nearly every kind of exception
        raise BadMetadata(
            f"This is no PNG, JPEG or WebP picture that can be read ({type(problem).__name__})."
        ) from None


def _guarded(image: Image) -> tuple[str, str]:
    try:
        return _own_form(image), _text_form(image)
    except Exception as problem:  # as above
        raise BadMetadata(f"The picture's metadata is damaged ({type(problem).__name__}).") from None


def _own_form(image: Image) -> str:
    own = image.info.get("easel") or image.getexif().get(_DESCRIPTION)
    return own if isinstance(own, str) and own.lstrip().startswith("{") else ""


def _text_form(image: Image) -> str:
    text = image.info.get("parameters")
    if isinstance(text, str):
        return text
    exif = image.getexif()
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
    if isinstance(comment, str):
        return comment
    return _decoded(comment) if isinstance(comment, bytes) else ""


def _decoded(comment: bytes) -> str:
    """The text of a UserComment. Its UTF-16 should be in the file's byte order, but is not in every program's files."""
    code, text = comment[:_CODE_LENGTH], comment[_CODE_LENGTH:]
    if code == b"UNICODE\0":
        little = text[:2] == b"\xff\xfe" or text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff").rstrip("\0")
    if code in (b"ASCII\0\0\0", bytes(_CODE_LENGTH)):
        return text.decode("utf-8", "replace").rstrip("\0")
    return comment.decode("utf-8", "replace").rstrip("\0")
