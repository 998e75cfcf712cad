"""Peak memory of one picture, full-size SDXL, random weights: on the CPU, or on a CUDA device within budgets."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import GIB, Stopwatch, command, need_memory, parser, tell
from benchmarks.engine import Engine, add_installation, engine_flags
from benchmarks.load import checkpoint_file
from benchmarks.report import Report, figure
from core.settings import Settings

PROMPT = "a red apple on a table"
AT_MOST = 1.25  # times the file, which is in float16
NEEDED = 8.7  # GiB


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    made = parser(__doc__)
    add_installation(made)
    made.add_argument("--rounds", type=int, default=1, help=argparse.SUPPRESS)  # a peak is the same in every round
    made.add_argument("--size", type=int, default=1024, help="side of the picture in pixels (default 1024)")
    made.add_argument("--steps", type=int, default=1, help="denoising steps (default 1: more take no more memory)")
    made.add_argument(
        "--budgets", type=float, nargs="+", help="GiB of a CUDA device, each one picture: for example 4 6 8"
    )
    made.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "easel-benchmarks",
        help="folder of the checkpoint file, which is kept for the next time (7 GB)",
    )
    args = made.parse_args(argv)
    if args.child:
        _serve(args)
        return
    if not args.tiny and not args.budgets:
        need_memory(NEEDED, "A picture with SDXL")
    _measure(args, checkpoint_file(args.work, args.tiny)).finish(args.output)


def _measure(args: argparse.Namespace, file: Path) -> Report:
    size = 64 if args.tiny else args.size
    request = {"size": size, "steps": args.steps, "model": file.name}
    report = Report(
        f"memory: {file.name} ({file.stat().st_size / 1e9:.2f} GB, fp16), {size} x {size}, {args.steps} steps",
        {**vars(args), "file_bytes": file.stat().st_size},
    )
    for budget in args.budgets or [None]:
        with tempfile.TemporaryDirectory() as outputs:
            options = ["--child", "easel", *engine_flags(file.parent, Path(outputs))]
            with Child("benchmarks.memory", options, ours=True, watch=True) as child:
                result = child.ask(**request, budget=budget)
        label = "CPU" if budget is None else f"budget of {budget:g} GiB"
        tell(f"{label}: {result['seconds']:.1f} s")
        report.rounds[label] = result
        report.rows += [
            {"": f"{label}, {stage['stage']}", "s": stage["seconds"], **_gib(stage)} for stage in result["stages"]
        ]
        if budget is None:
            ratio = result["stages"][-1]["peak_gib"] * GIB / file.stat().st_size
            report.findings.append(
                figure("peak resident memory / file size", ratio, "x", at_most=None if args.tiny else AT_MOST)
            )
        else:
            peak = result["stages"][-1]["device_gib"]
            report.findings.append(figure(f"{label}: peak device memory", peak, "GiB", at_most=budget))
        report.notes += [f"{label}: {notice}" for notice in result["notices"]]
    return report


def _gib(stage: Mapping[str, Any]) -> dict[str, Any]:
    names = {"peak_gib": "peak GiB", "anonymous_gib": "anonymous now", "file_gib": "of files now", "device_gib": "GPU"}
    return {words: stage[name] for name, words in names.items() if name in stage}


# --- in the subprocess ---


def _serve(args: argparse.Namespace) -> None:
    def measure(size: int, steps: int, model: str, budget: float | None) -> Mapping[str, Any]:
        import torch

        if budget is not None:
            os.environ["EASEL_MEMORY_BUDGET"] = str(budget)
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(budget * GIB / total)
        elif not torch.cuda.is_available():
            os.environ["EASEL_UNET_PRECISION"] = "bf16"
        engine = Engine(args.checkpoints, args.outputs)
        settings = engine.settings(
            prompt=PROMPT, base_model=model, width=size, height=size, steps=steps, sampler="euler", guidance_scale=7.0
        )
        clock, stages = Stopwatch(), []

        def stage(name: str) -> None:
            now = {"stage": name, "seconds": clock.seconds(), **memory()}
            if budget is not None:
                now["device_gib"] = torch.cuda.max_memory_reserved() / GIB
            stages.append(now)

        for name in _picture(engine, settings):
            stage(name)
        return {"seconds": clock.seconds(), "stages": stages, "notices": engine.pipeline.take_notices()}

    serve(measure)


def _picture(engine: Engine, settings: Settings) -> Any:
    """Yields the name of each stage when it is over."""
    from core.prompt.plan import plan_images

    pipeline, [plan] = engine.pipeline, plan_images(settings)
    pipeline.refresh_everything(settings.base_model)
    yield "loaded"
    conditions = pipeline.process_prompt(plan, settings)
    yield "text encoded"
    for step in pipeline.process_diffusion(settings, plan, conditions):
        latent = step.x
    yield "denoised"
    pipeline.decode(latent, settings)
    yield "decoded"


if __name__ == "__main__":
    sys.exit(command(main))
