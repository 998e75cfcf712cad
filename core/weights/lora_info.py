"""What a LoRA file says about itself, from its header alone; no torch, so that a page can ask."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadModelFile
from core.weights.header import Header, read_header
from core.weights.lora_format import grouped
from core.weights.lora_names import is_text_key

FAMILIES = {  # family -> what to call it
    "sdxl": "SDXL", "sdxl-refiner": "the SDXL refiner", "sd15": "Stable Diffusion 1.5", "sd2": "Stable Diffusion 2",
    "sd3": "Stable Diffusion 3", "flux": "Flux", "": "an unknown model",
}  # fmt: skip
_WIDTHS = {2048: "sdxl", 1280: "sdxl-refiner", 768: "sd15", 1024: "sd2"}  # of the text that cross-attention reads
_TOLD = (  # a piece of what the metadata calls the base model -> family
    ("refiner", "sdxl-refiner"), ("xl", "sdxl"), ("flux", "flux"), ("stable-diffusion-3", "sd3"), ("sd3", "sd3"),
    ("v2", "sd2"), ("v1", "sd15"),
)  # fmt: skip
_READS_TEXT = re.compile(r"attn2[._](?:processor\.)?to_k.*(?:[._]down|lora_A)\.weight")
_RANK_SLOTS = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a1")

MOST_WORDS = 30
LONGEST_WORD = 100  # characters
LONGEST_METADATA = 1 << 22  # characters of one entry; kohya's tag lists have some 100,000


@dataclass(frozen=True, kw_only=True)
class LoraInfo:
    """A LoRA file as its header tells. `size` in bytes; texts are one line each, and plain text."""

    name: str
    path: Path
    size: int
    title: str = ""
    family: str = ""  # a key of FAMILIES: what it was made for
    kind: str = ""  # the commonest of lora_format.KINDS
    rank: int | None = None  # the largest
    text_encoder: bool = False  # whether it changes a text encoder
    trigger_words: tuple[str, ...] = ()  # what its maker says to write
    tags: tuple[tuple[str, int], ...] = ()  # what its training pictures were called, and how often; commonest first

    @property
    def fits_sdxl(self) -> bool:
        """Whether it may do something with an SDXL model."""
        return self.family in ("sdxl", "")

    @property
    def fits_refiner(self) -> bool:
        """Whether it may do something with a refiner of another kind than SDXL's base model."""
        return self.family in ("sdxl-refiner", "sd15")


def lora_info(path: Path, name: str = "") -> LoraInfo:
    """What the file at `path` says. Raises ModelNotFound, and BadModelFile for what is damaged or no LoRA."""
    header = read_header(path)
    name = name or path.name
    keys, _ = grouped(header.tensors)
    kinds = Counter(keyed.kind or "bias" for keyed in keys.values() if keyed.kind or keyed.slots.keys() - {"alpha"})
    if not kinds:
        raise BadModelFile(f"{name} is no LoRA: none of its {len(header.tensors)} tensors has a name as LoRAs have.")
    ranks = [
        header.tensors[keyed.slots[slot]].shape[0]
        for keyed in keys.values()
        for slot in _RANK_SLOTS
        if slot in keyed.slots and header.tensors[keyed.slots[slot]].shape
    ]
    metadata = header.metadata
    return LoraInfo(
        name=name,
        path=path,
        size=header.size,
        title=_line(metadata.get("modelspec.title") or metadata.get("ss_output_name") or ""),
        family=_family(header),
        kind=kinds.most_common(1)[0][0],
        rank=max(ranks, default=None),
        text_encoder=any(is_text_key(key) for key in keys),
        trigger_words=tuple(_trigger_words(metadata)),
        tags=_tags(metadata.get("ss_tag_frequency", "")),
    )


def _family(header: Header) -> str:
    """From the width of the text that the file's cross-attentions read, else from its metadata, else from its names."""
    for name, entry in header.tensors.items():
        reads_text = _READS_TEXT.search(name) and len(entry.shape) >= 2
        if reads_text and entry.shape[1] in _WIDTHS:
            return _WIDTHS[entry.shape[1]]
    told = [header.metadata.get(key, "")[:200].lower() for key in ("ss_base_model_version", "modelspec.architecture")]
    for piece, family in _TOLD:
        if any(piece in text for text in told):
            return family
    if any(name.startswith(("lora_te2_", "text_encoder_2.", "lora_unet_input_blocks_")) for name in header.tensors):
        return "sdxl"
    if any("double_blocks" in name or "single_transformer_blocks" in name for name in header.tensors):
        return "flux"
    return ""


def _trigger_words(metadata: Mapping[str, str]) -> Iterator[str]:
    seen: set[str] = set()
    for key in ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words"):
        text = metadata.get(key, "")[:LONGEST_METADATA]
        words = [_line(str(word)) for word in _list(text)] if text.lstrip().startswith("[") else text.split(",")
        for word in words:
            word = _line(word)
            if word and word.lower() not in seen and len(seen) < MOST_WORDS:
                seen.add(word.lower())
                yield word


def _list(text: str) -> list[Any]:
    value = _json(text)
    return value if isinstance(value, list) else []


def _tags(text: str) -> tuple[tuple[str, int], ...]:
    """kohya's `ss_tag_frequency`: folder -> tag -> how often."""
    counts: Counter[str] = Counter()
    folders = _json(text)
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            word = _line(str(tag))
            if word and type(count) is int and 0 < count < 1 << 31:
                counts[word] += count
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS])


def _json(text: str) -> Any:
    try:
        return json.loads(text) if 0 < len(text) <= LONGEST_METADATA else None
    except (ValueError, RecursionError):
        return None


def _line(text: str) -> str:
    """`text` as one short line: no control characters, no marks that turn the direction of writing."""
    kept = "".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_WORD])
    return " ".join(kept.split())[:LONGEST_WORD].strip()
