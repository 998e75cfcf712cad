"""Patches of a weight and their formulas: each reads its tensors from a LoRA file and changes a weight in float32.

The kinds are those of `core.weights.lora_format`, which names the papers. A strength of 0 changes nothing, 1 is what the
file was trained for; below 0 and above 1 go on along the same line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from core.weights.header import Header, TensorEntry, read_header
from core.weights.lora_format import config_beside
from core.weights.mapped import MappedFile

Tensors = Mapping[str, Tensor]
Stamp = tuple[str | int, ...]  # path, size and time of change of a file, and of what lies beside it and belongs to it

DORA = frozenset({"magnitude", "dora_scale"})
OLDER, NEWER = ("a1", "a2", "b1", "b2"), ("a2", "a1", "b2", "b1")  # orders of GLoRA's tensors
RANKS = {"LoRA": ("down",), "LoHa": ("hada_w1_b",), "LoKr": ("lokr_w2_b", "lokr_w1_b"), "GLoRA": ("a1",)}


def stamp_of(path: Path) -> Stamp:
    """Which state of which file is at `path`. Raises OSError."""
    states = [file.stat() for file in (path, config_beside(path)) if file]
    return str(path), *(number for state in states for number in (state.st_size, state.st_mtime_ns))


class PatchFile:
    """A file of patches, mapped while somebody reads from it."""

    def __init__(self, path: Path) -> None:
        """Reads the header. Raises as `read_header`."""
        self.stamp = stamp_of(path)
        self.header: Header = read_header(path)
        self._file: MappedFile | None = None

    def tensor(self, name: str, device: torch.device) -> Tensor:
        """The tensor `name` in float32 on `device`."""
        if self._file is None:
            self._file = MappedFile(self.header, torch.device("cpu"))
        entry = self.header.tensors[name]
        return self._file.stored(entry).view(entry.shape).to(device).to(torch.float32)

    def close(self) -> None:
        """Let go of the file until the next `tensor`."""
        self._file = None


@dataclass(frozen=True)
class Patch:
    """One patch of one weight. Two are equal if they come from the same place in the same state of a file."""

    stamp: Stamp
    key: str
    kind: str  # as in lora_format.KINDS
    slots: Mapping[str, str] = field(compare=False, repr=False)  # slot -> the tensor's name in the file
    file: PatchFile = field(compare=False, repr=False)
    scale: float = field(default=1.0, compare=False)  # of a low-rank product without an alpha in the file
    transposed: bool = field(default=False, compare=False)  # the weight is the other way round from that in the file

    def entry(self, slot: str) -> TensorEntry:
        """Type, shape and place of the tensor in `slot`."""
        return self.file.header.tensors[self.slots[slot]]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it can change a weight of `shape`; found out without reading a tensor."""
        shape = shape[::-1] if self.transposed else shape
        shapes = {slot: self.entry(slot).shape for slot in self.slots}
        if _size(shapes.get("alpha", ())) != 1:
            return False
        if self.kind == "LoRA" and self.slots.keys() <= {
            "up",
            "down",
            "alpha",
        }:  # nearly all files; so no tensors for it
            up, down = shapes["up"], shapes["down"]
            product = len(up) >= 2 <= len(down) and _size(up[1:]) == down[0] > 0
            return product and up[0] == shape[0] and _size(down[1:]) == _size(shape[1:])
        try:
            tensors = {slot: torch.empty(size, device="meta") for slot, size in shapes.items()}
            changed = self._changed(torch.empty(shape, device="meta"), tensors, 1.0)
        except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
            return False
        return tuple(changed.shape) == shape

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        """`weight` (float32, the whole of it) changed; it may be changed in place or not."""
        tensors = self._tensors(weight.device)
        if self.transposed:
            return self._changed(weight.T, tensors, strength).T
        return self._changed(weight, tensors, strength)

    def factors(self, device: torch.device) -> tuple[Tensor, Tensor, float] | None:
        """`up` (rows, r), `down` (r, columns) and a scale, if the patch is no more than their product: then a weight can be
        changed row by row. None for other patches."""
        if self.kind != "LoRA" or DORA & self.slots.keys():
            return None
        tensors = self._tensors(device)
        up, down = _factors(tensors)
        return *((down.T, up.T) if self.transposed else (up, down)), self._scale(tensors)

    def _tensors(self, device: torch.device) -> Tensors:
        return {slot: self.file.tensor(name, device) for slot, name in self.slots.items()}

    def _changed(self, weight: Tensor, tensors: Tensors, strength: float) -> Tensor:
        if self.kind == "weight":
            return weight.lerp(tensors["set_weight"].reshape(weight.shape), strength)
        if self.kind == "GLoRA":
            tensors = _in_older_order(tensors, weight)
        change = DELTAS[self.kind](tensors, weight)
        if change.numel() != weight.numel() or change.shape[0] != weight.shape[0]:
            raise ValueError(f"a change of shape {tuple(change.shape)} for a weight of shape {tuple(weight.shape)}")
        change = change.reshape(weight.shape)
        if self.kind in RANKS:
            change = change * self._scale(tensors)
        if DORA & tensors.keys():
            return weight.lerp(_decomposed(weight + change, tensors), strength)
        return weight.add_(change, alpha=strength)

    def _scale(self, tensors: Tensors) -> float:
        rank = self._rank(tensors)
        alpha = tensors.get("alpha")
        if alpha is None or alpha.is_meta:
            return self.scale
        return float(alpha) / rank if rank else 1.0  # LoKr of two whole matrices has no rank: it is as it stands

    def _rank(self, tensors: Tensors) -> int | None:
        found = [tensors[slot].shape[0] for slot in RANKS.get(self.kind, ()) if slot in tensors]
        if found and found[0] == 0:
            raise ValueError("a rank of 0")
        return found[0] if found else None


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _factors(t: Tensors) -> tuple[Tensor, Tensor]:
    """Up (rows, r) and down (r, columns) of a LoRA; a middle kernel (LoCon's Tucker form) is multiplied into the latter."""
    down = t["down"]
    if "mid" in t:
        down = torch.einsum("abkl,bi->aikl", t["mid"], down.flatten(1))
    return t["up"].flatten(1), down.flatten(1)


