"""Where a password is asked for, our own routes ask for it too: only a browser that has logged in is answered."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def guarded(routes: Sequence[Route]) -> list[Route]:
    """`routes` behind Gradio's login: 401 for a browser that carries no token of it."""
    return [_behind_login(route) for route in routes]


def logged_in(request: Request) -> bool:
    """Whether the request carries a token that Gradio's login has given. An app without a login lets nobody in."""
    app: Any = request.app
    tokens, cookie_id = getattr(app, "tokens", {}), getattr(app, "cookie_id", "")
    names = (f"access-token-{cookie_id}", f"access-token-unsecure-{cookie_id}")
    return any(tokens.get(request.cookies.get(name)) is not None for name in names)


def _behind_login(route: Route) -> Route:
    endpoint = route.endpoint

    async def guard(request: Request) -> Response:
        if not logged_in(request):
            return PlainTextResponse("Log in first.", status_code=401)
        if inspect.iscoroutinefunction(endpoint):
            answer: Response = await endpoint(request)
            return answer
        return await run_in_threadpool(endpoint, request)

    return Route(route.path, guard, methods=sorted(route.methods or ()))
