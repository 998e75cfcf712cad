"""cli_download: fetching model files in the terminal: say what and how large, ask, show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from core.cli import BAR_WIDTH, DONE, FAILED, INTERRUPTED
from core.errors import BadSetting
from core.weights.download import DownloadFailed, Transfer
from core.weights.download import download as fetch
from core.weights.needs import Need, told_amount, told_size, told_total
from core.weights.sources import SOURCES, without_secrets

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

    A damaged file in the way of one is told, the others are fetched, and the code is FAILED.
    Raises BadSetting if nothing was named, ModelNotFound for a file that nobody knows where to get.
    """
    out, err = out or sys.stdout, err or sys.stderr
    if not needs:
        raise BadSetting(
            "What was named needs no files, or nothing was named. Name a file (--list has them), or with --preset a preset "
            "that needs some."
        )
    missing = [need for need in needs if not need.present]
    for need in needs:
        print(f"{told_need(need)}", file=err)
    if not missing:
        print("Everything is there.", file=err)
        return DONE
    fetched = [need for need in missing if not need.damage]
    fetched = [need for need in fetched if need.url] or fetched  # the others are told in the list
    if not fetched:
        return FAILED
    wanted = [(need.source, need.folder) for need in fetched if need.folder is not None]
    if not yes and not _agreed(f"Download {len(fetched)} file(s), {told_total(fetched)}? [y/N] ", ask, err):
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
    return DONE if len(fetched) == len(missing) else FAILED


def tell_sources(out: TextIO | None = None) -> None:
    """One line a file that Easel knows where to get."""
    for source in SOURCES.values():
        size = told_size(source.size) if source.size else "?"
        print(f"{source.name:<52} {source.kind:<16} {size:>9}  {source.purpose}", file=out or sys.stdout)


def told_need(need: Need) -> str:
    """Such as `missing  x.safetensors (checkpoints, 6.94 GB) from https://...`."""
    if need.present:
        return f"there     {need.found} ({need.kind})"
    if need.damage:
        return f"damaged   {need.damage}"
    size = told_size(need.bytes) + (f", {need.licence}" if need.licence else "")
    origin = "and nobody knows where it is published"
    if need.url:
        origin = f"from {without_secrets(need.url)} to {need.folder}"
    pickle = ""
    if need.url and need.source.is_pickle:
        pickle = " (a pickle: `python launch.py convert FILE` makes a safetensors file of it)"
    return f"missing   {need.name} ({need.kind}, {size}) {origin}{pickle}"


def bar(transfer: Transfer) -> str:
    """Such as `[####----]  47 %  x.safetensors (1 of 2)  3.3 of 6.94 GB  41 MB/s  1:28 left`."""
    share = transfer.share or 0.0
    full = int(share * BAR_WIDTH)
    parts = [f"[{'#' * full}{'-' * (BAR_WIDTH - full)}] {share:4.0%}"]
    parts.append(transfer.name + (f" ({transfer.file} of {transfer.files})" if transfer.files > 1 else ""))
    if transfer.remark:
        parts.append(transfer.remark)
    parts.append(told_amount(transfer.done) + (f" of {told_amount(transfer.total)}" if transfer.total else ""))
    if transfer.speed:
        parts.append(f"{told_amount(transfer.speed)}/s")
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
    elif transfer.remark:
        print(bar(transfer), file=err, flush=True)
