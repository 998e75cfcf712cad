"""bootstrap: makes the program's own environment, once, and starts the program in it. Standard library only."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.pip import ELSEWHERE, FOREIGN_PACKAGES, NO_VENV, Pip, PipRunner, explain, explain_venv
from core.torch_build import CHOICES, TorchBuild, fitting_build, installed_build

GB = 10**9
ENTERED = "EASEL_ENTERED"  # set for the process that was started inside the environment, so that it starts no other

Say = Callable[[str], None]


class SetupError(UserError):
    """The environment cannot be made; the message says what is in the way and what to do."""


@dataclass(frozen=True)
class Needs:
    """What is to be installed: the program's requirements, and for tests the test tools and the peers without dependencies."""

    app: str  # text of requirements.txt; its line `torch==...` is the pin
    tests: str = ""
    peers: str = ""
    folder: Path = Path()  # where the three files lie

    @classmethod
    def read(cls, folder: Path, tests: bool = False) -> Needs:
        """From the requirements files in `folder`."""
        app, test_tools, peers = (
            (folder / name).read_text(encoding="utf-8")
            for name in ("requirements.txt", "requirements-test.txt", "requirements-peers.txt")
        )
        return cls(app, test_tools if tests else "", peers if tests else "", folder)

    @property
    def torch(self) -> str:
        """The pin, such as `torch==2.13.0`."""
        pin = re.search(r"^torch==[\w.]+", self.app, flags=re.MULTILINE)
        if not pin:
            raise SetupError("requirements.txt has no line torch==VERSION. Get the file anew from the project.")
        return pin[0]

    def app_digest(self, build: TorchBuild) -> str:
        """Changes when anything that the program needs changes."""
        return _digest(self.torch, build.name, build.index or "", self.app)

    def test_digest(self) -> str:
        """Changes when anything that only the tests need changes."""
        return _digest(self.tests, self.peers)


@dataclass(frozen=True)
class Environment:
    """The virtual environment in `folder`."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        """The file that says what has been installed completely."""
        return self.folder / "easel.json"

    def python_version(self) -> str | None:
        """Such as "3.12", asked from its interpreter; None if that, or its pip, does not work."""
        code = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
        try:
            told = subprocess.run([self.python, "-I", "-c", code], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        return told.stdout.strip() if told.returncode == 0 else None

    def is_running(self) -> bool:
        """Whether this process runs in it."""
        return Path(sys.prefix).resolve() == self.folder.resolve()

    def installed(self) -> dict[str, str]:
        """What the stamp says: build, index, app, tests, python; empty if there is no readable stamp."""
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) and all(isinstance(value, str) for value in stamp.values()) else {}

    def write_stamp(self, values: Mapping[str, str]) -> None:
        """Replace the stamp in one go, so that an interrupted start never leaves a wrong one."""
        draft = self.stamp.with_suffix(".new")
        draft.write_text(json.dumps(values), encoding="utf-8")
        draft.replace(self.stamp)

    def torch_label(self) -> str | None:
        """The local version of the installed torch ("cpu" of 2.13.0+cpu), "" without one, None without torch."""
        for found in [
            *self.folder.glob("lib/python*/site-packages/torch-*.dist-info"),
            *self.folder.glob("Lib/site-packages/torch-*.dist-info"),
        ]:
            return found.name.removesuffix(".dist-info").partition("+")[2]
        return None


def environment_folder(root: Path, environ: Mapping[str, str]) -> Path:
    """EASEL_VENV, else the folder .venv beside launch.py."""
    return Path(environ["EASEL_VENV"]).expanduser().absolute() if environ.get("EASEL_VENV") else root / ".venv"


def ensure(environment: Environment, needs: Needs, chosen: TorchBuild | None, say: Say, pip: Pip | None = None) -> None:
    """Make the environment hold what `needs` lists; does nothing, and asks nobody, if the stamp says that it does.

    `chosen` is the torch build that the user named; without one the build of the stamp stays, and at the first start
    the fitting one is taken. An interrupted call is made good by the next one. Raises SetupError.
    """
    stamp = environment.installed()
    build = chosen or _build_of(stamp)
    app_done = build is not None and stamp.get("app") == needs.app_digest(build)
    tests_done = not needs.tests or stamp.get("tests") == needs.test_digest()
    if app_done and tests_done and _python_fits(environment, stamp):
        return
    if build is None:
        build = fitting_build()
        say(f"Torch build: {build.name} ({build.reason}). Another one: python launch.py --torch BUILD")
        if build.advice:
            say(build.advice)
    _check_disk(environment, build)
    _make(environment, say)
    pip = pip or PipRunner(environment.python)
    try:
        build = _install_app(environment, needs, build, say, pip, asked=chosen is not None)
        done = {"build": build.name, "index": build.index or "", "app": needs.app_digest(build)}
        done["python"] = environment.python_version() or ""
        environment.write_stamp(done)
        if needs.tests:
            _install_tests(environment, needs, say, pip)
            environment.write_stamp({**done, "tests": needs.test_digest()})
    except OSError as error:
        raise SetupError(f"{environment.folder} cannot be written ({error.strerror}). {ELSEWHERE}") from None
    say("Installed. The next start installs nothing.")


def enter(python: Path, script: Path, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Go on as `script` under `python` with `environ`; the exit code where a process cannot be replaced (Windows)."""
    command = [str(python), str(script), *argv]
    environ = {**environ, ENTERED: "1"}
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(command[0], command, environ)
    child = subprocess.Popen(command, env=environ)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child has got it as well, and says when it is done
            continue


