"""torch_build: which build of torch fits this machine. Standard library only; every probe has a time limit."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadConfig

INDEX = "https://download.pytorch.org/whl/"  # one folder a build
ROCM = "rocm7.2"
PROBE_SECONDS = 10.0

CUDA_BUILDS = (  # newest first: the build, the CUDA version its driver must offer, the oldest compute capability in it
    ("cu130", (13, 0), (7, 5)),
    ("cu128", (12, 8), (7, 0)),
    ("cu126", (12, 6), (5, 0)),
)

CHOICES = f"cpu, cu126, cu128, cu130, {ROCM} or default (what pip takes by itself)"

Probe = Callable[[Sequence[str]], "str | None"]  # a command -> what it printed, or None if it failed or is not there


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch: its name, the index that has it (None: pip's own), and why it was taken.

    `advice` is there when a GPU was found that this build cannot use: what to do so that one can.
    """

    name: str
    index: str | None
    reason: str
    advice: str = ""


def chosen_build(flag: str | None, environ: Mapping[str, str]) -> TorchBuild | None:
    """The build that the user asked for by `--torch`, TORCH_BACKEND or TORCH_INDEX_URL; None if by none of them."""
    name = flag or environ.get("TORCH_BACKEND")
    index = environ.get("TORCH_INDEX_URL")
    if name and not re.fullmatch(r"cpu|cu\d{2,3}|rocm\d+(\.\d+)*|xpu|default", name):
        raise BadConfig(f"There is no torch build {name!r}. Choose {CHOICES}.")
    if not name and not index:
        return None
    name = name or (index or "").rstrip("/").rpartition("/")[2] or "custom"
    if name == "xpu":
        raise BadConfig(
            "The torch build xpu is for Intel GPUs, and Easel cannot compute on those yet: pictures would be made on the CPU. "
            f"Choose {CHOICES}."
        )
    return TorchBuild(name, index or _index(name), "as you asked for")


def fitting_build(probe: Probe | None = None, system: str | None = None, kfd: Path = Path("/dev/kfd")) -> TorchBuild:
    """The build for the hardware that is found. `probe` and `system` (as platform.system()) are for tests."""
    probe = probe or run_probe
    system = system or platform.system()
    if system == "Darwin":
        return TorchBuild("default", None, "macOS")
    smi = probe([_nvidia_smi()])
    if smi is not None:
        return _cuda_build(smi, probe([_nvidia_smi(), "--query-gpu=compute_cap", "--format=csv,noheader"]) or "")
    if system == "Linux" and (kfd.exists() or probe(["rocminfo"]) is not None):
        return TorchBuild(ROCM, _index(ROCM), "an AMD GPU with ROCm")
    return TorchBuild("cpu", _index("cpu"), "no GPU that torch can use was found")


def supports(builds: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether a torch made for `builds` (torch.cuda.get_arch_list()) runs on a card of that compute capability.

    sm_86 runs on 8.6 and later cards of the same generation; compute_90 is compiled on the spot for any later card.
    """
    for kind, major, minor in re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(builds)):
        oldest = int(major), int(minor)
        if oldest <= capability and (kind == "compute" or oldest[0] == capability[0]):
            return True
    return False


def run_probe(command: Sequence[str]) -> str | None:
    """What `command` prints, or None when it is not there, fails, or takes longer than PROBE_SECONDS."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _cuda_build(smi: str, capabilities: str) -> TorchBuild:
    """From what nvidia-smi prints, as a table and as one compute capability a line."""
    version = re.search(r"CUDA\D*Version:\s*(\d+)\.(\d+)", smi)
    driver = (int(version[1]), int(version[2])) if version else (0, 0)
    found = [(int(major), int(minor)) for major, minor in re.findall(r"(\d+)\.(\d+)", capabilities)]
    oldest_card = min(found, default=(99, 0))
    for name, wanted_driver, oldest in CUDA_BUILDS:
        if driver >= wanted_driver and oldest_card >= oldest:
            return TorchBuild(name, _index(name), f"an NVIDIA GPU whose driver offers CUDA {driver[0]}.{driver[1]}")
    reason, advice = (
        f"the NVIDIA driver offers CUDA {driver[0]}.{driver[1]}, and torch needs 12.6 or newer",
        "Update the NVIDIA driver, then start with: python launch.py --torch cu126",
    )
    if driver >= CUDA_BUILDS[-1][1]:
        capability = ".".join(map(str, oldest_card))
        reason = f"an NVIDIA GPU of compute capability {capability}, which is too old for torch"
        advice = "None but a newer GPU; pictures are made on the CPU."
    return TorchBuild("cpu", _index("cpu"), reason, advice)


def _nvidia_smi() -> str:
    """nvidia-smi on the path, or where WSL keeps it."""
    in_wsl = Path("/usr/lib/wsl/lib/nvidia-smi")
    return shutil.which("nvidia-smi") or (str(in_wsl) if in_wsl.exists() else "nvidia-smi")


def installed_build(build: TorchBuild, label: str | None) -> TorchBuild:
    """`build`, or what pip took in its place: `label` is the installed torch's local version, None if that is not known.

    Only of torch's own indexes is it known how their builds are labelled.
    """
    if not (build.index or "").startswith(INDEX) or label in (None, build.name):
        return build
    return TorchBuild(label or "default", _index(label or "default"), f"{build.index} has none, or cannot be reached")


def _index(name: str) -> str | None:
    return None if name == "default" else INDEX + name
