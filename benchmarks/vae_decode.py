"""Seconds to decode a latent: our VAE in bfloat16 and in float32, as the program has it, against diffusers' in both."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import (
    OURS,
    BenchmarkError,
    Stopwatch,
    add_rounds,
    alternate,
    command,
    from_one,
    need_memory,
    need_peer,
    parser,
)
from benchmarks.report import Report, column, ratio, seconds_row

if TYPE_CHECKING:
    from torch import Tensor

UPCAST, PEER_BF16 = "diffusers float32", "diffusers bf16"  # it raises SDXL's VAE to float32 unless told otherwise
DEFAULT = "easel float32"  # what the program does on a CPU unless told otherwise
DTYPES = {OURS: "bfloat16", DEFAULT: "float32", UPCAST: "float32", PEER_BF16: "bfloat16"}

# diffusers' names for the sizes of SDXL's VAE (its published vae/config.json)
PEER_SDXL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
}
PEER_TINY: dict[str, Any] = PEER_SDXL | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    if args.child:
        _serve_side(args)
        return
    need_peer("diffusers")
    _compare(args).finish(args.output)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument(
        "--size", type=from_one, default=512, help="side of the picture in pixels, a multiple of 8 (default 512)"
    )
    add_rounds(made, 3)
    args = made.parse_args(argv)
    if args.tiny:
        args.size = 64
    if args.size % 8:
        made.error("--size must be a multiple of 8")
    return args


def _compare(args: argparse.Namespace) -> Report:
    if not args.tiny:
        need_memory(1 + 12 * (args.size / 1024) ** 2, f"decoding {args.size} x {args.size} in float32")

    def measure(side: str) -> dict[str, Any]:
        options = ["--child", side, "--size", str(args.size), *["--tiny"] * args.tiny]
        with Child("benchmarks.vae_decode", options, ours=side in (OURS, DEFAULT)) as child:
            child.ask()  # warms up
            return child.ask()

    results = alternate(tuple(DTYPES), args.rounds, measure)
    size = "TINY" if args.tiny else f"SDXL's VAE, {args.size} x {args.size}"
    report = Report(f"vae_decode: {size}, on the CPU, {args.rounds} rounds", vars(args), rounds=results)
    report.rows += [seconds_row(side, measured) for side, measured in results.items()]
    seconds = {side: column(measured, "seconds") for side, measured in results.items()}
    for side, ours, wanted in ((UPCAST, OURS, 2.0), (PEER_BF16, OURS, 1.15), (UPCAST, DEFAULT, None)):
        label = f"{side} time / {ours} time"
        report.findings.append(ratio(label, seconds[side], seconds[ours], at_least=wanted))
    return report


# --- in the subprocess ---


def _serve_side(args: argparse.Namespace) -> None:
    import torch

    dtype = getattr(torch, DTYPES[args.child])
    decode = (_ours if args.child in (OURS, DEFAULT) else _peer)(args.tiny, dtype)
    latent = torch.randn(1, 4, args.size // 8, args.size // 8, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def measure() -> Mapping[str, Any]:
        clock = Stopwatch()
        image = decode(latent)
        seconds = clock.seconds()
        if not torch.isfinite(image).all():
            raise BenchmarkError("The decoder gave numbers that are not finite; this cannot be measured.")
        return {"seconds": seconds, **memory()}

    serve(measure)


def _ours(tiny: bool, dtype: Any) -> Callable[[Tensor], Tensor]:
    import torch

    from benchmarks.weights import materialise
    from core.models.configs import TINY_VAE, VAEConfig
    from core.models.vae import VAE

    with torch.device("meta"):
        vae = VAE(TINY_VAE if tiny else VAEConfig())
    materialise(vae, dtype, "cpu")
    return vae.decode


def _peer(tiny: bool, dtype: Any) -> Callable[[Tensor], Tensor]:
    import torch
    from diffusers import AutoencoderKL

    from benchmarks.weights import materialise

    with torch.device("meta"):
        vae: Any = AutoencoderKL(**(PEER_TINY if tiny else PEER_SDXL))
    materialise(vae, dtype, "cpu")
    return lambda latent: vae.decode(latent.to(dtype), return_dict=False)[0]


if __name__ == "__main__":
    sys.exit(command(main))
