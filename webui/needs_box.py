"""The box of model files that are wanted and not there: what each is, how large, and the button that downloads them.

assets/downloads.js listens to the button and shows how the download goes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from core.cli_download import told_size, told_total
from core.weights.needs import Need

ABSENT = '<p class="note">Needed, and not there yet:</p>'


def needs_box(needs: Sequence[Need], *, allowed: bool, preset: str = "") -> str:
    """HTML of those of `needs` that are not there; "" if there are none, or if this visitor is not `allowed` to download.

    With `preset` the button asks for all that the preset of that name needs, whose own addresses the page cannot send;
    without, for the files by name.
    """
    missing = [need for need in needs if not need.present and (need.url or need.damage)]
    if not missing or not allowed:
        return ""
    wanted = {"preset": preset} if preset else {"names": [need.name for need in missing if need.url]}
    fetched = [need for need in missing if not need.damage]
    total = f' <span class="note">{told_total(fetched)}</span>' if fetched else ""
    button = f'<button type="button" class="plain" data-fetch="{escape(json.dumps(wanted))}">Download</button>{total}'
    return f'{ABSENT}<ul class="needs">{"".join(map(_row, missing))}</ul>{button if preset or wanted["names"] else ""}'


def _row(need: Need) -> str:
    if need.damage:
        return f"<li>{escape(need.name)}<p>{escape(need.damage)}</p></li>"
    licence = f" <span>Licence: {escape(need.licence)}</span>" if need.licence else ""
    return f"<li>{escape(need.name)} <span>{told_size(need.bytes)}</span>{licence}</li>"
