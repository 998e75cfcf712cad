"""The history over HTTP: what the History tab asks for, as JSON, and the pictures, each only to those who may see it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import Any

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from core.errors import BadMetadata, HistoryError
from core.output.day_page import day_page
from core.output.history import History
from core.output.history_rows import Picture
from core.output.metadata import read_settings, read_settings_text, stripped
from webui.app import App
from webui.json_requests import BadRequest, refused, sent_object
from webui.pictures import TYPES
from webui.reuse import understood
from webui.visitors import NO_COOKIE, owner_of

ROOT = "/easel/history"
LARGEST_REQUEST = 2**17  # bytes
MOST_KEYS = 1000
MADE_AT_ONCE = 2  # thumbnails: a page full of new ones must leave the processor to the picture being made
EXCERPT = 400  # characters of a prompt in a list
PRIVATE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=86400"}

Answer = Callable[[Request, str], Response]
Change = Callable[[str, dict[str, Any]], Mapping[str, Any]]


def history_routes(history: History, app: App) -> list[Route]:
    """All routes of the history. A key of somebody else's picture is answered as one that never was."""
    turn = asyncio.Semaphore(MADE_AT_ONCE)  # waited for without a thread, which others need

    def search(request: Request, visitor: str) -> Response:
        params = request.query_params
        before = params.get("before", "")
        found = history.search(
            params.get("q", ""),
            visitor,
            before=_number(before),
            trash=params.get("trash") == "1",
        )
        reading = history.reading
        answer = {
            "pictures": [_short(picture) for picture in found.pictures],
            "before": str(found.before) if found.before is not None else None,  # beyond a browser's whole numbers
            "total": found.total,
            "remarks": [*found.remarks, *map(app.shown, history.notices)],
            "reading": asdict(reading) if reading.busy else None,
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    def details(request: Request, visitor: str) -> Response:
        picture = _asked(request, visitor)
        line = history.lineage(picture, visitor)
        answer = {
            **_short(picture),
            "prompt": picture.prompt,
            "negative": picture.negative,
            "styles": picture.styles.split("\n") if picture.styles else [],
            "loras": picture.loras.split("\n") if picture.loras else [],
            "source": picture.source,
            "settings": json.dumps(
                history.settings(picture)
            ),  # as text: a seed has more digits than a browser's numbers
            "ancestors": [_short(other) for other in line.ancestors],
            "children": [_short(other) for other in line.children],
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    def use(request: Request, visitor: str) -> Response:
        """What a drop of the file onto the page would be answered, as the text that the page takes.

        Where the file is gone or says nothing, the history knows.
        """
        picture = _asked(request, visitor)
        try:
            read = read_settings(history.file(picture))
        except BadMetadata:
            settings = history.settings(picture)
            if not settings:
                raise
            read = replace(read_settings_text(json.dumps(settings)), source=picture.source)
        return JSONResponse({"settings": understood(read, app).to_text()}, headers={"Cache-Control": "no-store"})

    def whole(request: Request, visitor: str) -> Response:
        picture = _asked(request, visitor)
        file = history.file(picture)
        kind = TYPES.get(file.suffix.lower())
        if kind is None or not file.is_file():
            raise LookupError
        if request.query_params.get("plain") == "1":
            name = f'attachment; filename="{_ascii(picture.name)}"'
            return Response(stripped(file), media_type=kind, headers={**PRIVATE, "Content-Disposition": name})
        return FileResponse(
            file, media_type=kind, filename=picture.name, content_disposition_type="inline", headers=PRIVATE
        )

    def small(find: Callable[[Picture], bytes | None]) -> Callable[[Request], Response]:
        def answer(request: Request, visitor: str) -> Response:
            data = find(_asked(request, visitor))
            if data is None:
                raise LookupError
            return Response(data, media_type="image/webp", headers=PRIVATE)

        return _reading(answer, app)

    async def thumbnail(request: Request) -> Response:
        kept = await run_in_threadpool(small(history.kept_thumbnail), request)
        if kept.status_code != 404:
            return kept
        async with turn:
            return await run_in_threadpool(small(history.thumbnail), request)

    async def in_turn(pieces: Iterator[str]) -> AsyncIterator[str]:
        made = iterate_in_threadpool(pieces)
        with suppress(StopAsyncIteration):
            while True:
                async with turn:
                    piece = await anext(made)
                yield piece

    def day(request: Request, visitor: str) -> Response:
        try:
            wanted = date.fromisoformat(request.path_params["day"])
        except ValueError:
            raise LookupError from None
        pictures = of_day(wanted, request, visitor)
        page = in_turn(day_page(wanted, pictures, history.settings, history.thumbnail))
        name = f'attachment; filename="easel-{wanted.isoformat()}.html"'
        return StreamingResponse(
            page, media_type="text/html; charset=utf-8", headers={**PRIVATE, "Content-Disposition": name, "Cache-Control": "no-store"}
        )  # fmt: skip

    def of_day(wanted: date, request: Request, visitor: str) -> list[Picture]:
        """All pictures of that day, oldest first: of the browser's day, if it says when that begins and ends (ms)."""
        since, until = (_number(request.query_params.get(name, "")) for name in ("since", "until"))
        if since is None or until is None:
            return history.day(wanted, visitor)
        try:
            days = [wanted + timedelta(days=n) for n in range(-2, 3)]  # zones are up to 26 hours apart
        except OverflowError:
            raise LookupError from None
        around = [picture for each in days for picture in history.day(each, visitor)]
        return [picture for picture in around if since <= picture.created.timestamp() * 1000 < until]

    def favourite(visitor: str, said: dict[str, Any]) -> Mapping[str, Any]:
        if not isinstance(said.get("on"), bool):
            raise BadRequest('"on" must be true or false.')
        return {"done": history.mark(_keys(said), visitor, favourite=said["on"])}

    def trash(visitor: str, said: dict[str, Any]) -> Mapping[str, Any]:
        done, remarks = history.trash(_keys(said), visitor)
        return {"done": done, "remarks": [*map(app.shown, remarks)]}

    def restore(visitor: str, said: dict[str, Any]) -> Mapping[str, Any]:
        done, remarks = history.restore(_keys(said), visitor)
        return {"done": done, "remarks": [*map(app.shown, remarks)]}

    def empty(visitor: str, said: dict[str, Any]) -> Mapping[str, Any]:
        return {"deleted": history.empty_trash(visitor)}

    def rescan(visitor: str, said: dict[str, Any]) -> Mapping[str, Any]:
        history.start()
        return {}

    def _asked(request: Request, visitor: str) -> Picture:
        picture = history.picture(request.path_params["key"], visitor)
        if picture is None:
            raise LookupError
        return picture

    reads: dict[str, Answer] = {
        "": search, "/details/{key}": details, "/use/{key}": use, "/picture/{key}": whole, "/day/{day}": day,
    }  # fmt: skip
    changes: dict[str, Change] = {
        "/favourite": favourite, "/trash": trash, "/restore": restore, "/empty": empty, "/rescan": rescan,
    }  # fmt: skip
    return [
        *(Route(ROOT + path, _reading(answer, app), methods=["GET"]) for path, answer in reads.items()),
        Route(f"{ROOT}/thumbnail/{{key}}", thumbnail, methods=["GET"]),
        *(Route(ROOT + path, _changing(change, app), methods=["POST"]) for path, change in changes.items()),
    ]


def _reading(answer: Answer, app: App) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        visitor = owner_of(request.headers.get("cookie"))
        if visitor is None:
            return refused(NO_COOKIE, 403)
        try:
            return answer(request, visitor)
        except LookupError:
            return PlainTextResponse("There is no such picture.", status_code=404)
        except BadMetadata as problem:
            return refused(app.told(problem), 422)
        except HistoryError as problem:
            return refused(app.told(problem), 503)

    return endpoint


def _changing(change: Change, app: App) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for POST. That it is our own page which calls is seen to by `webui.visitors.Visitors`.

    Besides, only `application/json` is taken: no form of another page can send that.
    """

    async def endpoint(request: Request) -> Response:
        visitor = owner_of(request.headers.get("cookie"))
        if visitor is None:
            return refused(NO_COOKIE, 403)
        try:
            said = await sent_object(request, LARGEST_REQUEST)
            return JSONResponse(await run_in_threadpool(change, visitor, said))
        except BadRequest as problem:
            return refused(str(problem), 400)
        except HistoryError as problem:
            return refused(app.told(problem), 503)

    return endpoint


def _keys(said: dict[str, Any]) -> list[str]:
    keys = said.get("keys")
    if not isinstance(keys, list) or len(keys) > MOST_KEYS or not all(isinstance(key, str) for key in keys):
        raise BadRequest(f'"keys" must be a list of at most {MOST_KEYS} texts.')
    return keys


def _short(picture: Picture) -> dict[str, Any]:
    """What a list shows of a picture. No path: where the files lie is nobody's business."""
    return {
        "key": picture.key,
        "prompt": picture.prompt[:EXCERPT],
        "model": picture.model,
        "seed": None if picture.seed is None else str(picture.seed),
        "width": picture.width,
        "height": picture.height,
        "time": picture.created.isoformat(timespec="seconds"),
        "name": picture.name,
        "favourite": picture.favourite,
        "kind": picture.kind,
        "foreign": picture.foreign,
        "trashed": picture.home != "",
    }


def _number(text: str) -> int | None:
    """A whole number as a browser sends it; None for anything else, and for what no row or moment has."""
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _ascii(name: str) -> str:
    """A file's name as it can stand in a header."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
