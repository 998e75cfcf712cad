"""What both training scripts share: the budget, the learning rate, the average of the weights, saving and resuming."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Average:
    """Exponential moving average of a module's weights. Early on it forgets faster, so that it has no bias to the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: p.detach().clone() for name, p in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = module.state_dict()
        names = [name for name, w in self.weights.items() if w.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in names], [current[n] for n in names], 1 - keep)


class Team:
    """The processes that train one network together, one a core or a GPU: `python -m torch.distributed.run ...`.

    Alone (no such launcher) everything here does nothing. On CPU cores that are shared with other programs, two processes
    of one thread each get far more done than one of two threads, which wait for each other in every operation.
    """

    def __init__(self) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if self.size > 1:
            dist.init_process_group("gloo", timeout=timedelta(days=1))  # a run may be stopped and go on (SIGSTOP)

    def share(self, parameters: list[nn.Parameter], progress: float) -> float:
        """Average the gradients over all processes. Gives the first process' `progress`."""
        if self.size == 1:
            return progress
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([*(g.flatten() for g in grads), torch.tensor([progress * (self.rank == 0)])])
        dist.all_reduce(flat)
        pieces = flat[:-1].div_(self.size).split([p.numel() for p in parameters])
        for p, piece in zip(parameters, pieces, strict=True):
            p.grad = piece.view_as(p)
        return float(flat[-1])

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x


class Budget:
    """How much of the training is done: the larger share of its minutes and of its samples, over all its runs."""

    def __init__(self, minutes: float, samples: float, decay_from: float) -> None:
        self.minutes, self.samples, self.decay_from = minutes, samples, decay_from
        self.seconds = 0.0
        self.seen = 0
        self._last = time.monotonic()

    def add(self, samples: int) -> None:
        now = time.monotonic()
        self.seconds += now - self._last
        self._last = now
        self.seen += samples

    def restart_clock(self) -> None:
        """Leave out of the count what passed since the last `add`."""
        self._last = time.monotonic()

    @property
    def progress(self) -> float:
        return max(self.seconds / 60 / self.minutes, self.seen / self.samples)

    def rate(self, step: int, warm_up: int, progress: float | None = None) -> float:
        """Factor of the learning rate: linear warm-up, flat, and one linear decay to 2 % from `decay_from` on."""
        rest = (1 - (self.progress if progress is None else progress)) / (1 - self.decay_from)
        return min(1.0, (step + 1) / warm_up) * min(1.0, max(0.02, rest))


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the training state, nested dicts and lists of tensors and plain values, to a temporary name and move it."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.detach().contiguous().clone()
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    tree = json.dumps(plain(state))
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"state": tree})
    temporary.replace(path)


def load(path: Path, device: str) -> dict[str, Any] | None:
    """The state of a run before this one, if there is any."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt", device=device) as file:

        def whole(value: Any) -> Any:
            if isinstance(value, dict):
                if set(value) == {"tensor"}:
                    return file.get_tensor(value["tensor"])
                return {int(key) if key.isdecimal() else key: whole(v) for key, v in value.items()}
            return [whole(v) for v in value] if isinstance(value, list) else value

        state: dict[str, Any] = whole(json.loads(file.metadata()["state"]))
    return state


def arguments(description: str, work: Path, *, minutes: float, batch: int, rate: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--work", type=Path, default=work, help="folder for data and training state (default %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="stop after so many minutes, over all runs (%(default)s)"
    )
    parser.add_argument("--samples", type=float, default=float("inf"), help="or after so many training samples")
    parser.add_argument("--batch", type=int, default=batch, help="samples a step and process (%(default)s)")
    parser.add_argument("--rate", type=float, default=rate, help="learning rate (%(default)s)")
    parser.add_argument(
        "--decay-from", type=float, default=0.65, help="share of the run from which the rate falls (%(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (%(default)s)")
    parser.add_argument("--every", type=float, default=180, help="seconds between evaluations (%(default)s)")
    return parser


def due(every: float) -> Iterator[bool]:
    """True once in `every` seconds."""
    last = time.monotonic()
    while True:
        yes = time.monotonic() - last >= every
        yield yes
        if yes:
            last = time.monotonic()


def mixed_noise(like: Tensor, every: int, mode: str) -> Tensor:
    """Noise of the shape of `like` (B, C, h, w): for each entry fine and coarse in a mixture of chance.

    The coarse one has a number for `every` so many rows and columns, enlarged in interpolate's `mode`.
    """
    fine = torch.randn_like(like)
    coarse = F.interpolate(torch.randn_like(like[..., ::every, ::every]), size=like.shape[2:], mode=mode)
    share = torch.rand(len(like), 1, 1, 1, device=like.device)
    return share * fine + (1 - share) * coarse


def images_to_tensor(pixels: Any, device: str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def tensor_to_images(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3); what is beyond is cut off."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
