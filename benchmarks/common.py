"""What the benchmarks share: the command line, what a machine must have, whose turn it is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
OURS = "easel"
PEER = "diffusers"


class BenchmarkError(UserError):
    """A benchmark cannot run here; the message says why and what to do."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--output", type=Path, help="write the result as JSON to this file")
    made.add_argument(
        "--tiny", action="store_true", help="tiny networks: shows that the benchmark runs, measures nothing"
    )
    made.add_argument("--child", help=argparse.SUPPRESS)  # the side that this subprocess measures
    return made


def add_rounds(made: argparse.ArgumentParser, default: int) -> None:
    """The flag --rounds."""
    made.add_argument(
        "--rounds", type=from_one, default=default, help=f"how often each side is measured (default {default})"
    )


def from_one(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


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


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start


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
    missing = [package for package in packages if installed_version(package) == "missing"]
    if missing:
        raise BenchmarkError(f"The comparison needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def installed_version(package: str) -> str:
    """Of a package; "missing" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def memory_size() -> int:
    """Bytes of memory in this machine; 0 if it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
