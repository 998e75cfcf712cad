"""Settings that come from elsewhere: a dropped picture, a pasted text, an entry of the log or of the history."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from core.errors import BadMetadata, UserError
from core.output.metadata import ReadMetadata, read_settings, read_settings_text, resolve
from core.settings import Settings
from webui.app import App
from webui.visitors import owner_of

LARGEST_PICTURE = 2**26  # bytes
MOST_TOLD = 12  # names of what could not be used
KINDS = ("checkpoints", "loras", "vae", "text_encoders")
PROGRAMS = {
    "easel": "Easel", "a1111": "A1111 or a program like it", "fooocus": "Fooocus", "comfyui": "ComfyUI",
    "invokeai": "InvokeAI", "novelai": "NovelAI", "swarmui": "SwarmUI",
}  # fmt: skip


def reused(text: str, app: App) -> tuple[Settings, str]:
    """The settings that `text` stands for, and sentences about what could not be used ("" if nothing).

    What the text does not say is as recommended for its model. Raises UserError if it holds no settings.
    """
    given, told = _understood_already(text) or understood(read_settings_text(text), app)
    model = str(given.get("base_model", ""))
    return Settings.from_dict({**app.defaults(model).to_dict(), **given}), told


def as_text(settings: Settings) -> str:
    """A text that `reused` gives exactly these settings for."""
    return json.dumps({"settings": settings.to_dict(), "told": ""})


def understood(read: ReadMetadata, app: App) -> tuple[dict[str, Any], str]:
    """The Settings fields of `read` that can be used here, and what is to be told of the rest."""
    styles = app.resources.styles.read()

    def find_style(name: str) -> str:
        found = styles.find(name)
        return found.name if found else ""

    names = {kind: app.files(kind) for kind in KINDS} | {"styles": styles.names()}
    read = resolve(read, names, find_style=find_style)
    told = []
    if read.source != "easel":
        told.append(f"Written by {PROGRAMS.get(read.source, read.source)}.")
    if read.named:
        listed = ", ".join(dict.fromkeys(one.name or one.hash for one in read.named[:MOST_TOLD]))
        told.append(f"Not here, and left out: {listed}.")
    if read.unknown:
        listed = ", ".join(sorted(read.unknown)[:MOST_TOLD]) + (", ..." if len(read.unknown) > MOST_TOLD else "")
        told.append(f"These could not be used: {listed}.")
    return read.settings, " ".join(told)


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
            settings, told = understood(await run_in_threadpool(read_settings, bytes(data)), app)
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
        if isinstance(values, dict) and isinstance(values.get("told"), str) and isinstance(values["settings"], dict):
            return values["settings"], values["told"]
    return None
