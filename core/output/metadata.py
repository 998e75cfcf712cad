"""A picture's settings inside its file: written so that any program finds them, read back whatever the file holds.

PNG: text chunks `parameters` (the A1111 text) and `easel` (our JSON). JPEG and WebP: Exif, with the A1111 text as the
UserComment of the Exif sub-IFD, our JSON as the ImageDescription and the program as Software. Read are, besides ours, the
pictures of the programs in `core/output/foreign`. No torch; Pillow only where it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from core.errors import BadMetadata
from core.output import strip
from core.output.a1111 import NOT_OF_THE_PICTURE, from_text, has_parameters, to_text
from core.output.embedded import COMMENT, LONGEST_TEXT, XMP, open_picture, readable, texts_in
from core.output.foreign import comfyui, fooocus, invokeai, novelai, swarmui
from core.output.foreign.fooocus_styles import with_recovered_styles
from core.output.hidden import has_hidden_text, hidden_texts
from core.output.pieces import kind_of, size_of
from core.output.reading import Reading, ReadMetadata, json_object, whole_text
from core.output.record import PROGRAM, Origin, Record
from core.output.resolve import resolve
from core.settings import Settings

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

__all__ = [
    "JPEG_EXIF_LIMIT", "LONGEST_TEXT", "NOT_OF_THE_PICTURE", "ReadMetadata", "exif_bytes", "png_info",
    "read_settings", "read_settings_text", "resolve", "stripped", "to_json", "with_recovered_styles",
]  # fmt: skip

File: TypeAlias = "str | Path | bytes | BinaryIO"

LARGEST_FILE = 2**28  # bytes
JPEG_EXIF_LIMIT = 65_533  # bytes of one JPEG segment
JPEG_START = b"\xff\xd8"
NO_SETTINGS = "The picture carries no settings. Choose one that was saved with its metadata."
FIELDS = frozenset(f.name for f in fields(Settings))
# Names of texts that only hold settings: that they cannot be read is worth saying.
KEYWORDS = ("easel", "parameters", "invokeai_metadata", "sd-metadata", "Dream")

_SOFTWARE, _DESCRIPTION, _EXIF_IFD, _USER_COMMENT = 0x0131, 0x010E, 0x8769, 0x9286

# Whose JSON object it is, asked in this order; ours if nobody knows it.
JSON_FORMS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], ReadMetadata]], ...] = (
    (swarmui.recognises, swarmui.read),
    (comfyui.recognises, comfyui.read),
    (invokeai.recognises, invokeai.read),
    (novelai.recognises, novelai.read),
    (fooocus.recognises, fooocus.read),
)


def to_json(record: Record) -> str:
    """`record` as one JSON object in ASCII."""
    values = {
        "program": PROGRAM,
        "version": record.version,
        "created": record.created.isoformat(timespec="seconds"),
        "base_model_sha256": record.base_model_sha256,
        "settings": record.settings.to_dict(),
        **({"hashes": dict(record.hashes)} if record.hashes else {}),
        **({"origin": asdict(record.origin)} if record.origin else {}),
        **({"typed": dict(record.typed)} if record.typed else {}),
        **({"created_by": record.created_by} if record.created_by else {}),
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


def read_settings(source: File) -> ReadMetadata:
    """The settings in a PNG, JPEG or WebP (a path, bytes or an open file).

    Raises BadMetadata, whatever the file holds, if no settings can be read from it.
    """
    problem: BadMetadata | None = None
    for telling, read in _readers(source):
        try:
            return read()
        except BadMetadata as found:
            problem = problem or (found if telling else None)
    raise problem or BadMetadata(NO_SETTINGS)


def read_settings_text(text: str) -> ReadMetadata:
    """The settings in a pasted text: a JSON object, ours or another program's, or the A1111 text.

    Raises BadMetadata if it is none of these, holds no setting that can be used or has over a million characters.
    """
    text = readable(text)
    if not text.lstrip().startswith("{"):
        return from_text(str(whole_text(text)))
    try:
        values = json_object(text)
    except BadMetadata:
        if has_parameters(text):  # of a prompt that begins with a brace
            with suppress(BadMetadata):
                return from_text(str(whole_text(text)))
        raise
    read = next((read for recognises, read in JSON_FORMS if recognises(values)), _read_own)
    return read(values)


def stripped(source: File) -> bytes:
    """The same PNG, JPEG or WebP without any metadata. Its pixels are copied, not encoded anew.

    Only where a text is hidden in the pixels themselves (in the lowest bit of transparency) that bit is set throughout, and
    the picture encoded anew without loss. Raises BadMetadata if it is no such picture.
    """
    with _opened(source) as file:
        data = strip.without_metadata(file)
    return _without_hidden_text(data)


def _read_own(values: Mapping[str, Any]) -> ReadMetadata:
    given = values.get("settings", values)
    if not isinstance(given, dict):
        raise BadMetadata('The settings are damaged: "settings" is no JSON object.')
    reading = Reading("easel")
    for name, value in given.items():
        if name in FIELDS:
            reading.put(name, name, value)
        else:
            reading.reject(name, value)
    if not reading.settings:
        raise BadMetadata("There is no setting in it that this program knows.")
    hashes = values.get("hashes")
    hashes = hashes if isinstance(hashes, dict) else {}
    settings = reading.settings
    reading.name("base_model", settings.get("base_model"), values.get("base_model_sha256"))
    for name_of in ("refiner_model", "vae"):
        if name := settings.get(name_of):
            reading.name(name_of, name, hashes.get(name))
    for lora in settings.get("loras", ()):
        reading.name("loras", lora.name, hashes.get(lora.name), weight=lora.weight, enabled=lora.enabled)
    return replace(reading.done(), origin=_origin(values.get("origin")), typed=_typed(values.get("typed")))


def _typed(value: Any) -> dict[str, Any]:
    reading = Reading("easel")
    for name, typed in value.items() if isinstance(value, dict) else ():
        if name in FIELDS:
            reading.put(name, name, typed)
    return reading.settings


def _origin(value: Any) -> Origin | None:
    match value:
        case {"fingerprint": str(found), "kind": str(kind)} if re.fullmatch("[0-9a-f]{32}", found):
            return Origin(found, str(whole_text(kind))[:40])
    return None


def _readers(source: File) -> Iterator[tuple[bool, Callable[[], ReadMetadata]]]:
    """What may give the settings of a picture, the most exact first, and whether its failure is worth telling.

    Raises BadMetadata if it is no picture.
    """
    with _opened(source) as file:
        yield from _of_texts(texts_in(file))
        if kind_of(file) != "jpeg":
            yield True, partial(_read_hidden, file)


def _of_texts(texts: Mapping[str, str]) -> Iterator[tuple[bool, Callable[[], ReadMetadata]]]:
    """Ways to read the texts of a picture by the names that programs give them; any other text may be anything."""
    named: tuple[tuple[str, Callable[[str], ReadMetadata]], ...] = (
        ("easel", _read_object),
        ("ImageDescription", _read_object),
        ("parameters", read_settings_text),
        ("UserComment", read_settings_text),
        ("invokeai_metadata", lambda text: invokeai.read(json_object(text))),
        ("sd-metadata", lambda text: invokeai.read(json_object(text))),
        ("Dream", invokeai.read_dream),
        ("Comment", lambda _: novelai.read(texts)),
        ("prompt", lambda text: comfyui.read(json_object(text))),
        ("workflow", lambda text: comfyui.read(json_object(text))),
    )
    for name, read in named:
        if name in texts:
            yield name in KEYWORDS, partial(_bounded, read, texts[name])
    for form in ("prompt:", "workflow:"):  # ComfyUI in WebP
        for name in ("Model", "Make"):
            if texts.get(name, "").lower().startswith(form):
                yield True, partial(_bounded, _read_object, texts[name][len(form) :])
    for name in ("ImageDescription", "XPComment", XMP, COMMENT, "Description", "comment"):
        if name in texts:
            yield False, partial(read_settings_text, texts[name])


def _bounded(read: Callable[[str], ReadMetadata], text: str) -> ReadMetadata:
    return read(readable(text))


def _read_object(text: str) -> ReadMetadata:
    if not text.lstrip().startswith("{"):
        raise BadMetadata("The settings are damaged: they are no JSON object.")
    return read_settings_text(text)


def _read_hidden(file: BinaryIO) -> ReadMetadata:
    with _guarded(), open_picture(file, ("PNG", "WEBP")) as image:
        texts = hidden_texts(image)
    for _, read in _of_texts(texts):
        with suppress(BadMetadata):
            return read()
    raise BadMetadata(NO_SETTINGS)


def _without_hidden_text(data: bytes) -> bytes:
    if data.startswith(JPEG_START):
        return data
    with _guarded(), open_picture(BytesIO(data), ("PNG", "WEBP")) as image:
        if not has_hidden_text(image) or getattr(image, "n_frames", 1) > 1:
            return data
        alpha = image.getchannel("A").point([value | 1 for value in range(256)])
        image.putalpha(alpha)
        clean = BytesIO()
        image.save(clean, image.format, lossless=True, exact=True, icc_profile=image.info.get("icc_profile"))
    return clean.getvalue()


@contextmanager
def _opened(source: File) -> Iterator[BinaryIO]:
    """The picture as an open file. Raises BadMetadata if there is none, if it is too large or cannot be read."""
    try:
        with ExitStack() as stack:
            if isinstance(source, (str, Path)):
                file: BinaryIO = stack.enter_context(Path(source).open("rb"))
            else:
                file = BytesIO(source) if isinstance(source, bytes) else source
            size = size_of(file)
            if size > LARGEST_FILE:
                raise BadMetadata(f"The file has {size >> 20} MB; pictures of up to {LARGEST_FILE >> 20} MB are read.")
            yield file
    except (OSError, ValueError):  # ValueError: a path with a zero byte, a closed file
        raise BadMetadata("The picture cannot be found or opened.") from None


@contextmanager
def _guarded() -> Iterator[None]:
    """Pillow answers damaged files with nearly every kind of exception: all become BadMetadata."""
    try:
        yield
    except BadMetadata:
        raise
    except Exception as problem:
        raise BadMetadata(f"The picture or its metadata is damaged ({type(problem).__name__}).") from None