def process_environment(environ: Mapping[str, str], system: str | None = None, *, own: bool = True) -> dict[str, str]:
    """`environ` with what must be set before the process starts; what the user has set stays.

    No telemetry, no hub; in an environment of the program's `own` no packages from elsewhere; on Linux large tensors are
    kept by the allocator instead of being given back and faulted in again at every step (about a tenth of a step on a
    CPU); on macOS operators that MPS lacks run on the CPU.
    """
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    system = system or platform.system()
    if system == "Linux":
        wanted |= {
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(2**30),
            "MALLOC_TOP_PAD_": str(2**28),
        }
    if system == "Darwin":
        wanted["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
    if system == "Windows":
        wanted["PYTHONUTF8"] = "1"  # what is written into a file or a pipe can be any name
    given = {name: value for name, value in environ.items() if not (own and name in FOREIGN_PACKAGES)}
    return wanted | given


def _install_app(
    environment: Environment, needs: Needs, build: TorchBuild, say: Say, pip: Pip, *, asked: bool
) -> TorchBuild:
    """Torch first and alone, from its own index, then everything else held to that very torch. The build that is there then.

    Raises SetupError if that is another one than the user `asked` for.
    """
    label = environment.torch_label()
    before = environment.installed().get("build")
    swap = label is not None and (before not in (None, build.name) or label not in ("", build.name))
    index = ["--extra-index-url", build.index] if build.index else []
    say(f"Installing {needs.torch} ({build.name}). This happens once and takes some minutes.")
    # Without dependencies only one project is looked up, so that an index that cannot be reached costs seconds.
    _call(
        pip,
        environment,
        ["--no-deps", *["--force-reinstall"] * swap, needs.torch, *index, "--retries", "1", "--timeout", "15"],
    )
    there = installed_build(build, environment.torch_label())
    if there != build:
        words = f"{needs.torch} of the build {build.name} was not to be had: {there.reason}."
        if asked:
            raise SetupError(f"{words} Check the connection, or choose another build: {CHOICES}.")
        say(f"{words} The build {there.name} was taken in its place.")
    say("Installing what else the program needs.")
    dependencies = index if build.name.startswith("rocm") else []  # their companions are on no other index
    _call(
        pip,
        environment,
        ["-r", str(needs.folder / "requirements.txt"), "-c", str(_constraints(environment, needs)), *dependencies],
    )
    return there


def _install_tests(environment: Environment, needs: Needs, say: Say, pip: Pip) -> None:
    say("Installing what only the tests need.")
    _call(
        pip,
        environment,
        ["-r", str(needs.folder / "requirements-test.txt"), "-c", str(_constraints(environment, needs))],
    )
    _call(pip, environment, ["--no-deps", "-r", str(needs.folder / "requirements-peers.txt")])


def _constraints(environment: Environment, needs: Needs) -> Path:
    """A file that keeps pip from swapping torch for another version."""
    file = environment.folder / "constraints.txt"
    file.write_text(needs.torch + "\n", encoding="utf-8")
    return file


def _call(pip: Pip, environment: Environment, arguments: Sequence[str]) -> None:
    result = pip(arguments)
    if result.code:
        raise SetupError(explain(result.complaints, environment.folder))


def _make(environment: Environment, say: Say) -> None:
    """Create the environment, or anew if its interpreter or pip does not work or is too old."""
    version = environment.python_version()
    if version is not None and tuple(map(int, version.split("."))) >= (3, 10):
        return
    if environment.is_running():
        raise SetupError(
            f"The environment in {environment.folder} has no working pip. Delete that folder and start again."
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(NO_VENV)
    if (
        environment.folder.exists()
        and not (environment.folder / "pyvenv.cfg").exists()
        and any(environment.folder.iterdir())
    ):
        raise SetupError(f"{environment.folder} exists and is no virtual environment. {ELSEWHERE}")
    say(f"Making the program's own environment in {environment.folder}")
    try:
        environment.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{environment.folder} cannot be made ({error.strerror}). {ELSEWHERE}") from None
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(environment.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        raise SetupError(explain_venv(made.stdout, environment.folder))


def existing_folder(folder: Path) -> Path:
    """`folder`, or the nearest one above it that exists. Raises OSError where there is none, as on a drive that is not there."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _check_disk(environment: Environment, build: TorchBuild) -> None:
    """Raises SetupError if the folder cannot be reached or the disk has too little room for what is still to be installed."""
    try:
        folder = existing_folder(environment.folder)
        if environment.torch_label() is not None:
            wanted = GB // 2
        else:
            wanted = (3 if build.name in ("cpu", "default") else 8) * GB
        free = shutil.disk_usage(folder).free
    except OSError as error:  # a folder above it that this user may not enter, or a drive that is not there
        raise SetupError(f"{environment.folder} cannot be reached ({error.strerror}). {ELSEWHERE}") from None
    if free < wanted:
        raise SetupError(
            f"Easel needs about {wanted / GB:.1f} GB for its environment and {folder} has {free / GB:.1f} GB free. "
            f"Free some space, or name a folder on another disk with the environment variable EASEL_VENV."
        )


def _python_fits(environment: Environment, stamp: Mapping[str, str]) -> bool:
    """Whether the environment still has the interpreter that it was made with (a system update may have changed it)."""
    if environment.is_running():
        return stamp.get("python") == f"{sys.version_info[0]}.{sys.version_info[1]}"
    return stamp.get("python") == environment.python_version()


def _build_of(stamp: Mapping[str, str]) -> TorchBuild | None:
    return TorchBuild(stamp["build"], stamp.get("index") or None, "as installed") if stamp.get("build") else None


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
