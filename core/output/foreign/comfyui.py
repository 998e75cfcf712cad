"""ComfyUI: a picture's graph, walked from where it is saved back to the sampler, its prompts, models and size.

Nodes are known by their inputs rather than by their class, so that most nodes of extensions are understood too. Of
several samplers in a row the first one made the picture's composition: its values count, the others are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.output.foreign.comfyui_graph import Graph, Link, Node, api_graph, drawn_graph
from core.output.foreign.comfyui_loras import Lora, loras_of
from core.output.foreign.texts import one_line
from core.output.reading import Reading, ReadMetadata, is_number, text_of

# Samplers and schedulers have our names; these are said by the class of a node.
SAMPLER_NODES = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerLMS": "lms",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
}
SCHEDULER_NODES = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "exponential",
    "SDTurboScheduler": "turbo",
    "AlignYourStepsScheduler": "align_your_steps",
}
# Settings field -> names of inputs that say it, of a sampler or a node that it takes its noise, sigmas or guidance from.
PARAMETERS = {
    "seed": ("seed", "noise_seed"),
    "steps": ("steps",),
    "guidance_scale": ("cfg", "cfg_scale"),
    "sampler": ("sampler_name", "sampler"),
    "scheduler": ("scheduler",),
}
FREEU = {"b1": "freeu_b1", "b2": "freeu_b2", "s1": "freeu_s1", "s2": "freeu_s2"}
PREDICTIONS = {"eps": "epsilon", "v_prediction": "v"}
NO_VAE = ("Baked VAE", "None", "pixel_space")
# Nodes that only hand on, show or store.
PLUMBING = ("Reroute", "PrimitiveNode", "SaveImage", "PreviewImage", "VAEDecode", "VAEDecodeTiled", "BasicGuider")

# What changes conditions in any other way than these has no like here: its texts are taken, and itself is listed.
CONCAT = "ConditioningConcat"  # as our prompts of several lines
ZERO_OUT = "ConditioningZeroOut"  # as an empty prompt

# What a text is for, the Settings field of it, and the inputs of a sampler or guider that it comes by.
ROLES = (("positive", "prompt", ("positive", "conditioning")), ("negative", "negative_prompt", ("negative",)))

MOST_ENDS = 200  # nodes that nothing hangs on; a picture is saved by one of the first
MOST_CONDITIONS = 1000  # nodes between a sampler and its texts

_HELPERS = ("sampler", "sigmas", "guider", "noise")
_LATENTS = ("latent_image", "latent", "samples", "image", "pixels", "images")
_MODELS = ("model", "guider")
_STACKS = ("lora_stack", "optional_lora_stack")
_CLIPS = ("clip", "model")
_TEXTS = ("text", "text_g", "prompt", "populated_text", "wildcard_text", "string", "text_l")
_SIDES = ("positive", "negative")
_CONDITIONS = (
    "conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "conditioning_from", "cond", *_SIDES,
)  # fmt: skip
_SIZE = re.compile(r"\s*(\d{2,5})\s*[x×]\s*(\d{2,5})\b")


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a graph, in the form that is run or the one that is drawn."""
    return _is_drawn(values) or _has_nodes(values) or _has_nodes(values.get("prompt"))


def read(values: Mapping[str, Any]) -> ReadMetadata:
    """The settings in a graph. Raises BadMetadata if nothing in it can be used."""
    inner = values.get("prompt")
    if _is_drawn(values):
        graph = drawn_graph(values)
    else:
        graph = api_graph(inner if isinstance(inner, dict) and not _has_nodes(values) else values)
    reading = Reading("comfyui")
    for end in [*graph.ends()[:MOST_ENDS], *(at for at, node in graph.nodes.items() if _is_sampler(node))]:
        samplers = list(_samplers(graph, end))
        if samplers:
            _Walk(graph, reading).follow(end, samplers)
            break
    return reading.done()


def _is_drawn(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("nodes"), list) and isinstance(values.get("links"), list)


def _has_nodes(values: Any) -> bool:
    return isinstance(values, dict) and any(isinstance(one, dict) and "class_type" in one for one in values.values())


def _samplers(graph: Graph, end: str) -> Iterator[str]:
    """The samplers upstream of `end`, the last one first, each feeding the one before."""
    at: str | Link | None = next((at for at, node in graph.up(end) if _is_sampler(node)), None)
    seen: set[str] = set()
    while isinstance(at, str) and at not in seen:
        seen.add(at)
        yield at
        latent = graph.link(graph.nodes[at], _LATENTS)
        at = next((up for up, node in graph.up(latent) if _is_sampler(node)), None)


def _is_sampler(node: Node) -> bool:
    has = node.inputs.keys()
    seeded = has & {"seed", "noise_seed", "noise"}
    return bool(seeded and has & {"steps", "sigmas"} and has & {"model", "guider", "positive", "latent_image"})


