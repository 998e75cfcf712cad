"""ComfyUI's graph of nodes, in the form that it runs (API) or the form that its page draws (workflow), safe to walk.

Graphs come from files and may be anything: links lead nowhere or in circles. No walk enters a node twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

MOST_NODES = 5000
LONGEST_CHAIN = 200  # nodes from a value to where it stands
DEEPEST_JOIN = 40  # texts joined of texts that are joined of texts ...
LONGEST_JOIN = 20_000  # characters, as many as a prompt can have

# Names of the values of a node that the drawn form only has by position.
WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
        "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "RandomNoise": ("noise_seed", ""),
    "CFGGuider": ("cfg",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "SDTurboScheduler": ("steps", "denoise"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "VAELoader": ("vae_name",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        "width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l",
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "FreeU": ("b1", "b2", "s1", "s2"),
    "FreeU_V2": ("b1", "b2", "s1", "s2"),
    "RescaleCFG": ("multiplier",),
    "ModelSamplingDiscrete": ("sampling", "zsnr"),
    "PrimitiveNode": ("value",),
}  # fmt: skip

_VALUE_NAMES = ("value", "text", "string", "prompt", "populated_text", "seed", "int", "float", "number")
# The inputs of nodes that join texts, with a `delimiter` between them: ComfyUI's own, and the WAS suite's.
_STRINGS = ("string_a", "string_b")
_TEXTS = ("text_a", "text_b", "text_c", "text_d")
# Nodes behind which a text is another one.
_CHANGES = ("StringReplace", "StringSubstring", "RegexReplace", "RegexExtract", "CaseConverter")
_REROUTED = ("any", "*", "")
_NEVER, _BYPASS = 2, 4  # modes of a drawn node
_NOTES = ("Note", "MarkdownNote")


@dataclass(frozen=True)
class Link:
    """Where an input comes from: a node and the number of its output."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """One node: its class, and its inputs by name, each a value or a Link."""

    kind: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def links(self) -> Iterator[tuple[str, Link]]:
        """The inputs that come from other nodes."""
        return ((name, value) for name, value in self.inputs.items() if isinstance(value, Link))


class Graph:
    """Nodes by id."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._joined: dict[str, str | None] = {}  # what nodes that join texts come to

    def link(self, node: Node, names: Iterable[str]) -> Link | None:
        """Where the first of the inputs `names` that is linked comes from."""
        return next((node.inputs[name] for name in names if isinstance(node.inputs.get(name), Link)), None)

    def up(self, start: Link | str | None, names: Sequence[str] | None = None) -> Iterator[tuple[str, Node]]:
        """The nodes upstream of a link or node, nearest first, by inputs called one of `names` (None: by any)."""
        ids = [start.node if isinstance(start, Link) else start] if start is not None else []
        seen = set(ids)
        for at in ids:  # grows while it is walked
            if at not in self.nodes:
                continue
            node = self.nodes[at]
            yield at, node
            for name, link in node.links():
                if link.node not in seen and (names is None or name in names):
                    seen.add(link.node)
                    ids.append(link.node)

    def value(self, node: Node, name: str, depth: int = 0) -> Any:
        """The value of an input, followed to where it stands; None if it stands nowhere or is changed on the way."""
        value = node.inputs.get(name)
        for _ in range(LONGEST_CHAIN):
            if not isinstance(value, Link):
                return value
            source = self.nodes.get(value.node)
            if source is None or source.kind in _CHANGES:
                return None
            if parts := _parts(source):
                return self._join(value.node, parts, depth)
            names = [name, *_VALUE_NAMES, *(_REROUTED if source.kind == "Reroute" else ())]
            value = next((source.inputs[n] for n in names if source.inputs.get(n) is not None), None)
        return None

    def sources(self, node: Node, name: str) -> Iterator[str]:
        """The nodes that the value of an input comes through, nearest first."""
        names = (name, *_VALUE_NAMES, *_REROUTED, *_STRINGS, *_TEXTS, "delimiter")
        return (at for at, _ in islice(self.up(self.link(node, (name,)), names), LONGEST_CHAIN))

    def _join(self, at: str, names: list[str], depth: int) -> str | None:
        """The text of a node that joins those of its inputs `names`; None if one of them cannot be followed."""
        if at not in self._joined and depth < DEEPEST_JOIN:
            self._joined[at] = None  # should it be a part of itself
            node = self.nodes[at]
            parts = [self.value(node, name, depth + 1) for name in ("delimiter", *names)]
            texts = [part for part in parts if isinstance(part, str)]
            if len(texts) == len(parts):
                self._joined[at] = _joined(node, *texts)
        return self._joined.get(at)

    def ends(self) -> list[str]:
        """The nodes that no other needs: those that save first, then those that show, then all others."""
        needed = {link.node for node in self.nodes.values() for _, link in node.links()}
        ends = [at for at in self.nodes if at not in needed]
        words = ("save", "preview")

        def rank(at: str) -> int:
            return next((i for i, word in enumerate(words) if word in self.nodes[at].kind.lower()), len(words))

        return sorted(ends, key=rank)


