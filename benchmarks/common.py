"""What the benchmarks share: subprocesses that measure, alternating rounds, memory, the machine, the report.

Every engine runs in a subprocess of its own, so that none sees another's memory, caches or settings, and the engines
take turns (A B A B ...), so that a ratio holds on a machine whose speed changes. The benchmark's own process (the
parent) imports no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.bootstrap import process_environment
from core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
ANSWER = "ANSWER "  # begins the lines of a child's output that are meant for the parent
OURS = "easel"
PEER = "diffusers"


class BenchmarkError(UserError):
    """A benchmark cannot run here; the message says why and what to do."""


# --- the parent's side of a subprocess ---


class Child:
    """A subprocess that answers each line of JSON with one of its own.

    `ours`: started with the environment that launch.py gives the program; else without any of those settings. `watch`
    follows its resident memory from outside while it works on a request.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, ours: bool, watch: bool = False) -> None:
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
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
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
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


# --- the subprocess's own side ---


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


# --- rounds and ratios ---


def alternate(
    sides: Sequence[str], rounds: int, measure: Callable[[str], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Measure each side in turn, `rounds` times; tells standard error how it goes."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side in sides:
            result = measure(side)
            results[side].append(result)
            tell(f"round {number} of {rounds}: {side} {result['seconds']:.3f} s")
    return results


def tell(message: str) -> None:
    """Say something about the run under way, apart from its result."""
    print(message, file=sys.stderr, flush=True)


def column(results: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """One figure of all rounds."""
    return [float(result[name]) for result in results if name in result]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """`best` divides the best figures of both sides, `median` is that of the rounds' own ratios. `met` judges `best`.

    The best figure is what a machine throttled from outside at times disturbs least.
    """

    label: str
    best: float
    median: float
    wanted: str
    met: bool | None

    def line(self) -> str:
        """One line of the report."""
        verdict = {None: "", True: f" (wanted {self.wanted}: met)", False: f" (wanted {self.wanted}: MISSED)"}[self.met]
        return f"{self.label}: {self.best:.3f} by the best, {self.median:.3f} by the median of the rounds{verdict}"


def ratio(
    label: str,
    above: Sequence[float],
    below: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Ratio:
    """What `above` is as a multiple of `below`, both one figure a round, smaller is better."""
    best = min(above) / min(below)
    return Ratio(
        label=label,
        best=best,
        median=statistics.median(a / b for a, b in zip(above, below, strict=True)),
        wanted=f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}",
        met=best >= at_least if at_least is not None else best <= at_most if at_most is not None else None,
    )


# --- the report ---


@dataclass
class Report:
    """What one benchmark found; printed as plain text and, where asked, written as JSON."""

    title: str
    arguments: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    rounds: dict[str, Any] = field(default_factory=dict)  # every single measurement

    def text(self) -> str:
        """Title, machine, table, ratio lines."""
        return "\n".join([self.title, machine(), "", table(self.rows), "", *(ratio.line() for ratio in self.ratios)])

    def finish(self, output: Path | None) -> None:
        """Print the report; write it as JSON to `output` if that is given."""
        print(self.text(), flush=True)
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps({**asdict(self), "machine": machine()}, indent=1, default=str) + "\n", "utf-8")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns; the first row's keys head them."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads, *([_cell(row.get(head, "")) for head in heads] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    aligned = ("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in cells)
    return "\n".join(line.rstrip() for line in aligned)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def seconds_row(name: str, results: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A row of the table: best and median seconds, largest peak memory."""
    seconds = column(results, "seconds")
    row = {"": name, "best s": min(seconds), "median s": statistics.median(seconds), **more}
    peaks = column(results, "peak_gib")
    return {**row, "peak GiB": max(peaks)} if peaks else row


def machine() -> str:
    """One line: processor, cores, memory, system, versions."""
    gib = memory_size() / GIB
    parts = [_processor(), f"{os.cpu_count()} cores", f"{gib:.0f} GiB", platform.system(), f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {_version(name)}" for name in ("torch", "diffusers", "gradio"))])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_size() -> int:
    """Bytes of memory in this machine; 0 if it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def memory_available() -> int | None:
    """Bytes of memory that a new process can have; None if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def need_memory(gib: float, what: str) -> None:
    """Raise BenchmarkError if less than `gib` GiB are free."""
    free = memory_available()
    if free is not None and free < gib * GIB:
        raise BenchmarkError(
            f"{what} needs about {gib:.1f} GiB of memory and {free / GIB:.1f} GiB are free. Close other programs, or "
            "choose a smaller run (see --help)."
        )


def need_peer(*packages: str) -> None:
    """Raise BenchmarkError if a package that only the comparison needs is missing."""
    missing = [package for package in packages if _version(package) == "missing"]
    if missing:
        raise BenchmarkError(f"The comparison needs {' and '.join(missing)}: pip install {' '.join(missing)}")


# --- the command line ---


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds, help=f"how often each side is measured (default {rounds})")
    made.add_argument("--output", type=Path, help="write the result as JSON to this file")
    made.add_argument("--tiny", action="store_true", help="tiny networks: shows that the benchmark runs, measures nothing")
    made.add_argument("--child", help=argparse.SUPPRESS)  # the side that this subprocess measures
    return made


def command(run: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a benchmark's main; a BenchmarkError or any UserError becomes one sentence and exit code 1."""
    try:
        run(argv)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start
