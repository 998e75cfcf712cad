"""The day's log: `log.html` beside the pictures, with each picture, its settings, and a button that copies them.

A new picture is one write at the end of the file, however long the file is; the style sheet turns the order round, so that
the newest stands first. The closing tags are left out, as HTML allows. Everything that comes from a request is escaped,
and the page's own policy lets nothing run but the one script below, known by its hash. Opens without a server.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import quote

from core.errors import OutputError
from core.output.a1111 import NOT_OF_THE_PICTURE
from core.output.escaped import escaped
from core.output.files import explained, move_to_free_name, write_new
from core.output.metadata import to_json
from core.output.record import PROGRAM, Record

NAME = "log.html"

_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)  # binary: Windows would turn line feeds into two bytes

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; --soft: #777; --mark: #4a6cf7; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 15px/1.45 system-ui, sans-serif; }
main { display: flex; flex-direction: column-reverse; gap: 1.25rem; }
article { display: flex; flex-wrap: wrap; gap: 1.25rem; padding: 1rem; border: 1px solid var(--edge); border-radius: 12px; }
article.gone { display: none; }
figure { flex: 1 1 16rem; margin: 0; max-width: 28rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; }
figcaption { margin-top: .4rem; color: var(--soft); overflow-wrap: anywhere; }
dl { flex: 2 1 20rem; display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem 1rem;
  margin: 0; align-content: start; }
dl .long { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: .85em; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
button { margin-top: .6rem; padding: .4rem .9rem; border: 1px solid var(--mark); border-radius: 8px; background: none;
  color: inherit; font: inherit; cursor: pointer; }
"""

_SCRIPT = """
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) event.target.closest("article").classList.add("gone");
}, true);
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element && event.target.closest("button[data-settings]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.settings);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = button.dataset.settings;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy settings"; }, 1500);
});
"""

_LONG = ' class="long"'  # takes a row of its own


def append_log(picture: Path, record: Record) -> Path:
    """Enter a saved `picture` in the log of its folder, and return the log's path. Raises OutputError."""
    log = picture.parent / NAME
    entry = _entry(picture.name, record).encode("utf-8")
    try:
        try:
            file = os.open(log, _APPEND)
        except FileNotFoundError:
            _begin(log, picture.parent.name)
            file = os.open(log, _APPEND)
        try:
            written = os.write(file, entry)  # one write: entries of two processes do not mix
            while written < len(entry):  # a nearly full disk takes less; the next write then says what is wrong
                written += os.write(file, entry[written:])
        finally:
            os.close(file)
    except OSError as problem:
        raise OutputError(f"The log {log} cannot be written: {explained(problem)}") from problem
    return log


def _begin(log: Path, day: str) -> None:
    """Make the log with nothing but its head, unless another process is faster."""
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src 'sha256-{_sha256(_STYLE)}'; "
        f"script-src 'sha256-{_sha256(_SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{PROGRAM}: {escape(day)}</title>\n<style>{_STYLE}</style>\n<script>{_SCRIPT}</script>\n</head>\n"
        f"<body>\n<h1>{escape(day)}</h1>\n<main>\n"
    )
    part = log.parent / f".{secrets.token_hex(8)}.part"
    try:
        write_new(part, head.encode("utf-8"))
        move_to_free_name(part, log)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _entry(name: str, record: Record) -> str:
    settings = record.settings
    rows = {key: value for key, value in settings.to_dict().items() if key not in NOT_OF_THE_PICTURE}
    rows |= {"base_model_sha256": record.base_model_sha256[:10], "version": f"{PROGRAM} {record.version}"}
    rows["created"] = record.created.isoformat(sep=" ", timespec="seconds")
    terms = "\n".join(
        f"<div{_LONG if key in ('prompt', 'negative_prompt') else ''}><dt>{escaped(key)}</dt><dd>{escaped(value)}</dd></div>"
        for key, value in rows.items()
        if value != ""
    )
    link = escape(quote(name))
    return (
        f'<article>\n<figure><a href="{link}"><img src="{link}" alt="{escaped(settings.prompt[:200])}" loading="lazy" '
        f'width="{settings.width}" height="{settings.height}"></a>\n<figcaption>{escaped(name)}</figcaption>\n'
        f'<button type="button" data-settings="{escape(to_json(record))}">Copy settings</button></figure>\n'
        f"<dl>\n{terms}\n</dl>\n</article>\n"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
