import asyncio
import json
import os
import socket
import urllib.error
import urllib.request
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gradio as gr
import httpx
import pytest

from core.errors import BadConfig
from core.port import port_trouble
from core.worker import LONGEST_QUEUE
from tests.browser.chromium import free_port, running
from webui.generate import MOST_WATCHES
from webui.server import _names, _no_proxy, _open_browser, start
from webui.visitors import LOOPBACK


def fetch(address, method="GET", **headers):
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, headers=headers, method=method), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_the_page_is_served_without_fonts_from_elsewhere(address):
    status, html = fetch(address + "/", Accept="text/html")
    assert status == 200
    assert "fonts.googleapis" not in html and "fonts.gstatic" not in html


def test_no_function_of_the_page_is_a_public_machine_interface(address):
    assert json.loads(fetch(address + "/gradio_api/info")[1])["named_endpoints"] == {}


@pytest.mark.parametrize("path", ["/etc/hostname", "pyproject.toml", "core/task.py", "webui/../pyproject.toml", "C:/x"])
def test_no_file_of_this_machine_is_served(address, path):
    """D4: the application's folder is served to nobody."""
    assert fetch(f"{address}/gradio_api/file={path}")[0] in (403, 404)


@pytest.mark.parametrize(
    "route",
    [
        "file=https://example.com/x.png", "file=http%3A//example.com/x.png", "file/x.png", "proxy=https://example.com/x",
        "upload", "upload_progress", "deep_link", "component_server", "stream/a/1/2/playlist.m3u8", "api/0",
        "call/0", "openapi.json", "custom_component/a/client/component/x.js", "runs",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_route_of_gradio_that_the_page_does_not_need_is_open(address, route, method):
    """One of them relays what any address answers, under the type that it claims: a foreign script would be ours."""
    status, text = fetch(f"{address}/gradio_api/{route}", method=method)
    assert (status, text) == (404, "There is nothing here.")


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_does_not_stand_between_the_page_and_its_server(address, monkeypatch, kind):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"{kind}://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(httpx.ConnectError):
        httpx.head(address)
    with _no_proxy("127.0.0.1"):
        assert httpx.head(address, timeout=60).status_code == 200
    assert os.environ["NO_PROXY"] == "example.com" and "no_proxy" not in os.environ


def test_the_page_can_be_opened_at_an_address_of_the_newer_kind(tmp_path):
    port = free_port()
    if port_trouble("::1", port):
        pytest.skip("This machine has no IPv6.")
    command = ["-m", "tests.webui.stand_in", str(port), str(tmp_path), "0.1", "::1"]
    with running(command, f"http://[::1]:{port}") as address:
        assert fetch(address + "/", Accept="text/html")[0] == 200


def test_a_page_for_this_machine_alone_has_no_foreign_name_whatever_its_address(app):
    assert _names(app, "127.0.0.2", share=False) == (*LOOPBACK, "127.0.0.2")
    assert _names(app, "127.0.0.1", share=True) is None
    assert _names(replace(app, open_to_others=True), "0.0.0.0", share=False) is None


@pytest.mark.parametrize(("kind", "opened"), [(webbrowser.BaseBrowser, True), (webbrowser.GenericBrowser, False)])
def test_a_browser_that_would_take_over_the_terminal_is_left_alone(monkeypatch, kind, opened):
    found = []
    browser = kind("w3m")
    monkeypatch.setattr(browser, "open", found.append)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    _open_browser("http://127.0.0.1:7865/")
    assert bool(found) == opened


def test_all_who_can_watch_leave_room_in_the_queue_and_take_no_threads(app, monkeypatch):
    """D16: Gradio makes as many threads, too, where it is not told otherwise."""
    options = {}
    monkeypatch.setattr(gr.Blocks, "launch", lambda page, **given: options.update(given))

    async def story():  # where an event loop runs: Gradio makes one otherwise, and leaves it open
        return start(app, port=free_port())

    with ThreadPoolExecutor(1) as thread:
        page = thread.submit(asyncio.run, story()).result()
    assert options["max_threads"] > (LONGEST_QUEUE + 1) * MOST_WATCHES
    assert page.limiter is None


def test_a_foreign_name_is_refused(address):
    assert fetch(address + "/", Host="evil.example")[0] == 403


def test_an_occupied_port_is_told_in_a_sentence(app):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BadConfig, match=f"Port {port} is in use.*--port"):
            start(app, port=port)


def test_an_address_that_is_not_ours_is_told_in_a_sentence(app):
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(BadConfig, match=f"{host}.*--listen"):
            start(app, host=host, port=7865)


@pytest.mark.parametrize("host", ["192.168..1", "a" * 64, f"{'a' * 64}.example", "caf\udce9"])
def test_an_address_that_cannot_even_be_looked_up_is_told_in_a_sentence(app, host):
    with pytest.raises(BadConfig, match=r"is no address: .*--listen 192\.168\.0\.1\.$"):
        start(app, host=host, port=7865)
