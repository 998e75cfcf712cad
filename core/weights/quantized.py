"""Weights of 8 bits for the denoising network: half the memory of 16, at a deviation that docs/memory.md states.

Each layer makes its weights anew, in the type that it computes in, whenever it is called. Two forms: floats of 8 bits (fp8:
4 bits of exponent and 3 of mantissa, or 5 and 2), as they come; and int8 with a scale for each row (output channel), the
row's largest magnitude by 127; by these, linear layers can also multiply as they are (`multiply_in_int8`). Only what is
large is kept so: linear layers and convolutions in the network's blocks, not norms, biases, the time embedding, the first
convolution and the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.int8 import LARGEST, fits, int8_linear
from core.models.unet import UNet
from core.weights.layouts import Entries
from core.weights.mapped import MappedFile, in_shape

NOT_IN_INT8 = (".emb_layers.1", ".attn2.to_k", ".attn2.to_v")  # of the time and of the text
_SCALE = "easel_scale"


class StoredLinear(nn.Linear):
    """A linear layer over weights of 8 bits."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _plain(self, x.dtype), self.bias)


class Int8Linear(StoredLinear):
    """A linear layer that multiplies by its weights in int8, where there are rows enough for that."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self._buffers["scale"]
        if scale is None or not fits(x, self.weight):
            return super().forward(x)
        return int8_linear(x, self.weight, scale, self.bias)


class StoredConv2d(nn.Conv2d):
    """A convolution over weights of 8 bits."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _plain(self, x.dtype), self.bias, self.stride, self.padding)


def _plain(layer: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> Tensor:
    """The weights of `layer` in `dtype`. The scale of the rows is a buffer, so that it moves with them."""
    weight = layer.weight.to(dtype)
    scale = layer._buffers["scale"]
    return weight if scale is None else weight.mul_(scale.to(dtype).view(-1, *(1,) * (weight.dim() - 1)))


def fill(
    unet: UNet,
    file: MappedFile,
    entries: Entries,
    dtype: torch.dtype | None,
    storage: torch.dtype,
    check: Callable[[], None] | None = None,
) -> None:
    """Give `unet`, on the meta device, its weights from `file`: the large ones in `storage`, the others in `dtype`.

    One weight after the other, so that no more than one is there in full besides. `check` is called before each and may
    raise.
    """
    large = {f"{name}.weight": layer for name, layer in large_layers(unet)}
    small = file.tensors({name: entry for name, entry in entries.items() if name not in large}, dtype, check)
    unet.load_state_dict(small, strict=False, assign=True)
    for name, layer in large.items():
        if check:
            check()
        if keep(layer, in_shape(file.stored(entries[name]), entries[name]), storage, unet.dtype):
            file.let_go(entries[name])


@torch.no_grad()
def keep(layer: nn.Linear | nn.Conv2d, numbers: Tensor, storage: torch.dtype, dtype: torch.dtype) -> bool:
    """Let `layer` have `numbers` as its weights, kept in `storage`, scales in `dtype`. False if they are in it as they are."""
    as_they_are = numbers.dtype == storage
    weight = numbers if as_they_are else torch.empty(numbers.shape, dtype=storage, device=numbers.device)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.register_buffer("scale", None, persistent=False)
    if not storage.is_floating_point:
        set_scale(layer, torch.empty(len(numbers), dtype=dtype, device=numbers.device))
    layer.__class__ = StoredLinear if isinstance(layer, nn.Linear) else StoredConv2d
    if not as_they_are:
        write(layer.weight, scale_of(layer.weight), numbers.float())
    return not as_they_are


def multiply_in_int8(unet: UNet) -> None:
    """Let the linear layers of `unet` that lie in int8 multiply so, those that work on the picture.

    Those of the time and of the text compute over the stored weights: they take next to no time (two rows a step; a text's
    keys and values, once a picture where they are kept), and whatever they are off by is off everywhere in the picture.
    """
    for name, layer in unet.named_modules():
        if type(layer) is StoredLinear and scale_of(layer.weight) is not None and not name.endswith(NOT_IN_INT8):
            layer.__class__ = Int8Linear


def large_layers(unet: UNet) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers, by their names, whose weights are worth keeping in 8 bits."""
    for name, layer in unet.named_modules():
        inside = name.startswith(("input_blocks.", "middle_block.", "output_blocks.")) and name != "input_blocks.0.0"
        if inside and isinstance(layer, (nn.Linear, nn.Conv2d)):
            yield name, layer


def scale_of(weight: Tensor) -> Tensor | None:
    """The scales (rows,) of a weight in int8; None of any other."""
    return weight.__dict__.get(_SCALE)


def set_scale(layer: nn.Module, scale: Tensor | None) -> None:
    """Let `scale` be that of the layer's weight."""
    layer._buffers["scale"] = scale
    if scale is not None:
        layer.weight.__dict__[_SCALE] = scale


def empty_like(weight: Tensor) -> nn.Parameter:
    """Room for other weights of the same form, with scales of their own if it has some."""
    made = nn.Parameter(torch.empty_like(weight), requires_grad=False)
    scale = scale_of(weight)
    if scale is not None:
        made.__dict__[_SCALE] = torch.empty_like(scale)
    return made


def write(target: Tensor, scale: Tensor | None, numbers: Tensor) -> None:
    """Put `numbers` (rows, ...) float32 into `target`, weights of any form, whose scales, if it has some, become `scale`.

    What a float of 8 bits cannot hold becomes its largest number.
    """
    if scale is None:
        if target.is_floating_point() and target.itemsize == 1:
            largest = torch.finfo(target.dtype).max
            numbers = numbers.clamp(-largest, largest)
        target.copy_(numbers)
        return
    # A little more than the row's range, so that the scale, rounded to its own type, does not cut the largest weight.
    wanted = numbers.flatten(1).abs().amax(1) / LARGEST * (1 + torch.finfo(scale.dtype).eps)
    scale.copy_(wanted)
    rows = scale.float().to(numbers.device).view(-1, *(1,) * (numbers.dim() - 1))
    target.copy_((numbers / rows).round_().nan_to_num_(0.0).clamp_(-LARGEST, LARGEST))
