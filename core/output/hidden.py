"""Text hidden in the lowest bit of a picture's alpha channel, column by column, as NovelAI and others do beside their chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from core.output.embedded import LARGEST_PIECE, inflated
from core.output.reading import json_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SIGNATURES = {b"stealth_pngcomp": True, b"stealth_pnginfo": False}  # -> whether the text is packed by gzip
LARGEST_PICTURE = 2**25  # pixels

_HEAD = 15 * 8 + 32  # bits: the signature, and how many bits follow


def hidden_texts(image: Image) -> dict[str, str]:
    """The texts by name: those of a JSON object, or one called "parameters"; none if there is no hidden text.

    Raises BadMetadata for a damaged one, and Pillow's errors for a damaged picture.
    """
    bits = _bits(image)
    packed = _signed(bits)
    if bits is None or packed is None:
        return {}
    import numpy as np

    length = int.from_bytes(np.packbits(bits[_HEAD - 32 : _HEAD]).tobytes(), "big")
    data = np.packbits(bits[_HEAD : _HEAD + min(length, 8 * LARGEST_PIECE)]).tobytes()
    if packed:
        data = inflated(data, 31) or b""  # 31: gzip
    text = data.decode("utf-8", "replace")
    if not text.lstrip().startswith("{"):
        return {"parameters": text}
    values = json_object(text)
    if "Comment" not in values and "Description" not in values:
        return {"parameters": text}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def has_hidden_text(image: Image) -> bool:
    """Whether the picture carries such a text. Raises Pillow's errors for a damaged picture."""
    return _signed(_bits(image)) is not None


def _signed(bits: NDArray[np.uint8] | None) -> bool | None:
    if bits is None or len(bits) <= _HEAD:
        return None
    import numpy as np

    return SIGNATURES.get(np.packbits(bits[: _HEAD - 32]).tobytes())


def _bits(image: Image) -> NDArray[np.uint8] | None:
    if image.mode not in ("RGBA", "LA") or image.width * image.height > LARGEST_PICTURE:
        return None
    import numpy as np

    bits: NDArray[np.uint8] = np.asarray(image.getchannel("A"), dtype=np.uint8).T & np.uint8(1)
    return bits.reshape(-1)
