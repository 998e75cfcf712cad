"""The launcher as a program: old interpreters, --help, refusals, each in one sentence and without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch.py"
PYENV = Path.home() / ".pyenv/versions"


def interpreters(*versions: str) -> list[str]:
    """Those of `versions` that are on this machine, beside the running one."""
    return [str(python) for version in versions for python in sorted(PYENV.glob(f"{version}.*/bin/python"))]


def launch(*argv: str, python: str = sys.executable, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EASEL_", "TORCH_"))}
    return subprocess.run(
        [python, str(LAUNCH), *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **environ},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("python", interpreters("2.7", "3.6", "3.7", "3.8", "3.9"))
def test_an_old_python_gets_one_sentence(python: str) -> None:
    done = launch(python=python)
    assert done.returncode == 2
    assert done.stderr.startswith("Easel needs Python 3.10 or newer")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_the_sentence_for_an_old_python_names_both_versions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import launch as launcher

    monkeypatch.setattr(launcher.sys, "version_info", (3, 9, 18, "final", 0))
    assert launcher.main([]) == 2
    assert "Python 3.10 or newer, and this is Python 3.9." in capsys.readouterr().err


@pytest.mark.parametrize("python", [sys.executable, *interpreters("3.10", "3.12", "3.13")])
@pytest.mark.parametrize("argv", [["--help"], ["generate", "--help"], ["doctor", "--help"], ["test", "--help"]])
def test_help_answers_at_once_on_every_python_with_nothing_installed(python: str, argv: list[str]) -> None:
    began = time.monotonic()
    done = launch(*argv, python=python)
    assert done.returncode == 0 and "usage: python launch.py" in done.stdout
    assert time.monotonic() - began < 1.0


def test_help_imports_neither_torch_nor_gradio() -> None:
    code = (
        f"import runpy, sys; sys.argv = ['launch.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
        f"try: runpy.run_path({str(LAUNCH)!r}, run_name='__main__')\n"
        "finally: print({'torch', 'gradio', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--listen"], "--listen 0.0.0.0 opens the page to others, and nobody has a password yet."),
        (["--share"], "--share opens the page to others"),
        (["--port", "99999"], "--port is '99999'"),
        (["--preset", "no_such"], "no preset 'no_such'"),
        (["--torch", "gpu"], "no torch build 'gpu'"),
        (["generate", "a cat", "--set", "steps=0"], "steps is 0"),
        (["generate", "a cat", "--seed", "cat"], "seed is 'cat'"),
        (["generate", "a cat", "--preset", "../auth"], "no path"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_installed(
    argv: list[str], told: str, tmp_path: Path
) -> None:
    done = launch(*argv, EASEL_VENV=str(tmp_path / "venv"))
    assert done.returncode == 2
    assert told in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert not (tmp_path / "venv").exists()


def test_an_occupied_port_is_told_in_a_sentence() -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = launch("--skip-install", "--disable-in-browser", "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} is in use" in done.stderr and f"--port {port + 1}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_doctor_installs_nothing(tmp_path: Path) -> None:
    done = launch("doctor", EASEL_VENV=str(tmp_path / "venv"))
    assert "System:" in done.stdout and "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists()
