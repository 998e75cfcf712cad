"""transport: one HTTP answer as bytes from a given place on, with verified TLS and only over https. No torch."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urljoin, urlsplit

import httpx

from core.errors import UserError
from core.weights.sources import LOOPBACK, without_secrets

MOST_REDIRECTS = 10
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadFailed(UserError):
    """A file cannot be fetched; the message says why and what to do. What has come stays and is gone on from."""


class Broken(Exception):
    """The connection gave out. Another try may go on from where it ended; `wait` is what the server asks for, in seconds."""

    def __init__(self, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with its body still to come.

    `start` is the place in the file of its first byte; `total` the whole file's size in bytes, None if the server does
    not say. `past_the_end`: the place asked for is not inside the file. `etag` is a strong one or "". `sha256` and `size`
    are the hub's word for the file (X-Linked-Etag, X-Linked-Size), "" and None elsewhere.
    """

    response: httpx.Response
    start: int
    total: int | None
    past_the_end: bool
    etag: str
    sha256: str
    size: int | None

    def chunks(self) -> Generator[bytes, None, None]:
        """The bytes as they come. Raises Broken if they stop before the announced end."""
        with _told(self.response.url.host):
            yield from self.response.iter_raw()


def make_client(stall: float = 30.0) -> httpx.Client:
    """A client that verifies certificates and gives up on a server that is silent for `stall` seconds.

    Raises DownloadFailed where the environment names a proxy or a certificate file that cannot be used.
    """
    try:
        return httpx.Client(timeout=httpx.Timeout(stall), follow_redirects=False, headers={"User-Agent": "Easel"})
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as problem:
        raise DownloadFailed(
            f"Nothing can be fetched as the environment is ({problem}). Look at the variables SSL_CERT_FILE, SSL_CERT_DIR, "
            "HTTPS_PROXY, ALL_PROXY and NO_PROXY."
        ) from problem


@contextmanager
def opened(
    client: httpx.Client, url: str, *, start: int = 0, etag: str = "", method: Literal["GET", "HEAD"] = "GET"
) -> Iterator[Answer]:
    """Ask for the file at `url` from byte `start` on; with `etag`, from the beginning if it is no longer that file.

    To the method HEAD a server answers without the file itself. Raises Broken for what may pass, DownloadFailed for what
    will not.
    """
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    sha256, size = "", None
    before, first = "", url
    for _ in range(MOST_REDIRECTS):
        _check(url, before)
        with _told(urlsplit(url).hostname or url):
            response = client.send(client.build_request(method, url, headers=headers), stream=True)
        try:
            sha256 = sha256 or _sha256(response.headers.get("X-Linked-Etag", ""))
            size = size if size is not None else _whole(response.headers.get("X-Linked-Size"))
            if response.status_code in (301, 302, 303, 307, 308) and "Location" in response.headers:
                before, url = url, urljoin(url, response.headers["Location"])
                continue
            yield _answer(response, first, start, sha256, size)
            return
        finally:
            response.close()
    raise DownloadFailed(
        f"{urlsplit(url).hostname} sends one on and on, {MOST_REDIRECTS} times by now. Try again later."
    )


def _check(url: str, before: str) -> None:
    """Only https; plain http from a test or a mirror on this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    local = host in LOOPBACK and (not before or urlsplit(before).scheme == "http")
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        if before:
            raise DownloadFailed(
                f"{urlsplit(before).hostname} sends one on to {without_secrets(url)[:200]}, and Easel fetches files over https only."
            )
        raise DownloadFailed(f"The address is {without_secrets(url)[:200]}, and Easel fetches files over https only.")


def _answer(response: httpx.Response, asked: str, start: int, sha256: str, size: int | None) -> Answer:
    """`asked`: the address before any redirect, which a person can open in a browser."""
    status, host = response.status_code, response.url.host
    if status in _WORTH_ANOTHER_TRY:
        raise Broken(
            f"{host} answered {status} ({response.reason_phrase})", _seconds(response.headers.get("Retry-After"))
        )
    is_page = response.headers.get("Content-Type", "").lower().startswith("text/html")  # to sign in on, for example
    if status in (401, 403) or (status in (200, 206) and is_page):
        raise DownloadFailed(
            f"{urlsplit(asked).hostname} does not hand out {without_secrets(asked)} to everybody (answer {status}). Fetch the "
            "file in the browser, with an account or after accepting its licence if the site asks for that, and put it into "
            "the folder yourself."
        )
    if status not in (200, 206, 416):
        raise DownloadFailed(
            f"{host} answered {status} ({response.reason_phrase}) for {without_secrets(str(response.url))}. The file may have "
            "moved: look for it on the site and put it into the folder yourself, or name a mirror with --hf-mirror."
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Broken(f"{host} sends the file in a packed form that was not asked for")
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if status == 206 and place is None:
        raise Broken(f"{host} sends a part of the file without saying which")
    length = _whole(response.headers.get("Content-Length"))
    total = length if status == 200 else _whole(place[2]) if place and status == 206 else None
    etag = response.headers.get("ETag", "")
    return Answer(
        response=response,
        start=int(place[1]) if status == 206 and place else 0,
        total=total,
        past_the_end=status == 416,
        etag=etag if etag.startswith('"') else "",
        sha256=sha256,
        size=size,
    )


@contextmanager
def _told(host: str) -> Iterator[None]:
    """httpx's errors as ours."""
    try:
        yield
    except httpx.TimeoutException:
        raise Broken(f"{host} has fallen silent") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DownloadFailed(f"{host}: {error}. Check the address.") from None
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise DownloadFailed(
                f"{host} cannot prove who it is ({error}). Easel does not fetch files from such a place. If your network has "
                "certificates of its own, name them in the environment variable SSL_CERT_FILE."
            ) from None
        raise Broken(f"the connection to {host} broke off ({error or type(error).__name__})") from None


def _sha256(etag: str) -> str:
    match = re.fullmatch(r'"?([0-9a-fA-F]{64})"?', etag)
    return match[1].lower() if match else ""


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,18}", text) else None


def _seconds(text: str | None) -> float:
    """Of a Retry-After; a date counts as nothing, and nobody waits longer than a minute."""
    return min(60.0, float(_whole(text) or 0))
