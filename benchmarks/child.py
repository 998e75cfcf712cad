"""A subprocess that measures, the conversation with it, and its memory.

Every engine runs in a subprocess of its own, so that none sees another's memory, caches or settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import GIB, ROOT, BenchmarkError
from core.bootstrap import process_environment

ANSWER = "ANSWER "  # begins the lines of a child's output that are meant for the parent


class Child:
    """A subprocess that answers each line of JSON with one of its own.

    `ours`: started with the environment that launch.py gives the program; else without any of those settings. `watch`
    follows its resident memory from outside while it works on a request.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, ours: bool, watch: bool = False) -> None:
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed by close)
        self._watch = watch
        self._name = " ".join([module, *arguments])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment(ours=ours),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request, wait for its answer. Raises BenchmarkError with the end of its output if it dies."""
        assert self._process.stdin and self._process.stdout
        with Watch(self._process.pid if self._watch else None) as watch:
            try:
                print(json.dumps(request), file=self._process.stdin, flush=True)
            except BrokenPipeError:
                raise self._died() from None
            for line in self._process.stdout:
                if line.startswith(ANSWER):
                    break
            else:
                raise self._died()
        return {**json.loads(line.removeprefix(ANSWER)), **watch.peaks}

    def close(self) -> None:
        """End the subprocess: its input ends, so it leaves its loop; after ten seconds it is killed."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _died(self) -> BenchmarkError:
        code = self._process.wait()
        self._stderr.seek(0)
        end = "\n  ".join(self._stderr.read().strip().splitlines()[-15:])
        cause = "killed, most likely for want of memory" if code in (-9, 137) else f"exit code {code}"
        return BenchmarkError(f"The measuring process `{self._name}` ended without an answer ({cause}):\n  {end}")


class Watch:
    """The largest anonymous and file-backed resident memory of a process within a `with` block, sampled (Linux)."""

    INTERVAL = 0.02  # seconds

    def __init__(self, pid: int | None) -> None:
        self.peaks: dict[str, float] = {}
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watch:
        if self._pid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._pid is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.is_set():
            now = memory(self._pid)
            for ours, name in (("peak_anonymous_gib", "anonymous_gib"), ("peak_file_gib", "file_gib")):
                if name in now:
                    self.peaks[ours] = max(self.peaks.get(ours, 0.0), now[name])
            self._stop.wait(self.INTERVAL)


def environment(*, ours: bool) -> dict[str, str]:
    """The environment of a measuring subprocess: offline; with launch.py's settings for the program, or without them."""
    added = process_environment({})
    plain = {name: value for name, value in os.environ.items() if name not in added}
    plain |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return process_environment(plain) if ours else plain


def serve(measure: Callable[..., Mapping[str, Any]]) -> None:
    """Answer each line of standard input, a JSON object of arguments, with what `measure` returns, until it ends."""
    for line in sys.stdin:
        print(ANSWER + json.dumps(measure(**json.loads(line))), flush=True)


def memory(pid: int | None = None) -> dict[str, float]:
    """GiB resident of a process (default: this one): at most so far, and now as anonymous and as file-backed pages.

    Only `peak_gib` where there is no /proc, and only of this process; nothing on Windows.
    """
    names = {"VmHWM": "peak_gib", "RssAnon": "anonymous_gib", "RssFile": "file_gib"}
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8")
    except OSError:
        return _peak_by_rusage() if pid is None else {}
    lines = (line.partition(":") for line in status.splitlines())
    return {names[key]: int(value.split()[0]) * 1024 / GIB for key, _, value in lines if key in names}


def _peak_by_rusage() -> dict[str, float]:
    try:
        import resource
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
