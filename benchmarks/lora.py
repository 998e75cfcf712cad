"""Seconds to switch a LoRA on the whole of an SDXL model, against one merging pass over its weights.

The pass is what putting a LoRA on takes at least: each weight that it was trained on widened to float32, its product added,
and written back, in pieces that stay in the processor's cache. A switch that took the old LoRA off and then put the new one
on would take two. Ours reads the plain weights from the checkpoint's file again and never sees the old one's product. The
bare pass, without any product, only widens and writes back all weights.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child, memory, serve
from benchmarks.common import OURS, Stopwatch, add_rounds, alternate, command, from_one, need_memory, parser
from benchmarks.load import checkpoint_file, read_through
from benchmarks.report import Report, column, ratio, seconds_row
from core.settings import Lora

CHILD = "benchmarks.lora"
BARE, ON, PASS, SWITCH = "bare pass", "on", "one pass", "switch"
WEIGHT, AGAIN, OFF = "another weight", "the same again", "all off"
AT_MOST = 1.5
MEMORY_GIB = 9.0  # network, text encoders and VAE, and the file's pages that are in use

# What a LoRA of the usual settings is trained on: all matrices of the transformers and of the text encoders.
NETWORK = (
    ".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight", ".ff.net.0.proj.weight", ".ff.net.2.weight",
    ".proj_in.weight", ".proj_out.weight",
)  # fmt: skip
TEXT = ("_proj.weight", ".fc1.weight", ".fc2.weight")


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises BenchmarkError if it cannot be measured here."""
    args = _arguments(argv)
    if args.child:
        _serve_switching(args)
        return
    if not args.tiny:
        need_memory(MEMORY_GIB, "Switching LoRAs on SDXL")
    path = checkpoint_file(args.work, args.tiny)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        options = ["--child", OURS, "--rank", str(args.rank), "--dtype", args.dtype, *["--tiny"] * args.tiny]
        with Child(CHILD, options, ours=True, watch=True) as child:
            made = child.ask(action="write", checkpoint=str(path), folder=folder)
            read_through(path)
            child.ask(action="load", checkpoint=str(path), folder=folder)
            read_through(path)
            results = alternate(
                (BARE, ON, PASS, SWITCH, WEIGHT, AGAIN, OFF), args.rounds, lambda side: child.ask(action=side)
            )
    size = f"{made['trained'] / 1e9:.2f} of {made['weights'] / 1e9:.2f} billion weights"
    report = Report(
        f"lora: two LoRAs of rank {args.rank} on {path.name} in {args.dtype}, {size}, {args.rounds} rounds",
        {**vars(args), **made},
        rounds=results,
    )
    for side, measured in results.items():
        peaks = {"most RssAnon": max(column(measured, "peak_anonymous_gib"), default=0.0)}
        changed = {"weights changed": max(int(each["changed"]) for each in measured)}
        report.rows.append(seconds_row(side, measured, **peaks, **changed))
    one = column(results[PASS], "seconds")
    report.findings.append(
        ratio("switching a LoRA / one pass", column(results[SWITCH], "seconds"), one, at_most=AT_MOST)
    )
    report.findings.append(ratio("first LoRA on / one pass", column(results[ON], "seconds"), one))
    report.findings.append(ratio("all off / one pass", column(results[OFF], "seconds"), one))
    report.findings.append(ratio("the same list again / one pass", column(results[AGAIN], "seconds"), one))
    bare = column(results[BARE], "seconds")
    report.findings.append(ratio("switching a LoRA / bare pass", column(results[SWITCH], "seconds"), bare))
    same = all(each["plain"] for each in results[OFF])
    report.notes.append(f"without LoRAs the plain weights bit for bit: {'yes' if same else 'NO'}")
    report.finish(args.output)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    add_rounds(made, 3)
    made.add_argument("--rank", type=from_one, default=16, help="of the LoRAs (default 16)")
    made.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="of the network (default bf16)")
    made.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "easel-benchmarks",
        help="folder for the checkpoint file, which is kept for the next time (7 GB)",
    )
    return made.parse_args(argv)


