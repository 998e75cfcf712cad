"""Making the environment: what is installed when, in which order, and what is said when it cannot be."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core import bootstrap
from core.bootstrap import Environment, Needs, SetupError, ensure
from core.errors import BadConfig
from core.pip import PipResult, PipRunner, explain_venv
from core.torch_build import TorchBuild, chosen_build, fitting_build, supports

CPU = TorchBuild("cpu", "https://example.org/whl/cpu", "test")
CUDA = TorchBuild("cu126", "https://example.org/whl/cu126", "test")


@dataclass(frozen=True)
class MadeEnvironment(Environment):
    """One whose interpreter works, without making it."""

    version: str = "3.11"

    def python_version(self) -> str | None:
        return self.version


class FakePip:
    """Remembers what it was asked; fails at the call number `fails_at`, counted from 1."""

    def __init__(self, fails_at: int = 0, complaints: str = "") -> None:
        self.calls: list[list[str]] = []
        self.fails_at = fails_at
        self.complaints = complaints

    def __call__(self, arguments: Sequence[str]) -> PipResult:
        self.calls.append(list(arguments))
        if len(self.calls) == self.fails_at:
            return PipResult(1, self.complaints)
        return PipResult(0)


@pytest.fixture
def environment(tmp_path: Path) -> MadeEnvironment:
    (tmp_path / "venv").mkdir()
    return MadeEnvironment(tmp_path / "venv")


@pytest.fixture
def needs(tmp_path: Path) -> Needs:
    return Needs(app="torch==2.13.0\nnumpy>=2\n", folder=tmp_path)


def silent(words: str) -> None:
    pass


def install(
    environment: Environment, needs: Needs, build: TorchBuild | None = CPU, pip: FakePip | None = None
) -> FakePip:
    pip = pip or FakePip()
    ensure(environment, needs, build, silent, pip)
    return pip


def test_torch_is_installed_first_from_its_own_index_and_the_rest_is_held_to_it(
    environment: MadeEnvironment, needs: Needs, tmp_path: Path
) -> None:
    torch, rest = install(environment, needs).calls
    assert "torch==2.13.0" in torch
    assert torch[torch.index("--extra-index-url") + 1] == CPU.index
    assert rest[:2] == ["-r", str(tmp_path / "requirements.txt")]
    assert Path(rest[rest.index("-c") + 1]).read_text() == "torch==2.13.0\n"


def test_an_index_that_cannot_be_reached_is_asked_for_one_project_only(
    environment: MadeEnvironment, needs: Needs
) -> None:
    torch, rest = install(environment, needs).calls
    assert "--no-deps" in torch
    assert torch[torch.index("--retries") + 1] == "1"
    assert CPU.index not in rest


def test_a_second_start_calls_no_pip(environment: MadeEnvironment, needs: Needs) -> None:
    install(environment, needs)
    assert install(environment, needs).calls == []
    assert install(environment, needs, build=None).calls == []


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_an_interrupted_install_goes_on_at_the_next_start(
    environment: MadeEnvironment, needs: Needs, stopped_at: int
) -> None:
    with pytest.raises(SetupError):
        install(environment, needs, pip=FakePip(fails_at=stopped_at))
    assert install(environment, needs).calls != []
    assert install(environment, needs).calls == []


def test_a_changed_requirement_is_installed(environment: MadeEnvironment, needs: Needs) -> None:
    install(environment, needs)
    assert install(environment, replace(needs, app=needs.app + "pillow\n")).calls != []


def test_another_build_replaces_the_installed_one_and_then_stays(environment: MadeEnvironment, needs: Needs) -> None:
    install(environment, needs)
    (environment.folder / "lib/python3.11/site-packages/torch-2.13.0+cpu.dist-info").mkdir(parents=True)
    assert "--force-reinstall" in install(environment, needs, CUDA).calls[0]
    assert install(environment, needs, build=None).calls == []


@pytest.mark.parametrize("label", ["+cpu", ""])
def test_another_build_than_was_wanted_is_told_and_refused_if_it_was_asked_for(
    environment: MadeEnvironment, needs: Needs, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    """Where torch's own index cannot be reached, or has no such build, pip takes what another one has."""
    wanted = TorchBuild("cu126", "https://download.pytorch.org/whl/cu126", "test")
    monkeypatch.setattr("core.bootstrap.fitting_build", lambda: wanted)
    (environment.folder / f"lib/python3.11/site-packages/torch-2.13.0{label}.dist-info").mkdir(parents=True)
    with pytest.raises(
        SetupError, match=r"torch==2\.13\.0 of the build cu126 was not to be had.*choose another build: cpu"
    ):
        ensure(environment, needs, wanted, silent, FakePip())
    assert environment.installed() == {}
    told: list[str] = []
    ensure(environment, needs, None, told.append, FakePip())
    taken = label[1:] or "default"
    assert any(f"The build {taken} was taken in its place." in words for words in told)
    assert environment.installed()["build"] == taken
    assert install(environment, needs, build=None).calls == []