class _Walk:
    """One way through a graph: what is understood goes into `reading`, and which nodes were needed for it is kept."""

    def __init__(self, graph: Graph, reading: Reading) -> None:
        self.graph, self.reading = graph, reading
        self.used: set[str] = set()

    def follow(self, end: str, samplers: list[str]) -> None:
        """Fill the reading from the first of the `samplers` (the last in the list) and what it hangs on."""
        first = samplers[-1]
        parts = [self.graph.nodes[at] for at in self._parts(first)]
        self._put_parameters(parts)
        model = self._first_link(parts, ("model",))
        self._put_prompts(parts)
        self._put_model(model, "base_model")
        self._put_size(self.graph.link(self.graph.nodes[first], _LATENTS))
        self._put_vae(end)
        self._put_later(samplers[-2::-1], model)
        for at, node in self.graph.up(end):
            if at not in self.used and node.kind not in PLUMBING:
                self._list(node.kind, at)

    def _list(self, key: str, at: str) -> None:
        """List a node, of several of a kind each."""
        self.reading.reject(f"{key} ({at})" if key in self.reading.unknown else key, _summary(self.graph.nodes[at]))

    def _parts(self, sampler: str) -> list[str]:
        """The sampler and the nodes that it takes its noise, sigmas and guidance from."""
        parts = [at for at, _ in self.graph.up(sampler, _HELPERS)]
        self.used.update(parts)
        return parts

    def _first_link(self, nodes: list[Node], names: tuple[str, ...]) -> Link | None:
        return next((link for node in nodes if (link := self.graph.link(node, names))), None)

    def _put_parameters(self, parts: list[Node]) -> None:
        for name, keys in PARAMETERS.items():
            found = ((key, self.graph.value(node, key)) for node in parts for key in keys if key in node.inputs)
            key, value = next(
                ((key, value) for key, value in found if isinstance(value, (str, int, float))), ("", None)
            )
            if key:
                self.reading.put(key, name, value)
        for node in parts:
            if node.kind in SAMPLER_NODES:
                gpu = "_gpu" if node.inputs.get("noise_device") == "gpu" else ""
                self.reading.put(node.kind, "sampler", SAMPLER_NODES[node.kind] + gpu)
            if node.kind in SCHEDULER_NODES:
                self.reading.put(node.kind, "scheduler", SCHEDULER_NODES[node.kind])
            denoise = self.graph.value(node, "denoise")
            if is_number(denoise) and denoise != 1:
                self.reading.reject("denoise", denoise)

    def _put_prompts(self, parts: list[Node]) -> None:
        """Each prompt of which a text was reached, an empty one too; of one that cannot be followed nothing is said."""
        for role, name, keys in ROLES:
            if link := self._first_link(parts, keys):
                texts = list(self._texts(link, role))
            else:  # a node that has the prompt as a value of its own
                values = (self.graph.value(node, role) for node in parts)
                texts = [one_line(text) for text in values if isinstance(text, str)][:1]
            if texts:
                self.reading.put(role, name, "\n".join(text for text in dict.fromkeys(texts) if text))

    def _texts(self, link: Link, role: str) -> Iterator[str]:
        """The texts behind a conditioning, in the order in which they are joined."""
        stack, seen = [link], set[Link]()
        while stack:
            link = stack.pop()
            node = self.graph.nodes.get(link.node)
            if node is None or link in seen or len(seen) > MOST_CONDITIONS:
                continue
            seen.add(link)
            text = self._text(node, role)
            if text is not None or node.kind == CONCAT:
                self.used.add(link.node)
            if text is not None:
                yield text
            if text:
                self._put_clip_skip(link.node)
            else:
                stack += reversed(self._conditions(node, link.slot, role))

    def _conditions(self, node: Node, slot: int, role: str) -> list[Link]:
        """The conditionings that output `slot` of a node is made of."""
        names: Iterable[str] = _CONDITIONS
        if node.kind == ZERO_OUT or _is_loader(node):
            names = ()
        elif node.kind == "Reroute":
            names = node.inputs
        elif node.inputs.keys() >= {*_SIDES}:  # both go through, as the first two outputs unless a model does so too
            names = (role if "model" in node.inputs else dict(enumerate(_SIDES)).get(slot, role),)
        return [link for name in names if isinstance(link := node.inputs.get(name), Link)]

    def _text(self, node: Node, role: str) -> str | None:
        """The text that a node encodes, as one line; None if it encodes none or one that cannot be followed."""
        if node.kind == ZERO_OUT:
            return ""
        if node.inputs.keys() >= {*_SIDES}:
            encodes = _is_loader(node) or not isinstance(node.inputs[role], Link)
            return self._followed(node, role) if encodes else None
        texts = {name: self._followed(node, name) for name in _TEXTS if name in node.inputs}
        first = next((text for text in texts.values() if text != ""), "" if texts else None)
        if texts.get("text_l") and texts["text_l"] != first:
            self.reading.reject("text_l", texts["text_l"])
        return first

    def _followed(self, node: Node, name: str) -> str | None:
        text = self.graph.value(node, name)
        if not isinstance(text, str):
            return None
        self.used.update(self.graph.sources(node, name))
        return one_line(text)

    def _put_clip_skip(self, encoder: str) -> None:
        for at, node in self.graph.up(encoder, _CLIPS):
            for key in ("stop_at_clip_layer", "clip_skip"):
                layer = self.graph.value(node, key)
                if is_number(layer):
                    self.used.add(at)
                    self.reading.put(key, "clip_skip", abs(layer))
                    return

    def _put_model(self, model: Link | None, name_of: str) -> None:
        """Checkpoint, LoRAs and what changes the model, from the sampler back to the loader."""
        loras: list[Lora] = []
        for at, node in self._patches(model):
            if checkpoint := self._checkpoint(node):
                self.used.add(at)
                self.reading.name(name_of, checkpoint, key="ckpt_name")
            if name_of != "base_model":
                continue
            own = list(loras_of(self.graph, node, self.reading))
            loras = own + loras  # nearer to the checkpoint: earlier
            if own or self.graph.link(node, _STACKS) or self._put_model_change(node):
                self.used.add(at)
        for lora in loras:
            self.reading.name("loras", lora.name, weight=lora.weight, enabled=lora.acts, key="lora_name")

    def _patches(self, model: Link | None) -> Iterator[tuple[str, Node]]:
        """The nodes from the sampler back to the loader, behind each the stacks of LoRAs that it applies."""
        for at, node in self.graph.up(model, _MODELS):
            yield at, node
            yield from self.graph.up(self.graph.link(node, _STACKS), _STACKS)
            if self._checkpoint(node):
                return

    def _checkpoint(self, node: Node) -> str:
        return next((name for key in ("ckpt_name", "unet_name") if (name := text_of(self.graph.value(node, key)))), "")

    def _put_model_change(self, node: Node) -> bool:
        if node.kind == "FreeU_V2":
            parts = {name: self.graph.value(node, key) for key, name in FREEU.items()}
            taken = [self.reading.put(node.kind, name, value) for name, value in parts.items()]
            return all(taken) and self.reading.put(node.kind, "freeu", True)
        if node.kind == "RescaleCFG":
            return self.reading.put(node.kind, "guidance_rescale", self.graph.value(node, "multiplier"))
        if node.kind == "ModelSamplingDiscrete":
            zero = {True: "on", False: "off"}.get(self.graph.value(node, "zsnr") is True)
            sampling = self.graph.value(node, "sampling")
            return self.reading.choose(node.kind, "prediction", sampling, PREDICTIONS) and self.reading.put(
                node.kind, "zero_terminal_snr", zero
            )
        return False

    def _put_size(self, latent: Link | None) -> None:
        for at, node in self.graph.up(latent, _LATENTS):
            for keys in (("width", "height"), ("empty_latent_width", "empty_latent_height")):
                size = [self.graph.value(node, key) for key in keys]
                if all(is_number(side) for side in size):
                    self._take_size(at, size)
                    return
            if found := _SIZE.match(text_of(self.graph.value(node, "resolution"))[:100]):
                self._take_size(at, [int(found[1]), int(found[2])])
                return

    def _take_size(self, at: str, size: list[Any]) -> None:
        self.used.add(at)
        width, height = size
        if not (self.reading.put("size", "width", width) and self.reading.put("size", "height", height)):
            self.reading.settings.pop("width", None)
            self.reading.reject("size", f"{width} x {height}")

    def _put_vae(self, end: str) -> None:
        decoder = next((node for _, node in self.graph.up(end) if self.graph.link(node, ("vae",))), None)
        link = self.graph.link(decoder, ("vae",)) if decoder else None
        for at, node in self.graph.up(link, ("vae", "optional_vae")):
            name = text_of(self.graph.value(node, "vae_name"))
            if name and name not in NO_VAE:
                self.used.add(at)
                self.reading.name("vae", name, key="vae_name")
                return
            if name or self._checkpoint(node):
                self.used.add(at)
                self.reading.put("vae_name", "vae", "")
                return

    def _put_later(self, samplers: list[str], model: Link | None) -> None:
        """Samplers after the first: one that goes on with another checkpoint is a refiner."""
        base = self._loader(model)
        for at in samplers:
            node = self.graph.nodes[at]
            own = self.graph.link(node, ("model",))
            start, steps = self.graph.value(node, "start_at_step"), self.reading.settings.get("steps")
            goes_on = is_number(start) and start > 0 and steps and own and self._loader(own) != base
            if goes_on and self.reading.put("start_at_step", "refiner_switch", min(1.0, start / steps)):
                self._put_model(own, "refiner_model")
                self.used.update(up for up, one in self.graph.up(at, _SIDES) if one.inputs.keys() & {*_TEXTS})
            self.used.add(at)
            if not goes_on:
                self._list(f"later {node.kind}", at)

    def _loader(self, model: Link | None) -> str:
        return next((at for at, node in self.graph.up(model, _MODELS) if self._checkpoint(node)), "")


def _is_loader(node: Node) -> bool:
    """Whether it loads a checkpoint: if it has prompts too, they are texts and no conditionings."""
    return "ckpt_name" in node.inputs


def _summary(node: Node) -> str:
    values = {name: value for name, value in node.inputs.items() if isinstance(value, (str, int, float))}
    return ", ".join(f"{name}: {str(value)[:60]}" for name, value in list(values.items())[:8]) or "not used"
