"""Patches on the weights of a network, put on and taken off weight by weight.

A patched weight is always made from the plain one and all its patches, never from an already patched one, so that nothing
adds up and taking all patches off gives the plain weights back bit for bit. Plain weights are read again from the file;
only those that no file holds in this form are kept. What lies on a weight is noted at the weight itself, so that networks
that share weights (a model and the refiner made of it) agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from core.weights.patches import Patch
from core.weights.plain import PlainWeights, plain_weights
from core.weights.quantized import empty_like, scale_of, set_scale, write

Patches = tuple[tuple[Patch, float], ...]  # of one weight, in the order in which they apply, with their strengths
Check = Callable[[], None]

PIECE = 2**20  # numbers of a weight at a time on a CPU; 4 MiB of float32 stay in the cache
_PATCHES, _KEPT = "easel_patches", "easel_plain"


def patches_on(weight: Tensor) -> Patches | None:
    """What lies on `weight`, or on the weight whose scales these are; None if that is half done."""
    return weight.__dict__.get(_PATCHES, ())


def _note(weight: Tensor, patches: Patches | None) -> None:
    """Note at `weight` and at its scales that `patches` lie on it; () takes the note away."""
    for tensor in (weight, scale_of(weight)):
        if tensor is not None and patches == ():
            tensor.__dict__.pop(_PATCHES, None)
        elif tensor is not None:
            tensor.__dict__[_PATCHES] = patches


@torch.no_grad()
def put_patches(
    module: nn.Module,
    wanted: Mapping[str, Patches],
    *,
    device: torch.device,
    twin: nn.Module | None = None,
    check: Check | None = None,
) -> int:
    """Bring the weights of `module` to the patches `wanted` by name, computed on `device`; returns how many changed.

    Weights may be on any device and in any floating type; they stay there. `twin` is another network that shares
    weights: what they want alike stays shared, of the rest `module` gets weights of its own. `check` may raise between
    weights; the next call goes on from there.
    """
    plain = plain_weights(module)
    shared = dict(twin.named_parameters()) if twin is not None else {}
    changed = 0
    buffer = torch.empty(PIECE) if device.type == "cpu" else None
    for name, weight in list(module.named_parameters()):
        patches = wanted.get(name, ())
        theirs = shared.get(name)
        if patches_on(weight) == patches:
            continue
        if check:
            check()
        if theirs is not None and theirs is not weight and patches_on(theirs) == patches:
            _replace(module, name, theirs)
        else:
            _change(module, name, weight, patches, plain, device, buffer, own=theirs is weight)
        changed += 1
    return changed


def _change(
    module: nn.Module,
    name: str,
    weight: nn.Parameter,
    patches: Patches,
    plain: PlainWeights | None,
    device: torch.device,
    buffer: Tensor | None,
    *,
    own: bool,
) -> None:
    state = weight.__dict__
    if _PATCHES not in state and scale_of(weight) is None and not (plain and plain.agrees(name, weight)):
        state[_KEPT] = weight.detach().to("cpu", copy=True)
    kept: Tensor | None = state.get(_KEPT)
    stored = kept if kept is not None else plain.stored(name, weight) if plain else None
    assert stored is not None
    in_file = kept is None and weight.device.type == "cpu" and stored.dtype == weight.dtype
    if not patches and in_file and not own:
        weight.data = stored  # the very view that it was
        del state[_PATCHES]
        return
    if own:  # another network uses `weight`
        weight = _replace(module, name, empty_like(weight))
        weight.__dict__.update({_KEPT: kept} if kept is not None else {})
        if _PATCHES not in state:
            state.pop(_KEPT, None)
        state = weight.__dict__
    elif in_file and weight.data_ptr() == stored.data_ptr():
        weight.data = torch.empty_like(weight)  # the view must stay as it is
    _note(weight, None)
    scale = scale_of(weight)
    for start, target, part in _computed(weight, stored, patches, device, buffer):
        write(target, None if scale is None else scale[start : start + len(part)], part)
    if kept is None and plain and not in_file:
        plain.let_go(name)
    _note(weight, patches)
    if not patches:
        state.pop(_KEPT, None)


def _computed(
    weight: Tensor, stored: Tensor, patches: Patches, device: torch.device, buffer: Tensor | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Parts of `weight`, each with its first row, and what goes into it: `stored` with `patches`."""
    if not patches and stored.dtype.itemsize > 4:
        yield 0, weight, stored  # float32 on the way would round twice
        return
    factors = [patch.factors(device) for patch, _ in patches]
    if buffer is None or None in factors or not weight.is_contiguous() or not stored.is_contiguous():
        changed = stored.to(device).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for patch, strength in patches:
            changed = patch.apply(changed, strength)
        yield 0, weight, changed
        return
    rows, plain_rows = weight.flatten(1) if weight.dim() > 1 else weight[:, None], stored.reshape(len(stored), -1)
    step = max(1, len(buffer) // plain_rows.shape[1])
    if plain_rows.shape[1] > len(buffer):
        buffer = torch.empty(plain_rows.shape[1])
    for start in range(0, len(rows), step):
        source = plain_rows[start : start + step]
        part = buffer[: source.numel()].view(source.shape).copy_(source)
        for (_, strength), pair in zip(patches, factors, strict=True):
            assert pair is not None
            up, down, scale = pair
            part.addmm_(up[start : start + step], down, alpha=strength * scale)
        yield start, rows[start : start + step], part


def _replace(module: nn.Module, name: str, weight: nn.Parameter) -> nn.Parameter:
    """Make `weight` the parameter `name` of `module`."""
    path, _, leaf = name.rpartition(".")
    layer = module.get_submodule(path)
    layer._parameters[leaf] = weight
    if scale_of(weight) is not None:
        set_scale(layer, scale_of(weight))
    return weight
