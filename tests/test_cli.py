"""`generate`: what it takes, what it prints where, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import write_checkpoint

from core.cli import JsonLines, Words, bar, generate, given_settings
from core.device import DeviceChoice, choose_device
from core.errors import BadSetting
from core.events import Event, Failed, Finished, Progress, Saved, Warned
from core.handler import handler
from core.pipeline import Pipeline
from core.settings import Settings
from core.task import AsyncTask
from core.weights.files import Catalog
from core.worker import Worker

EVENTS: list[Event] = [
    Progress(share=0.0, text="Loading models", image=1, images=1),
    Progress(share=0.5, text="Step 1 of 2", step=1, steps=2, image=1, images=1, preview=b"jpeg", seconds_left=64.6),
    Warned(message="Slower, but safe"),
    Progress(share=0.9, text="Saving", image=1, images=1),
    Saved(path="/out/a.png", seed=7, width=64, height=64),
    Finished(paths=("/out/a.png",), seconds=1.5),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(events: list[Event], err: io.StringIO | None = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), err or io.StringIO()
    code = generate(AsyncTask(Settings()), lambda task: iter(events), Words(out, err))
    return code, out.getvalue(), err.getvalue()


def test_stdout_holds_the_path_and_nothing_else() -> None:
    code, out, err = run(EVENTS)
    assert (code, out) == (0, "/out/a.png\n")
    assert err == "Loading models\nSlower, but safe\nSaving\n"


def test_on_a_terminal_one_line_is_drawn_over_and_over_and_wiped_before_the_path() -> None:
    _, out, err = run(EVENTS, Terminal())
    assert out == "/out/a.png\n"
    assert err.count("\n") == 1  # that of the warning
    lines = err.replace("\n", "\r").split("\r")
    assert lines[-2].strip() == lines[-1] == ""


def test_the_bar_tells_share_step_and_time_left() -> None:
    assert bar(EVENTS[1]) == "[############------------]  50%  Step 1 of 2  1:05 left"  # type: ignore[arg-type]
    two = Progress(share=1.0, text="Saving", image=2, images=2)
    assert bar(two) == "[########################] 100%  Saving  picture 2 of 2"


def test_json_gives_one_object_an_event_without_previews() -> None:
    out = io.StringIO()
    assert generate(AsyncTask(Settings()), lambda task: iter(EVENTS), JsonLines(out)) == 0
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in told] == ["progress", "progress", "warned", "progress", "saved", "finished"]
    assert told[1]["step"] == 1 and "preview" not in told[1]
    assert told[4] == {
        "type": "saved", "path": "/out/a.png", "seed": 7, "width": 64, "height": 64, "index": 0, "sheet": False,
    }  # fmt: skip


def test_a_failure_is_told_with_code_1() -> None:
    code, out, err = run([Failed(message="No memory. Close a program.")])
    assert (code, out, err) == (1, "", "No memory. Close a program.\n")


def test_bad_input_found_by_the_worker_is_told_with_code_2() -> None:
    event = pickle.loads(pickle.dumps(Failed(message="No such VAE.", bad_input=True)))  # noqa: S301 - our own bytes
    assert run([event]) == (2, "", "No such VAE.\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    write_checkpoint(folder / "checkpoints" / "tiny.safetensors")
    (folder / "checkpoints" / "torn.safetensors").write_bytes(b"torn")
    return folder


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (["scheduler=turbo", "steps=11"], "turbo has at most 10 steps"),
        (["vae=none.safetensors"], "There is no VAE"),
        (["loras=none.safetensors"], "There is no LoRA"),
        (["sampler=tcd", "prediction=edm", "steps=2"], "EDM"),
        (["base_model=torn.safetensors"], "torn.safetensors"),
    ],
)
def test_what_only_the_engine_finds_wrong_with_the_settings_is_bad_input_too(
    folder: Path, fields: list[str], told: str
) -> None:
    size = ["width=64", "height=64"]
    given = given_settings("a cat", "1", [*size, "base_model=tiny.safetensors", *fields])
    device = choose_device(DeviceChoice(device="cpu"))
    catalog = Catalog([folder / "checkpoints"], others={kind: [folder / kind] for kind in ("vae", "loras")})
    worker = Worker(handler, lambda: Pipeline(catalog, device, folder / "outputs"))
    worker.start()
    task = AsyncTask(Settings(**given))
    worker.submit(task)
    out, err = io.StringIO(), io.StringIO()
    code = generate(task, AsyncTask.events, Words(out, err))
    worker.close()
    assert told in err.getvalue() and (code, out.getvalue()) == (2, "")


def test_ctrl_c_stops_the_task_and_gives_code_130() -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted(task: AsyncTask) -> Iterator[Event]:
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 5
        while not task.stopped and time.monotonic() < deadline:
            time.sleep(0.01)
        yield Finished(paths=(), seconds=0.1, stopped=task.stopped)

    assert generate(AsyncTask(Settings()), interrupted, Words(io.StringIO(), io.StringIO())) == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_program_at_once() -> None:
    def stubborn(task: AsyncTask) -> Iterator[Event]:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        yield Finished(paths=(), seconds=0.1)

    with pytest.raises(KeyboardInterrupt):
        generate(AsyncTask(Settings()), stubborn, Words(io.StringIO(), io.StringIO()))


def test_fields_are_read_by_name_and_a_value_may_hold_equals_signs() -> None:
    given = given_settings("a cat", "7", ["steps=3", "negative_prompt=a=b", "preview=off", "guidance_scale=1.5"])
    assert given == {
        "prompt": "a cat", "seed": 7, "steps": 3, "negative_prompt": "a=b", "preview": False, "guidance_scale": 1.5
    }  # fmt: skip
    assert given_settings("a cat", None, []) == {"prompt": "a cat"}


@pytest.mark.parametrize(
    ("seed", "field", "told"),
    [
        (None, "steps", "FIELD=VALUE"),
        (None, "steps=many", "steps is 'many'"),
        (None, "steps=0", "steps is 0"),
        (None, "stepps=3", "no setting called 'stepps'"),
        ("-1", "steps=3", "seed is -1"),
        ("x", "steps=3", "seed is 'x'"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(seed: str | None, field: str, told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        given_settings("a cat", seed, [field])
