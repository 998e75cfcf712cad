"""Write docs/configuration.md from the tables that the program itself reads by: python -m tools.make_configuration_docs"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from core.arguments import WITHOUT_EFFECT
from core.config import CONFIG_FILE, VARIABLES
from core.config_keys import KEYS
from core.config_reference import FILES as REFERENCE_FILES
from core.other_programs import LAYOUTS
from core.presets import PARTS, REFERENCE_NAMES
from core.reference_keys import KEYS as REFERENCE_KEYS
from core.reference_keys import LEGACY_PATHS
from core.settings import Settings, written_setting
from core.weights.sources import HOSTS, SOURCES

DOC = Path(__file__).parents[1] / "docs" / "configuration.md"

START = f"""# Configuration

Made by `python -m tools.make_configuration_docs` from the tables in `core/`; a test compares the two.

`{CONFIG_FILE}` beside `launch.py` holds the choices of this installation, and only those that differ from the usual. It is made at the
first start with nothing but a comment in it, and Easel never writes it again. Names that begin with `$` are comments. A name that
does not exist, or a value that does not fit, ends the start with a sentence that says which and what was meant. (A language that is
not there is told, a device that this machine lacks as soon as it is needed, and the number of a GPU counts only where there is one.)

```json
{{
    "$why": "the big disk, and the models that ComfyUI has already",
    "port": 7870,
    "outputs": "D:/pictures",
    "checkpoints": ["models/checkpoints", "E:/checkpoints"],
    "use_models_of": {{"comfyui": "E:/ComfyUI", "huggingface": true}},
    "defaults": {{"output_format": "webp", "image_number": 2}}
}}
```

Of the same thing said in several places, the first of these counts: the flag on the command line; the environment variable (`EASEL_` and
the name in capitals, such as `EASEL_PORT`; a list or an object as JSON); {CONFIG_FILE}; the reference's variables and files (see below). Relative
paths start at the folder of `launch.py`, those of flags and variables at the folder you are in. A folder need not exist yet,
apart from those of `use_models_of`. What is named for a kind of file takes the place of the usual folder: name `models/checkpoints`
too if its small model is to stay in reach. A browser that was here before starts with what it remembers, not with `preset` and
`defaults`; "Reset to the preset" takes them over.

The launcher itself heeds `EASEL_VENV` (the folder of its environment instead of `.venv`), `EASEL_NO_VENV` (anything: run as it is,
install nothing), `TORCH_BACKEND` (as `--torch`) and `TORCH_INDEX_URL` (where torch comes from); `EASEL_AUTH` is as `--auth`.

## Names
"""
MODELS = """## Models of other programs, in place

`use_models_of` names the folders of other programs. Their files are read where they are, beside your own; nothing there is
written, moved or renamed, and downloads go to your own folders. `"huggingface": true` takes the cache where it usually is
(`HF_HUB_CACHE`, `HF_HOME`), and of it the models that are one file. Of Fooocus, the folders that its config.txt names count too.
"""
SETTINGS = """## Settings to start with

`defaults` is an object of settings by their names. They lie over what the checkpoint recommends, and under the preset and what you set. The names of
the reference's presets work there too. The same names stand in presets, in pictures and behind `--set` of `python launch.py generate`, which
takes lists as JSON or written out: `styles=A, B`, `loras=film.safetensors:0.8, other.safetensors:1` (a preset's `loras` are objects:
`{"name": "film.safetensors", "weight": 0.8}`):
"""
PRESETS = """## Presets

