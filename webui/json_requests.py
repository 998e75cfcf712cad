"""JSON over HTTP between our own page and this server: reading what was sent, refusing what makes no sense."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse


class BadRequest(Exception):
    """What the page sent makes no sense; the message says why."""


async def sent_object(request: Request, largest: int) -> dict[str, Any]:
    """The JSON object in the body, at most `largest` bytes. Raises BadRequest.

    Only `application/json` is taken: no form of another page can send that.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadRequest("The request must be application/json.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > largest:
            raise BadRequest(f"The request has more than {largest} bytes.")
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise BadRequest("The request must be a JSON object.")
    return sent


def refused(message: str, status: int) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": message}, status_code=status)
