"""Downloads in the background, for a page: one at a time, with how it stands, and a way to stop it. No torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from core.errors import UserError
from core.weights.download import Transfer, announced_size, download
from core.weights.needs import Need
from core.weights.sources import Source

log = logging.getLogger(__name__)

Fetch: TypeAlias = Callable[[Sequence[tuple[Source, Path]]], Iterator[Transfer]]
Ask: TypeAlias = Callable[[Source], int | None]


@dataclass(frozen=True)
class Fetching:
    """How the last download stands. `problem` says why it ended early; `done` that all files are there."""

    transfer: Transfer | None = None
    busy: bool = False
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
        return self._state

    def with_sizes(self, needs: Sequence[Need]) -> list[Need]:
        """`needs` with the sizes that nobody knows here, as their servers say them; nothing is fetched."""
        unknown = {need: self._ask(need.source) for need in needs if need.is_of_unknown_size}
        return [replace(need, bytes=unknown.get(need, need.bytes)) for need in needs]

    def start(self, needs: Sequence[Need]) -> None:
        """Fetch those of `needs` that are not there; a damaged file in the way of one is told when the others have come.

        Raises UserError while another download runs, if one is unknown, or if damaged ones are all that is wanted.
        """
        missing = [need for need in needs if not need.present]
        wanted = [(need.source, need.folder) for need in missing if not need.damage and need.folder is not None]
        in_the_way = " ".join(need.damage for need in missing if need.damage)
        if in_the_way and not wanted:
            raise UserError(in_the_way)
        with self._lock:
            if self._state.busy:
                raise UserError("A download is running already. Wait for it, or stop it first.")
            self._stop.clear()
            self._state = Fetching(busy=True)
            self._thread = threading.Thread(target=self._run, args=(wanted, in_the_way), name="download", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the download; what has come of a file stays for the next time."""
        self._stop.set()

    def _run(self, wanted: Sequence[tuple[Source, Path]], in_the_way: str) -> None:
        transfer = None
        try:
            for transfer in self._fetch(wanted):
                self._state = Fetching(transfer, busy=True)
                if self._stop.is_set():
                    self._state = Fetching(transfer, problem="Stopped. The next download goes on from here.")
                    return
            self._state = Fetching(transfer, done=not in_the_way, problem=in_the_way)
        except UserError as error:
            self._state = Fetching(transfer, problem=str(error))
        except Exception as error:
            log.exception("A download failed")
            self._state = Fetching(transfer, problem=f"The download failed: {type(error).__name__}: {error}.")
