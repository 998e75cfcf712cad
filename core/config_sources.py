"""config_sources: what a configuration file and an environment variable hold, as values that are not checked yet."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import BadConfig, BadSetting
from core.output.literals import literal


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises BadConfig with what usually goes wrong."""
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadConfig(
            f"{file} cannot be read: {error.strerror or error}. It must be a file that you may read."
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadConfig(
            f"{file} cannot be read ({error}). Mend it, or delete it to take the defaults. Often it is a comma before the "
            "last brace, a missing quotation mark, or a backslash in a path: write it twice, or write / instead."
        ) from None
    if not isinstance(values, dict):
        raise BadConfig(f'{file} must hold a JSON object such as {{"port": 7866}}.')
    return values


def value_of(text: str) -> Any:
    """What a variable's text writes as JSON or as Python does; the text itself if it writes nothing of the kind."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except (ValueError, RecursionError):
        with suppress(BadSetting):
            return literal(text)
    return text


def list_or_text(text: str) -> Any:
    """A variable's text, or the list that it writes."""
    found = value_of(text) if text.startswith("[") else text
    return found if isinstance(found, list) else text
