"""doctor: says in plain words what this machine is, what is wrong, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.bootstrap import existing_folder
from core.config import Config
from core.errors import BadConfig, UserError
from core.port import port_trouble
from core.torch_build import TorchBuild, fitting_build, supports
from core.weights.files import Catalog
from core.weights.header import CONVERT, PICKLES
from core.weights.info import BASES, REFINERS

GB = 10**9
LITTLE_DISK = 2 * GB
UNREACHED = "Connect the disk that it is on, or send the pictures elsewhere with --output DIR."
LITTLE_MEMORY = 4 * GB  # of bytes free; full-size SDXL wants about 8


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: in a few words what it is, and, if it is wrong, what to do."""

    topic: str
    words: str
    advice: str = ""

    @property
    def wrong(self) -> bool:
        """Whether something is to be done."""
        return bool(self.advice)


def told(finding: Finding) -> str:
    """The text to print; a problem stands out and carries its advice."""
    line = f"{'!' if finding.wrong else ' '} {finding.topic + ':':<12} {finding.words}"
    return line + (f"\n{'':15}{finding.advice}" if finding.wrong else "")


def examine(config: Config) -> Iterator[Finding]:
    """Look at everything, one after the other; a look that itself fails is a finding too."""
    for look in LOOKS:
        try:
            yield from look(config)
        except Exception as error:  # a doctor that dies of what it finds helps nobody
            words = f"{look.__name__.strip('_')} cannot be looked at ({type(error).__name__}: {error})"
            yield Finding("Trouble", words, "Please report this with the words above.")


def _system(config: Config) -> Iterator[Finding]:
    words = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processor cores"
    yield Finding("System", words)


def _python(config: Config) -> Iterator[Finding]:
    words = f"{platform.python_version()} at {sys.executable}"
    advice = "Easel is made for 3.10 to 3.13; if something fails, use one of these."
    yield Finding("Python", words, advice if sys.version_info >= (3, 14) else "")


def _packages(config: Config) -> Iterator[Finding]:
    text = (config.root / "requirements.txt").read_text(encoding="utf-8")
    found, missing = [], []
    for name in re.findall(r"^([A-Za-z][\w-]*)", text, flags=re.MULTILINE):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = "Start `python launch.py` once; it installs them."
        yield Finding("Packages", f"not installed: {', '.join(missing)}", advice)
    if found:
        yield Finding("Packages", ", ".join(found))


def _torch(config: Config) -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        if importlib.util.find_spec("torch"):  # else it is told under packages
            words = f"is installed but does not load ({error})"
            yield Finding("Torch", words, "Delete the folder .venv and start again.")
        return
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else ""
    if torch.version.hip:
        built_for = f"ROCm {torch.version.hip}"
    words = f"{torch.__version__}, built for {built_for or ('MPS' if torch.backends.mps.is_built() else 'the CPU')}"
    fitting = fitting_build()
    if not built_for and fitting.name not in ("cpu", "default"):
        advice = f"This machine has {fitting.reason}; use it with: python launch.py --torch {fitting.name}"
        yield Finding("Torch", words, advice)
    elif built_for and not torch.cuda.is_available():
        advice = fitting.advice or ("" if fitting.name == "cpu" else "Install or update the driver of the GPU.")
        yield Finding("Torch", f"{words}, but it finds no GPU", advice)
    else:
        yield Finding("Torch", words)
    if fitting.advice and not built_for:
        yield Finding("GPU", fitting.reason, fitting.advice)
    for index in range(torch.cuda.device_count()):
        yield gpu(torch.cuda.get_device_properties(index), torch.cuda.get_arch_list(), fitting)


def gpu(card: Any, builds: list[str], fitting: TorchBuild) -> Finding:
    """What is to be said of the card with the properties `card` (as torch gives them) and a torch made for `builds`."""
    words = f"{card.name}, {card.total_memory / GB:.1f} GB, compute capability {card.major}.{card.minor}"
    if any(build.startswith("sm_") for build in builds) and not supports(builds, (card.major, card.minor)):
        advice = f"Use a torch that does: python launch.py --torch {fitting.name}"
        return Finding("GPU", f"{words}, which this torch does not support", advice)
    return Finding("GPU", words)


