"""The launcher as a program: old interpreters, --help, refusals, each in one sentence and without a traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tiny import write_checkpoint

from core.output.metadata import read_settings

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


def test_a_user_can_be_made_where_the_configuration_is_refused_for_want_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import launch as launcher

    (tmp_path / "config.json").write_text('{"host": "0.0.0.0"}')
    monkeypatch.setattr(launcher, "ROOT", str(tmp_path))
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret")
    assert launcher.main(["add-user", "ann"]) == 0
    assert (tmp_path / "auth.json").is_file()


def test_a_user_without_a_password_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import launch as launcher

    def nobody_types(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(launcher, "ROOT", str(tmp_path))
    monkeypatch.setattr("getpass.getpass", nobody_types)
    assert launcher.main(["add-user", "ann"]) == 2
    assert "No password was given; nothing has been changed." in capsys.readouterr().err
    assert not (tmp_path / "auth.json").exists()


@pytest.mark.parametrize("python", [sys.executable, *interpreters("3.10", "3.12", "3.13")])
@pytest.mark.parametrize("argv", [["--help"], ["generate", "--help"], ["doctor", "--help"], ["test", "--help"]])
def test_help_answers_on_every_python_with_nothing_installed(python: str, argv: list[str]) -> None:
    done = launch(*argv, python=python)
    assert done.returncode == 0 and "usage: python launch.py" in done.stdout


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
        (["generate", "a \udcff cat"], r"prompt has '\udcff' as character 3, which is only part of one"),
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
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = launch("--skip-install", "--disable-in-browser", "--port", str(port))
    assert done.returncode == 2
    assert f"Port {port} is in use" in done.stderr and f"--port {port + 1}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_of_the_configuration_is_not_used_is_told_once_and_in_the_page(tmp_path: Path) -> None:
    """D28: on the console alone nobody sees it."""
    (tmp_path / "config.txt").write_text('{"default_cfg_scale": "high", "default_clip_skip": 1}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, launch, webui.server\n"
        "webui.server.serve = lambda app, **others: print(*app.notices, sep='\\n')\n"
        "launch.main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--skip-install", "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={
            **os.environ,
            "config_path": str(tmp_path / "config.txt"),
            "EASEL_LANGUAGE": "xx",
            "EASEL_ENTERED": "1",
            "EASEL_OUTPUTS": str(tmp_path),
        },
    )
    shown = done.stdout.splitlines()
    assert [words.partition(";")[0] for words in shown] == [
        "In config.txt: default_cfg_scale: guidance_scale is 'high'",
        "There is no language 'xx'. There are: en, de, es, fr, ja, ru, zh.",
    ]
    assert [done.stderr.count(words) for words in shown] == [1, 1]


@pytest.mark.parametrize("open_to_others", [False, True])
def test_where_the_page_is_open_to_others_it_names_no_folder_as_a_whole_path(
    tmp_path: Path, open_to_others: bool
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, launch, webui.server\n"
        "def serve(app, **others):\n"
        "    print(app.worker._shown(f'There is nothing in {launch.ROOT}/models.'))\n"
        "    for ask in (app.lora_info, app.native_size):\n"
        "        try: ask('none.safetensors')\n"
        "        except launch.UserError as error: print(app.told(error))\n"
        "webui.server.serve = serve\n"
        "from core.errors import UserError\n"
        "launch.UserError = UserError\n"
        "launch.main(sys.argv[1:])"
    )
    flags = ["--listen", "--auth", "ann:secret"] if open_to_others else []
    done = subprocess.run(
        [sys.executable, "-c", code, "--skip-install", "--port", str(port), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "EASEL_ENTERED": "1", "EASEL_OUTPUTS": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
    )
    told = done.stdout.splitlines()
    place = "…" if open_to_others else str(ROOT)
    assert told[0] == f"There is nothing in {place}/models."
    assert len(told) == 3 and all(f" in {place}/models/" in words for words in told[1:])


def test_the_doctor_installs_nothing(tmp_path: Path) -> None:
    done = launch("doctor", EASEL_VENV=str(tmp_path / "venv"))
    assert "System:" in done.stdout and "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal for one process")
@pytest.mark.parametrize("ending", [signal.SIGINT])
def test_the_page_answers_and_ends_without_a_traceback(ending: signal.Signals, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [
        "--skip-install",
        "--disable-in-browser",
        "--always-cpu",
        "1",
        "--port",
        str(port),
        "--output",
        str(tmp_path),
    ]
    page = subprocess.Popen(
        [sys.executable, str(LAUNCH), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert page.stdout is not None
        assert f"http://127.0.0.1:{port}" in page.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert b"Easel" in answer.read()
        page.send_signal(ending)
        _, complaints = page.communicate(timeout=60)
    finally:
        page.kill()
    assert page.returncode == 0
    assert "Traceback" not in complaints


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one tiny checkpoint of random weights."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors")
    return folder


SMALL = ["--seed", "7", "--set", "base_model=tiny.safetensors", "--set", "width=64", "--set", "height=64"]


def generate_flags(models: Path, output: Path) -> list[str]:
    return ["--skip-install", "--always-cpu", "1", "--models-path", str(models), "--output", str(output), *SMALL]


def test_generate_prints_the_path_of_a_picture_that_holds_its_settings(models: Path, tmp_path: Path) -> None:
    done = launch("generate", "a red apple", *generate_flags(models, tmp_path), "--set", "steps=2")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.is_relative_to(tmp_path)
    settings = read_settings(path).settings
    wanted = {"prompt": "a red apple", "seed": 7, "steps": 2, "width": 64, "base_model": "tiny.safetensors"}
    assert settings.items() >= wanted.items()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["base_model=none.safetensors"], "tiny.safetensors"),
        (["performance=speed", "steps=2"], "the mode speed sets steps to 30"),
    ],
)
def test_what_generate_cannot_do_is_bad_input(models: Path, tmp_path: Path, given: list[str], told: str) -> None:
    flags = [word for text in given for word in ("--set", text)]
    done = launch("generate", "x", *generate_flags(models, tmp_path), *flags)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal for one process")
def test_ctrl_c_ends_generate_with_code_130(models: Path, tmp_path: Path) -> None:
    flags = [*generate_flags(models, tmp_path), "--set", "steps=200", "--set", "image_number=100", "--json"]
    run = subprocess.Popen(
        [sys.executable, str(LAUNCH), "generate", "x", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert run.stdout is not None
        while json.loads(run.stdout.readline()).get("step", 0) == 0:
            pass
        run.send_signal(signal.SIGINT)
        out, complaints = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert json.loads(out.splitlines()[-1])["stopped"] is True
    assert "Traceback" not in complaints
