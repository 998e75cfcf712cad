"""Searching the history of 100 000 pictures while somebody types: each key pressed is a search of its own."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Stopwatch, add_rounds, command, from_one, parser, tell
from benchmarks.report import Report, absolute
from core.output.history import NAME, History
from core.output.history_files import Contents, PictureFile
from core.output.history_rows import enter
from core.output.history_store import Store

AT_MOST = 0.1  # seconds a search may take
DAY = 86_400_000  # milliseconds
FIRST_DAY = 1_700_000_000_000
VISITOR = "v" * 43
THINGS = (
    "fox", "apple", "castle", "woman", "old man", "city at night", "forest", "robot", "mountain lake", "rocket", "cat",
    "dragon", "Fuchs", "狐狸", "slice of pizza", "train", "lighthouse", "garden", "whale", "violin",
)  # fmt: skip
LOOKS = (
    "a", "of", "with", "highly detailed", "soft light", "red", "blue", "golden hour", "oil painting", "photo", "cinematic",
    "watercolour", "misty", "sharp focus", "in the style of a poster", "close-up", "wide angle", "8k", "portrait",
)  # fmt: skip
MODELS = tuple(f"models/{name}.safetensors" for name in ("easel-emoji-256", "juggernaut XL v9", "realVis", "pony v6"))
STYLES = tuple(f"{first} {second}" for first in ("Oil", "Ink", "Photo", "Clay") for second in ("soft", "bold", "old"))
# What is typed, by what it shows: the first letters find nearly everything, the last ones nearly nothing.
SEARCHES = {
    "nothing yet": "",
    "one letter": "f",
    "two letters": "fo",
    "a word": "fox",
    "a common word": "a",
    "three words": "fox red portrait",
    "a phrase": '"golden hour"',
    "without a word": "fox -photo",
    "only without": "-a",
    "a model": "model:easel",
    "a style": "style:ink fox",
    "a month": "fox date:2025-03",
    "favourites": "fav",
    "all at once": "fox model:easel date:2025 fav",
    "Chinese": "狐狸",
    "not there": "zeppelin",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = _arguments(argv)
    count = 300 if args.tiny else args.pictures
    with tempfile.TemporaryDirectory(prefix="easel-history-") as folder:
        clock = Stopwatch()
        fill(Path(folder), count)
        seconds, size = clock.seconds(), (Path(folder) / NAME).stat().st_size
        tell(f"{count} pictures entered in {seconds:.1f} s, {size / 1e6:.0f} MB")
        report = Report(f"Searching the history of {count} pictures", vars(args))
        for private in (False, True):
            _measure(report, History(Path(folder), private=private), args.rounds)
        report.notes.append(
            f"The database has {size / 1e6:.0f} MB; entering a picture took {1000 * seconds / count:.2f} ms."
        )
        report.finish(args.output)


def fill(outputs: Path, count: int) -> None:
    """Enter `count` pictures that do not exist, made over two years, one in fifty a favourite."""
    chance = random.Random(0)
    store = Store(outputs / NAME, on_damage=lambda: None)
    for start in range(0, count, 1000):
        with store.writing() as connection:
            for number in range(start, min(start + 1000, count)):
                _enter_one(connection, store.words, number, count, chance)
    store.close()


def _enter_one(connection: Any, words: str, number: int, count: int, chance: random.Random) -> None:
    prompt = ", ".join([chance.choice(THINGS), *chance.choices(LOOKS, k=12), f"number{chance.randrange(5000)}"])
    settings = {
        "prompt": prompt, "negative_prompt": "blurry, low quality, text, watermark", "seed": chance.randrange(2**62),
        "styles": chance.sample(STYLES, 2), "steps": 30, "guidance_scale": 4.0, "width": 1152, "height": 896,
        "loras": [{"name": f"lora{chance.randrange(40)}.safetensors", "weight": 0.8, "enabled": True}],
    }  # fmt: skip
    contents = Contents(
        width=1152, height=896, fingerprint=f"{number:032x}", created=FIRST_DAY + number * 730 * DAY // count,
        settings=settings, model=chance.choice(MODELS), source="easel",
    )  # fmt: skip
    path = f"day{number // 200}/{number}.png"
    enter(
        connection, words, "", PictureFile(path, number, 1_500_000), contents, owner=VISITOR if number % 2 else "other"
    )
    if number % 50 == 0:
        connection.execute("UPDATE pictures SET favourite = 1 WHERE path = ?", [path])
        enter(connection, words, "", PictureFile(path, number, 1_500_000), contents)


def _measure(report: Report, history: History, rounds: int) -> None:
    label = "seen by one visitor" if history.private else "seen by all"
    slowest: list[float] = []
    for name, text in SEARCHES.items():
        seconds, found = [], None
        for _ in range(rounds):
            clock = Stopwatch()
            found = history.search(text, VISITOR)
            seconds.append(clock.seconds())
        assert found is not None
        if found.before is not None:
            clock = Stopwatch()
            history.search(text, VISITOR, before=found.before)
            seconds_next = clock.seconds()
        else:
            seconds_next = 0.0
        row = {"": f"{label}: {name}", "text": text, "found": found.total, "best ms": 1000 * min(seconds)}
        row |= {"median ms": 1000 * statistics.median(seconds), "worst ms": 1000 * max(seconds)}
        report.rows.append(row | {"next page ms": 1000 * seconds_next})
        slowest.append(max(seconds))
    report.findings.append(absolute(f"slowest search, {label}", [max(slowest)], at_most=AT_MOST))
    history.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--pictures", type=from_one, default=100_000, help="how many there are (default 100000)")
    add_rounds(made, 10)
    return made.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(command(main))
