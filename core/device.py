"""What this machine computes on, and in which number types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import psutil
import torch

from core.errors import BadConfig
from core.models.int8 import has_int8_units, int8_works
from core.torch_build import supports

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
STORAGE = {"fp8": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2, "int8": torch.int8}  # for weights alone
SDXL_BYTES = 4 * 2_567_463_684  # the network in float32
GIB = 2**30

# NVIDIA cards whose float16 is emulated or broken, by what stands in their names.
PASCAL = ("1080", "1070", "titan x", "p3000", "p3200", "p4000", "p4200", "p5000", "p5200", "p6000", "1060", "1050")
BROKEN_FP16 = (
    "1660", "1650", "1630", "t500", "t550", "t600", "mx550", "mx450", "cmp 30hx", "t2000", "t1000", "t1200",
)  # fmt: skip


class Choice(Protocol):
    """What the user may decide; `core.config.Config` has these fields."""

    @property
    def device(self) -> str: ...
    @property
    def gpu_device_id(self) -> int | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def unet_precision(self) -> str: ...
    @property
    def int8_linears(self) -> bool: ...
    @property
    def vae_precision(self) -> str: ...
    @property
    def clip_precision(self) -> str: ...
    @property
    def vae_in_cpu(self) -> bool: ...
    @property
    def memory_budget(self) -> float | None: ...
    @property
    def offload(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """A `Choice` by itself. Precisions are "auto", a key of DTYPES, or (not of the VAE) one of STORAGE."""

    device: str = "auto"  # "auto", "cpu", "mps", "cuda" or "cuda:N"
    gpu_device_id: int | None = None  # the N
    threads: int | None = None  # of the CPU; None: as torch chooses
    unet_precision: str = "auto"
    int8_linears: bool = False
    vae_precision: str = "auto"
    clip_precision: str = "auto"
    vae_in_cpu: bool = False
    memory_budget: float | None = None  # GiB of the device's memory; None: what is free
    offload: bool = False  # whether the device's memory is given back after each request


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where the networks compute, and in what."""

    torch_device: torch.device
    unet_dtype: torch.dtype
    vae_dtype: torch.dtype
    unet_storage: torch.dtype | None = None  # of the network's large weights, where that is not what it computes in
    int8_linears: bool = False  # whether the network's linear layers multiply in int8; then that is the storage, too
    text_dtype: torch.dtype | None = None  # None: as stored; text encoders compute in float32 anyway
    vae_device: torch.device
    memory_budget: int | None = None  # bytes that networks and their work may take on the device; None: what is free
    offload: bool = False
    warnings: tuple[str, ...] = ()  # for the user, as sentences


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """A device in words and figures, for people."""

    name: str  # the processor or the GPU
    torch_build: str
    device: str
    unet: str
    vae: str
    text: str
    total_memory: int  # bytes
    free_memory: int
    warnings: tuple[str, ...]


def choose_device(choice: Choice | None = None) -> Device:
    """The device for `choice`: what was asked for, else CUDA (or ROCm), MPS, CPU in this order.

    Sets torch's number of threads if one is asked for.
    Raises BadConfig if a device was asked for that is not there, or int8 products or floats of 8 bits of one that has none.
    """
    choice = choice or DeviceChoice()
    if choice.threads:
        torch.set_num_threads(choice.threads)
    device, warnings = _pick(choice)
    _check_floats_of_8_bits(choice, device)
    if device.type == "cuda":
        unet, vae = _cuda_types(device)
    elif device.type == "cpu" and choice.unet_precision not in DTYPES:
        unet, vae = (torch.bfloat16 if bf16_pays() else torch.float32), torch.float32
    else:
        unet = vae = torch.float32
    vae_device = torch.device("cpu") if choice.vae_in_cpu else device
    if vae_device.type == "cpu":
        vae = torch.float32
    return Device(
        torch_device=device,
        unet_dtype=DTYPES.get(choice.unet_precision, unet),
        vae_dtype=DTYPES.get(choice.vae_precision, vae),
        unet_storage=torch.int8 if choice.int8_linears else STORAGE.get(choice.unet_precision),
        int8_linears=choice.int8_linears and _multiplies_in_int8(choice, device, warnings),
        text_dtype=(DTYPES | STORAGE).get(choice.clip_precision),
        vae_device=vae_device,
        memory_budget=None if choice.memory_budget is None else int(choice.memory_budget * GIB),
        offload=choice.offload,
        warnings=(*warnings, *_precision_warnings(choice, device)),
    )


def describe(device: Device) -> DeviceReport:
    """`device` for people."""
    place = device.torch_device
    if place.type == "cuda":
        free, total = torch.cuda.mem_get_info(place)
        name = torch.cuda.get_device_name(place)
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
        name = f"CPU with {torch.get_num_threads()} threads" if place.type == "cpu" else "Apple GPU"
    toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU"
    return DeviceReport(
        name=name,
        torch_build=f"torch {torch.__version__} ({toolkit})",
        device=str(place),
        unet=_words(device.unet_dtype)
        + (f", weights stored in {_words(device.unet_storage)}" if device.unet_storage else "")
        + (", linear layers multiplied in int8" if device.int8_linears else ""),
        vae=f"{_words(device.vae_dtype)} on {device.vae_device}",
        text="as stored" if device.text_dtype is None else _words(device.text_dtype),
        total_memory=total,
        free_memory=free,
        warnings=device.warnings,
    )


def bf16_pays() -> bool:
    """Whether this CPU has bf16 units (avx512_bf16, amx_bf16, Arm's bf16); elsewhere bf16 is emulated, and slower.

    Asked of the processor, not measured: a busy moment must not change the precision, and with it the picture of a seed.
    """
    return any(has for unit, has in torch.cpu.get_capabilities().items() if unit.endswith("bf16"))


