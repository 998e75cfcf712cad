"""The program by itself connects to nobody: seen from inside the real server, at the sockets."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tests.browser.chromium import free_port, running

# Python runs a module of this name at its start, before anything of the program.
SITECUSTOMIZE = """
import json, os, sys

if "EASEL_ENTERED" not in os.environ:  # the first of two processes: what it sets for the second is the program's doing
    for name in {unset!r}:
        os.environ.pop(name, None)

def seen(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0] if event.startswith("socket.get") else arguments[1]
        with open({file!r}, "a") as file:
            file.write(json.dumps([event, host if isinstance(host, (str, type(None))) else list(host)], default=str) + "\\n")

sys.addaudithook(seen)
"""
UNSET = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", None)


@pytest.mark.timeout(240)
def test_the_server_connects_to_no_other_machine_while_its_page_is_opened(tmp_path: Path) -> None:
    """E15 of the attacks, on the server's side; the browser's side is watched by all tests of the page."""
    seen, port = tmp_path / "seen", free_port()
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(file=str(seen), unset=UNSET), encoding="utf-8")
    address = f"http://127.0.0.1:{port}"
    flags = ["--skip-install", "--disable-in-browser", "--always-cpu", "1", "--output", str(tmp_path / "outputs")]
    with running(["launch.py", *flags, "--port", str(port)], address, PYTHONPATH=str(tmp_path)):
        page = _fetched(address + "/")
        _fetched(address + "/config")
        parts = re.findall(r'(?:src|href)="\.?(/[^"]+\.(?:js|css))"', page)
        assert parts
        for part in parts[:20]:
            _fetched(address + part)
    connected = [json.loads(line) for line in seen.read_text(encoding="utf-8").splitlines()]
    hosts = [host[0] if isinstance(host, list) else host for _, host in connected]
    assert "127.0.0.1" in hosts  # Gradio looks whether its own server answers: the hook sees what there is to see
    assert {host for host in hosts if host not in LOOPBACK} == set()


def _fetched(address: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": "text/html"}), timeout=60) as answer:
        return str(answer.read().decode("utf-8", "replace"))
