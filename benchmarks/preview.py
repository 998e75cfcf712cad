"""What the previews cost: the same pictures with and without them, in one process, without the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import Stopwatch, add_rounds, alternate, command, parser
from benchmarks.engine import Engine, add_installation, engine_flags, workplace
from benchmarks.report import Report, absolute, column, ratio, seconds_row

WITH, WITHOUT = "with previews", "without"
PROMPT = "a red apple"
AT_MOST = 1.02


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    if args.child:
        _serve_tasks(args)
        return
    with workplace(args) as (folder, checkpoints):
        _compare(args, checkpoints, folder / "outputs").finish(args.output)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    add_rounds(made, 10)
    add_installation(made)
    return made.parse_args(argv)


def _compare(args: argparse.Namespace, checkpoints: Path | None, outputs: Path) -> Report:
    with Child("benchmarks.preview", ["--child", "both", *engine_flags(checkpoints, outputs)], ours=True) as child:
        child.ask(preview=True)  # loads the model
        results = alternate((WITH, WITHOUT), args.rounds, lambda side: child.ask(preview=side == WITH))
    report = Report(f"preview: one picture without the page, {args.rounds} rounds", vars(args), rounds=results)
    for side, measured in results.items():
        previews = sum(column(measured, "previews")) / args.rounds
        inside = max(each["share"] for each in measured)
        report.rows.append(seconds_row(side, measured, **{"previews a picture": previews, "most of the time": inside}))
    on, off = (column(results[side], "seconds") for side in (WITH, WITHOUT))
    report.findings.append(ratio("time with previews / without", on, off, at_most=AT_MOST))
    report.findings.append(absolute("making one preview", column(results[WITH], "each")))
    share = sum(column(results[WITH], "inside")) / sum(on)
    report.notes.append(
        f"time inside the preview function: {100 * share:.2f} % of the run (wanted at most 2 %: {'met' if share <= 0.02 else 'MISSED'})"
    )
    return report


def _serve_tasks(args: argparse.Namespace) -> None:
    from core.events import Progress
    from core.handler import handler
    from core.task import AsyncTask

    engine = Engine(args.checkpoints, args.outputs)
    pipeline = engine.pipeline
    make_preview = pipeline.preview
    inside: list[float] = []

    def timed_preview(*latent: Any) -> bytes:
        clock = Stopwatch()
        made = make_preview(*latent)
        inside.append(clock.seconds())
        return made

    pipeline.preview = timed_preview  # type: ignore[assignment, method-assign]

    def measure(preview: bool) -> Mapping[str, Any]:
        settings = engine.settings(prompt=PROMPT, preview=preview)
        inside.clear()
        clock = Stopwatch()
        events = list(handler(AsyncTask(settings), pipeline))
        seconds = clock.seconds()
        previews = sum(isinstance(event, Progress) and event.preview is not None for event in events)
        result = {"seconds": seconds, "previews": previews, "inside": sum(inside), "share": sum(inside) / seconds}
        return {**result, **({"each": sum(inside) / len(inside)} if inside else {}), **memory()}

    serve(measure)


if __name__ == "__main__":
    sys.exit(command(main))