def api_graph(values: Mapping[str, Any]) -> Graph:
    """The graph of the form that ComfyUI runs: `{"3": {"class_type": ..., "inputs": {"model": ["4", 0], ...}}}`."""
    nodes = {}
    for at, node in list(values.items())[:MOST_NODES]:
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs")
            inputs = inputs if isinstance(inputs, dict) else {}
            nodes[at] = Node(node["class_type"], {name: _linked(value) for name, value in inputs.items()})
    return Graph(nodes)


def drawn_graph(values: Mapping[str, Any]) -> Graph:
    """The graph of the form that ComfyUI's page draws: `{"nodes": [...], "links": [[id, from, slot, to, slot, type]]}`."""
    drawn = {
        str(node.get("id")): node
        for node in values["nodes"][:MOST_NODES]
        if isinstance(node, dict) and isinstance(node.get("type"), str) and node["type"] not in _NOTES
    }
    origins = {}
    for link in values["links"][: 10 * MOST_NODES]:
        if isinstance(link, dict):
            link = [link.get("id"), link.get("origin_id"), link.get("origin_slot")]
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int) and isinstance(link[2], int):
            origins[link[0]] = Link(str(link[1]), link[2])
    nodes = {}
    for at, node in drawn.items():
        if node.get("mode") not in (_NEVER, _BYPASS):
            links = {name: _origin(link, drawn, origins) for name, _, link in _inputs(node)}
            nodes[at] = Node(node["type"], _widgets(node) | {name: link for name, link in links.items() if link})
    return Graph(nodes)


def _parts(node: Node) -> list[str]:
    """The inputs whose texts a node joins; none of a node that does something else."""
    if node.inputs.get("delimiter") is None:
        return []
    return [name for name in (*_STRINGS, *_TEXTS) if node.inputs.get(name) is not None]


def _joined(node: Node, delimiter: str, *texts: str) -> str | None:
    if "clean_whitespace" in node.inputs:  # the WAS suite's
        delimiter = "\n" if delimiter == "\\n" else delimiter
        if node.inputs["clean_whitespace"] == "true":
            texts = tuple(text.strip() for text in texts)
        texts = tuple(text for text in texts if text)
    if sum(map(len, texts)) + len(delimiter) * len(texts) > LONGEST_JOIN:
        return None
    return delimiter.join(texts)


def _linked(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
        return Link(str(value[0]), value[1])
    return value


def _inputs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and link of the inputs of a drawn node."""
    inputs = node.get("inputs")
    for one in inputs if isinstance(inputs, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            yield one["name"], one.get("type"), one.get("link")


def _origin(link: Any, drawn: Mapping[str, Any], origins: Mapping[int, Link]) -> Link | None:
    """Where a link begins; a node that is passed by hands on its input of the same type."""
    for _ in range(LONGEST_CHAIN):
        origin = origins.get(link) if isinstance(link, int) else None
        node = drawn.get(origin.node) if origin else None
        if origin is None or node is None or node.get("mode") != _BYPASS:
            return origin
        outputs = node.get("outputs")
        out = outputs[origin.slot] if isinstance(outputs, list) and 0 <= origin.slot < len(outputs) else None
        wanted = out.get("type") if isinstance(out, dict) else None
        link = next((link for _, kind, link in _inputs(node) if kind == wanted), None)
    return None


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list):
        return {}
    names = WIDGETS.get(node["type"], ())
    if not names:
        inputs = node.get("inputs")
        listed = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
        widgets = [one["widget"].get("name") for one in listed if isinstance(one.get("widget"), dict)]
        for name in widgets:  # behind a seed stands what becomes of it, which is no input
            has_control = name in ("seed", "noise_seed") and len(values) > len(widgets)
            names += (str(name), "") if has_control else (str(name),)
    return {name: value for name, value in zip(names, values, strict=False) if name}
