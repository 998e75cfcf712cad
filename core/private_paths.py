"""private_paths: what visitors read in place of where this installation's folders are on its disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

SLASH = r"[\\/]+"


def without(places: Mapping[Path, str]) -> Callable[[str], str]:
    """What makes of a text the same with each of `places` put in other words; of two that fit the longer one counts."""
    long = {place: words for place, words in places.items() if len(place.parts) > 1}  # no whole disk
    nearest = sorted(long, key=lambda place: len(str(place)), reverse=True)
    if not nearest:
        return str
    pattern = re.compile("|".join(f"({_pattern(place)})" for place in nearest))
    words = [long[place] for place in nearest]
    return lambda text: pattern.sub(lambda found: words[(found.lastindex or 0) - 1], text)


def _pattern(place: Path) -> str:
    """Fits `place` however its slashes are written, but no other folder whose name begins or ends like it."""
    names = (re.escape(part.strip("\\/")) for part in place.parts)
    return rf"(?<![\w\\/.-]){SLASH.join(names)}(?![\w-])"
