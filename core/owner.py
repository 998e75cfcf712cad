"""owner: the mark that stands on disk for a browser's secret, with which its tasks and pictures could be taken over."""

from __future__ import annotations

import hashlib


def owner_mark(owner: str) -> str:
    """64 hexadecimal digits, always the same for one `owner`; nobody finds the secret from them."""
    return hashlib.sha256(owner.encode()).hexdigest()
