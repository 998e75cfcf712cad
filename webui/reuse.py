"""Settings that come from elsewhere: a dropped picture, a pasted text, an entry of the log or of the history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
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
from core.performance import MODES, forced
from core.settings import Settings
from webui.app import App
from webui.controls import CONTROLS, shown
from webui.visitors import owner_of

LARGEST_PICTURE = 2**26  # bytes
MOST_TOLD = 12  # names of what could not be used
LONGEST_VALUE = 20  # characters that are told of what could not be used
KINDS = ("checkpoints", "loras", "vae", "text_encoders")
PROGRAMS = {
    "easel": "Easel", "a1111": "A1111 or a program like it", "fooocus": "Fooocus", "comfyui": "ComfyUI",
    "invokeai": "InvokeAI", "novelai": "NovelAI", "swarmui": "SwarmUI",
}  # fmt: skip

# A JSON object that a person may have written by hand tells of a whole picture if it has these.
BY_HAND = ("easel", "fooocus")
WHOLE = {"prompt", "seed", "width", "sampler"}
# What stays as the page has it unless a picture tells of it.
KEPT = {*NOT_OF_THE_PICTURE, "prompt", "seed"}


def reused(text: str, app: App, current: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What controls have to change to for the settings in `text`, by name, and sentences about what could not be used.

    `current` is what they show. What tells of a whole picture starts from the recommendation for its checkpoint (the one
    on the page, if its own is not here), without styles, LoRAs and mode; anything else changes only what it contains.
    "any_seed" is among the changes if there is a seed. Raises UserError if `text` holds no settings.
    """
    answered = _understood_already(text)
    if answered:
        given, told = answered
        whole = True
    else:
        read = read_settings_text(text)
        given, told = understood(read, app)
        whole = read.source not in BY_HAND or given.keys() >= WHOLE
    here = current["base_model"] if current["base_model"] in app.models() else ""
    model = str(given.get("base_model") or here)
    start = app.recommended(model) if whole else Settings()
    settings = Settings.from_dict({**start.to_dict(), **given, "base_model": model or start.base_model})
    settings = replace(settings, image_number=min(settings.image_number, app.max_image_number))
    touched = given.keys() | (CONTROLS.keys() - KEPT if whole else set())
    values = {name: value for name, value in shown(settings).items() if name in touched}
    if not whole and "performance" not in given and _overrules(given, current["performance"]):
        values["performance"] = "custom"  # else it would have no effect
    if "prompt" not in given and text == current["prompt"]:
        values["prompt"] = ""  # the text of the settings was typed there
    if "seed" in given:
        values["any_seed"] = False
    return values, told


def as_text(settings: Settings) -> str:
    """A text that `reused` gives exactly these settings for."""
    return json.dumps({"settings": settings.to_dict(), "told": ""})


def understood(read: ReadMetadata, app: App) -> tuple[dict[str, Any], str]:
    """The Settings fields of `read` that can be used here, and what is to be told of the rest.

    A field for which only things were named that are not here is as if none was named; but the checkpoint, which nothing
    works without, is not there then.
    """
    styles = app.resources.styles.read()

    def find_style(name: str) -> str:
        found = styles.find(name)
        return found.name if found else ""

    names = {kind: app.files(kind) for kind in KINDS} | {"styles": styles.names()}
    hashes = {kind: app.hashes(kind) for kind in KINDS}
    read = resolve(with_recovered_styles(read, styles), names, hashes, find_style)
    told = []
    if read.source != "easel":
        told.append(f"Written by {PROGRAMS.get(read.source, read.source)}.")
    if read.named:
        first, more = _listed(dict.fromkeys(one.name or one.hash for one in read.named))
        told.append(
            f"Not here, and left out: {first} and {more} more." if more else f"Not here, and left out: {first}."
        )
    if read.unknown:
        first, more = _listed(_with_value(*one) for one in sorted(read.unknown.items()))
        told.append(
            f"These could not be used: {first} and {more} more." if more else f"These could not be used: {first}."
        )
    usual = Settings()
    none = {one.field: getattr(usual, one.field) for one in read.named if one.field != "base_model"}
    return none | read.settings, " ".join(told)


def read_route(app: App) -> Route:
    """`POST /easel/read` with a picture's bytes: its settings or what is wrong, as the text that `reused` takes."""

    async def read(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return PlainTextResponse("This browser sent no cookie; allow cookies for this page.", status_code=403)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > LARGEST_PICTURE:
                return PlainTextResponse(f"Pictures of up to {LARGEST_PICTURE >> 20} MB are read.", status_code=413)
        try:
            settings, told = await run_in_threadpool(lambda: understood(read_settings(bytes(data)), app))
        except UserError as error:
            return JSONResponse({"problem": str(error)})
        return JSONResponse(
            {
                "settings": {
                    name: value for name, value in Settings.from_dict(settings).to_dict().items() if name in settings
                },
                "told": told,
            }
        )

    return Route("/easel/read", read, methods=["POST"])


def _understood_already(text: str) -> tuple[dict[str, Any], str] | None:
    """What `read_route` answered; None for any other text."""
    with suppress(ValueError, RecursionError):
        values = json.loads(text)
        if isinstance(values, dict) and set(values) == {"problem"}:
            raise BadMetadata(str(values["problem"])[:500])
        if (
            isinstance(values, dict)
            and isinstance(values.get("told"), str)
            and isinstance(values.get("settings"), dict)
        ):
            return values["settings"], values["told"]
    return None


def _overrules(given: Mapping[str, Any], performance: Any) -> bool:
    """Whether `given` has another value for a setting that the mode `performance` forces."""
    wanted = forced(performance) if performance in MODES else {}
    return any(given.get(name, value) != value for name, value in wanted.items())


def _listed(names: Iterable[str]) -> tuple[str, int]:
    """The first MOST_TOLD of `names` as a list, and how many more there are."""
    names = list(names)
    return ", ".join(names[:MOST_TOLD]), max(0, len(names) - MOST_TOLD)


def _with_value(key: str, value: str) -> str:
    """A key that cannot be used, with its value if that is a number or a word."""
    return f"{key} ({value})" if value.strip() and len(value) <= LONGEST_VALUE and len(value.split()) == 1 else key