def test_a_new_interpreter_in_the_environment_means_a_new_install(environment: MadeEnvironment, needs: Needs) -> None:
    install(environment, needs)
    assert install(replace(environment, version="3.12"), needs).calls != []


def test_what_the_tests_need_is_installed_once_and_only_for_them(environment: MadeEnvironment, needs: Needs) -> None:
    for_tests = replace(needs, tests="pytest\n", peers="torchsde\n")
    install(environment, needs)
    calls = install(environment, for_tests).calls
    assert calls[-1][0] == "--no-deps"
    assert install(environment, for_tests).calls == []
    assert install(environment, needs).calls == []


def test_a_damaged_stamp_counts_as_none(environment: MadeEnvironment, needs: Needs) -> None:
    install(environment, needs)
    environment.stamp.write_text('{"build": 7')
    assert install(environment, needs).calls != []


def test_too_little_disk_is_told_before_anything_is_downloaded(
    environment: MadeEnvironment, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**9})())
    pip = FakePip()
    with pytest.raises(SetupError, match=r"about 3\.0 GB .* has 1\.0 GB free.*EASEL_VENV"):
        install(environment, needs, pip=pip)
    with pytest.raises(SetupError, match=r"about 8\.0 GB"):
        install(environment, needs, CUDA, pip)
    assert pip.calls == []


@pytest.mark.parametrize(
    ("complaints", "told"),
    [
        (
            "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found for gradio",
            "gradio.*Check the network",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", r"no build of torch==2\.13\.0 for Python 3\.\d+"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ReadTimeoutError: Read timed out.", "broke off.*goes on where it stopped"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "PIP_CERT"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: 'x'", "EASEL_VENV"),
        ("something new", "its own words are above"),
    ],
)
def test_what_pip_complains_about_becomes_one_sentence(
    environment: MadeEnvironment, needs: Needs, complaints: str, told: str
) -> None:
    with pytest.raises(SetupError, match=told) as caught:
        install(environment, needs, pip=FakePip(1, complaints))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with pytest.raises(SetupError, match="no virtual environment"):
        install(Environment(tmp_path / "photos"), needs)
    assert (tmp_path / "photos/cat.jpg").read_bytes() == b"cat"


def test_a_file_in_the_place_of_the_environment_is_told(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be made.*EASEL_VENV"):
        install(Environment(tmp_path / "file" / "venv"), needs)


def test_a_folder_that_may_not_be_entered_is_told(
    tmp_path: Path, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, exists = tmp_path / "closed", Path.exists

    def refused(path: Path) -> bool:  # as `exists` does where even asking is forbidden; root is forbidden nothing
        if closed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(SetupError, match=r"closed.venv cannot be reached \(Permission denied\)\. .*EASEL_VENV") as told:
        install(Environment(closed / "venv"), needs)
    assert "\n" not in str(told.value)


def test_a_python_without_venv_is_told_what_to_install(
    tmp_path: Path, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="apt install python3-venv"):
        install(Environment(tmp_path / "venv"), needs)
    assert "apt install python3-venv" in explain_venv("because ensurepip is not available", tmp_path)


def test_an_environment_without_pip_does_not_count_as_working(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    assert environment.python_version() is None
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.folder)], check=True)
    assert environment.python.exists()
    assert environment.python_version() is None
    assert not environment.is_running()


def test_pip_runner_keeps_the_complaints_of_a_real_pip(capfd: pytest.CaptureFixture[str]) -> None:
    result = PipRunner(Path(sys.executable))(["--no-index", "--no-deps", "easel-has-no-such-package"])
    assert result.code != 0
    assert "No matching distribution found for easel-has-no-such-package" in result.complaints
    assert "No matching distribution" in capfd.readouterr().err


def test_the_process_environment_silences_telemetry_and_respects_the_user() -> None:
    environ = bootstrap.process_environment({"HF_HUB_OFFLINE": "0", "HOME": "/home/me"}, "Linux")
    assert environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert environ["HF_HUB_OFFLINE"] == "0"
    assert environ["HOME"] == "/home/me"
    assert environ["MALLOC_MMAP_MAX_"] == "0"
    assert "MALLOC_MMAP_MAX_" not in bootstrap.process_environment({}, "Windows")


def test_packages_from_elsewhere_stay_outside_the_programs_own_environment() -> None:
    given = {"PYTHONPATH": "/opt/ros/packages", "PYTHONHOME": "/opt/python"}
    assert not given.keys() & bootstrap.process_environment(given, "Linux").keys()
    assert given.items() <= bootstrap.process_environment(given, "Linux", own=False).items()
    assert bootstrap.process_environment({}, "Windows")["PYTHONUTF8"] == "1"


def test_pip_takes_no_package_from_elsewhere_for_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "easel_has_no_such_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: easel-has-no-such-package\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIP_USER", "1")
    result = PipRunner(Path(sys.executable))(["--no-index", "--no-deps", "easel-has-no-such-package"])
    assert result.code != 0 and "No matching distribution" in result.complaints