def _low_rank(t: Tensors, weight: Tensor) -> Tensor:
    up, down = _factors(t)
    return up @ down


def _hadamard(t: Tensors, weight: Tensor) -> Tensor:
    """LoHa: two low-rank matrices, number by number. OneTrainer gives the factors the shape of convolutions."""
    halves = []
    for i in (1, 2):
        a, b = t[f"hada_w{i}_a"], t[f"hada_w{i}_b"]
        kernel = t.get(f"hada_t{i}")
        halves.append(a.flatten(1) @ b.flatten(1) if kernel is None else torch.einsum("ijkl,jr,ip->prkl", kernel, b, a))
    return halves[0] * halves[1]


def _kronecker(t: Tensors, weight: Tensor) -> Tensor:
    """LoKr: the Kronecker product of two matrices, each of which may be a low-rank product."""
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        second = torch.einsum("ijkl,jr,ip->prkl", t["lokr_t2"], t["lokr_w2_b"], t["lokr_w2_a"])
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"].flatten(1)
    if second.dim() == 4:
        first = first[:, :, None, None]
    return torch.kron(first, second.contiguous())


def _generalised(t: Tensors, weight: Tensor) -> Tensor:
    """GLoRA in the older order: a low-rank matrix, and the weight itself through another one.

    The latter mixes a convolution's input channels at each place of its kernel, or channels and places together.
    """
    a1, a2, b1, b2 = (t[slot].flatten(1) for slot in OLDER)
    by_channel = len(a2) == weight.shape[1]
    through = (weight.movedim(1, -1) @ a2 @ a1).movedim(-1, 1) if by_channel else weight.flatten(1) @ a2 @ a1
    return b2 @ b1 + through.flatten(1)


def _in_older_order(t: Tensors, weight: Tensor) -> Tensors:
    """The tensors of a GLoRA such that the change is b2 b1 + (W a2) a1. LyCORIS has exchanged 1 and 2 since.

    Shapes tell, and where both orders fit, it is the older one. Raises ValueError if neither fits.
    """
    for order in (OLDER, NEWER):
        renamed = {**t, **{slot: t[theirs] for slot, theirs in zip(OLDER, order, strict=True)}}
        if _is_older(renamed, weight):
            return renamed
    raise ValueError(f"a GLoRA that is not for a weight of shape {tuple(weight.shape)}")


def _is_older(t: Tensors, weight: Tensor) -> bool:
    a1, a2, b1, b2 = (tuple(t[slot].flatten(1).shape) for slot in OLDER)
    rows, columns = weight.flatten(1).shape
    return a1 == a2[::-1] and a1[1] in (weight.shape[1], columns) and b1[1] == columns and b2 == (rows, b1[0])


def _difference(slot: str) -> Callable[[Tensors, Tensor], Tensor]:
    def difference(t: Tensors, weight: Tensor) -> Tensor:
        if tuple(t[slot].squeeze().shape) != tuple(weight.squeeze().shape):
            raise ValueError(
                f"a difference of shape {tuple(t[slot].shape)} for a weight of shape {tuple(weight.shape)}"
            )
        return t[slot].reshape(weight.shape)

    return difference


DELTAS: Mapping[str, Callable[[Tensors, Tensor], Tensor]] = {
    "LoRA": _low_rank,
    "LoHa": _hadamard,
    "LoKr": _kronecker,
    "GLoRA": _generalised,
    "norm": _difference("w_norm"),
    "difference": _difference("diff"),
    "b_norm": _difference("b_norm"),
    "diff_b": _difference("diff_b"),
}


def _decomposed(weight: Tensor, t: Tensors) -> Tensor:
    """DoRA: `weight` scaled so that its rows (or columns) have the trained lengths.

    PEFT stores a length a row. LyCORIS stores one a row, as (rows, 1, ...), or one a column, as (1, columns, ...), a
    column being an input channel with all its kernel.
    """
    lengths = t.get("magnitude", t.get("dora_scale"))
    assert lengths is not None
    shape = tuple(lengths.shape)
    by_column = "magnitude" not in t and len(shape) > 1 and shape[:2] == (1, weight.shape[1])
    side = 1 if by_column else 0
    if lengths.numel() != weight.shape[side]:
        raise ValueError(f"lengths of shape {shape} for a weight of shape {tuple(weight.shape)}")
    now = weight.square().sum(dim=[i for i in range(weight.dim()) if i != side], keepdim=True).sqrt()
    return weight * (lengths.reshape(now.shape) / now.clamp_min(torch.finfo(torch.float32).tiny))
