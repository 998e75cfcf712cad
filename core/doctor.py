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

from core.config import Config
from core.port import port_trouble
from core.torch_build import TorchBuild, fitting_build, supports

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
        tuple[Callable[[Config], Iterator[Finding]], ...] = (
            _system,
            _python,
            _packages,
            _torch,
            _memory,
            _disk,
            _outputs,
            _port,
        )
