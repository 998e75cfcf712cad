"""Against strangers: our own routes ask for the password too, who guesses it has to wait, and nobody sends without end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.access import Throttle, visitor_at
from webui.json_requests import refused
from webui.visitors import LOGOUT

log = logging.getLogger(__name__)

LOGIN = "/login"  # Gradio's
REFUSED = 400  # what it answers to a wrong password
CHECKS_AT_ONCE = 2  # 32 MiB and a core each
LARGEST_BODY = 2**23  # bytes: a text of the longest that is read, each of its letters escaped
OWN_LIMITS = "/easel/"  # our routes, each of which stops reading at a limit of its own


def guarded(routes: Sequence[Route]) -> list[Route]:
    """`routes` behind Gradio's login: 401 for a browser that carries no token of it."""
    return [_behind_login(route) for route in routes]


def logged_in(request: Request) -> bool:
    """Whether the request carries a token that Gradio's login has given. An app without a login lets nobody in."""
    tokens = getattr(request.app, "tokens", {})
    return any(tokens.get(request.cookies.get(name)) is not None for name in _token_cookies(request))


def logout_route() -> Route:
    """`GET /logout` in place of Gradio's, which ends the logins of all browsers that its user has: that of this one."""

    def logout(request: Request) -> Response:
        answer = RedirectResponse("./", status_code=302)
        for name in _token_cookies(request):
            request.app.tokens.pop(request.cookies.get(name), None)
            answer.delete_cookie(name)
        return answer

    return Route(LOGOUT, logout)


def beside_the_loop(check: Callable[[str, str], bool]) -> Callable[[str, str], Awaitable[bool]]:
    """`check` for Gradio's login, in a thread: it takes a tenth of a second, in which all others would wait."""
    gate = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def checked(name: str, password: str) -> bool:
        async with gate:
            return await run_in_threadpool(check, name, password)

    return checked


class SmallBodies:
    """ASGI middleware: answers 413 to more than LARGEST_BODY bytes, which would be read into memory before anybody asks
    who sends them. What is below OWN_LIMITS passes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._limited = RequestBodyLimitMiddleware(app, max_body_size=LARGEST_BODY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        free = scope["type"] == "http" and scope["path"].startswith(OWN_LIMITS)
        await (self.app if free else self._limited)(scope, receive, send)


class SlowLogin:
    """ASGI middleware: lets a visitor try one password at a time, after a wait that grows with the wrong ones.

    It waits rather than refuses, since Gradio's login page can tell a person nothing but that a password is wrong. Who
    sends a second one meanwhile is a program, and is refused at once.
    """

    def __init__(self, app: ASGIApp, throttle: Throttle | None = None) -> None:
        self.app = app
        self._throttle = throttle or Throttle()
        self._trying: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith(LOGIN):
            await self.app(scope, receive, send)
            return
        visitor = visitor_at((scope.get("client") or ("", 0))[0])
        if visitor in self._trying:
            refusal = PlainTextResponse("Another password is being checked. Wait for its answer.", status_code=429)
            await refusal(scope, receive, send)
            return

        async def send_and_see(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == REFUSED:
                self._throttle.failed(visitor)
                wait = self._throttle.wait(visitor)
                if wait:
                    log.warning("Wrong passwords from %s: the next one is looked at after %.0f s", visitor, wait)
            await send(message)

        self._trying.add(visitor)
        try:
            await asyncio.sleep(self._throttle.wait(visitor))
            await self.app(scope, receive, send_and_see)
        finally:
            self._trying.discard(visitor)


class Leavers:
    """ASGI middleware: whom `gone` names has to log in again: his tokens of Gradio's login are taken away."""

    def __init__(self, app: ASGIApp, gone: Callable[[], set[str]]) -> None:
        self.app = app
        self._gone = gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (gone := self._gone()):
            tokens = getattr(scope.get("app"), "tokens", {})
            for token in [token for token, name in tokens.items() if name in gone]:
                del tokens[token]
        await self.app(scope, receive, send)


def _token_cookies(request: Request) -> tuple[str, str]:
    """The names of the cookies in which Gradio keeps a login's token, for https and for http."""
    cookie_id = getattr(request.app, "cookie_id", "")
    return f"access-token-{cookie_id}", f"access-token-unsecure-{cookie_id}"


def _behind_login(route: Route) -> Route:
    endpoint = route.endpoint

    async def guard(request: Request) -> Response:
        if not logged_in(request):
            return refused("Log in first.", 401)
        if inspect.iscoroutinefunction(endpoint):
            answer: Response = await endpoint(request)
            return answer
        return await run_in_threadpool(endpoint, request)

    return Route(route.path, guard, methods=sorted(route.methods or ()))
