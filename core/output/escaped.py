"""escaped: text from anywhere as HTML that shows it and does nothing else."""

from __future__ import annotations

import re
from html import escape

from core.output.reading import whole_text

# Letters that change how the text around them is drawn (direction marks, controls) are shown by their number.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def escaped(value: object) -> str:
    """`value` as HTML text, also fit for an attribute in quotes."""
    text = str(whole_text(str(value))).replace("\r\n", "\n")
    return escape(_INVISIBLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text))
