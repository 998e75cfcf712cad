"""Who is on the device now, and whether what comes next fits."""

from __future__ import annotations

import logging

import psutil
import torch
from torch import nn

log = logging.getLogger(__name__)

MIB = 2**20
HEADROOM = 1024 * MIB  # left free for what the estimates do not know


def free_bytes(device: torch.device) -> int:
    """Memory that a computation on `device` can still take, in bytes."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def size_of(module: nn.Module) -> int:
    """Bytes of the module's weights."""
    return sum(p.numel() * p.element_size() for p in [*module.parameters(), *module.buffers()])


def sampling_bytes(rows: int, height: int, width: int, element: int) -> int:
    """What a network call on `rows` latents of height x width cells takes beside the weights, in bytes.

    The rule of thumb of the reference for fused attention: 1 MiB for 50 bytes of latent cells.
    """
    return rows * height * width * element * MIB // 50


def decoding_bytes(height: int, width: int, element: int) -> int:
    """What decoding a latent of height x width cells takes beside the weights, in bytes (the reference's estimate)."""
    return 2178 * height * width * 64 * element


class Memory:
    """Owner of what is on the device. Networks rest on the CPU when there is no room for all of them.

    On a CPU there is nothing to move, and all of this costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._resident: list[nn.Module] = []  # least recently used first

    def bring(self, module: nn.Module, working: int = 0) -> None:
        """Make sure that `module` is on the device with `working` bytes to spare, moving others off where needed."""
        if self.device.type == "cpu":
            return
        if module in self._resident:
            self._resident.remove(module)
            missing = 0
        else:
            missing = size_of(module)
        while self._resident and free_bytes(self.device) < missing + working + HEADROOM:
            self._resident.pop(0).to("cpu")
            self.empty_cache()
        module.to(self.device)
        self._resident.append(module)

    def drop(self, module: nn.Module) -> None:
        """`module` is about to be gone: do not count on it."""
        if module in self._resident:
            self._resident.remove(module)

    def forget(self) -> None:
        """All networks are gone: give their memory back."""
        self._resident.clear()
        self.empty_cache()

    def empty_cache(self) -> None:
        """Hand unused blocks of the allocator back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
