"""day_page: the pictures of one day as one HTML page that needs nothing else: no server, no script, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from core.output.a1111 import NOT_OF_THE_PICTURE
from core.output.escaped import escaped
from core.output.history_rows import Picture
from core.output.record import PROGRAM

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; --soft: #666; }
@media (prefers-color-scheme: dark) { :root { --soft: #aaa; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 15px/1.45 system-ui, sans-serif; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1.25rem; }
article { padding: 1rem; border: 1px solid var(--edge); border-radius: 12px; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; border-radius: 8px; }
h2 { margin: .8rem 0 .3rem; font-size: 1rem; white-space: pre-wrap; unicode-bidi: isolate; }
p { margin: 0 0 .5rem; color: var(--soft); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .2rem .8rem; margin: .5rem 0 0; font-size: .9em; }
dt { color: var(--soft); }
dd { margin: 0; white-space: pre-wrap; unicode-bidi: isolate; }
"""


def day_page(
    day: date,
    pictures: Sequence[Picture],
    settings: Callable[[Picture], Mapping[str, Any]],
    thumbnail: Callable[[Picture], bytes | None],
) -> Iterator[str]:
    """The page, piece by piece. Nothing that a picture says of itself can be anything but text in it."""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_sha256(_STYLE)}'; base-uri 'none'; form-action 'none'"
    )
    title = f"{PROGRAM}: {day.isoformat()}"
    count = f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}"
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{count}</p>\n<main>\n"
    )
    for picture in pictures:
        yield _article(picture, settings(picture), thumbnail(picture))
    yield "</main>\n</body>\n</html>\n"


def _article(picture: Picture, settings: Mapping[str, Any], thumbnail: bytes | None) -> str:
    source = f"data:image/webp;base64,{base64.b64encode(thumbnail).decode('ascii')}" if thumbnail else ""
    image = f'<img src="{source}" alt="{escaped(picture.prompt[:200])}">' if source else "<p>The file is gone.</p>"
    rows = {"model": picture.model, **settings}
    terms = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>"
        for name, value in rows.items()
        if value not in ("", [], None) and name not in (*NOT_OF_THE_PICTURE, "prompt", "base_model")
    )
    return (
        f"<article>\n{image}\n<h2>{escaped(picture.prompt or 'No prompt')}</h2>\n"
        f"<p>{picture.created:%H:%M:%S} · {picture.width} × {picture.height} · {escaped(picture.name)}</p>\n"
        f"<details><summary>Settings</summary><dl>{terms}</dl></details>\n</article>\n"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
