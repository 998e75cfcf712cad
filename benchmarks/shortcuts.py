"""How far pictures made with the options under "Faster, with small changes" are from those without, and how much faster."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import Child, serve
from benchmarks.common import Stopwatch, command, parser, tell
from benchmarks.engine import Engine, add_installation, engine_flags, run
from benchmarks.report import Report, column
from benchmarks.storage import FIRST_SEED, PROMPTS, add_deviation, picture, psnr

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

OFF = "off"
WAYS: dict[str, dict[str, Any]] = {
    OFF: {},
    "guidance_end 0.7": {"guidance_end": 0.7},
    "guidance_end 0.5": {"guidance_end": 0.5},
    "step_cache 2": {"step_cache": 2},
    "step_cache 3": {"step_cache": 3},
    "guidance_end 0.7, step_cache 2": {"guidance_end": 0.7, "step_cache": 2},
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=1, help=argparse.SUPPRESS)  # the same pictures in every round
    made.add_argument("--steps", type=int, help="steps of each picture (default: what the model recommends)")
    add_installation(made)
    args = made.parse_args(argv)
    run(args, _serve, _measure)


def _measure(args: argparse.Namespace, checkpoints: Path | None, folder: Path) -> Report:
    """All ways take turns picture by picture, so that a machine that is slower for a while is so for all of them."""
    report = Report("", vars(args), rounds={name: [] for name in WAYS})
    given = {} if args.steps is None else {"steps": args.steps}
    with Child("benchmarks.shortcuts", ["--child", "easel", *engine_flags(checkpoints, folder)], ours=True) as child:
        child.ask(way=OFF, prompt=PROMPTS[0], seed=FIRST_SEED, given={"steps": 2})  # loads and warms up
        for i, prompt in enumerate(PROMPTS):
            for name, found in report.rounds.items():
                found.append(child.ask(way=name, prompt=prompt, seed=FIRST_SEED + i, given=given))
                tell("{}, {}: {off:.4f}, {psnr:.1f} dB, {seconds:.2f} s".format(prompt, name, **found[-1]))
    off = report.rounds[OFF]
    report.title = f"shortcuts: {off[0]['model']}, {off[0]['size']}, {off[0]['steps']} steps, {len(PROMPTS)} prompts"
    for name, found in report.rounds.items():
        if name == OFF:
            continue
        speed = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(off, found, strict=True))
        add_deviation(report, name, column(found, "off"), column(found, "psnr"), **{"times as fast": speed})
    return report


def _serve(args: argparse.Namespace) -> None:
    engine = Engine(args.checkpoints, args.outputs)
    plain: list[tuple[Tensor, np.ndarray]] = []

    def measure(way: str, prompt: str, seed: int, given: dict[str, Any]) -> Mapping[str, Any]:
        clock = Stopwatch()
        latent, pixels = picture(engine, prompt=prompt, seed=seed, **given, **WAYS[way])
        seconds = clock.seconds()
        if way == OFF:
            plain[:] = [(latent, pixels)]
        true, true_pixels = plain[0]
        settings = engine.settings(**given)
        return {
            "seconds": seconds,
            "off": float((latent - true).norm() / true.norm()),
            "psnr": psnr(pixels, true_pixels),
            "model": engine.pipeline.base_name,
            "size": f"{settings.width} x {settings.height}",
            "steps": settings.steps,
        }

    serve(measure)


if __name__ == "__main__":
    sys.exit(command(main))
