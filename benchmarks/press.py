"""What one press of Generate costs the page itself: the server's processor time over an engine that does nothing."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import Child, serve
from benchmarks.common import Stopwatch, add_rounds, command, parser, tell
from benchmarks.page import HOST, Visitor, free_port
from benchmarks.report import Report, absolute, column, seconds_row
from core.events import Event, Finished, Progress, Saved
from core.prompt.resources import PromptResources
from core.settings import Settings
from core.task import AsyncTask
from core.weights.lora_info import LoraInfo
from core.worker import Worker

PAGE = "page"
WARM = 3  # presses before it is measured
AT_MOST = 0.050  # seconds of the server's processor time for one press
STEPS = 4
MODEL = "none.safetensors"
PREVIEW = 20_000  # bytes


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    made = parser(__doc__)
    add_rounds(made, 30)
    made.add_argument("--outputs", type=Path, help=argparse.SUPPRESS)
    args = made.parse_args(argv)
    if args.child:
        _serve_page(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        _measure(args, Path(folder)).finish(args.output)


def _measure(args: argparse.Namespace, outputs: Path) -> Report:
    port = free_port()
    options = ["--child", PAGE, "--outputs", str(outputs)]
    with Child("benchmarks.press", options, ours=True) as page:
        page.ask(port=port)
        visitor = Visitor(port, outputs)
        rounds: list[dict[str, Any]] = []
        for number in range(WARM + args.rounds):
            before = page.ask()["processor"]
            clock = Stopwatch()
            visitor.press(positive_prompt=f"a red apple {number}")
            shown = clock.seconds()
            if number >= WARM:
                rounds.append({"seconds": page.ask()["processor"] - before, "shown": shown})
                tell(f"press {len(rounds)} of {args.rounds}: {rounds[-1]['seconds']:.3f} s of the processor")
    report = Report(f"press: one press of Generate, {STEPS} steps with previews, {args.rounds} rounds", vars(args))
    report.rounds[PAGE] = rounds
    report.rows.append(seconds_row("processor time of the server", rounds))
    report.rows.append(seconds_row("until the picture is fetched", [{"seconds": each["shown"]} for each in rounds]))
    report.findings.append(absolute("the page's own work for one press", column(rounds, "seconds"), at_most=AT_MOST))
    return report


@dataclass(frozen=True)
class _Nothing:
    """An engine that makes nothing."""

    outputs: Path
    preview: bytes

    def free_memory(self) -> None: ...


def _handler(task: AsyncTask, engine: Any) -> Iterator[Event]:
    """A picture from nowhere, told as the real handler tells it."""
    for step in range(1, STEPS + 1):
        yield Progress(
            share=step / STEPS, text=f"Step {step} of {STEPS}", step=step, steps=STEPS, preview=engine.preview
        )
    path = engine.outputs / f"{task.id}.png"
    path.write_bytes(b"\x89PNG")
    yield Saved(path=str(path), seed=task.settings.seed, width=256, height=256)
    yield Finished(paths=(str(path),), seconds=0.0)


def _serve_page(args: argparse.Namespace) -> None:
    """The page over an engine that makes nothing; tells how much of the processor this process has used so far."""
    from webui.app import App
    from webui.server import start

    engine: Any = _Nothing(args.outputs, os.urandom(PREVIEW))
    worker = Worker(_handler, lambda: engine)
    app = App(
        worker=worker,
        models=lambda: [MODEL],
        native_size=lambda name: (256, 256),
        defaults=lambda name: Settings(base_model=MODEL, width=256, height=256, steps=STEPS),
        lora_info=lambda name: LoraInfo(name=name, path=Path(name), size=0, family="sdxl", trigger_words=()),
        resources=PromptResources(),
    )

    def answer(port: int = 0) -> Mapping[str, Any]:
        if port:
            worker.start()
            start(app, host=HOST, port=port)
        return {"processor": time.process_time()}

    serve(answer)
    os._exit(0)  # the page's threads are not waited for


if __name__ == "__main__":
    sys.exit(command(main))
