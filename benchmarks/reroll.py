"""From the press to the first step of a re-roll: the same request with another seed, through handler and pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import Stopwatch, add_rounds, command, parser, tell
from benchmarks.engine import Engine, add_installation, engine_flags, run
from benchmarks.report import Report, absolute, column, seconds_row
from core.events import Progress
from core.handler import handler
from core.settings import Settings
from core.task import AsyncTask

PROMPT = "a red apple"
AT_MOST = 0.1  # seconds


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    made = parser(__doc__)
    add_rounds(made, 20)
    add_installation(made)
    args = made.parse_args(argv)
    run(args, _serve, _measure)


def _measure(args: argparse.Namespace, checkpoints: Path | None, folder: Path) -> Report:
    options = ["--child", "easel", *engine_flags(checkpoints, folder / "outputs")]
    with Child("benchmarks.reroll", options, ours=True) as child:
        first = child.ask(seed=0)
        results = []
        for seed in range(1, args.rounds + 1):
            results.append(child.ask(seed=seed))
            tell(f"round {seed} of {args.rounds}: {results[-1]['seconds']:.4f} s")
    report = Report(
        f"reroll: another seed, {first['size']}, {first['steps']} steps, {first['model']}, {args.rounds} rounds",
        vars(args),
        rounds={"easel": results},
    )
    report.rows.append(seconds_row("press to first step begun", results))
    report.rows.append(seconds_row("to first step done", [{"seconds": each["stepped"]} for each in results]))
    report.rows.append(seconds_row("whole picture", [{"seconds": each["whole"]} for each in results]))
    report.findings.append(absolute("press to first step begun", column(results, "seconds"), at_most=AT_MOST))
    report.findings.append(absolute("press to first step done", column(results, "stepped")))
    report.notes.append(f"the first picture, which loads the model: first step begun after {first['seconds']:.2f} s")
    return report


def _serve(args: argparse.Namespace) -> None:
    from torch.nn.modules.module import register_module_forward_pre_hook

    from core.models.unet import UNet

    engine = Engine(args.checkpoints, args.outputs)
    pipeline = engine.pipeline

    def measure(seed: int) -> Mapping[str, Any]:
        clock = Stopwatch()
        settings: Settings = engine.settings(prompt=PROMPT, seed=seed)  # as the page does at each press
        begun: list[float] = []

        def see(module: object, _: object) -> None:
            if isinstance(module, UNet):
                begun.append(clock.seconds())
                hook.remove()

        hook = register_module_forward_pre_hook(see)
        stepped = 0.0
        for event in handler(AsyncTask(settings), pipeline):
            if isinstance(event, Progress) and event.step and not stepped:
                stepped = clock.seconds()
        return {
            "seconds": begun[0],
            "stepped": stepped,
            "whole": clock.seconds(),
            "size": f"{settings.width} x {settings.height}",
            "steps": settings.steps,
            "model": pipeline.base_name,
            **memory(),
        }

    serve(measure)


if __name__ == "__main__":
    sys.exit(command(main))
