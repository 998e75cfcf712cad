"""Keep a run that is not ready to ship: `python tools/embedded_model/keep.py --run unet_128` writes unet_128.xz beside this file.

The averaged weights alone, each row of a matrix in steps of its largest weight's 24th part, packed: a twelfth of the run's
state, and about 4 % off, which a run that starts from it (`train_unet.py --weights unet_128.xz`) makes good in its first
steps. Optimizer and step count are not kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
from pathlib import Path
from typing import Any

import torch
from data import HERE, WORK
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from training import load

log = logging.getLogger(__name__)

STEPS = 24  # from 0 to a row's largest weight
SCALE = ".scale"
# Numbers of a normal distribution have no runs and no neighbours to tell them by: no context for the coder.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]


def packed(state: dict[str, Any]) -> bytes:
    """The averaged weights and tokens of a run's `state`."""
    tensors: dict[str, Tensor] = {}
    for name, weight in state["ema"].items():
        if weight.ndim < 2:
            tensors[name] = weight.half() if weight.is_floating_point() else weight
            continue
        rows = weight.float().flatten(1)
        scale = (rows.abs().amax(1).clamp(min=1e-6) / STEPS).half()
        steps = (rows / scale.float()[:, None]).round().clamp(-STEPS - 1, STEPS + 1)
        tensors |= {name: steps.to(torch.int8).reshape(weight.shape), name + SCALE: scale}
    facts = {"tokens": json.dumps(state["tokens"]), "samples": str(state["seen"])}
    return lzma.compress(save(tensors, facts), lzma.FORMAT_XZ, filters=FILTERS)


def unpacked(path: Path, scratch: Path) -> dict[str, Any]:
    """What `packed` kept, as a state to start from; `scratch` is a folder for the unpacked file."""
    file = scratch / f"{path.stem}.unpacked"
    file.write_bytes(lzma.decompress(path.read_bytes()))
    with safe_open(file, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no mapping
        tokens = json.loads(stored.metadata()["tokens"])
    weights = {}
    for name, kept in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        whole = kept.float() if kept.is_floating_point() or scale is not None else kept
        weights[name] = whole if scale is None else whole * scale.float().view(-1, *[1] * (whole.ndim - 1))
    return {"model": weights, "ema": weights, "tokens": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a run's averaged weights in a small file.")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--run", default="unet_128", help="training state to keep (%(default)s)")
    parser.add_argument("--output", type=Path, help="default: RUN.xz beside this script")
    args = parser.parse_args()
    state = load(args.work / f"{args.run}.safetensors", "cpu")
    if state is None:
        raise SystemExit(f"There is no {args.run}.safetensors in {args.work}. Run train_unet.py first.")
    output = args.output or HERE / f"{args.run}.xz"
    temporary = output.with_suffix(".tmp")
    temporary.write_bytes(packed(state))
    temporary.replace(output)
    log.info("%s: %.1f MB, %d samples", output, output.stat().st_size / 1e6, state["seen"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
