"""How far pictures with weights of fewer bits are from those in 32 bits: four prompts, the default model."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import Stopwatch, command, parser, tell
from benchmarks.engine import Engine, add_installation, engine_flags, run
from benchmarks.report import Report, figure

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PROMPTS = ("a red apple", "a blue bird on a yellow ground", "a smiling cat", "two green trees")
FIRST_SEED = 100
PLAIN = "fp32"
COMPUTED = "int8, computed in int8"
# Network weights of 8 bits compute in 32 apart from that, so that they alone are seen; so do text encoders in any case.
NETWORKS = (PLAIN, "bf16", "int8", COMPUTED, "fp8", "fp8-e5m2")
OTHERS = {  # name -> which part has which precision, beside a network in 32 bits
    "text encoders in fp16": ("CLIP", "fp16"),
    "text encoders in bf16": ("CLIP", "bf16"),
    "text encoders in fp8": ("CLIP", "fp8"),
    "text encoders in fp8-e5m2": ("CLIP", "fp8-e5m2"),
    "image decoder in bf16": ("VAE", "bf16"),
    "image decoder in fp16": ("VAE", "fp16"),
}
PRECISIONS = (*NETWORKS, *OTHERS)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=1, help=argparse.SUPPRESS)  # the same pictures in every round
    made.add_argument("--only", nargs="+", choices=PRECISIONS, default=PRECISIONS, metavar="NAME", help="these alone")
    add_installation(made)
    args = made.parse_args(argv)
    run(args, _serve, _measure)


def _measure(args: argparse.Namespace, checkpoints: Path | None, folder: Path) -> Report:
    report = Report("", vars(args))
    with Child("benchmarks.storage", ["--child", "easel", *engine_flags(checkpoints, folder)], ours=True) as child:
        for precision in dict.fromkeys((PLAIN, *args.only)):
            found = child.ask(precision=precision)
            tell(f"{precision}: {found['seconds']:.1f} s")
            report.title = f"storage: {found['model']}, {found['size']}, {found['steps']} steps, {len(PROMPTS)} prompts"
            if precision == PLAIN:
                continue
            report.rounds[precision] = found
            add_deviation(report, precision, found["off"], found["psnr"], conditions=max(found["told"]))
    return report


def _serve(args: argparse.Namespace) -> None:
    plain: list[tuple[Tensor, np.ndarray]] = []
    plain_told: list[Tensor] = []

    def measure(precision: str) -> Mapping[str, Any]:
        from dataclasses import replace

        import torch

        network = PLAIN if precision in OTHERS else precision.partition(",")[0]
        part, other = OTHERS.get(precision, ("VAE", "fp32"))
        chosen = {"UNET": network, "VAE": "fp32", "CLIP": "auto", part: other}
        os.environ.update({f"EASEL_{name}_PRECISION": value for name, value in chosen.items()})
        os.environ["EASEL_INT8_LINEARS"] = "true" if precision == COMPUTED else "false"
        engine, clock = Engine(args.checkpoints, args.outputs), Stopwatch()
        pipeline = engine.pipeline
        if pipeline.device.unet_storage is not None:
            pipeline.device = replace(pipeline.device, unet_dtype=torch.float32)
        made = [picture(engine, prompt=prompt, seed=FIRST_SEED + i) for i, prompt in enumerate(PROMPTS)]
        told = [conditions(engine, prompt=prompt) for prompt in PROMPTS]
        if precision == PLAIN:
            plain.extend(made)
            plain_told.extend(told)
        settings = engine.settings()
        return {
            "seconds": clock.seconds(),
            "off": [off(x, true) for (x, _), (true, _) in zip(made, plain, strict=True)],
            "told": [off(x, true) for x, true in zip(told, plain_told, strict=True)],
            "psnr": [psnr(pixels, true) for (_, pixels), (_, true) in zip(made, plain, strict=True)],
            "model": pipeline.base_name,
            "size": f"{settings.width} x {settings.height}",
            "steps": settings.steps,
            **memory(),
        }

    serve(measure)


def picture(engine: Engine, **given: Any) -> tuple[Tensor, np.ndarray]:
    """The final latent, and the pixels, of the engine's usual settings with `given`."""
    from core.prompt.plan import plan_images

    pipeline, settings = engine.pipeline, engine.settings(**given)
    [plan] = plan_images(settings)
    pipeline.refresh_everything(settings.base_model)
    conditions = pipeline.process_prompt(plan, settings)
    *_, last = pipeline.process_diffusion(settings, plan, conditions)
    return last.x, pipeline.decode(last.x, settings, last.space)


def conditions(engine: Engine, **given: Any) -> Tensor:
    """What the text encoders make of the engine's usual settings with `given`: all tokens of the prompt's side, flat."""
    from core.prompt.plan import plan_images

    settings = engine.settings(**given)
    [plan] = plan_images(settings)
    return engine.pipeline.process_prompt(plan, settings).positive.tokens.flatten().float()


def off(found: Tensor, true: Tensor) -> float:
    """Relative L2."""
    return float((found - true).norm() / true.norm())


def add_deviation(report: Report, name: str, off: Sequence[float], psnr: Sequence[float], **more: float) -> None:
    """The row and the finding of `name`: how far the pictures' latents are `off`, and the PSNR of their pixels."""
    report.rows.append(
        {"": name, "relative L2": statistics.median(off), "largest": max(off),
         "PSNR dB": statistics.median(psnr), "least": min(psnr), **more}
    )  # fmt: skip
    if any(off):
        report.findings.append(figure(f"{name}: relative L2 of the latent", statistics.median(off), "x"))
    else:
        report.findings.append(figure(f"{name}: PSNR of the picture", statistics.median(psnr), "dB"))


def psnr(pixels: np.ndarray, true: np.ndarray) -> float:
    """Decibels; 99 for the same picture."""
    error = float(((pixels.astype("float64") - true.astype("float64")) ** 2).mean())
    return min(99.0, 10 * math.log10(255**2 / error)) if error else 99.0


if __name__ == "__main__":
    sys.exit(command(main))