def _multiplies_in_int8(choice: Choice, device: torch.device, warnings: list[str]) -> bool:
    """Whether to multiply in int8 on `device`, as `choice` asks; if that would be slower, a warning more, and no."""
    if choice.unet_precision in STORAGE and choice.unet_precision != "int8":
        raise BadConfig(
            f"int8_linears is on, and unet_precision is {choice.unet_precision!r}; it must be auto, int8, fp32, fp16 or "
            "bf16 then. Change one of them."
        )
    if device.type == "cpu" and not has_int8_units():
        warnings.append(
            "This processor has no units for int8 products (AVX-512 VNNI, AVX-VNNI or AMX), so int8_linears would make "
            "pictures slower: the weights are kept in int8, and linear layers compute as usual. Leave the flag away, or "
            "take --unet-in-int8."
        )
        return False
    if not int8_works(device):
        raise BadConfig(
            f"int8_linears is on, and the int8 product of torch {torch.__version__} is missing or wrong on {device}; a "
            "CPU with VNNI or AMX or an NVIDIA GPU was wanted. Take --unet-in-int8 in its place: as small, but not "
            "faster."
        )
    return True


def _check_floats_of_8_bits(choice: Choice, device: torch.device) -> None:
    """Raises BadConfig if weights are to be kept in floats of 8 bits on an Apple GPU, for which torch has none."""
    for part in ("unet", "clip"):
        precision = getattr(choice, f"{part}_precision")
        if device.type == "mps" and STORAGE.get(precision, torch.int8).is_floating_point:
            raise BadConfig(
                f"{part}_precision is {precision!r}, and an Apple GPU has no floats of 8 bits. Choose auto, fp32, fp16 or bf16, "
                "or int8 for the network."
            )


def _pick(choice: Choice) -> tuple[torch.device, list[str]]:
    wanted, _, number = choice.device.partition(":")
    if wanted not in ("auto", "cpu", "cuda", "mps") or (number and not re.fullmatch(r"\d+", number)):
        raise BadConfig(f"The device is {choice.device!r}; it must be auto, cpu, cuda, cuda:N or mps.")
    index = int(number) if number else choice.gpu_device_id or 0
    warnings: list[str] = []
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        if index >= torch.cuda.device_count():
            raise BadConfig(
                f"There is no GPU number {index}; this machine has {torch.cuda.device_count()}, counted from 0."
            )
        trouble = _gpu_trouble(index)
        if not trouble:
            return torch.device("cuda", index), warnings
        if wanted == "cuda":
            raise BadConfig(f"{trouble} Choose device cpu, or another build of torch.")
        warnings.append(f"{trouble} Pictures are made on the CPU.")
    elif wanted == "cuda":
        raise BadConfig(
            "Device cuda was asked for, and torch finds no GPU. Choose device cpu, or see `python launch.py doctor`."
        )
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps"), warnings
    if wanted == "mps":
        raise BadConfig(
            "Device mps was asked for, and this machine has no Apple GPU that torch can use. Choose device cpu."
        )
    if wanted == "auto" and torch.xpu.is_available():
        warnings.append("Easel cannot compute on Intel GPUs yet. Pictures are made on the CPU.")
    return torch.device("cpu"), warnings


def _gpu_trouble(index: int) -> str:
    """Why torch cannot compute on GPU `index`, as a sentence; "" if it can."""
    name, builds = torch.cuda.get_device_name(index), torch.cuda.get_arch_list()
    if torch.version.hip:
        arch = torch.cuda.get_device_properties(index).gcnArchName.split(":")[0]
        fits = not builds or arch in builds
    else:
        capability = torch.cuda.get_device_capability(index)
        arch = f"compute capability {capability[0]}.{capability[1]}"
        fits = not builds or supports(builds, capability)
    return "" if fits else f"{name} ({arch}) is not supported by this build of torch ({' '.join(builds)})."


def _cuda_types(device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """Types of the network and of the VAE."""
    if torch.version.hip:
        return torch.float16, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    free, _ = torch.cuda.mem_get_info(device)
    network = fp16_allowed(torch.cuda.get_device_name(device), major, free)
    return (torch.float16 if network else torch.float32), (torch.bfloat16 if major >= 8 else torch.float32)


def fp16_allowed(name: str, major: int, free: int) -> bool:
    """Whether SDXL's network should run in float16 on the NVIDIA card `name` of compute capability `major`.x.

    `free`: bytes of its memory. Cards of the 10 series compute float16 slowly, and take it only where float32 has no room.
    """
    if major >= 8:
        return True
    if major < 6:
        return False
    if any(card in name.lower() for card in PASCAL):
        return 0.9 * free - GIB < SDXL_BYTES
    return major >= 7 and not any(card in name.lower() for card in BROKEN_FP16)


def _precision_warnings(choice: Choice, device: torch.device) -> list[str]:
    warnings = []
    if device.type == "cpu" and "fp16" in (choice.unet_precision, choice.vae_precision):
        warnings.append("fp16 on a CPU is about ten times slower than fp32; choose bf16, fp32 or auto.")
    if choice.vae_precision == "fp16":
        warnings.append("The VAE of SDXL overflows in fp16 and may give black pictures; choose bf16, fp32 or auto.")
    return warnings


def _words(dtype: torch.dtype) -> str:
    names: Mapping[torch.dtype, str] = {value: key for key, value in (DTYPES | STORAGE).items()}
    return names.get(dtype, str(dtype))
