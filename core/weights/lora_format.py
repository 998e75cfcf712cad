"""Which tensors of a LoRA file belong together, and which kind of patch they make; from names alone. No torch.

A name is a key, which says where in the model (`core.weights.lora_names`), and an ending, which says what. The kinds and
their formulas: LoRA (Hu et al. 2021), LoCon, LoHa and LoKr (Yeh et al. 2023, LyCORIS), GLoRA (Chavan et al. 2023), DoRA
(Liu et al. 2024), plain differences and whole weights; `core.weights.patches` computes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.weights.header import Header

ENDINGS = {  # ending of a tensor's name -> slot
    ".lora_up.weight": "up", ".lora_down.weight": "down", ".lora_mid.weight": "mid",  # kohya
    "_lora.up.weight": "up", "_lora.down.weight": "down",  # diffusers, the oldest
    ".lora.up.weight": "up", ".lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up", ".lora_linear_layer.down.weight": "down",  # transformers
    ".lora_B.weight": "up", ".lora_A.weight": "down",  # PEFT, and diffusers since
    ".alpha": "alpha",
    ".dora_scale": "dora_scale", ".lora_magnitude_vector": "magnitude", ".lora_magnitude_vector.weight": "magnitude",
    ".hada_w1_a": "hada_w1_a", ".hada_w1_b": "hada_w1_b", ".hada_w2_a": "hada_w2_a", ".hada_w2_b": "hada_w2_b",
    ".hada_t1": "hada_t1", ".hada_t2": "hada_t2",
    ".lokr_w1": "lokr_w1", ".lokr_w1_a": "lokr_w1_a", ".lokr_w1_b": "lokr_w1_b",
    ".lokr_w2": "lokr_w2", ".lokr_w2_a": "lokr_w2_a", ".lokr_w2_b": "lokr_w2_b", ".lokr_t2": "lokr_t2",
    ".a1.weight": "a1", ".a2.weight": "a2", ".b1.weight": "b1", ".b2.weight": "b2",
    ".w_norm": "w_norm", ".b_norm": "b_norm", ".diff": "diff", ".diff_b": "diff_b", ".set_weight": "set_weight",
}  # fmt: skip
KINDS: tuple[tuple[str, tuple[frozenset[str], ...]], ...] = (  # kind -> sets of slots, one of which must be there
    ("LoRA", (frozenset({"up", "down"}),)),
    ("LoHa", (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),)),
    (
        "LoKr",
        tuple(
            frozenset(first + second)
            for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
            for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
        ),
    ),
    ("GLoRA", (frozenset({"a1", "a2", "b1", "b2"}),)),
    ("norm", (frozenset({"w_norm"}),)),
    ("difference", (frozenset({"diff"}),)),
    ("weight", (frozenset({"set_weight"}),)),
)  # where a key has several, the later one counts, as in the programs that write such files
EXTRAS = {  # kind -> slots that it may have besides
    "LoRA": {"mid", "alpha", "magnitude", "dora_scale"},
    "LoHa": {"hada_t1", "hada_t2", "alpha", "dora_scale"},
    "LoKr": {"lokr_t2", "alpha", "dora_scale"},
    "GLoRA": {"alpha"},
}
BIASES = ("b_norm", "diff_b")  # differences for the bias beside the weight


@dataclass
class Keyed:
    """The tensors of one key: slot -> the tensor's whole name in the file. `kind` is "" if no kind is complete."""

    slots: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What patch of a weight they make."""
        fitting = [kind for kind, choices in KINDS for choice in choices if choice <= self.slots.keys()]
        return fitting[-1] if fitting else ""

    def used(self) -> dict[str, str]:
        """The slots that `kind` uses, biases aside."""
        kind = self.kind
        wanted = EXTRAS.get(kind, set()).union(
            *(choice for name, choices in KINDS if name == kind for choice in choices)
        )
        return {slot: name for slot, name in self.slots.items() if slot in wanted}


def grouped(names: Iterable[str]) -> tuple[dict[str, Keyed], list[str]]:
    """Tensor names by key, and those with an ending that says nothing to us."""
    keys: dict[str, Keyed] = {}
    unknown = []
    for name in names:
        plain = name.removesuffix(".default").replace(".default.", ".")  # PEFT's name for an adapter without a name
        ending = next((ending for ending in ENDINGS if plain.endswith(ending) and plain != ending), None)
        if ending is None:
            unknown.append(name)
        else:
            keys.setdefault(_key(plain[: -len(ending)]), Keyed()).slots[ENDINGS[ending]] = name
    return keys, unknown


def _key(spelled: str) -> str:
    """A key with underscores throughout if it begins so: OneTrainer has written `lora_unet_..._attn1.to_q`."""
    return spelled.replace(".", "_") if spelled.startswith(("lora_", "lycoris_")) else spelled


class PeftScales:
    """What PEFT's configuration says of alpha: in the file's metadata, or in `adapter_config.json` beside it.

    Files in PEFT's format hold no alpha; without a configuration alpha is the rank, as diffusers takes it.
    """

    def __init__(self, header: Header) -> None:
        self._config = _object(header.metadata.get("lora_adapter_metadata", ""))
        beside = config_beside(header.path)
        if not self._config and beside:
            self._config = _beside(beside)

    def scale(self, key: str, rank: int | None) -> float:
        """What the change at `key` is multiplied with: alpha / rank, 1 if nothing is known.

        Without a `rank`, as with the whole matrices of a LoKr, it is the configuration's.
        """
        prefix, _, module = key.partition(".")
        if f"{prefix}.lora_alpha" not in self._config:
            prefix, module = "", key
        config = (
            {name.removeprefix(f"{prefix}."): value for name, value in self._config.items()} if prefix else self._config
        )
        alpha = _number(_of_module(config, "alpha_pattern", module, config.get("lora_alpha", config.get("alpha"))))
        divisor = rank or _number(_of_module(config, "rank_pattern", module, config.get("r")))
        if alpha is None or not divisor or divisor < 0:
            return 1.0
        return alpha / (math.sqrt(divisor) if config.get("use_rslora") is True else divisor)


def config_beside(path: Path) -> Path | None:
    """PEFT's configuration that belongs to the file at `path`; None if there is none."""
    beside = path.with_name("adapter_config.json")
    return beside if path.name == "adapter_model.safetensors" and beside.is_file() else None


def _of_module(config: Mapping[str, Any], patterns: str, module: str, usual: Any) -> Any:
    """The value of the first of PEFT's `patterns` that is `module` or its end, or with ^ before it all of it; else `usual`.

    PEFT takes a pattern for a regular expression; those of a file are not run.
    """
    table = config.get(patterns)
    for pattern, value in table.items() if isinstance(table, dict) else ():
        if pattern.removeprefix("^") == module or module.endswith(f".{pattern}"):
            return value
    return usual


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _beside(path: Path) -> Mapping[str, Any]:
    try:
        return _object(path.read_text(encoding="utf-8")) if path.stat().st_size < 1 << 20 else {}
    except (OSError, ValueError):
        return {}


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