A preset is a JSON file in `user_presets` (yours) or `presets` (the program's, never written). It holds settings by their names, only those it
changes, and beside them:
"""
PRESETS_END = """
A preset of Fooocus can be put into `user_presets` as it is. If a preset's checkpoint is not there, the first of its `previous` ones that is there is used,
else the small model that comes with Easel; the program says so. A preset that a newer Easel wrote loads without what this one does not
know, and says what that is; an unknown name otherwise is an error that says which was meant. Fooocus's names of its presets work, too:
{names}. What its `default` says, `general` says here.
"""
DOWNLOADS = """## Downloads

`python launch.py download --preset NAME` (or file names; `--list` names what Easel knows) says what is missing and how large it is, asks, and
fetches it. Ended at any byte, the same command goes on. A file gets its name only when its size, its SHA-256 (of the table or of the hub) and its
header are right; one that has no such header and no known SHA-256 must at least be no web page and have half of the size
below. A page to sign in on is not taken for a file. Messages name addresses without user, password and query.
Connections are https with verified certificates; `HF_MIRROR` or `--hf-mirror` names an address that serves the hub's files.
Addresses in presets must be on {hosts}, or on a host that `download_hosts` names.
A file of the table below keeps its size and its SHA-256 where a preset gives another address for it, unless the preset gives a SHA-256 too. For a
file whose size nobody knows, the page asks the host before it offers the download.
"""
REFERENCE = """## Files of the reference

`{files}` beside `launch.py` (or where the environment variable `config_path` points) are read, never written or renamed, and so is every
environment variable that has the name of one of their keys (a list as JSON or as Python writes it). A value that does not fit is told, in the
page too, and left out. `sorted_styles.json` and `hash_cache.txt` are not read, and users come in by `python launch.py add-user NAME`: passwords in its
`auth.json` are refused, because they are kept plain or as bare SHA-256. What the keys are here:
"""
FLAGS = """## Flags that are accepted and change nothing
"""


def text() -> str:
    """The whole document."""
    parts = [START]
    parts += table(("name", "usual", "what it is"), [(f"`{name}`", key.usual, key.help) for name, key in KEYS.items()])
    named = ", ".join(f"`{variable}` stands for `{name}`" for name, variable in VARIABLES.items())
    parts += [f"\nOf other programs' variables, {named}.\n", MODELS]
    rows: list[tuple[str, ...]] = [
        (f"`{program}`", kind, ", ".join(f"`{place}`" for place in places))
        for program, layout in LAYOUTS.items()
        for kind, places in layout.items()
    ]
    parts += [*table(("program", "kind", "folders below its own"), rows), "", SETTINGS]
    rows = [(f"`{f.name}`", _usual(f.default), _values(f)) for f in fields(Settings)]
    parts += [*table(("name", "usual", "values"), rows), "", PRESETS]
    named = ", ".join(f"`{theirs}` is `{ours}`" for theirs, ours in REFERENCE_NAMES.items())
    parts += table(("name", "what it is"), [(f"`{name}`", words) for name, words in PARTS.items()])
    parts.append(PRESETS_END.format(names=named))
    parts.append(DOWNLOADS.format(hosts=", ".join(HOSTS)))
    rows = [
        (f"`{row.name}`", row.kind, f"{row.size / 1e6:,.1f} MB" if row.size else "?", "yes" if row.sha256 else "")
        for row in SOURCES.values()
    ]
    parts += [*table(("file", "kind", "size", "SHA-256 known"), rows), ""]
    parts.append(REFERENCE.format(files="`, `".join(REFERENCE_FILES)))
    rows = [(f"`{key}`", _told(meaning.place, meaning.to)) for key, meaning in REFERENCE_KEYS.items()]
    rows.append(("`default_ip_image_1`, `default_ip_type_1`, ...", "nothing: Easel has no such feature yet"))
    rows += [(f"`{old}`", f"as `{new}`") for old, new in LEGACY_PATHS.items()]
    parts += [*table(("key", "here"), rows), "", FLAGS]
    parts += table(("flag", "why"), [(f"`{flag}`", why) for flag, (_, why) in WITHOUT_EFFECT.items()])
    return "\n".join(parts).rstrip() + "\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table, line by line."""
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _usual(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else written_setting(value) or "empty"


def _values(field: Field[Any]) -> str:
    """What the setting may be."""
    limits = field.metadata
    if "choices" in limits:
        return ", ".join(limits["choices"])
    if "low" in limits:
        step = f", multiples of {limits['multiple']}" if limits["multiple"] > 1 else ""
        return f"{limits['low']} to {limits['high']}{step}"
    if "most" in limits:
        return f"a list of up to {limits['most']}"
    return f"a text of up to {limits['longest']} characters" if "longest" in limits else "true, false"


def _told(place: str, to: str) -> str:
    words = {"settings": f"the setting `{to}`", "config": f"`{to}`", "preset": f"`{to}` of a preset"}
    return words.get(place, f"nothing: {to}")


if __name__ == "__main__":
    DOC.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{DOC}\n")
