"""ComfyUI's LoRAs: those that one node names, whether one, a list of rows or a stack by numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from core.output.foreign.comfyui_graph import Graph, Node
from core.output.reading import Reading, is_number, text_of

MOST_INPUTS = 200

_WEIGHTS = ("strength_model", "lora_model_strength", "strength", "lora_wt")
_ON_CLIP = ("strength_clip", "lora_clip_strength")
_NUMBERED = re.compile(r"lora(?:_name)?_(\d{1,3})")
# How strongly a LoRA of a stack acts: on the model, and on the text encoders where they have a number of their own.
_STACK_WEIGHTS = (
    ("model_str_{}", "clip_str_{}"), ("model_weight_{}", "clip_weight_{}"), ("strength_{}", ""), ("lora_weight_{}", ""),
)  # fmt: skip
_SIMPLE_WEIGHT = ("lora_wt_{}", "")  # of a stack whose input_mode is not "advanced"


class Lora(NamedTuple):
    """A LoRA as a graph has it; nothing is checked."""

    name: str
    weight: Any
    acts: bool


def loras_of(graph: Graph, node: Node, reading: Reading) -> Iterator[Lora]:
    """The LoRAs that `node` names; a weight for the text encoders other than the one for the model is listed."""
    if name := text_of(graph.value(node, "lora_name")):
        key = next((key for key in _WEIGHTS if key in node.inputs), None)
        lora = Lora(name, graph.value(node, key) if key else 1.0, True)
        for key in _ON_CLIP:
            _check_clip(reading, lora, graph.value(node, key))
        yield lora
    for value in list(node.inputs.values())[:MOST_INPUTS]:
        if isinstance(value, dict) and isinstance(value.get("lora"), str):
            yield Lora(value["lora"], value.get("strength", 1.0), value.get("on") is not False)
    yield from _stacked(graph, node, reading)


def _stacked(graph: Graph, node: Node, reading: Reading) -> Iterator[Lora]:
    """The numbered LoRAs of a node, as many as it counts."""
    count = graph.value(node, "lora_count")
    keys = _STACK_WEIGHTS if node.inputs.get("input_mode") == "advanced" else (_SIMPLE_WEIGHT, *_STACK_WEIGHTS)
    numbers = {key: found[1] for key in list(node.inputs)[:MOST_INPUTS] if (found := _NUMBERED.fullmatch(key))}
    for named, number in numbers.items():
        name = text_of(graph.value(node, named))
        if not name or (is_number(count) and int(number) > count):
            continue
        weights = ((graph.value(node, key.format(number)), on_clip.format(number)) for key, on_clip in keys)
        weight, on_clip = next((pair for pair in weights if is_number(pair[0])), (1.0, ""))
        lora = Lora(name, weight, node.inputs.get(f"switch_{number}") != "Off")
        _check_clip(reading, lora, graph.value(node, on_clip))
        yield lora


def _check_clip(reading: Reading, lora: Lora, weight: Any) -> None:
    if lora.acts and is_number(weight) and weight != lora.weight and lora.name.lower() != "none":
        reading.reject(f"strength_clip of {lora.name}", weight)
