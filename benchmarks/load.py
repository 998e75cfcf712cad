"""Seconds and peak memory from a checkpoint file to networks ready in bf16: ours against diffusers' single-file loading."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import (
    GIB,
    OURS,
    PEER,
    BenchmarkError,
    Stopwatch,
    add_rounds,
    alternate,
    command,
    memory_available,
    need_memory,
    need_peer,
    parser,
    tell,
)
from benchmarks.engine import TINY_FILE
from benchmarks.report import Report, column, ratio, seconds_row
from benchmarks.unet_step import PEER_SDXL, PEER_TINY

if TYPE_CHECKING:
    from torch import nn

    from core.models.configs import CLIPConfig

    Loader = Callable[[str], list[nn.Module]]

TENSORS_GB = 6.94  # of a full-size file
PEER_PEAK_GIB = 14.0  # what the peer has been seen to need
MIB_SPARED = 1024  # left untouched, beside the file's pages in the cache
PAGE = 4096
FILES = {False: "easel-benchmark-sdxl.safetensors", True: TINY_FILE}
CHILD = "benchmarks.load"


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    if args.child:
        {"write": _serve_writing, OURS: _serve_loading, PEER: _serve_loading}[args.child](args)
        return
    need_peer("diffusers", "transformers", "accelerate")
    if not args.tiny:
        need_memory(PEER_PEAK_GIB, "Loading SDXL with both engines")
    path = checkpoint_file(args.work, args.tiny)
    report = Report(
        f"load: {path.name} ({path.stat().st_size / 1e9:.2f} GB, fp16) to bf16 on the CPU, {args.rounds} rounds",
        {**vars(args), "file_bytes": path.stat().st_size},
    )
    _compare(report, args, path, "warm", args.rounds)
    if args.cold_rounds:
        if drop_from_cache(path):
            _compare(report, args, path, "cold", args.cold_rounds)
        else:
            report.notes.append("cold: not measured, the system does not drop the file from its cache")
    report.finish(args.output)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    add_rounds(made, 2)
    made.add_argument("--cold-rounds", type=int, default=1, help="rounds with the file read from the disk (default 1)")
    made.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "easel-benchmarks",
        help="folder for the checkpoint file, which is kept for the next time (7 GB)",
    )
    return made.parse_args(argv)


def checkpoint_file(folder: Path, tiny: bool) -> Path:
    """The random checkpoint in `folder`, written first if it is not there."""
    path = folder / FILES[tiny]
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if not tiny and free < (TENSORS_GB + 1) * 1e9:
        raise BenchmarkError(
            f"{folder} has {free / 1e9:.1f} GB free and the checkpoint needs {TENSORS_GB} GB. Name another folder with --work."
        )
    clock = Stopwatch()
    with Child(CHILD, ["--child", "write", *["--tiny"] * tiny], ours=False) as child:
        child.ask(path=str(path))
    tell(f"wrote {path} in {clock.seconds():.1f} s")
    return path


def _compare(report: Report, args: argparse.Namespace, path: Path, temperature: str, rounds: int) -> None:
    """Measure both sides, the file in the page cache ("warm") or not ("cold"); adds rows and ratios to `report`."""

    def measure(side: str) -> dict[str, Any]:
        with Child(CHILD, ["--child", side, *["--tiny"] * args.tiny], ours=side == OURS, watch=True) as child:
            child.ask(path=None)  # imports come before the clock
            if not args.tiny:
                touch_memory()
            if temperature == "warm":
                read_through(path)
            else:
                drop_from_cache(path)
            return child.ask(path=str(path))

    results = alternate((OURS, PEER), rounds, measure)
    report.rounds[temperature] = results
    for side, measured in results.items():
        wanted = ("anonymous_gib", "file_gib", "peak_anonymous_gib", "peak_file_gib")
        names = ("RssAnon GiB", "RssFile GiB", "most RssAnon", "most RssFile")
        more = {name: max(column(measured, key), default=0.0) for name, key in zip(names, wanted, strict=True)}
        report.rows.append(
            seconds_row(f"{side}, {temperature}", measured, **more, **{"import s": min(column(measured, "imports"))})
        )
    ours, peer = (column(results[side], "seconds") for side in (OURS, PEER))
    at_most = 0.5 if temperature == "warm" else None
    report.findings.append(ratio(f"{temperature}: {OURS} time / {PEER} time", ours, peer, at_most=at_most))
    size = [path.stat().st_size / GIB] * rounds
    for side in (OURS, PEER):
        peaks = column(results[side], "peak_gib")
        if len(peaks) == rounds:
            at_most = 1.15 if side == OURS else None
            report.findings.append(
                ratio(f"{temperature}: {side} peak memory / file size", peaks, size, at_most=at_most)
            )


def read_through(path: Path) -> None:
    """Read the whole file, so that it is in the page cache."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(2**24)
        while file.readinto(buffer):
            pass


