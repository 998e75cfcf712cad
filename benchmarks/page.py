"""The real page without a browser: starts launch.py, presses Generate as a browser would, watches the picture come."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import environment
from benchmarks.common import ROOT, BenchmarkError, Stopwatch

HOST = "127.0.0.1"
PREVIEW = re.compile(r"data:image/jpeg")
PICTURE = re.compile(r"easel/pictures/[\w-]+/\d+")
POLL = 0.02  # seconds between two looks whether the page is there
LONGEST_START = 1800.0  # seconds; a first start downloads and installs
LONGEST_WAIT = 900.0  # seconds for one picture


class Server:
    """`python launch.py` in a process of its own. `started` is the seconds until the page answered with status 200."""

    def __init__(
        self, arguments: Sequence[str], environ: Mapping[str, str], *, root: Path = ROOT, python: str = sys.executable
    ) -> None:
        self.port = free_port()
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed by close)
        command = [python, str(root / "launch.py"), "--port", str(self.port), "--disable-in-browser", *arguments]
        clock = Stopwatch()
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env={**environment(ours=False), **environ},
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
        )
        self._wait_for_page(clock)
        self.started = clock.seconds()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ask it to end; after ten seconds it is killed."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_for_page(self, clock: Stopwatch) -> None:
        while clock.seconds() < LONGEST_START:
            if self._process.poll() is not None:
                self._log.seek(0)
                end = "\n  ".join(self._log.read().strip().splitlines()[-15:])
                raise BenchmarkError(
                    f"launch.py ended with exit code {self._process.returncode} before its page was there:\n  {end}"
                )
            try:
                connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
                connection.request("GET", "/", headers={"Accept": "text/html"})
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(POLL)
        self.close()
        raise BenchmarkError(f"The page was not there after {LONGEST_START:.0f} s.")


@dataclass(frozen=True, kw_only=True)
class Pressed:
    """What came of pressing Generate, in seconds since then."""

    preview: float | None  # until the first preview reached the page; None: there was none
    saved: float  # until the file was written
    shown: float  # until the page had fetched the finished picture
    file: Path


class Visitor:
    """One browser's side of the page, over HTTP: its cookie, its session, the values of its controls."""

    def __init__(self, port: int, outputs: Path) -> None:
        self._port = port
        self._outputs = outputs
        self._session = secrets.token_hex(8)
        response, _ = self._call("GET", "/", {"Accept": "text/html"})
        self._cookie = (response.getheader("set-cookie") or "").partition(";")[0]
        _, body = self._call("GET", "/config")
        config = json.loads(body)
        self._api = config.get("api_prefix", "")
        self._components = {part["id"]: part for part in config["components"]}
        by_name = {part["props"].get("elem_id"): id_ for id_, part in self._components.items()}
        dependencies: list[dict[str, Any]] = config["dependencies"]
        press = [by_name.get("generate_button"), "click"]
        pressed = [each for each in dependencies if press in [list(target) for target in each["targets"]]]
        following = [each for each in dependencies if pressed and each.get("trigger_after") == pressed[0]["id"]]
        if not following:
            raise BenchmarkError(
                "The page has no generate_button with an action and another after it; the benchmark does not know this page."
            )
        self._generate, self._watch = pressed[0], following[0]
        self._trigger = by_name["generate_button"]
        self._seen: set[str] = set()

    def press(self, **controls: Any) -> Pressed:
        """Press Generate with `controls` (by the page's element names) changed, wait for the picture and fetch it."""
        before = set(self._outputs.rglob("*.*"))
        pressed_at = time.time()
        clock = Stopwatch()
        self._call_now(self._generate, [self._value(id_, controls) for id_ in self._generate["inputs"]])
        preview, address = None, None
        for message in self._run(self._watch, []):
            if preview is None and PREVIEW.search(message):
                preview = clock.seconds()
            fresh = [found for found in PICTURE.findall(message) if found not in self._seen]
            if fresh and address is None:
                address = fresh[0]
                self._seen.add(address)
                self._call("GET", "/" + address)
                shown = clock.seconds()
        if address is None:
            raise BenchmarkError(
                "The page ended the task without a picture. Start `python launch.py` and look at what it says."
            )
        files = [
            file
            for file in set(self._outputs.rglob("*.*")) - before
            if file.suffix in (".png", ".jpeg", ".jpg", ".webp")
        ]
        if len(files) != 1:
            raise BenchmarkError(f"One new picture was wanted in {self._outputs}; {len(files)} are there.")
        return Pressed(preview=preview, saved=files[0].stat().st_mtime - pressed_at, shown=shown, file=files[0])

    def _value(self, component: int, controls: dict[str, Any]) -> Any:
        props = self._components[component]["props"]
        return controls.get(props.get("elem_id"), props.get("value"))

    def _post(self, path: str, dependency: dict[str, Any], data: list[Any]) -> Any:
        request = {
            "data": data,
            "fn_index": dependency["id"],
            "session_hash": self._session,
            "trigger_id": self._trigger,
            "event_data": None,
        }
        return self._call("POST", self._api + path, {"Content-Type": "application/json"}, json.dumps(request))[1]

    def _call_now(self, dependency: dict[str, Any], data: list[Any]) -> None:
        """Call one of the page's functions that do not go through its queue."""
        self._post("/run/predict", dependency, data)

    def _run(self, dependency: dict[str, Any], data: list[Any]) -> Iterator[str]:
        """Call one of the page's functions through its queue; yields each message of the stream as text."""
        event = json.loads(self._post("/queue/join", dependency, data))["event_id"]
        connection = http.client.HTTPConnection(HOST, self._port, timeout=LONGEST_WAIT)
        try:
            connection.request("GET", f"{self._api}/queue/data?session_hash={self._session}", headers=self._headers())
            response = connection.getresponse()
            for line in response:
                text = line.decode("utf-8")
                if not text.startswith("data:"):
                    continue
                message = json.loads(text[5:])
                if message.get("event_id") not in (None, event):
                    continue
                if message["msg"] == "process_completed" and not message["success"]:
                    raise BenchmarkError(f"The page answered with an error: {message.get('output')}")
                yield json.dumps(message.get("output", ""))
                if message["msg"] == "process_completed":
                    return
        finally:
            connection.close()
        raise BenchmarkError("The page closed the connection before the task was done.")

    def _call(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> tuple[Any, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=60)
        try:
            connection.request(method, path, body=body, headers={**self._headers(), **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise BenchmarkError(f"The page answered {method} {path} with status {response.status}: {content[:200]!r}")
        return response, content

    def _headers(self) -> dict[str, str]:
        cookie = getattr(self, "_cookie", "")
        return {"Cookie": cookie} if cookie else {}


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
