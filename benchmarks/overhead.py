"""What the page adds: one picture of the default model through the real page, against the bare pipeline."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import Stopwatch, add_rounds, alternate, command, from_one, parser, tell
from benchmarks.engine import Engine, add_installation, engine_flags, launch_options, make_picture, run
from benchmarks.page import Server, Visitor
from benchmarks.report import Report, column, ratio, seconds_row
from core.output.metadata import read_settings
from core.settings import Settings

PAGE, BARE = "page", "pipeline"
PROMPT = "a red apple"
AT_MOST = 1.03


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    run(args, _serve_bare, _compare)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    add_rounds(made, 10)
    made.add_argument(
        "--starts",
        type=from_one,
        default=3,
        help="how often both sides are started anew for so many rounds (default 3)",
    )
    add_installation(made)
    return made.parse_args(argv)


def _compare(args: argparse.Namespace, checkpoints: Path | None, folder: Path) -> Report:
    results: dict[str, list[dict[str, Any]]] = {PAGE: [], BARE: []}
    same = True
    for start in range(1, args.starts + 1):
        tell(f"start {start} of {args.starts}")
        settings, measured, alike = _one_start(args.rounds, checkpoints, folder / str(start))
        same = same and alike
        for side, each in measured.items():
            results[side] += each
    report = Report(
        f"overhead: one picture, {settings.width} x {settings.height}, {settings.steps} steps, {settings.base_model}, "
        f"{args.starts} starts of {args.rounds} rounds",
        vars(args),
        rounds=results,
    )
    report.rows.append(seconds_row("page, until shown", results[PAGE]))
    report.rows.append(seconds_row("page, until saved", [{"seconds": each["saved"]} for each in results[PAGE]]))
    report.rows.append(seconds_row("bare pipeline", [{"seconds": each["seconds"]} for each in results[BARE]]))
    shown, saved, plain = (
        column(results[PAGE], "seconds"),
        column(results[PAGE], "saved"),
        column(results[BARE], "seconds"),
    )
    report.findings.append(ratio("page until the file is written / bare pipeline", saved, plain, at_most=AT_MOST))
    report.findings.append(ratio("page until the picture is shown / bare pipeline", shown, plain, at_most=AT_MOST))
    report.notes.append(f"the same pixels on both sides: {'yes' if same else 'NO'}")
    if any(each["preview"] is None for each in results[PAGE]):
        report.notes.append("some pictures came without a preview")
    return report


def _one_start(
    rounds: int, checkpoints: Path | None, folder: Path
) -> tuple[Settings, dict[str, list[dict[str, Any]]], bool]:
    """Both sides started anew and measured in turn: the settings, what was measured, and whether the pixels are the same."""
    outputs = folder / "page"
    flags, environ = launch_options(checkpoints, outputs)
    options = ["--child", BARE, *engine_flags(checkpoints, folder / "bare")]
    with (
        Server(["--skip-install", *flags], environ) as server,
        Child("benchmarks.overhead", options, ours=True) as bare,
    ):
        visitor = Visitor(server.port, outputs)

        def press(seed: int) -> dict[str, Any]:
            pressed = visitor.press(positive_prompt=PROMPT, seed=str(seed), random_seed=False)
            return {
                "seconds": pressed.shown,
                "saved": pressed.saved,
                "preview": pressed.preview,
                "file": str(pressed.file),
            }

        # The first picture loads the model; its file says which settings the page made of the model's recommendation.
        first = press(seed=0)
        settings = Settings(**read_settings(first["file"]).settings)
        first_bare = bare.ask(settings=settings.to_dict())
        seeds = {PAGE: iter(range(1, rounds + 1)), BARE: iter(range(1, rounds + 1))}

        def measure(side: str) -> dict[str, Any]:
            seed = next(seeds[side])
            return press(seed) if side == PAGE else bare.ask(settings={**settings.to_dict(), "seed": seed})

        return settings, alternate((PAGE, BARE), rounds, measure), _pixels(Path(first["file"])) == first_bare["pixels"]


def _pixels(file: Path) -> str:
    """A digest of a picture file's pixels."""
    from PIL import Image

    with Image.open(file) as picture:
        return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


def _serve_bare(args: argparse.Namespace) -> None:
    pipeline = Engine(args.checkpoints, args.outputs).pipeline

    def measure(settings: dict[str, Any]) -> Mapping[str, Any]:
        clock = Stopwatch()
        pixels = make_picture(pipeline, Settings(**settings))
        return {"seconds": clock.seconds(), "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(), **memory()}

    serve(measure)


if __name__ == "__main__":
    sys.exit(command(main))
