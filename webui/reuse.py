"""Settings that come from elsewhere: a dropped picture, a pasted text, an entry of the log or of the history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from core.errors import BadMetadata, UserError
from core.output.metadata import (
    NOT_OF_THE_PICTURE,
    ReadMetadata,
    read_settings,
    read_settings_text,
    resolve,
    with_recovered_styles,
)
from core.performance import MODES, overruled
from core.settings import Settings
from webui.app import App
from webui.controls import CONTROLS, shown
from webui.visitors import NO_COOKIE, owner_of

LARGEST_PICTURE = 2**26  # bytes
TAKEN_AT_ONCE = 4  # pictures that are held in memory; who comes next waits with theirs unsent
SLOWEST = 120.0  # seconds in which a picture must have come
READ_AT_ONCE = 2  # pixels in which a text may be hidden are unpacked whole
LONGEST_VALUE = 20  # characters that are told of what could not be used
KINDS = ("checkpoints", "loras", "vae", "text_encoders")
PROGRAMS = {
    "easel": "Easel", "a1111": "A1111 or a program like it", "fooocus": "Fooocus", "comfyui": "ComfyUI",
    "invokeai": "InvokeAI", "novelai": "NovelAI", "swarmui": "SwarmUI",
}  # fmt: skip

# Forms that a person may write by hand. Such a one tells of a whole picture if it has these, usable or not, and a size.
BY_HAND = ("easel", "fooocus")
WHOLE = {"prompt", "seed", "sampler"}
SIZES = {"width", "resolution", "size"}
# Helps that Fooocus and Easel alone have, each turned off: pictures of the others were made without.
PLAIN: Mapping[str, float] = {
    "sharpness": 0.0, "adaptive_cfg": 30.0, "adm_scaler_positive": 1.0, "adm_scaler_negative": 1.0, "adm_scaler_end": 0.0,
}  # fmt: skip
# What stays as the page has it unless a picture tells of it.
KEPT = {*NOT_OF_THE_PICTURE, "prompt", "seed"}


class TooLarge(Exception):
    """A picture of more than LARGEST_PICTURE bytes."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The Settings fields of a picture or a text that can be used here, and what there is to tell of the rest.

    `whole`: they are those of a whole picture. `program` wrote them, "" if it was ours. `missing` are the files and styles
    that are not here, `unused` is what else could not be used.
    """

    settings: dict[str, Any]
    whole: bool
    program: str = ""
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def to_text(self) -> str:
        """The text that `reused` takes for it."""
        return json.dumps(asdict(self))


def reused(text: str, app: App, current: Mapping[str, Any]) -> tuple[dict[str, Any], Found]:
    """What controls have to change to for the settings in `text`, by name, and what was found in it.

    `current` is what they show. What tells of a whole picture starts from the recommendation for its checkpoint (the one
    on the page, if its own is not here), without styles, LoRAs and mode, and without the helps that the program which made it
    does not have; anything else changes only what it contains.
    "any_seed" is among the changes if there is a seed. Raises UserError if `text` holds no settings.
    """
    found = _found_already(text) or understood(read_settings_text(text), app)
    given, whole = found.settings, found.whole
    here = current["base_model"] if current["base_model"] in app.models() else ""
    model = str(given.get("base_model") or here)
    start = app.recommended(model) if whole else Settings()
    helps = {} if found.program in ("", PROGRAMS["fooocus"]) else PLAIN
    settings = Settings.from_dict({**start.to_dict(), **helps, **given, "base_model": model or start.base_model})
    settings = replace(settings, image_number=min(settings.image_number, app.max_image_number))
    touched = given.keys() | (CONTROLS.keys() - KEPT if whole else set())
    values = {name: value for name, value in shown(settings).items() if name in touched}
    mode = current["performance"]
    if not whole and "performance" not in given and mode in MODES and overruled(mode, given):
        values["performance"] = "custom"  # else it would have no effect
    if "prompt" not in given and text == current["prompt"]:
        values["prompt"] = ""  # the text of the settings was typed there
    if "seed" in given:
        values["any_seed"] = False
    return values, found


def as_text(settings: Settings) -> str:
    """A text that `reused` gives exactly these settings for."""
    return Found(settings=settings.to_dict(), whole=True).to_text()


def understood(read: ReadMetadata, app: App) -> Found:
    """What of `read` can be used here.

    A field for which only things were named that are not here is as if none was named; but the checkpoint, which nothing
    works without, is not there then.
    """
    styles = app.resources.styles.read()

    def find_style(name: str) -> str:
        found = styles.find(name)
        return found.name if found else ""

    names = {kind: app.files(kind) for kind in KINDS} | {"styles": styles.names()}
    hashes = {kind: app.hashes(kind) for kind in KINDS}
    whole = _is_whole(read)
    read = resolve(with_recovered_styles(read, styles), names, hashes, find_style)
    usual = Settings()
    none = {one.field: getattr(usual, one.field) for one in read.named if one.field != "base_model"}
    return Found(
        settings=none | read.settings,
        whole=whole,
        program="" if read.source == "easel" else PROGRAMS.get(read.source, read.source),
        missing=tuple(dict.fromkeys(one.name or one.hash for one in read.named)),
        unused=tuple(_with_value(*one) for one in sorted(read.unknown.items())),
    )


def read_route(app: App) -> Route:
    """`POST /easel/read` with a picture's bytes: its settings or what is wrong, as the text that `reused` takes."""
    door, gate = asyncio.Semaphore(TAKEN_AT_ONCE), asyncio.Semaphore(READ_AT_ONCE)

    async def read(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return PlainTextResponse(NO_COOKIE, status_code=403)
        try:
            async with door:
                picture = await asyncio.wait_for(_sent_picture(request), SLOWEST)
                async with gate:
                    found = await run_in_threadpool(lambda: understood(read_settings(picture), app))
        except TooLarge:
            return PlainTextResponse(f"Pictures of up to {LARGEST_PICTURE >> 20} MB are read.", status_code=413)
        except (asyncio.TimeoutError, ClientDisconnect):
            return PlainTextResponse("The picture could not be sent to Easel.", status_code=408)
        except UserError as error:
            return JSONResponse({"problem": app.told(error)})
        return Response(found.to_text(), media_type="application/json")

    return Route("/easel/read", read, methods=["POST"])


async def _sent_picture(request: Request) -> BinaryIO:
    """The body as an open file. Raises TooLarge."""
    picture = BytesIO()
    async for piece in request.stream():
        picture.write(piece)
        if picture.tell() > LARGEST_PICTURE:
            raise TooLarge
    return picture


def _found_already(text: str) -> Found | None:
    """What `read_route` answered; None for any other text."""
    with suppress(ValueError, RecursionError):
        match json.loads(text):
            case {"problem": problem, **rest} if not rest:
                raise BadMetadata(str(problem)[:500])
            case {
                "settings": dict(settings),
                "whole": bool(whole),
                "program": str(program),
                "missing": list(missing),
                "unused": list(unused),
            }:
                names = {"missing": tuple(map(str, missing)), "unused": tuple(map(str, unused))}
                return Found(settings=settings, whole=whole, program=program, **names)
    return None


def _is_whole(read: ReadMetadata) -> bool:
    """Whether `read` tells of a whole picture, and not of some settings alone."""
    said = {key.casefold() for key in (*read.settings, *read.unknown)}
    return read.source not in BY_HAND or (said >= WHOLE and not said.isdisjoint(SIZES))


def _with_value(key: str, value: str) -> str:
    """A key that cannot be used, with its value if that is a number or a word."""
    return f"{key} ({value})" if value.strip() and len(value) <= LONGEST_VALUE and len(value.split()) == 1 else key