def _serve_switching(args: argparse.Namespace) -> None:
    import torch

    from core.device import DeviceChoice, choose_device
    from core.weights.checkpoint import load_checkpoint
    from core.weights.files import Files
    from core.weights.lora import Loras, Model
    from core.weights.patched import PIECE, patches_on

    device = choose_device(DeviceChoice(device="cpu", unet_precision=args.dtype))
    models: dict[str, Any] = {}

    def load(checkpoint: str) -> Model:
        loaded = load_checkpoint(Path(checkpoint), device=device)
        return Model(Path(checkpoint).name, loaded.unet, loaded.clip_l, loaded.clip_g)

    def write(checkpoint: str, folder: str) -> Mapping[str, Any]:
        model, trained = load(checkpoint), 0
        for seed, name in enumerate(("a", "b")):
            trained = _write_lora(Path(folder) / f"{name}.safetensors", model, args.rank, seed)
        return {
            "trained": trained,
            "weights": sum(p.numel() for part in model.parts().values() for p in part.parameters()),
        }

    @torch.no_grad()
    def bare_pass(model: Model) -> None:
        buffer, elsewhere = torch.empty(PIECE), torch.empty(PIECE, dtype=torch.float16)
        for part in model.parts().values():
            for weight in part.parameters():
                for source in weight.flatten().split(PIECE):
                    # What has the file's type is a view of the file, which nobody may write to.
                    place = elsewhere[: len(source)] if weight.dtype == torch.float16 else source
                    place.copy_(buffer[: len(source)].copy_(source))

    @torch.no_grad()
    def one_pass(model: Model) -> None:
        """Once more what is on the weights already; the switch that follows takes no notice."""
        buffer = torch.empty(PIECE)
        for part in model.parts().values():
            for weight in part.parameters():
                for patch, strength in patches_on(weight) or ():
                    up, down, scale = patch.factors(device.torch_device) or (None, None, 0.0)
                    assert up is not None and down is not None
                    rows = weight.flatten(1)
                    step = max(1, PIECE // rows.shape[1])
                    for source, ours in zip(rows.split(step), up.split(step), strict=True):
                        piece = buffer[: source.numel()].view(source.shape).copy_(source)
                        source.copy_(piece.addmm_(ours, down, alpha=strength * scale))

    plain: dict[str, int] = {}

    def measure(action: str, checkpoint: str = "", folder: str = "") -> Mapping[str, Any]:
        if action == "write":
            return write(checkpoint, folder)
        if action == "load":
            models.update(model=load(checkpoint), loras=Loras(Files([Path(folder)], "loras")))
            plain.update(_sums(models["model"]))
            return {}
        model, loras = models["model"], models["loras"]
        lists = {
            ON: [Lora("a.safetensors")], SWITCH: [Lora("b.safetensors")], OFF: [],
            WEIGHT: [Lora("b.safetensors", 0.5)], AGAIN: [Lora("b.safetensors", 0.5)],
        }  # fmt: skip
        before = {id(p): patches_on(p) for part in model.parts().values() for p in part.parameters()}
        clock = Stopwatch()
        if action in (BARE, PASS):
            (bare_pass if action == BARE else one_pass)(model)
        else:
            loras.put(model, loras.match(model, lists[action]), device=device.torch_device)
        seconds = clock.seconds()
        changed = sum(patches_on(p) != before[id(p)] for part in model.parts().values() for p in part.parameters())
        same = action == OFF and _sums(model) == plain
        return {"seconds": seconds, "changed": changed, "plain": same, **memory()}

    serve(measure)


def _sums(model: Any) -> dict[str, int]:
    """A checksum of each weight's bits."""
    import zlib

    import torch

    return {
        f"{part}.{name}": zlib.crc32(p.detach().contiguous().flatten().view(torch.uint8).numpy())
        for part, module in model.parts().items()
        for name, p in module.named_parameters()
    }


def _write_lora(path: Path, model: Any, rank: int, seed: int) -> int:
    """A random LoRA in fp16 and kohya's spelling; returns how many of the model's weights it changes."""
    import torch
    from safetensors.torch import save_file

    generator, tensors, trained = torch.Generator().manual_seed(seed), {}, 0
    for part, prefix in (("unet", "lora_unet_"), ("clip_l", "lora_te1_"), ("clip_g", "lora_te2_")):
        for name, weight in model.parts()[part].named_parameters():
            if not name.endswith(NETWORK if part == "unet" else TEXT) or weight.dim() < 2:
                continue
            key = prefix + name.removesuffix(".weight").replace(".", "_")
            spread = math.sqrt(0.01 / math.sqrt(rank))
            for ending, shape in (("up", (weight.shape[0], rank)), ("down", (rank, weight[0].numel()))):
                tensors[f"{key}.lora_{ending}.weight"] = (torch.randn(shape, generator=generator) * spread).half()
            tensors[f"{key}.alpha"] = torch.tensor(float(rank) / 2)
            trained += weight.numel()
    save_file(tensors, path, {"ss_base_model_version": "sdxl_base_v1-0"})
    return trained


if __name__ == "__main__":
    sys.exit(command(main))
