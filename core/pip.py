"""pip: runs it, and turns what it complains about into one sentence that says what to do."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NO_VENV = "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv; then start again."
ELSEWHERE = "Make it writable, or name another folder with the environment variable EASEL_VENV."

FOREIGN_PACKAGES = ("PYTHONPATH", "PYTHONHOME")  # what pip finds by these it would take for installed

Pip = Callable[[Sequence[str]], "PipResult"]


@dataclass(frozen=True)
class PipResult:
    """Exit code of a pip call and the last lines of its complaints."""

    code: int
    complaints: str = ""


class PipRunner:
    """Runs pip of an interpreter: its output goes to the terminal (stderr), its complaints are kept as well."""

    def __init__(self, python: Path) -> None:
        self.python = python

    def __call__(self, arguments: Sequence[str]) -> PipResult:
        """`arguments` follow `pip install`. A KeyboardInterrupt ends pip first."""
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
        last: deque[str] = deque(maxlen=60)
        environ = {name: value for name, value in os.environ.items() if name not in FOREIGN_PACKAGES}
        environ["PIP_USER"] = "0"  # `--user` is refused in an environment
        with subprocess.Popen(
            command, stdout=2, stderr=subprocess.PIPE, text=True, errors="replace", env=environ
        ) as pip:
            assert pip.stderr is not None
            try:
                for line in pip.stderr:
                    sys.stderr.write(line)
                    last.append(line)
                return PipResult(pip.wait(), "".join(last))
            except KeyboardInterrupt:
                pip.terminate()
                raise


def explain(complaints: str, disk: Path) -> str:
    """The one sentence for what pip complained about."""
    for words, sentence in PIP_TROUBLES:
        if any(word in complaints for word in words):
            missing = re.findall(r"No matching distribution found for (\S+)", complaints)
            return sentence.format(
                package=missing[-1] if missing else "a package", python=platform.python_version(), folder=disk
            )
    return "pip failed; its own words are above. Start again, and if it fails the same way, please report it with these words."


PIP_TROUBLES = (  # what pip may say, in the order of how sure it is -> what to tell
    (("No space left on device", "[Errno 28]", "not enough space"),
     "The disk is full. Free some space (3 GB for a CPU, 8 GB for a GPU, and as much in the system's temporary folder "
     "for a moment; {folder} is the installation), then start again: it goes on where it stopped."),
    (("CERTIFICATE_VERIFY_FAILED", "certificate verify failed"),
     "The package index shows a certificate that cannot be verified. Behind a company's proxy, set PIP_CERT to the file of "
     "its certificate; then start again."),
    (("Permission denied", "[Errno 13]", "[WinError 5]", "Read-only file system"),
     "{folder} cannot be written. Make it writable, or name another folder with the environment variable EASEL_VENV."),
    (("Failed to establish a new connection", "NewConnectionError", "NameResolutionError", "Temporary failure in name resolution",
      "getaddrinfo failed", "Network is unreachable", "ConnectTimeoutError", "ProxyError", "Cannot connect to proxy"),
     "pip cannot get {package}: no package index can be reached. Check the network (or the proxy: HTTPS_PROXY), then start "
     "again: it goes on where it stopped."),
    (("ReadTimeoutError", "Read timed out", "ConnectionResetError", "Connection broken", "IncompleteRead", "Connection aborted",
      "IncompleteDownload"),
     "The download broke off. Start again: it goes on where it stopped."),
    (("No matching distribution found",),
     "There is no build of {package} for Python {python} on this machine. Easel runs on Python 3.10 to 3.13; choose "
     "another torch build with --torch, or start with another Python."),
)  # fmt: skip


def explain_venv(words: str, folder: Path) -> str:
    """The one sentence for what `python -m venv` complained about."""
    if "ensurepip" in words:
        return NO_VENV
    if "No space left" in words:
        return explain(words, folder)
    if "Permission denied" in words:
        return f"{folder} cannot be written. {ELSEWHERE}"
    last = words.strip().splitlines()[-1] if words.strip() else "no reason given"
    return f"The environment in {folder} cannot be made: {last}. {ELSEWHERE}"
