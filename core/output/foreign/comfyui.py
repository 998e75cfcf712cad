"""ComfyUI: a picture's graph, walked from where it is saved back to the sampler, its prompts, models and size.

Nodes are known by their inputs rather than by their class, so that most nodes of extensions are understood too. Of
several samplers in a row the first one made the picture's composition: its values count, the others are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.output.foreign.comfyui_graph import Graph, Link, Node, api_graph, drawn_graph
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

# What a text is for, the Settings field of it, and the inputs of a sampler or guider that it comes by.
ROLES = (("positive", "prompt", ("positive", "conditioning")), ("negative", "negative_prompt", ("negative",)))

MOST_ENDS = 200  # nodes that nothing hangs on; a picture is saved by one of the first

_HELPERS = ("sampler", "sigmas", "guider", "noise")
_LATENTS = ("latent_image", "latent", "samples", "image", "pixels", "images")
_MODELS = ("model", "lora_stack", "optional_lora_stack", "guider")
_CLIPS = ("clip", "model")
_TEXTS = ("text", "text_g", "prompt", "populated_text", "wildcard_text", "string", "text_l")
_CONDITIONS = ("conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "conditioning_from", "cond")
_STACKED = re.compile(r"lora(?:_name)?_(\d{1,3})")
_WEIGHTS = ("lora_wt_{}", "model_str_{}", "model_weight_{}", "strength_{}", "lora_weight_{}")
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
                self.reading.reject(node.kind, _summary(node))

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
        for role, name, keys in ROLES:
            link = self._first_link(parts, keys)
            texts = list(dict.fromkeys(self._texts(link, role))) if link else []
            if not texts:  # a node that has the prompt as a value of its own
                texts = [text for node in parts if (text := text_of(self.graph.value(node, role)))][:1]
            if link or texts:
                self.reading.put(role, name, "\n".join(text for text in texts if text.strip()))

    def _texts(self, link: Link, role: str) -> Iterator[str]:
        """The texts behind a conditioning, in the order in which they are joined."""
        stack, seen = [link], set[Link]()
        while stack:
            link = stack.pop()
            node = self.graph.nodes.get(link.node)
            if node is None or link in seen or len(seen) > 1000:
                continue
            seen.add(link)
            self.used.add(link.node)
            inputs = [(name, one) for name, one in node.links() if name in (*_CONDITIONS, "positive", "negative")]
            if node.kind == "ConditioningZeroOut":
                continue
            if {"positive", "negative"} <= node.inputs.keys():  # both go through: the output's number tells which
                wanted = {0: "positive", 1: "negative"}.get(link.slot, role) if inputs else role
                inputs = [(name, one) for name, one in inputs if name == wanted]
                if not inputs:
                    yield text_of(self.graph.value(node, role))
            elif text := self._text(node):
                yield text
                self._put_clip_skip(self.graph.link(node, _CLIPS))
                continue
            stack += [one for _, one in reversed(inputs)]
            if not inputs and node.kind == "Reroute":
                stack += [one for _, one in node.links()]

    def _text(self, node: Node) -> str:
        texts = {name: text_of(self.graph.value(node, name)) for name in _TEXTS if name in node.inputs}
        for name in texts:
            if isinstance(node.inputs[name], Link):
                self.used.add(node.inputs[name].node)
        first = next((text for text in texts.values() if text), "")
        if texts.get("text_l", "") not in ("", first):
            self.reading.reject("text_l", texts["text_l"])
        return first

    def _put_clip_skip(self, clip: Link | None) -> None:
        for at, node in self.graph.up(clip, _CLIPS):
            for key in ("stop_at_clip_layer", "clip_skip"):
                layer = self.graph.value(node, key)
                if is_number(layer):
                    self.used.add(at)
                    self.reading.put(key, "clip_skip", abs(layer))
                    return

    def _put_model(self, model: Link | None, name_of: str) -> None:
        """Checkpoint, LoRAs and what changes the model, from the sampler back to the loader."""
        loras: list[tuple[str, Any, bool]] = []
        for at, node in self.graph.up(model, _MODELS):
            checkpoint = self._checkpoint(node)
            if checkpoint:
                self.used.add(at)
                self.reading.name(name_of, checkpoint, key="ckpt_name")
            own = list(self._loras(node))
            if own:
                self.used.add(at)
                loras = own + loras  # nearer to the checkpoint: earlier
            if name_of == "base_model" and self._put_model_change(node):
                self.used.add(at)
            if checkpoint:
                break
        if name_of == "base_model":
            for name, weight, enabled in loras:
                self.reading.name("loras", name, weight=weight, enabled=enabled, key="lora_name")

    def _checkpoint(self, node: Node) -> str:
        return next((name for key in ("ckpt_name", "unet_name") if (name := text_of(self.graph.value(node, key)))), "")

    def _loras(self, node: Node) -> Iterator[tuple[str, Any, bool]]:
        if name := text_of(self.graph.value(node, "lora_name")):
            keys = [
                key for key in ("strength_model", "lora_model_strength", "strength", "lora_wt") if key in node.inputs
            ]
            weight = self.graph.value(node, keys[0]) if keys else 1.0
            clip = node.inputs.get("strength_clip", weight)
            if is_number(clip) and clip != weight:
                self.reading.reject(f"strength_clip of {name}", clip)
            yield name, weight, True
        for key, value in list(node.inputs.items())[:200]:
            if isinstance(value, dict) and isinstance(value.get("lora"), str):
                yield value["lora"], value.get("strength", 1.0), value.get("on") is not False
            elif isinstance(value, str) and (number := _STACKED.fullmatch(key)):
                weights = [node.inputs.get(pattern.format(number[1])) for pattern in _WEIGHTS]
                weight = next((weight for weight in weights if is_number(weight)), 1.0)
                yield value, weight, node.inputs.get(f"switch_{number[1]}") != "Off"

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
                self.used.update(at for at, _ in self.graph.up(at, ("positive", "negative", "clip")))
            self.used.add(at)
            if not goes_on:
                self.reading.reject(f"later {node.kind}", _summary(node))

    def _loader(self, model: Link | None) -> str:
        return next((at for at, node in self.graph.up(model, _MODELS) if self._checkpoint(node)), "")


def _summary(node: Node) -> str:
    values = {name: value for name, value in node.inputs.items() if isinstance(value, (str, int, float))}
    return ", ".join(f"{name}: {str(value)[:60]}" for name, value in list(values.items())[:8]) or "not used"
