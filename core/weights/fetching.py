"""Downloads in the background, for a page: one at a time, with how it stands, and a way to stop it. No torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from core.errors import ModelNotFound, UserError
from core.weights.download import Patience, Stopped, Transfer, announced_size, download
from core.weights.needs import Need
from core.weights.sources import Source

log = logging.getLogger(__name__)

Fetch: TypeAlias = Callable[..., Iterator[Transfer]]  # of `wanted` and `patience`, as `download`
Ask: TypeAlias = Callable[[Source], int | None]


@dataclass(frozen=True)
class Fetching:
    """How the last download stands. `done`: all files are there. `problem` says why they are not.

    `came`: it has ended, and all that can be fetched is there. `stopping`: it was told to stop and has not ended yet.
    """

    transfer: Transfer | None = None
    busy: bool = False
    stopping: bool = False
    came: bool = False
    done: bool = False
    problem: str = ""


class Downloads:
    """Fetches files in a thread of its own. What has come stays when it is stopped; the next start goes on from there."""

    def __init__(self, fetch: Fetch = download, ask: Ask = announced_size) -> None:
        self._fetch = fetch
        self._ask = ask
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._state = Fetching()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> Fetching:
        """How it stands now."""
        now = self._state
        return replace(now, stopping=now.busy and self._stop.is_set())

    def with_sizes(self, needs: Sequence[Need]) -> list[Need]:
        """`needs` with the sizes that nobody knows here, as their servers say them; nothing is fetched."""
        unknown = {need: self._ask(need.source) for need in needs if need.is_of_unknown_size}
        return [replace(need, bytes=unknown.get(need, need.bytes)) for need in needs]

    def start(self, needs: Sequence[Need]) -> None:
        """Fetch those of `needs` that are not there and can be fetched; which stay missing is told when those have come.

        A damaged file in the way of one stays, and one that nobody knows where to get. Raises UserError while another
        download runs, or if nothing can be fetched.
        """
        wanted, missing = _sorted(needs)
        if missing and not wanted:
            raise UserError(missing)
        with self._lock:
            if self._state.busy:
                raise UserError("A download is running already. Wait for it, or stop it first.")
            self._stop.clear()
            self._state = Fetching(busy=True)
            self._thread = threading.Thread(target=self._run, args=(wanted, missing), name="download", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the download, within a second; what has come of a file stays for the next time."""
        self._stop.set()

    def _run(self, wanted: Sequence[tuple[Source, Path]], missing: str) -> None:
        transfer = None
        try:
            for transfer in self._fetch(wanted, patience=Patience(stop=self._stop)):
                self._state = Fetching(transfer, busy=True)
                if self._stop.is_set():
                    raise Stopped
            self._state = Fetching(transfer, came=True, done=not missing, problem=missing)
        except UserError as error:
            self._state = Fetching(transfer, problem=str(error))
        except Exception as error:
            log.exception("A download failed")
            self._state = Fetching(transfer, problem=f"The download failed: {type(error).__name__}: {error}.")


def _sorted(needs: Sequence[Need]) -> tuple[list[tuple[Source, Path]], str]:
    """What of `needs` can be fetched, and where to; and sentences about the others that are not there."""
    wanted: list[tuple[Source, Path]] = []
    missing = []
    for need in needs:
        try:
            if need.damage:
                missing.append(need.damage)
            elif not need.present and need.folder is not None:
                wanted.append((need.source, need.folder))
        except ModelNotFound as unknown:
            missing.append(str(unknown))
    return wanted, " ".join(missing)
