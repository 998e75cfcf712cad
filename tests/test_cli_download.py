"""`python launch.py download`: nothing without the user's word."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.cli_download import bar, download, tell_sources
from core.errors import BadSetting, ModelNotFound
from core.weights.download import DownloadFailed, Transfer
from core.weights.needs import Need, told_size, told_total

ROOT = Path(__file__).parents[1]
MISSING = Need(
    name="x.safetensors", kind="loras", url="https://huggingface.co/x", bytes=6_940_000_000, folder=Path("models/loras")
)
THERE = Need(name="y.safetensors", kind="loras", present=True, found="sub/y.safetensors", folder=Path("models/loras"))
DAMAGED = Need(
    name="z.safetensors",
    kind="loras",
    url="https://huggingface.co/z",
    damage="models/z is there already, with 3 bytes instead of 9.",
    folder=Path("models/loras"),
)
DONE = Transfer(
    name="x.safetensors", text="Done", file=1, files=1, done=5, total=5, all_done=5, all_total=5, path=Path("models/x")
)


class Recorder:
    def __init__(self, fails: bool = False) -> None:
        self.wanted: list[Any] = []
        self.fails = fails

    def __call__(self, wanted: Any, *, mirror: str) -> Iterator[Transfer]:
        self.wanted = list(wanted)
        if self.fails:
            raise DownloadFailed("x.safetensors cannot be fetched: the line is cut.")
        yield DONE


def run(*needs: Need, answer: str = "", **options: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = download(needs, ask=lambda question: answer, out=out, err=err, **options)
    return code, out.getvalue(), err.getvalue()


def test_it_says_what_and_how_large_and_asks() -> None:
    recorder = Recorder()
    code, out, err = run(MISSING, THERE, answer="y", transfers=recorder)
    assert code == 0 and out == "models/x\n".replace("/", str(Path("/"))[0])
    assert "x.safetensors (loras, 6.94 GB) from https://huggingface.co/x to models" in err
    assert "there     sub/y.safetensors" in err
    assert [source.name for source, _ in recorder.wanted] == ["x.safetensors"]


def test_a_key_in_an_address_is_not_shown_but_used() -> None:
    recorder, need = Recorder(), replace(MISSING, url="https://huggingface.co/x?token=hunter2")
    _, _, err = run(need, answer="y", transfers=recorder)
    assert "from https://huggingface.co/x to" in err and "hunter2" not in err
    assert recorder.wanted[0][0].url == need.url


@pytest.mark.parametrize("answer", ["", "n", "no", "what?"])
def test_any_answer_but_yes_downloads_nothing(answer: str) -> None:
    recorder = Recorder()
    code, out, err = run(MISSING, answer=answer, transfers=recorder)
    assert code == 2 and out == "" and "Nothing has been downloaded" in err and recorder.wanted == []


def test_without_a_terminal_nobody_is_asked_and_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    recorder = Recorder()
    err = io.StringIO()
    assert download([MISSING], out=io.StringIO(), err=err, transfers=recorder) == 2
    assert "--yes" in err.getvalue() and recorder.wanted == []
    assert download([MISSING], yes=True, out=io.StringIO(), err=err, transfers=recorder) == 0


def test_a_failure_is_a_sentence_and_code_1() -> None:
    code, out, err = run(MISSING, yes=True, transfers=Recorder(fails=True))
    assert code == 1 and "the line is cut" in err and out == ""


def test_what_is_there_is_not_asked_about_and_nothing_is_an_error() -> None:
    assert run(THERE)[0] == 0
    with pytest.raises(BadSetting, match="needs no files, or nothing was named"):
        run()


def test_a_damaged_file_is_told_and_the_others_are_fetched() -> None:
    """Q30: a file that is there but not whole counts as missing, and nothing is written over it."""
    recorder = Recorder()
    code, _, err = run(DAMAGED, MISSING, answer="y", transfers=recorder)
    assert code == 1 and "damaged   models/z is there already, with 3 bytes" in err
    assert [source.name for source, _ in recorder.wanted] == ["x.safetensors"]
    code, _, err = run(DAMAGED, THERE, answer="y", transfers=recorder)
    assert code == 1 and "Everything is there" not in err


def test_a_file_of_unknown_address_is_told_and_the_others_are_fetched() -> None:
    recorder, unknown = Recorder(), replace(MISSING, name="own.safetensors", url="")
    code, _, err = run(unknown, MISSING, answer="y", transfers=recorder)
    assert code == 1 and "own.safetensors (loras, 6.94 GB) and nobody knows where it is published" in err
    assert [source.name for source, _ in recorder.wanted] == ["x.safetensors"]
    with pytest.raises(ModelNotFound, match="Easel does not know where it is published"):
        run(unknown, answer="y", transfers=recorder)


def test_a_size_that_nobody_knows_is_called_so() -> None:
    unknown = Need(name="u.safetensors", kind="loras", url="https://huggingface.co/u")
    assert told_size(0) == told_size(None) == told_total([unknown]) == "size unknown"
    assert told_total([unknown, MISSING]) == "more than 6.94 GB" and told_total([MISSING]) == "6.94 GB"
    _, _, err = run(unknown)
    assert "u.safetensors (loras, size unknown)" in err


def test_the_bar_tells_size_speed_and_time_left() -> None:
    under_way = Transfer(
        name="x", text="Downloading", file=1, files=2, done=3 * 10**9, total=4 * 10**9, all_done=3 * 10**9, all_total=6 * 10**9, speed=5e7
    )  # fmt: skip
    assert bar(under_way) == "[############------------]  50%  x (1 of 2)  3 GB of 4 GB  50 MB/s  1:00 left"
    assert [told_size(size) for size in (6_938_078_334, 49_553_604, 65_616, 12)] == [
        "6.94 GB",
        "49.6 MB",
        "65.6 kB",
        "12 bytes",
    ]


def launch(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch.py"), "download", "--skip-install", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_the_launcher_says_what_a_preset_needs_and_fetches_nothing_unasked(tmp_path: Path) -> None:
    done = launch("--preset", "sai", "--models-path", str(tmp_path))
    assert (
        done.returncode == 2
        and "sd_xl_refiner_1.0_0.9vae.safetensors (checkpoints, 6.08 GB, OpenRAIL++-M)" in done.stderr
    )
    assert "Nothing has been downloaded" in done.stderr and list(tmp_path.rglob("*")) == []
    done = launch("no_such_file")
    assert done.returncode == 2 and "no file 'no_such_file'" in done.stderr and "Traceback" not in done.stderr


def test_all_files_of_the_table_are_named() -> None:
    out = io.StringIO()
    tell_sources(out)
    assert "sd_xl_base_1.0_0.9vae.safetensors" in out.getvalue() and "6.94 GB" in out.getvalue()