def test_a_drive_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert bootstrap.existing_folder(tmp_path / "a" / "b") == tmp_path
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(SetupError, match=r"missing.venv cannot be reached \(No such file or directory\)"):
        bootstrap._check_disk(bootstrap.Environment(tmp_path / "missing" / "venv"), bootstrap.fitting_build())


def test_the_requirements_of_the_project_hold_one_torch_pin() -> None:
    root = Path(__file__).parents[1]
    assert Needs.read(root).torch == "torch==2.13.0"
    assert Needs.read(root, tests=True).test_digest() != Needs.read(root).test_digest()


def nvidia(cuda: str, capability: str):  # type: ignore[no-untyped-def]
    def probe(command: Sequence[str]) -> str | None:
        if "nvidia-smi" not in command[0]:
            return None
        return (
            capability
            if len(command) > 1
            else f"| NVIDIA-SMI 580.65   Driver Version: 580.65   CUDA Version: {cuda}  |"
        )

    return probe


@pytest.mark.parametrize(
    ("cuda", "capability", "build"),
    [
        ("13.1", "12.0\n", "cu130"),
        ("13.0", "6.1\n", "cu126"),  # Pascal is no longer in the newer builds
        ("13.0", "8.9\n7.0\n", "cu128"),
        ("12.8", "8.6\n", "cu128"),
        ("12.6", "8.6\n", "cu126"),
        ("12.6", "", "cu126"),
        ("12.2", "8.6\n", "cpu"),
        ("13.0", "3.7\n", "cpu"),
    ],
)
def test_the_cuda_build_fits_driver_and_card(cuda: str, capability: str, build: str) -> None:
    assert fitting_build(nvidia(cuda, capability), "Linux").name == build


def test_an_old_driver_is_told() -> None:
    assert "Update the NVIDIA driver" in fitting_build(nvidia("12.2", "8.6"), "Linux").advice
    assert not fitting_build(nvidia("13.0", "8.6"), "Linux").advice


def test_other_machines_get_their_build(tmp_path: Path) -> None:
    def nothing(command: Sequence[str]) -> str | None:
        return None

    assert fitting_build(nothing, "Darwin").index is None
    assert fitting_build(nothing, "Linux", kfd=tmp_path).name.startswith("rocm")
    assert fitting_build(nothing, "Linux", kfd=tmp_path / "none").name == "cpu"
    assert fitting_build(nothing, "Windows").name == "cpu"


def test_a_probe_that_is_not_there_or_fails_gives_none() -> None:
    from core.torch_build import run_probe

    assert run_probe(["easel-has-no-such-program"]) is None
    assert run_probe([sys.executable, "-c", "raise SystemExit(3)"]) is None
    assert run_probe([sys.executable, "-c", "print('here')"]) == "here\n"


def test_the_user_may_choose_the_build() -> None:
    assert chosen_build(None, {}) is None
    flag = chosen_build("cpu", {"TORCH_BACKEND": "cu128"})
    assert flag is not None and flag.name == "cpu"
    variable = chosen_build(None, {"TORCH_BACKEND": "cu128"})
    assert variable is not None and variable.index is not None and variable.index.endswith("/cu128")
    index = chosen_build(None, {"TORCH_INDEX_URL": "https://example.org/whl/cu130/"})
    assert index is not None and (index.name, index.index) == ("cu130", "https://example.org/whl/cu130/")
    for intel in (("xpu", {}), (None, {"TORCH_BACKEND": "xpu"}), (None, {"TORCH_INDEX_URL": "https://a.org/whl/xpu"})):
        with pytest.raises(BadConfig, match="Intel GPUs, and Easel cannot compute on those yet"):
            chosen_build(*intel)
    with pytest.raises(BadConfig, match="no torch build 'gpu'"):
        chosen_build("gpu", {})


@pytest.mark.parametrize(
    ("builds", "capability", "runs"),
    [
        (["sm_75", "sm_86"], (8, 9), True),
        (["sm_75", "sm_86"], (8, 0), False),
        (["sm_50", "sm_90"], (12, 0), False),  # a Blackwell card with an old build starts and dies at the first prompt
        (["sm_90", "sm_120"], (12, 0), True),
        (["sm_80", "compute_90"], (12, 0), True),
        (["sm_75", "sm_120"], (6, 1), False),
    ],
)
def test_a_build_is_known_not_to_support_a_card(builds: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert supports(builds, capability) is runs
