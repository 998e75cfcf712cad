"""A page behind a password, over real HTTP: checking one holds up nobody, and guessing them gets slow."""

import http.client
import itertools
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from core.access import WITHOUT_WAITING
from tests.browser.chromium import free_port, running
from tests.webui.behind_password import RIGHT
from webui.guard import LARGEST_BODY

pytestmark = pytest.mark.timeout(180)

WRONG = "wrong"
ADDRESSES = itertools.count(1)


@dataclass
class Visitor:
    """Somebody at an address of their own, before `page`, whose `door` can be held: then a check takes its time."""

    page: str
    door: Path
    at: str
    pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)

    def status(self, path, form=None):
        data = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(self.page + path, data, {"X-Forwarded-For": self.at})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code

    def log_in(self, password, path="/login"):
        return self.status(path, {"username": "anna", "password": password})

    def begin_to_log_in(self, password):
        """A login that goes on until the file `closed` is gone, from when its password is looked at."""
        (self.door / "closed").touch()
        before, login = self.checked(), self.pool.submit(self.log_in, password)
        while self.checked() == before:
            assert not login.done()
            time.sleep(0.02)
        return login

    def finish(self, login):
        (self.door / "closed").unlink()
        return login.result(30)

    def checked(self):
        """How many passwords have been looked at."""
        asked = self.door / "asked"
        return asked.stat().st_size if asked.exists() else 0


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("door"), free_port()
    with running(["-m", "tests.webui.behind_password", str(port), str(folder)], f"http://127.0.0.1:{port}") as address:
        yield address, folder


@pytest.fixture
def visitor(page):
    """At another address in each test."""
    made = Visitor(*page, at=f"192.0.2.{next(ADDRESSES)}")
    yield made
    (made.door / "closed").unlink(missing_ok=True)
    made.pool.shutdown()


def test_while_a_password_is_checked_everybody_else_is_served(visitor):
    """D6."""
    login = visitor.begin_to_log_in(RIGHT)
    assert visitor.status("/easel/alive") == 200
    assert not login.done()
    assert visitor.finish(login) == 200


def test_after_some_wrong_passwords_even_the_right_one_takes_a_while(visitor):
    """D6."""
    assert [visitor.log_in(WRONG) for _ in range(WITHOUT_WAITING)] == [400] * WITHOUT_WAITING
    began = time.monotonic()
    assert visitor.log_in(RIGHT, "/login/") == 200
    assert time.monotonic() - began > 0.9
    elsewhere = Visitor(visitor.page, visitor.door, "198.51.100.1")
    assert elsewhere.log_in(WRONG) == 400


def test_passwords_that_are_tried_side_by_side_are_refused_unseen(visitor):
    """D6."""
    first = visitor.begin_to_log_in(WRONG)
    checked = visitor.checked()
    assert [visitor.log_in(RIGHT) for _ in range(3)] == [429] * 3
    assert visitor.finish(first) == 400
    assert visitor.checked() == checked
    assert visitor.log_in(RIGHT) == 200


def test_d6_who_is_taken_out_of_the_users_has_to_log_in_again(visitor):
    jar = urllib.request.HTTPCookieProcessor()
    browser = urllib.request.build_opener(jar)
    form = urllib.parse.urlencode({"username": "anna", "password": RIGHT}).encode()
    browser.open(
        urllib.request.Request(f"{visitor.page}/login", form, {"X-Forwarded-For": visitor.at}), timeout=30
    ).close()
    for name, status in (("bob", 200), ("anna", 401)):
        (visitor.door / "gone").write_text(name)
        try:
            with browser.open(f"{visitor.page}/config", timeout=30) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as refused:
            with refused:
                assert refused.code == status


def test_a_logout_ends_the_login_of_that_browser_alone(page):
    with httpx.Client(base_url=page[0]) as mine, httpx.Client(base_url=page[0]) as other:
        for browser in (mine, other):
            assert browser.post("/login", data={"username": "anna", "password": RIGHT}).status_code == 200
            browser.headers["cookie"] = "; ".join(f"{one.name}={one.value}" for one in browser.cookies.jar)
        assert mine.get("/logout").status_code == 302
        assert mine.get("/config").status_code == 401
        assert other.get("/config").status_code == 200


def test_who_has_not_logged_in_is_told_so_as_the_scripts_read_it(page):
    answer = httpx.get(f"{page[0]}/easel/loras")
    assert (answer.status_code, answer.json()) == (401, {"error": "Log in first."})


def test_nobody_is_told_what_the_server_can_do(page):
    assert httpx.get(f"{page[0]}/openapi.json").status_code == 404


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "cancel", "reset"])
def test_nobody_fills_the_memory_without_a_password(page, path):
    """E16: a body without end is refused on every route that reads one before it asks who sends it."""
    address = urllib.parse.urlsplit(page[0])
    pieces = itertools.chain([b'{"data": ["'], itertools.repeat(b"a" * 2**16, 2 * LARGEST_BODY // 2**16))
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=30)) as connection:
        headers = {"content-type": "application/json"}
        connection.request("POST", f"/gradio_api/{path}", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_body_that_says_that_it_is_too_large_is_not_read(page):
    address = urllib.parse.urlsplit(page[0])
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=30)) as connection:
        connection.putrequest("POST", "/gradio_api/cancel")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(LARGEST_BODY + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
