"""Whether the server is there, and whether it is still the same one: a page asks now and then."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def alive_route() -> Route:
    """`GET /easel/alive`: a text that is another one after each start of the server."""
    start = secrets.token_urlsafe(12)

    def alive(request: Request) -> Response:
        return PlainTextResponse(start, headers={"Cache-Control": "no-store"})

    return Route("/easel/alive", alive)