def _device(config: Config) -> Iterator[Finding]:
    try:
        from core.device import choose_device, describe
    except ImportError:  # told under packages
        return
    try:
        found = describe(choose_device(config))
    except BadConfig as error:
        yield Finding("Device", str(error), "Change the flag, the variable or config.json that asks for it.")
        return
    words = (
        f"{found.device} ({found.name}); network in {found.unet}, image decoder in {found.vae}, "
        f"text encoders {'as stored' if found.text == 'as stored' else f'in {found.text}'}"
    )
    yield Finding("Device", words, " ".join(found.warnings))


def _memory(config: Config) -> Iterator[Finding]:
    try:
        import psutil
    except ImportError:  # told under packages
        return
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    words = f"{memory.total / GB:.1f} GB, of which {memory.available / GB:.1f} GB free; swap {swap.total / GB:.1f} GB"
    advice = "Close other programs. A full-size SDXL checkpoint needs about 8 GB free; small ones need less."
    yield Finding("Memory", words, advice if memory.available < LITTLE_MEMORY else "")


def _disk(config: Config) -> Iterator[Finding]:
    try:
        folder = existing_folder(config.outputs)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("Disk", f"{config.outputs} cannot be reached ({error.strerror})", UNREACHED)
        return
    advice = "Free some space, or send the pictures elsewhere with --output DIR."
    yield Finding("Disk", f"{free / GB:.1f} GB free at {folder}", advice if free < LITTLE_DISK else "")


def _outputs(config: Config) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=existing_folder(config.outputs)):
            pass
    except OSError as error:
        words = f"{config.outputs} cannot be written ({error.strerror})"
        yield Finding("Outputs", words, "Make the folder writable, or choose another with --output DIR.")
        return
    yield Finding("Outputs", f"pictures go to {config.outputs}")


def _models(config: Config) -> Iterator[Finding]:
    catalog = Catalog(config.checkpoints)
    names = catalog.names()
    for name in names:
        yield _model(catalog, name)
    if not names:
        folders = " or ".join(map(str, config.checkpoints))
        yield Finding("Models", "no checkpoint was found", f"Put an SDXL checkpoint (.safetensors) into {folders}.")
    for file in sorted(catalog.paths().values()):
        if file.suffix.lower() in PICKLES:
            yield Finding("Model", f"{file.name} is a {file.suffix} file", CONVERT)


def _model(catalog: Catalog, name: str) -> Finding:
    try:
        info = catalog.info(name)
        if info.family in BASES or info.family in REFINERS:
            _check_tensors(info.path)
    except UserError as error:
        return Finding("Model", str(error), "Get the file anew, or move it out of the checkpoints folder.")
    width, height = info.native_size
    words = f"{name}: {info.family}, {info.size / GB:.2f} GB, made for {width} x {height}"
    return Finding("Model", info.problem or (f"{words}. {info.note}" if info.note else words))


def _check_tensors(path: Path) -> None:
    try:
        from core.weights.checkpoint import check_tensors
    except ImportError:  # told under packages
        return
    check_tensors(path)


def _port(config: Config) -> Iterator[Finding]:
    trouble = port_trouble(config.host, config.port)
    words = f"{config.port} at {config.host} {'cannot be opened' if trouble else 'is free'}"
    yield Finding("Port", words, trouble or "")


def _configuration(config: Config) -> Iterator[Finding]:
    for notice in config.notices:
        yield Finding("Config", notice, "What it names is left out until that is mended.")


LOOKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _system,
    _python,
    _packages,
    _torch,
    _device,
    _memory,
    _disk,
    _configuration,
    _outputs,
    _models,
    _port,
)
