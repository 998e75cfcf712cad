"""The plain weights of a loaded network, read again from its file, so that changed ones can be put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.weights.layouts import Entries
from core.weights.mapped import MappedFile, in_shape

_SAMPLE = 4096  # numbers compared to tell whether a weight is as in the file


class PlainWeights:
    """Where the weights of one module come from. Holds the file's map, which costs no memory of its own."""

    def __init__(self, file: MappedFile, entries: Entries) -> None:
        self._file = file
        self._entries = entries

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainWeights:
        return self  # of a copied module the weights come from the same file

    def stored(self, name: str, weight: Tensor) -> Tensor | None:
        """What the file holds for `weight`, in its shape and the file's type, a view; None if `weight` is something else."""
        entry = self._entries.get(name)
        if entry is None or entry.shape != tuple(weight.shape):
            return None
        return in_shape(self._file.stored(entry), entry)

    def agrees(self, name: str, weight: Tensor) -> bool:
        """Whether `weight` is what the file holds, in its own type; judged by its beginning."""
        stored = self.stored(name, weight)
        if stored is None:
            return False
        ours = weight.detach().reshape(-1)[:_SAMPLE].cpu()
        return torch.equal(_bits(stored.reshape(-1)[:_SAMPLE].to(weight.dtype)), _bits(ours))

    def let_go(self, name: str) -> None:
        """The file's pages of `name` are not needed for now."""
        self._file.let_go(self._entries[name])

    def let_go_all(self) -> None:
        """The file's pages of the whole module are not needed for now."""
        if self._entries:
            first = min(entry.start for entry in self._entries.values())
            last = max(entry.end for entry in self._entries.values())
            self._file.let_go_range(first, last)


def remember(module: nn.Module, plain: PlainWeights) -> None:
    """Note at `module` where its weights come from."""
    module.__dict__["plain_weights"] = plain


def plain_weights(module: nn.Module) -> PlainWeights | None:
    """What `remember` noted."""
    return module.__dict__.get("plain_weights")


def _bits(numbers: Tensor) -> Tensor:
    """For a comparison to which NaN is equal to itself."""
    return numbers.new_empty(len(numbers)).copy_(numbers).view(torch.uint8)
