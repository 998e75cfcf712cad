"""doctor: says in plain words what this machine is, what is wrong, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.config import Config
from core.port import port_trouble
from core.torch_build import TorchBuild, fitting_build

GB = 10**9
LITTLE_DISK = 2 * GB
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
            topic = look.__name__.strip("_")
            yield Finding(topic, f"cannot be looked at ({type(error).__name__}: {error})", "Please report this with the words above.")


def _system(config: Config) -> Iterator[Finding]:
    yield Finding("System", f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processor cores")


def _python(config: Config) -> Iterator[Finding]:
    version = platform.python_version()
    words = f"{version} at {sys.executable}"
    if sys.version_info >= (3, 14):
        yield Finding("Python", words, "Easel is tested with 3.10 to 3.13; if something fails, use one of these.")
    else:
        yield Finding("Python", words)


def _packages(config: Config) -> Iterator[Finding]:
    names = re.findall(r"^([A-Za-z][\w-]*)", (config.root / "requirements.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("Packages", f"not installed: {', '.join(missing)}", "Start `python launch.py` once; it installs them.")
    if found:
        yield Finding("Packages", ", ".join(found))


def _memory(config: Config) -> Iterator[Finding]:
    try:
        import psutil
    except ImportError:  # told under packages
        return

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    words = f"{memory.total / GB:.1f} GB, of which {memory.available / GB:.1f} GB free; swap {swap.total / GB:.1f} GB"
    if memory.available < LITTLE_MEMORY:
        yield Finding("Memory", words, "Close other programs. A full-size SDXL checkpoint needs about 8 GB free; small ones need less.")
    else:
        yield Finding("Memory", words)


def _disk(config: Config) -> Iterator[Finding]:
    folder = _existing(config.outputs)
    free = shutil.disk_usage(folder).free
    words = f"{free / GB:.1f} GB free at {folder}"
    if free < LITTLE_DISK:
        yield Finding("Disk", words, "Free some space, or send the pictures elsewhere with --output DIR.")
    else:
        yield Finding("Disk", words)


def _outputs(config: Config) -> Iterator[Finding]:
    folder = _existing(config.outputs)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "Make the folder writable, or choose another with --output DIR."
        yield Finding("Outputs", f"{config.outputs} cannot be written ({error.strerror})", advice)
        return
    yield Finding("Outputs", f"pictures go to {config.outputs}")


def _port(config: Config) -> Iterator[Finding]:
    trouble = port_trouble(config.host, config.port)
    if trouble:
        yield Finding("Port", f"{config.port} at {config.host} cannot be opened", trouble)
    else:
        yield Finding("Port", f"{config.port} at {config.host} is free")


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


LOOKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (_system, _python, _packages, _memory, _disk, _outputs, _port)
