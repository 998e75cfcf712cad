"""fingerprint: which file this is, whatever it is called: from its length, its beginning and its end."""

from __future__ import annotations

import hashlib
from pathlib import Path

PART = 2**16  # bytes at each end; a picture of ours has its settings and its seed in the first


def fingerprint(source: Path | bytes) -> str:
    """32 hex digits of SHA-256 over the length and the first and last 64 KiB. Raises OSError.

    Not the whole file: a hundred thousand pictures on a slow disk are 150 GB, their ends a tenth of that.
    """
    if isinstance(source, bytes):
        length, first, last = len(source), source[:PART], source[-PART:]
    else:
        with source.open("rb") as file:
            first = file.read(PART)
            length = file.seek(0, 2)
            file.seek(max(0, length - PART))
            last = file.read(PART)
    return hashlib.sha256(length.to_bytes(8, "big") + first + last).hexdigest()[:32]
