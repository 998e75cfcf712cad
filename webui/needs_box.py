"""The box of model files that are wanted and not there: what each is, how large, from where, and the button that downloads them.

assets/downloads.js listens to the button and shows how the download goes. Where a size is not known, the button asks for it
first: nothing is downloaded before the box has said what can be known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from urllib.parse import urlsplit

from core.weights.needs import Need, told_size, told_total

ABSENT = '<p class="note">Needed, and not there yet:</p>'


def needs_box(needs: Sequence[Need], *, allowed: bool, preset: str = "", asked: bool = False) -> str:
    """HTML of those of `needs` that are not there; "" if there are none, or if this visitor is not `allowed` to download.

    With `preset` the button asks for all that the preset of that name needs, whose own addresses the page cannot send;
    without, for the files by name. It is there if an address is known. `asked`: the servers were asked for the sizes.
    """
    missing = [need for need in needs if not need.present and (need.url or need.damage)]
    if not missing or not allowed:
        return ""
    wanted = {"preset": preset} if preset else {"names": [need.name for need in missing if need.url]}
    fetched = [need for need in missing if not need.damage]
    total = f' <span class="note">{told_total(fetched)}</span>' if fetched else ""
    asks = not asked and any(need.is_of_unknown_size for need in missing)
    kind, words = (" data-ask", "Ask how large it is") if asks else ("", "Download")
    button = (
        f'<button type="button" class="plain" data-fetch="{escape(json.dumps(wanted))}"{kind}>{words}</button>{total}'
    )
    rows = "".join(_row(need, asked) for need in missing)
    return f'{ABSENT}<ul class="needs">{rows}</ul>{button if any(need.url for need in missing) else ""}'


def _row(need: Need, asked: bool) -> str:
    if need.damage:
        return f"<li>{escape(need.name)}<p>{escape(need.damage)}</p></li>"
    licence = f" <span>Licence: {escape(need.licence)}</span>" if need.licence else ""
    size = "its host does not tell the size" if asked and need.is_of_unknown_size else told_size(need.bytes)
    host = f' <span class="notranslate">{escape(urlsplit(need.url).hostname or "")}</span>'
    return f"<li>{escape(need.name)} <span>{size}</span>{host}{licence}</li>"
