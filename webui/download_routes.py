"""Downloads over HTTP: the page asks how one stands, starts what a preset needs after the user's word, stops it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.presets_shelf import Shelf
from core.weights.fetching import Downloads
from webui.json_requests import NO_COOKIE, BadRequest, refused, sent_object
from webui.visitors import owner_of

LARGEST_REQUEST = 1000  # bytes


def download_routes(downloads: Downloads, shelf: Shelf, *, allowed: bool) -> list[Route]:
    """`GET /easel/downloads`; `POST /easel/downloads` with {"preset": name} starts, with {} stops.

    `allowed` is False where the page is open to others: what fills the disk is for the one who sits at it.
    """

    def state() -> dict[str, Any]:
        now = downloads.state
        transfer = now.transfer
        told = {"busy": now.busy, "done": now.done, "problem": now.problem}
        if transfer:
            told |= {
                "name": transfer.name, "file": transfer.file, "files": transfer.files, "text": transfer.text,
                "share": transfer.share, "bytes": transfer.all_done, "total": transfer.all_total, "speed": transfer.speed,
            }  # fmt: skip
        return told

    def ask(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        return JSONResponse(state(), headers={"Cache-Control": "no-store"})

    async def change(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None or not allowed:
            return refused("Only the one who runs Easel downloads files, at that computer.", 403)
        try:
            wanted = await sent_object(request, LARGEST_REQUEST)
            if "preset" in wanted:
                downloads.start([need for need in shelf.choice(str(wanted["preset"])).missing if need.url])
            else:
                downloads.stop()
        except BadRequest as problem:
            return refused(str(problem), 400)
        except UserError as error:
            return JSONResponse({**state(), "problem": str(error)})
        return JSONResponse(state())

    return [Route("/easel/downloads", ask), Route("/easel/downloads", change, methods=["POST"])]
