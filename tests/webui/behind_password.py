"""A page that asks for a password, and that takes as long to check one as the file FOLDER/closed is there."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from core.worker import Worker
from tests.webui.stand_in import Engine, handler, make_app
from webui.server import serve

RIGHT = "correct horse"


def main(port: int, folder: Path) -> None:
    """Serve until SIGTERM. Each password that is looked at makes the file FOLDER/asked one letter longer."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def check(name: str, password: str) -> bool:
        with (folder / "asked").open("a", encoding="utf-8") as asked:
            asked.write(".")
        while (folder / "closed").exists():
            time.sleep(0.02)
        return (name, password) == ("anna", RIGHT)

    def gone() -> set[str]:
        """Who is named in FOLDER/gone, once."""
        try:
            names = (folder / "gone").read_text(encoding="utf-8")
            (folder / "gone").unlink()
        except FileNotFoundError:
            return set()
        return set(names.split())

    worker = Worker(handler, lambda: Engine(outputs=folder))
    serve(make_app(worker), port=port, auth=check, gone=gone, in_browser=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
