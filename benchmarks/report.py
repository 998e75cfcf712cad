"""Ratios and other findings, the table of a benchmark, the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import GIB, installed_version, memory_size


def column(results: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """One figure of all rounds."""
    return [float(result[name]) for result in results if name in result]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure that the benchmark is about: by the best and by the median of the rounds. `met` judges the best.

    The best is what a machine that is throttled from outside at times disturbs least.
    """

    label: str
    best: float
    median: float
    unit: str  # "x" for a ratio, "s" for seconds, "GiB"
    wanted: str
    met: bool | None  # None: nothing was wanted

    def line(self) -> str:
        """One line of the report."""
        verdict = {None: "", True: f" (wanted {self.wanted}: met)", False: f" (wanted {self.wanted}: MISSED)"}[self.met]
        return f"{self.label}: {self.best:.3f} {self.unit} best, {self.median:.3f} {self.unit} median{verdict}"


def ratio(
    label: str,
    above: Sequence[float],
    below: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Finding:
    """`above` as a multiple of `below`, both one figure a round, smaller is better: best by best, median of the rounds."""
    median = statistics.median(a / b for a, b in zip(above, below, strict=True))
    return _finding(label, min(above) / min(below), median, "x", at_least, at_most)


def absolute(label: str, seconds: Sequence[float], *, at_most: float | None = None) -> Finding:
    """Seconds, one figure a round."""
    return _finding(label, min(seconds), statistics.median(seconds), "s", None, at_most)


def figure(label: str, value: float, unit: str, *, at_most: float | None = None) -> Finding:
    """One figure that was measured once."""
    return _finding(label, value, value, unit, None, at_most)


def _finding(
    label: str, best: float, median: float, unit: str, at_least: float | None, at_most: float | None
) -> Finding:
    wanted, met = "", None
    if at_least is not None:
        wanted, met = f"at least {at_least:g} {unit}", best >= at_least
    elif at_most is not None:
        wanted, met = f"at most {at_most:g} {unit}", best <= at_most
    return Finding(label=label, best=best, median=median, unit=unit, wanted=wanted, met=met)


@dataclass
class Report:
    """What one benchmark found; printed as plain text and, where asked, written as JSON."""

    title: str
    arguments: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: dict[str, Any] = field(default_factory=dict)  # every single measurement

    def text(self) -> str:
        """Title, machine, table, findings, notes."""
        lines = [self.title, machine(), "", table(self.rows), "", *(finding.line() for finding in self.findings)]
        return "\n".join([*lines, *self.notes, ""])

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
    aligned = (
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    )
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
    parts = [
        _processor(),
        f"{os.cpu_count()} cores",
        f"{gib:.0f} GiB",
        platform.system(),
        f"Python {platform.python_version()}",
    ]
    return ", ".join([*parts, *(f"{name} {installed_version(name)}" for name in ("torch", "diffusers", "gradio"))])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
