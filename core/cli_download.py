"""cli_download: fetching model files in the terminal: say what and how large, ask, show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from core.cli import BAR_WIDTH, DONE, FAILED, INTERRUPTED
from core.errors import BadSetting
from core.weights.download import DownloadFailed, Transfer
from core.weights.download import download as fetch
from core.weights.needs import Need
from core.weights.sources import SOURCES

REFUSED = 2


def download(
    needs: Sequence[Need],
    *,
    mirror: str = "",
    yes: bool = False,
    ask: Callable[[str], str] = input,
    out: TextIO | None = None,
    err: TextIO | None = None,
    transfers: Callable[..., Iterator[Transfer]] = fetch,
) -> int:
    """Say which of `needs` are missing, ask unless `yes`, fetch them; the exit code. Paths go to `out`, all else to `err`.

    Raises BadSetting if nothing was named, ModelNotFound for a file that nobody knows where to get.
    """
    out, err = out or sys.stdout, err or sys.stderr
    if not needs:
        raise BadSetting("Nothing to download was named, or it needs no files. Name a file, or a preset with --preset.")
    missing = [need for need in needs if not need.present]
    for need in needs:
        print(f"{told_need(need)}", file=err)
    if not missing:
        print("Everything is there.", file=err)
        return DONE
    wanted = [(need.source, need.folder) for need in missing if need.folder is not None]
    total = sum(need.bytes or 0 for need in missing)
    if not yes and not _agreed(f"Download {len(missing)} file(s), about {told_size(total)}? [y/N] ", ask, err):
        print("Nothing has been downloaded.", file=err)
        return REFUSED
    try:
        for transfer in transfers(wanted, mirror=mirror):
            _show(transfer, err)
            if transfer.path:
                print(transfer.path, file=out, flush=True)
    except DownloadFailed as error:
        print(f"\n{error}" if err.isatty() else error, file=err)
        return FAILED
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=err)
        return INTERRUPTED
    return DONE


def tell_sources(out: TextIO | None = None) -> None:
    """One line a file that Easel knows where to get."""
    for source in SOURCES.values():
        size = told_size(source.size) if source.size else "?"
        print(f"{source.name:<52} {source.kind:<16} {size:>9}  {source.purpose}", file=out or sys.stdout)


def told_need(need: Need) -> str:
    """Such as `missing  x.safetensors (checkpoints, 6.94 GB) from https://...`."""
    if need.present:
        return f"there     {need.found} ({need.kind})"
    size = told_size(need.bytes) if need.bytes else "of unknown size"
    origin = f"from {need.url} to {need.folder}" if need.url else "and nobody knows where it is published"
    pickle = ""
    if need.url and need.source.is_pickle:
        pickle = " (a pickle: Easel keeps it but does not open such files)"
    return f"missing   {need.name} ({need.kind}, {size}) {origin}{pickle}"


def told_size(size: float) -> str:
    """Such as `6.94 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def bar(transfer: Transfer) -> str:
    """Such as `[####----]  47 %  x.safetensors (1 of 2)  3.3 of 6.94 GB  41 MB/s  1:28 left`."""
    share = transfer.share or 0.0
    full = int(share * BAR_WIDTH)
    parts = [f"[{'#' * full}{'-' * (BAR_WIDTH - full)}] {share:4.0%}"]
    parts.append(transfer.name + (f" ({transfer.file} of {transfer.files})" if transfer.files > 1 else ""))
    if transfer.text != "Downloading":
        parts.append(transfer.text)
    parts.append(told_size(transfer.done) + (f" of {told_size(transfer.total)}" if transfer.total else ""))
    if transfer.speed:
        parts.append(f"{told_size(transfer.speed)}/s")
        if transfer.all_total:
            minutes, seconds = divmod(round((transfer.all_total - transfer.all_done) / transfer.speed), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def _agreed(question: str, ask: Callable[[str], str], err: TextIO) -> bool:
    if ask is input and not sys.stdin.isatty():
        print("Add --yes to download without being asked.", file=err)
        return False
    try:
        return ask(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _show(transfer: Transfer, err: TextIO) -> None:
    if err.isatty():
        err.write("\r" + bar(transfer)[:150].ljust(150))
        if transfer.path:
            err.write("\n")
        err.flush()
    elif transfer.text != "Downloading":
        print(bar(transfer), file=err, flush=True)
