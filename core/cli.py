"""cli: `generate`, the page's job without the page."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any, TextIO

from core.errors import BadSetting
from core.events import Event, Failed, Finished, Progress, Saved, Warned
from core.settings import Settings, parse_setting
from core.task import AsyncTask

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
BAR_WIDTH = 24  # characters


def given_settings(prompt: str, seed: str | None, fields: Sequence[str]) -> dict[str, Any]:
    """The settings that the command line names. `fields` are texts FIELD=VALUE. Raises BadSetting."""
    given: dict[str, Any] = {"prompt": prompt}
    texts = [*([f"seed={seed}"] if seed is not None else []), *fields]
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadSetting(f"--set {text!r} must be written as FIELD=VALUE, for example --set steps=20.")
        given[name.strip()] = parse_setting(name.strip(), value)
    Settings(**given)  # so that a bad value is told before anything is loaded
    return given


def generate(task: AsyncTask, run: Callable[[AsyncTask], Iterator[Event]], out: Reporter) -> int:
    """Carry out `task`, telling `out` of its events; the exit code.

    Ctrl-C stops the task within a block of the network (what is saved stays); a second one ends the program at once.
    """
    with stopping_on_interrupt(task):
        for event in run(task):
            out.tell(event)
            if isinstance(event, Failed):
                return BAD_INPUT if event.bad_input else FAILED
            if isinstance(event, Finished):
                return INTERRUPTED if event.stopped else DONE
    return FAILED


@contextmanager
def stopping_on_interrupt(task: AsyncTask) -> Iterator[None]:
    """While it lasts, the first Ctrl-C stops `task`; the next one is an ordinary KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        task.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Reporter:
    """Tells a person (`Words`) or a program (`JsonLines`) what happens."""

    def tell(self, event: Event) -> None:
        """Write what `event` says."""
        raise NotImplementedError


class JsonLines(Reporter):
    """One JSON object an event: its type, then its fields; a preview is left out."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def tell(self, event: Event) -> None:
        """Write one line."""
        fields: Mapping[str, Any] = {name: value for name, value in asdict(event).items() if name != "preview"}
        print(json.dumps({"type": type(event).__name__.lower(), **fields}), file=self._out, flush=True)


class Words(Reporter):
    """Progress and troubles on `err`; on `out` nothing but the path of each picture, at the end."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out, self._err = out, err
        self._terminal = err.isatty()
        self._bar = 0  # characters on the line of the bar
        self._last = ""  # milestone

    def tell(self, event: Event) -> None:
        """Write what a person wants to know of `event`."""
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Warned):
            self._line(event.message)
        elif isinstance(event, Saved):
            self._clear()
            print(event.path, file=self._out, flush=True)
        elif isinstance(event, Failed):
            self._line(event.message)
        elif event.stopped:
            self._line("Stopped.")

    def _progress(self, progress: Progress) -> None:
        if self._terminal:
            self._draw(bar(progress))
        elif progress.step == 0 and progress.text not in (self._last, "Waiting"):
            self._last = progress.text
            print(progress.text, file=self._err, flush=True)

    def _draw(self, line: str) -> None:
        self._err.write("\r" + line.ljust(self._bar))
        self._err.flush()
        self._bar = len(line)

    def _clear(self) -> None:
        if self._bar:
            self._draw("")
            self._err.write("\r")
            self._err.flush()

    def _line(self, text: str) -> None:
        self._clear()
        print(text, file=self._err, flush=True)


def bar(progress: Progress) -> str:
    """Such as `[######------------------]  25 %  Step 8 of 30  0:12 left`."""
    full = int(progress.share * BAR_WIDTH)
    parts = [f"[{'#' * full}{'-' * (BAR_WIDTH - full)}] {progress.share:4.0%}", progress.text]
    if progress.images > 1:
        parts.append(f"picture {progress.image} of {progress.images}")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def reporter(as_json: bool) -> Reporter:
    """The one for this process's stdout and stderr."""
    return JsonLines(sys.stdout) if as_json else Words(sys.stdout, sys.stderr)
