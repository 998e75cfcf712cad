"""near: which known name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def meant(name: str, known: Collection[str], otherwise: str) -> str:
    """A sentence that proposes the one of `known` that is nearest to `name`, else the sentence `otherwise`.

    The same words in another order are nearest: `default_negative_prompt` means `default_prompt_negative`.
    """
    words = sorted(name.lower().split("_"))
    near = [other for other in known if sorted(other.split("_")) == words]
    near = near or difflib.get_close_matches(name.lower(), known, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise
