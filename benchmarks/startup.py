"""How long one waits: for the page after the start, for the first preview and for the picture after pressing Generate."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, BenchmarkError, add_rounds, command, parser, tell
from benchmarks.engine import add_installation, launch_options, workplace
from benchmarks.page import Server, Visitor
from benchmarks.report import Report, absolute, seconds_row
from core.bootstrap import Environment, environment_folder

PROMPT = "a red apple"
START_AT_MOST = 5.0  # seconds, a start that installs nothing
PICTURE_AT_MOST = 10.0  # seconds, on two processor cores


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    with workplace(args) as (folder, checkpoints):
        _measure(args, checkpoints, folder).finish(args.output)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    add_rounds(made, 3)
    made.add_argument(
        "--first", action="store_true", help="also the very first start, in a fresh copy: downloads and installs"
    )
    add_installation(made)
    return made.parse_args(argv)


def _measure(args: argparse.Namespace, checkpoints: Path | None, folder: Path) -> Report:
    report = Report(f"startup: {args.rounds} rounds", vars(args))
    outputs = folder / "outputs"
    flags, environ = launch_options(checkpoints, outputs)
    root, python = ROOT, getattr(sys, "_base_executable", None) or sys.executable
    if args.first:
        root = fresh_copy(folder / "copy")
        environ = {**environ, "EASEL_VENV": "", "EASEL_NO_VENV": ""}  # an environment of its own, beside the copy
        tell("first start: installs, this takes minutes")
        with Server(flags, environ, root=root, python=python) as server:
            report.findings.append(absolute("first start to page ready", [server.started]))
    elif not Environment(environment_folder(ROOT, os.environ)).installed():
        flags, python = ["--skip-install", *flags], sys.executable
        report.notes.append("started with --skip-install, for the program has no environment of its own here")
    rounds: list[dict[str, Any]] = []
    for number in range(args.rounds):
        with Server(flags, environ, root=root, python=python) as server:
            visitor = Visitor(server.port, outputs)
            cold, warm = (visitor.press(positive_prompt=PROMPT, seed=str(n), random_seed=False) for n in (1, 2))
            rounds.append(
                {
                    "start": server.started,
                    "cold_preview": cold.preview,
                    "cold_saved": cold.saved,
                    "warm_preview": warm.preview,
                    "warm_saved": warm.saved,
                }
            )
        tell(
            f"round {number + 1} of {args.rounds}: page {server.started:.2f} s, picture {cold.saved:.2f} s, next {warm.saved:.2f} s"
        )
    report.rounds = {"rounds": rounds}
    for name, label, at_most in FIGURES:
        seconds = [float(each[name]) for each in rounds if each[name] is not None]
        if seconds:
            report.rows.append(seconds_row(label, [{"seconds": value} for value in seconds]))
            report.findings.append(absolute(label, seconds, at_most=at_most))
        else:
            report.notes.append(f"{label}: none was seen")
    return report


FIGURES = (
    ("start", "second start to page ready", START_AT_MOST),
    ("cold_preview", "first press to first preview", None),
    ("cold_saved", "first press to picture on disk", PICTURE_AT_MOST),
    ("warm_preview", "later press to first preview", None),
    ("warm_saved", "later press to picture on disk", PICTURE_AT_MOST),
)


def fresh_copy(folder: Path) -> Path:
    """The project's files, as a clone would have them, in `folder`. Raises BenchmarkError if git cannot list them."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        raise BenchmarkError("--first copies the files that git knows, and git cannot list them here.") from None
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


if __name__ == "__main__":
    sys.exit(command(main))
