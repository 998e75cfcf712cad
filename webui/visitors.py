"""Who is calling: a browser is known by a cookie nobody can guess; other web pages cannot act in its name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "easel_owner"
NO_COOKIE = (
    "This browser sent no cookie, so Easel cannot tell whose pictures are whose. "
    "Allow cookies for this page and reload it."
)
YEAR = 365 * 24 * 3600  # seconds
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LOGOUT = "/logout"  # changes something all the same
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Gradio's page lives from scripts and styles in it, but nothing of it comes from, or goes to, another server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
GRADIO = "/gradio_api/"
SCHEMA = "/openapi.json"  # FastAPI's, which asks for no login
# What the page and Gradio's launch ask for there. The others are closed: some relay what another server sends, as if it were
# a page of this one, or take files without end.
CALLED = (
    "run", "queue", "cancel", "reset", "heartbeat", "startup-events", "info", "theme.css", "login_check", "user", "token",
    "app_id",
)  # fmt: skip


def owner_of(cookies: str | None) -> str | None:
    """The owner named in a Cookie header; None if there is none or it is not one that we give."""
    try:
        morsel = SimpleCookie(cookies or "").get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel and re.fullmatch(r"[A-Za-z0-9_-]{43}", morsel.value) else None


class Visitors:
    """ASGI middleware: gives each browser its owner cookie, and refuses calls that another web page makes.

    Of Gradio's own routes it leaves those open that the page needs.

    The cookie holds 256 random bits, is hidden from scripts and not sent along by other sites. It is sent anew with each
    page, so that it ends a year after the last one. `seen` is told whose browser is there, with each piece of an answer that
    is sent to it. `hosts` are the names under which this server may be called (against DNS rebinding), None for any.
    Requests other than reading, and a logout, must come from a page of this very server: browsers tell by Sec-Fetch-Site,
    older ones by Origin.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: tuple[str, ...] | None = LOOPBACK,
        seen: Callable[[str], None] = lambda owner: None,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send)
            return
        if not _needed(scope["path"]):
            await PlainTextResponse("There is nothing here.", status_code=404)(scope, receive, send)
            return
        page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        owner = owner_of(headers.get("cookie"))

        async def send_to_owner(message: Message) -> None:
            if owner:
                self.seen(owner)
            if page and message["type"] == "http.response.start":
                secure = "; Secure" if scope.get("scheme") == "https" else ""
                given = MutableHeaders(scope=message)
                given.setdefault("content-security-policy", POLICY)
                given.append(
                    "set-cookie",
                    f"{COOKIE}={owner or secrets.token_urlsafe(32)}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax{secure}",
                )
            await send(message)

        await self.app(scope, receive, send_to_owner)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        host = _name(f"//{headers.get('host', '')}")
        if self.hosts is not None and host not in self.hosts:
            return f"This server is not called {host}. Open it as http://127.0.0.1."
        if scope["method"] in SAFE_METHODS and not scope["path"].rstrip("/").endswith(LOGOUT):
            return None
        site = headers.get("sec-fetch-site")
        if site is not None:
            return None if site in ("same-origin", "none") else "Another web page may not use this server."
        origin = headers.get("origin")
        if origin is None:  # not a browser
            return None
        ours = {headers.get("host"), headers.get("x-forwarded-host")} - {None}
        return None if urlsplit(origin).netloc in ours else "Another web page may not use this server."


def _needed(path: str) -> bool:
    """Whether `path`, decoded, is none of the routes of Gradio and FastAPI that the page has no use for."""
    if not path.startswith(GRADIO):
        return path != SCHEMA
    return path.removeprefix(GRADIO).split("/")[0] in CALLED


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
