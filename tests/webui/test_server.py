import json
import socket
import urllib.error
import urllib.request

import pytest

from core.errors import BadConfig
from webui.server import start


def fetch(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
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
    assert fetch(f"{address}/gradio_api/file={path}")[0] in (403, 404)


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