def touch_memory() -> None:
    """Write to as much memory as a side will need, and give it back.

    Under a hypervisor the first touch of a page that was idle costs many times its usual price, and which side pays it
    depends on what ran before; after this neither does.
    """
    mib = min(int(PEER_PEAK_GIB * 1024), ((memory_available() or 0) >> 20) - MIB_SPARED)
    code = f"import mmap; m = mmap.mmap(-1, {mib} << 20); [m.write(bytes([1]) * (1 << 20)) for _ in range({mib})]"
    if mib > 0:
        subprocess.run([sys.executable, "-c", code], check=True)


def drop_from_cache(path: Path) -> bool:
    """Ask the system to forget the file's pages. Whether it did; False where that cannot be known."""
    before = _cached()
    if not hasattr(os, "posix_fadvise") or before is None:
        return False
    read_through(path)
    before = _cached() or 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return before - (_cached() or 0) > path.stat().st_size / 2


def _cached() -> int | None:
    """Bytes in the page cache; None if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Cached:")), None)


# --- in the subprocess ---


def _serve_writing(args: argparse.Namespace) -> None:
    from benchmarks.weights import write_checkpoint

    def write(path: str) -> Mapping[str, Any]:
        write_checkpoint(Path(path), tiny=args.tiny)
        return {}

    serve(write)


def _serve_loading(args: argparse.Namespace) -> None:
    import torch

    clock = Stopwatch()
    with {OURS: _ours, PEER: _peer}[args.child](args.tiny) as load:
        imports = clock.seconds()

        def measure(path: str | None) -> Mapping[str, Any]:
            if path is None:
                return {}
            before = memory()
            clock = Stopwatch()
            parts = load(path)
            with torch.no_grad():
                weights = [weight for part in parts for weight in part.parameters()]
                for weight in weights:  # one number a page: what has not been read yet is read now
                    weight.detach().reshape(-1)[:: PAGE // weight.element_size()].sum()
            seconds = clock.seconds()
            wrong = {str(weight.dtype) for weight in weights if weight.dtype != torch.bfloat16}
            if wrong:
                raise BenchmarkError(
                    f"{args.child} left weights in {', '.join(sorted(wrong))}; all were wanted in bf16."
                )
            bytes_loaded = sum(weight.numel() * weight.element_size() for weight in weights)
            return {
                "seconds": seconds,
                "imports": imports,
                "weights_gib": bytes_loaded / GIB,
                "before_gib": before.get("anonymous_gib", 0.0) + before.get("file_gib", 0.0),
                **memory(),
            }

        serve(measure)


@contextmanager
def _ours(tiny: bool) -> Iterator[Loader]:
    import torch

    from core.weights.checkpoint import load_checkpoint

    def load(path: str) -> list[nn.Module]:
        bf16 = torch.bfloat16
        checkpoint = load_checkpoint(
            Path(path), unet_dtype=bf16, text_dtype=bf16, vae_dtype=bf16, device=torch.device("cpu")
        )
        parts = (checkpoint.unet, checkpoint.vae, checkpoint.clip_l, checkpoint.clip_g)
        return [part for part in parts if part is not None]

    yield load


@contextmanager
def _peer(tiny: bool) -> Iterator[Loader]:
    """The tokenizers, which are not in the file, are left out of the peer's time: it gets none."""
    import torch
    import transformers  # noqa: F401  (diffusers imports it late)
    from diffusers import StableDiffusionXLPipeline

    with tempfile.TemporaryDirectory() as folder:
        write_peer_configs(Path(folder), tiny)

        def load(path: str) -> list[nn.Module]:
            pipeline = StableDiffusionXLPipeline.from_single_file(
                path,
                config=folder,
                torch_dtype=torch.bfloat16,
                local_files_only=True,
                tokenizer=None,
                tokenizer_2=None,
                add_watermarker=False,
            )
            return [pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2]

        yield load


def write_peer_configs(folder: Path, tiny: bool) -> None:
    """The configuration files that diffusers wants beside a single-file checkpoint, in its folder layout."""
    from core.models.configs import CLIP_G, CLIP_L, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, VAEConfig

    vae = TINY_VAE if tiny else VAEConfig()
    levels = len(vae.channel_mult)
    clip_l, clip_g = (TINY_CLIP_L, TINY_CLIP_G) if tiny else (CLIP_L, CLIP_G)
    files: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": "StableDiffusionXLPipeline",
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "force_zeros_for_empty_prompt": True,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "EulerDiscreteScheduler",
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
        },
        "unet/config.json": {"_class_name": "UNet2DConditionModel", **(PEER_TINY if tiny else PEER_SDXL)},
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": [vae.channels * mult for mult in vae.channel_mult],
            "layers_per_block": vae.num_res_blocks,
            "latent_channels": vae.z_channels,
            "norm_num_groups": 4 if tiny else 32,
            "scaling_factor": 0.13025,
        },
        "text_encoder/config.json": _clip_config(clip_l, "CLIPTextModel"),
        "text_encoder_2/config.json": _clip_config(clip_g, "CLIPTextModelWithProjection"),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), "utf-8")


def _clip_config(sizes: CLIPConfig, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "clip_text_model",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp_width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "hidden_act": "quick_gelu" if sizes.quick_gelu else "gelu",
        "projection_dim": sizes.projection or sizes.width,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.positions,
    }


if __name__ == "__main__":
    sys.exit(command(main))
