"""Seconds a guided denoising step (batch 2): our UNet against diffusers', full-size SDXL, random weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import (
    OURS,
    PEER,
    BenchmarkError,
    Stopwatch,
    alternate,
    command,
    from_one,
    need_memory,
    need_peer,
    parser,
)
from benchmarks.report import Report, column, ratio, seconds_row

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Network = Callable[
        [Tensor, Tensor, Tensor, Tensor], Tensor
    ]  # x, timesteps, context (B, 77, C), y (B, adm) -> like x

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
GUIDANCE = 7.0
SIGMAS = (10.0, 8.0)  # of the measured step: this level, the next

# diffusers' names for the sizes of SDXL base 1.0 (its published unet/config.json); `attention_head_dim` counts heads there.
PEER_SDXL: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "norm_num_groups": 32,
}
PEER_TINY: dict[str, Any] = PEER_SDXL | {  # the sizes of core.models.configs.TINY
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (1, 1),
    "cross_attention_dim": 160,
    "projection_class_embeddings_input_dim": 96 + 6 * 256,
    "norm_num_groups": 8,
}
ROUNDS = {"bf16": 2, "fp16": 2, "fp32": 1}
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
WEIGHTS = 2.57e9  # of SDXL's UNet


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    if args.child:
        _serve_side(args)
        return
    need_peer("diffusers")
    for dtype in args.dtype:
        _compare(args, dtype).finish(args.output and args.output.with_stem(f"{args.output.stem}_{dtype}"))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument(
        "--rounds", type=from_one, help="how often each side is measured (default 2, in fp32, which is slow, 1)"
    )
    made.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bf16", "fp32"])
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument(
        "--size", type=int, default=512, help="side of the picture in pixels, a multiple of 8 (default 512)"
    )
    made.add_argument(
        "--steps", type=from_one, default=1, help="measured steps a round, after one to warm up (default 1)"
    )
    made.add_argument(
        "--int8-linears", action="store_true", help="our linear layers multiply in int8, as with launch.py's flag"
    )
    args = made.parse_args(argv)
    args.size = 64 if args.tiny else args.size
    if args.size < 64 or args.size % 8:
        raise BenchmarkError(f"--size is {args.size}; it must be a multiple of 8 from 64 on.")
    return args


def _compare(args: argparse.Namespace, dtype: str) -> Report:
    if not args.tiny and args.device == "cpu":
        need_memory(WEIGHTS * BYTES[dtype] * 1.45 / 2**30 + 1, f"SDXL's UNet in {dtype}")

    def measure(side: str) -> dict[str, Any]:
        options = ["--dtype", dtype, "--device", args.device, "--size", str(args.size), *["--tiny"] * args.tiny]
        options += ["--int8-linears"] * args.int8_linears
        with Child("benchmarks.unet_step", ["--child", side, *options], ours=side == OURS) as child:
            return child.ask(steps=args.steps)

    rounds = args.rounds or ROUNDS[dtype]
    results = alternate((OURS, PEER), rounds, measure)
    report = Report(
        f"unet_step: one guided step, {'TINY' if args.tiny else 'SDXL'} {args.size} x {args.size}, {dtype}, "
        f"{'our linear layers in int8, ' if args.int8_linears else ''}{args.device}, {rounds} rounds of {args.steps}",
        {**vars(args), "dtype": dtype},
        rounds=results,
    )
    for side, measured in results.items():
        more = {"first s": min(column(measured, "first")), "build s": min(column(measured, "build"))}
        gpu = column(measured, "device_gib")
        report.rows.append(seconds_row(side, measured, **more, **({"device GiB": max(gpu)} if gpu else {})))
    ours, peer = (column(results[side], "seconds") for side in (OURS, PEER))
    report.findings.append(ratio(f"{dtype}: {PEER} time / {OURS} time", peer, ours, at_least=_wanted(dtype, args)))
    return report


def _wanted(dtype: str, args: argparse.Namespace) -> float:
    """How many times as fast as the peer a step is to be."""
    if args.device != "cpu":
        return 1.0
    return 1.2 if dtype == "fp32" else 1.35 if args.size >= 1024 else 1.25


# --- in the subprocess ---


def _serve_side(args: argparse.Namespace) -> None:
    import torch

    device = torch.device(args.device)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError(
            "--device cuda: torch sees no CUDA device. Check the driver, or measure with --device cpu."
        )
    clock = Stopwatch()
    dtype = getattr(torch, DTYPES[args.dtype[0]])
    make = partial(_ours, int8_linears=args.int8_linears) if args.child == OURS else _peer
    network, widths = make(args.tiny, dtype, args.device)
    step = _step(network, widths, dtype, device, args.size)
    build = clock.seconds()

    @torch.inference_mode()
    def measure(steps: int) -> Mapping[str, Any]:
        seconds = [_timed(step, device) for _ in range(1 + steps)]
        result = {"first": seconds[0], "seconds": min(seconds[1:]), "all": seconds, "build": build, **memory()}
        if args.device == "cuda":
            result["device_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return result

    serve(measure)


def _ours(tiny: bool, dtype: torch.dtype, device: str, *, int8_linears: bool) -> tuple[Network, tuple[int, int]]:
    import torch

    from benchmarks.weights import materialise
    from core.models.configs import SDXL, TINY
    from core.models.unet import TextKeys, UNet
    from core.weights.quantized import keep, large_layers, multiply_in_int8

    config = TINY if tiny else SDXL
    with torch.device("meta"):
        unet = UNet(config)
    materialise(unet, dtype, device)
    if int8_linears:
        for _, layer in large_layers(unet):
            keep(layer, layer.weight, torch.int8, dtype)
        multiply_in_int8(unet)
    kept = TextKeys() if device == "cpu" else None  # as in the program: made in the first step of a picture
    return partial(unet, kept=kept), (config.context_dim, config.adm_in_channels or 0)


def _peer(tiny: bool, dtype: torch.dtype, device: str) -> tuple[Network, tuple[int, int]]:
    import torch
    from diffusers import UNet2DConditionModel

    from benchmarks.weights import materialise

    sizes = PEER_TINY if tiny else PEER_SDXL
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**sizes)
    materialise(unet, dtype, device)
    adm = sizes["projection_class_embeddings_input_dim"]

    def network(x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor) -> Tensor:
        pooled, numbers = y[:, : adm - 6 * 256], y[:, -6:]  # the network itself embeds its six numbers
        added = {"text_embeds": pooled.to(dtype), "time_ids": numbers.to(dtype)}
        return unet(x.to(dtype), timesteps, context.to(dtype), added_cond_kwargs=added, return_dict=False)[0]

    return network, (sizes["cross_attention_dim"], adm)


def _step(
    network: Network, widths: tuple[int, int], dtype: torch.dtype, device: torch.device, size: int
) -> Callable[[], Tensor]:
    """One Euler step with guidance: both halves of the batch in one call, as both engines do it."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, context, y = noise(1, 4, size // 8, size // 8), noise(2, 77, widths[0]).to(dtype), noise(2, widths[1]).to(dtype)
    timesteps = torch.full((2,), 900.0, device=device)
    sigma, sigma_next = SIGMAS

    def step() -> Tensor:
        scaled = x / (sigma**2 + 1) ** 0.5
        negative, positive = network(scaled.repeat(2, 1, 1, 1), timesteps, context, y).float().chunk(2)
        eps = negative + GUIDANCE * (positive - negative)
        return x + eps * (sigma_next - sigma)

    return step


def _timed(step: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of one step, to the end of its last computation. Raises BenchmarkError for a result that is not finite."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    clock = Stopwatch()
    result = step()
    wait()
    seconds = clock.seconds()
    if not torch.isfinite(result).all():
        raise BenchmarkError("The network gave numbers that are not finite; this precision cannot be measured here.")
    return seconds


if __name__ == "__main__":
    sys.exit(command(main))
