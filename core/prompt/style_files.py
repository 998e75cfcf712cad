"""Style files: the reference's JSON (`sdxl_styles_*.json`) and A1111's `styles.csv`, read whatever they hold."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.there import is_file

PLACE = "{prompt}"
LARGEST_FILE = 2**23  # bytes
MOST_STYLES = 10_000  # a file
LONGEST = 20_000  # characters of a template

# The reference reads its own files last, in this order, so that they win over others of the same name.
_REFERENCE_ORDER = ("fooocus", "sai", "mre", "twri", "diva", "marc_k3nt3l")


@dataclass(frozen=True)
class Style:
    """What a style adds to a prompt. `group` is where it belongs in a list; both templates may be empty."""

    name: str
    prompt: str  # with {prompt} where the prompt goes; without it, a text beside the prompt
    negative_prompt: str = ""
    group: str = ""


def style_name(text: str) -> str:
    """A style's name as the reference shows it: `sai-line art` is `SAI Line Art`."""
    name = " ".join(word.capitalize() for word in text.replace("-", " ").split())
    for plain, shown in (("3d", "3D"), ("Sai", "SAI"), ("Mre", "MRE"), ("(s", "(S")):
        name = name.replace(plain, shown)
    return name


def style_files(folder: Path) -> list[Path]:
    """The style files below `folder`, in the order in which later ones win."""
    below = (Path(place) / name for place, _, names in os.walk(folder) for name in names if not name.startswith("."))
    ranks = {f"sdxl_styles_{name}": rank for rank, name in enumerate(_REFERENCE_ORDER, 1)}
    files = (path for path in below if path.suffix.lower() in (".json", ".csv") and is_file(path))
    return sorted(files, key=lambda p: (ranks.get(p.stem.lower(), 0), str(p)))


def read_styles(file: Path) -> tuple[list[Style], list[str]]:
    """The styles in `file`, and a sentence for each thing in it that cannot be used; the rest is used all the same."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            return [], [f"The style file {file} has more than {LARGEST_FILE >> 20} MB and is not read."]
        text = file.read_text(encoding="utf-8-sig")
        entries = list(_csv_entries(text) if file.suffix.lower() == ".csv" else _json_entries(text))
    except (OSError, ValueError, RecursionError, csv.Error) as problem:
        return [], [f"The style file {file} cannot be read ({problem}); its styles are left out."]
    styles, problems = [], []
    group = group_name(file.stem)
    for number, entry in enumerate(entries, 1):
        if number > MOST_STYLES:
            problems.append(f"The style file {file} has more than {MOST_STYLES} styles; the rest is left out.")
            break
        try:
            style = _style(entry, group, as_written=file.suffix.lower() == ".csv")
        except ValueError as problem:
            problems.append(f"The style file {file}: entry {number} is left out, because {problem}.")
            continue
        if style is not None:
            styles.append(style)
    return styles, problems


def group_name(stem: str) -> str:
    """What a file's styles are called together: `sdxl_styles_moods_and_light` is `Moods & light`."""
    words = re.sub(r"^(sdxl_)?styles_(?=.)", "", stem).replace("_", " ").replace(" and ", " & ")
    return (words[:1].upper() + words[1:]).replace("3d", "3D")


def _style(entry: Any, group: str, *, as_written: bool) -> Style | None:
    """The style of one entry, None for a row that only divides a list. Raises ValueError saying what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError('it is no object such as {"name": "...", "prompt": "... {prompt} ..."}')
    name, prompt, negative = (entry.get(key) for key in ("name", "prompt", "negative_prompt"))
    prompt, negative = ("" if value is None else value for value in (prompt, negative))
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise ValueError("it has no name of at most 200 letters")
    if not isinstance(prompt, str) or not isinstance(negative, str):
        raise ValueError(f"the prompt and the negative prompt of {name!r} must be text")
    if max(len(prompt), len(negative)) > LONGEST:
        raise ValueError(f"a prompt of {name!r} has more than {LONGEST} characters")
    if as_written and not prompt.strip() and not negative.strip():
        return None
    # A1111 puts the user's negative prompt in its place; here that is a text of its own behind the styles'.
    negative = re.sub(r"(, *)?\{prompt\}(, *)?", lambda m: ", " if m[1] and m[2] else "", negative)
    return Style(" ".join(name.split()) if as_written else style_name(name), prompt, negative, group)


def _json_entries(text: str) -> list[Any]:
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError("it is no JSON list of styles")
    return entries


def _csv_entries(text: str) -> Iterator[dict[str, Any]]:
    """Rows as the entries of a JSON file; `text` is what the oldest files call the prompt."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = [(name or "").strip().lower() for name in rows.fieldnames or ()]
    if "name" not in columns or not {"prompt", "text"} & set(columns):
        raise ValueError('its first line must name the columns "name", "prompt" and "negative_prompt"')
    rows.fieldnames = columns
    for row in rows:
        yield {
            "name": row.get("name") or "",
            "prompt": row.get("prompt") or row.get("text") or "",
            "negative_prompt": row.get("negative_prompt") or "",
        }
