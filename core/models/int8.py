"""Products in integers of 8 bits: each row of x is scaled to whole numbers up to 127, then multiplied by weights in int8.

The sums are exact (int32). What is rounded is x, at a step of a 127th of its row's largest magnitude, and the result, once.
A row has a scale of its own, so that it does not matter what else is computed with it.

By torch's `_int_mm` on the plain weights: 424 billion operations a second (one thread of a Zen 4, 2048 x 1280 by 1280 x 1280)
against 206 of oneDNN's product in bfloat16. oneDNN's operator for int8 (`qlinear_pointwise`), which scales in the same pass,
came to 418, and its packed weights are something that LoRAs and moves between devices would have to know of. Scaling takes
about a tenth of the time that the product does.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LARGEST = 127  # -128 is not used, so that the range is even
SMALLEST = 1e-30  # magnitude of a row that is taken for one of zeros; 127 / SMALLEST is still a float32
PIECES = {"cpu": 2**20}  # numbers of the wider side at a time: 4 MiB of float32 stay in the cache
PIECE = 2**23  # on another device
UNITS = ("avx512_vnni", "avx_vnni", "amx_int8")  # of processors; without them int8 is slower than what it replaces


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, piece: int | None = None) -> Tensor:
    """x (..., K) by `weight` (N, K) int8 times `scale` (N,), and `bias` (N,): (..., N) in the type of x.

    `piece`: how many numbers to have on the way at a time; the result is the same for any.
    """
    out = x.new_empty(*x.shape[:-1], len(weight))
    results, inputs = out.view(-1, len(weight)), x.reshape(-1, x.shape[-1])
    piece = piece or PIECES.get(x.device.type, PIECE)
    pieces = -(-len(inputs) * max(weight.shape) // piece)
    pieces = max(1, min(pieces, len(inputs) // 32))  # fewer rows waste the units, and CUDA wants more than 16
    columns, scale = weight.t(), scale.float()
    bias = None if bias is None else bias.float()
    room = x.new_empty(-(-len(inputs) // pieces), len(weight), dtype=torch.float32)
    for result, part in zip(results.tensor_split(pieces), inputs.tensor_split(pieces), strict=True):
        numbers, steps = quantised(part)
        sums = room[: len(part)].copy_(torch._int_mm(numbers, columns)).mul_(steps)
        result.copy_(sums.mul_(scale) if bias is None else torch.addcmul(bias, sums, scale, out=sums))
    return out


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of x (M, K) as int8, and what one step of each is worth, (M, 1) float32: x is about the product.

    Of a row with NaN or infinity the step is NaN or infinite, and with it what becomes of the row.
    """
    numbers = x.to(torch.float32, copy=True)
    largest = torch.maximum(numbers.amax(1, keepdim=True), -numbers.amin(1, keepdim=True)).clamp_(min=SMALLEST)
    numbers.mul_(LARGEST / largest).round_()
    return numbers.to(torch.int8), largest / LARGEST


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `weight` (N, K) and this many rows can be multiplied so: CUDA's routine wants more than 16, and N, K of eights."""
    rows = x.numel() // max(1, x.shape[-1])
    if x.device.type == "cpu":
        return rows > 0
    return rows > 16 and all(side % 8 == 0 for side in weight.shape)


def has_int8_units() -> bool:
    """Whether this CPU multiplies int8 in units of its own. Asked of the processor, not measured, as the precision is."""
    return any(torch.cpu.get_capabilities().get(unit, False) for unit in UNITS)


@cache
def int8_works(device: torch.device) -> bool:
    """Whether torch's int8 product is there and right on `device`: no public operator, and one that saturates in silence
    on some processors. Tried once, on numbers up to the largest, whose sums are compared exactly."""
    x = (torch.arange(32 * 64) * 37 % (2 * LARGEST + 1) - LARGEST).view(32, 64)
    weight = (torch.arange(48 * 64) * 101 % (2 * LARGEST + 1) - LARGEST).view(48, 64)
    x[0], weight[0], weight[1] = LARGEST, LARGEST, -LARGEST
    try:
        sums = torch._int_mm(x.to(device, torch.int8), weight.to(device, torch.int8).t())
    except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
        return False
    return sums.dtype == torch.int32 and torch.equal(sums.cpu().long(), x @ weight.t())
