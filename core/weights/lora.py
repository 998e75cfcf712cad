"""LoRAs: files with strengths -> patches on a model's weights, and what to tell the user of what did not fit."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from core.errors import BadModelFile
from core.models.clip import CLIPText
from core.models.unet import UNet
from core.settings import Lora
from core.weights.files import Files
from core.weights.lora_format import BIASES, PeftScales, grouped
from core.weights.lora_names import TEXT_PROJECTION, is_text_key, network_names, normal_key, text_encoder_names
from core.weights.patched import Patches, put_patches
from core.weights.patches import RANKS, Patch, PatchFile, Stamp, stamp_of

log = logging.getLogger(__name__)

Check = Callable[[], None]

REMEMBERED = 120  # files whose matches are kept: some 1000 names each, no weights

Places = dict[str, tuple[str, str]]
Plan = tuple[tuple[str, object], ...]
Shapes = dict[str, dict[str, tuple[int, ...]]]  # part -> parameter -> its shape


@dataclass(frozen=True, eq=False)
class Model:
    """The networks that LoRAs may change.

    `twin` shares weights with `unet` and has LoRAs of its own. `refines`: a refiner, which may be of another family.
    """

    name: str
    unet: UNet
    clip_l: CLIPText | None = None
    clip_g: CLIPText | None = None
    twin: UNet | None = None
    refines: bool = False

    def parts(self) -> dict[str, UNet | CLIPText]:
        """The networks that are there, by name."""
        parts = {"unet": self.unet, "clip_l": self.clip_l, "clip_g": self.clip_g}
        return {name: part for name, part in parts.items() if part is not None}

    def plan(self) -> Plan:
        """Sizes of the networks: all that decides what fits where."""
        return tuple((name, part.config) for name, part in self.parts().items())

    def places(self) -> Places:
        """Name in a LoRA file -> part, and path of a module in it, or of the text projection."""
        places: Places = {}
        for name, part in self.parts().items():
            modules = [
                path.removesuffix(".weight")
                for path, _ in part.named_parameters()
                if path.endswith(".weight") or path == TEXT_PROJECTION
            ]
            if isinstance(part, UNet):
                theirs = network_names(modules, part.config)
            else:
                theirs = text_encoder_names(modules, 1 if name == "clip_l" else 2, alone=self.clip_l is None)
            places.update({spelling: (name, path) for spelling, path in theirs.items()})
        return places


@dataclass
class Match:
    """What one file holds for one model."""

    file: PatchFile
    patches: dict[str, dict[str, list[Patch]]] = field(default_factory=dict)  # part -> parameter -> its patches
    left: Counter[str] = field(default_factory=Counter)  # kind, in words -> tensors of it that fit nowhere
    example: dict[str, str] = field(default_factory=dict)  # kind -> one of its tensors
    foreign: bool = False  # no cross-attention fits: it was made for a model of another family

    @property
    def fits(self) -> bool:
        """Whether it does anything with the model. A file of another family does not, though some of its names may fit."""
        return bool(self.patches) and not self.foreign

    def add(self, part: str, parameter: str, patch: Patch) -> None:
        """Note a patch of a parameter."""
        self.patches.setdefault(part, {}).setdefault(parameter, []).append(patch)

    def leave(self, kind: str, names: Iterable[str]) -> None:
        """Note tensors that fit nowhere."""
        for name in names:
            self.left[kind] += 1
            self.example.setdefault(kind, name)


@dataclass(frozen=True)
class Matched:
    """Lists of LoRAs looked up: what each holds for the model and its weight, the same for its refiner, and `warnings` about
    files new in the list."""

    matches: tuple[tuple[Match, float], ...]
    refining: tuple[tuple[Match, float], ...]
    warnings: tuple[str, ...]


class Loras:
    """Brings models to lists of LoRAs. Remembers what fits where, so that only what changed is read and computed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._matches: OrderedDict[tuple[Plan, Stamp], Match] = OrderedDict()
        self._listed: dict[
            tuple[Plan, ...], set[Stamp]
        ] = {}  # the last list's files, which the user has been told about

    def match(
        self, model: Model, loras: Sequence[Lora], extras: Sequence[Lora] = (), *, refiner: Model | None = None
    ) -> Matched:
        """What `loras` hold for `model` and its `refiner`, and `extras` for `model` alone; changes no weight.

        Each goes without the files that fit the other alone. Raises ModelNotFound, and BadModelFile for a file that is
        damaged or fits neither.
        """
        models = [model, refiner] if refiner else [model]
        key = tuple(each.plan() for each in models)
        before, listed = self._listed.get(key, set()), set[Stamp]()
        found: list[list[tuple[Match, float]]] = [[], []]
        warnings: list[str] = []
        for lora, acts_on in (*((lora, models) for lora in loras), *((lora, models[:1]) for lora in extras)):
            if not lora.enabled or not lora.weight or lora.name in ("", "None"):
                continue
            path = self._files.find(lora.name)
            matches = [self._looked_up(path, each) for each in acts_on]
            stamp, complaints = matches[0].file.stamp, _complaints(lora.name, acts_on, matches)
            if stamp not in listed | before:
                warnings += complaints
            listed.add(stamp)
            for each, match in zip(found, matches, strict=False):
                if match.fits:
                    each.append((match, lora.weight))
        self._listed[key] = listed
        for warning in warnings:
            log.warning(warning)
        return Matched(tuple(found[0]), tuple(found[1]), tuple(warnings))

    def _looked_up(self, path: Path, model: Model) -> Match:
        key = (model.plan(), stamp_of(path))
        if key not in self._matches:
            self._matches[key] = match_file(PatchFile(path), model.places(), _shapes(model))
        self._matches.move_to_end(key)
        while len(self._matches) > REMEMBERED:
            self._matches.popitem(last=False)
        return self._matches[key]

    def put(self, model: Model, matched: Matched, *, device: torch.device, check: Check | None = None) -> Hashable:
        """Put what was matched, and nothing else, on `model`, one or the other of the two, computing on `device`.

        Returns the identity of what now lies on the text encoders. `check` may raise; the next call goes on from there.
        """
        began = time.monotonic()
        matches = matched.refining if model.refines else matched.matches
        wanted: dict[str, dict[str, Patches]] = {part: {} for part in model.parts()}
        for match, weight in matches:
            for part, by_name in match.patches.items():
                for name, patches in by_name.items():
                    wanted[part][name] = wanted[part].get(name, ()) + tuple((patch, weight) for patch in patches)
        try:
            changed = sum(
                put_patches(
                    part, wanted[name], device=device, twin=model.twin if part is model.unet else None, check=check
                )
                for name, part in model.parts().items()
            )
        finally:
            for match, _ in matches:
                match.file.close()
        if changed:
            log.info("LoRAs: changed %d weights of %s in %.2f s", changed, model.name, time.monotonic() - began)
        return tuple((match.file.stamp, weight) for match, weight in matches if match.patches.keys() - {"unet"})


def _shapes(model: Model) -> Shapes:
    return {name: {path: tuple(p.shape) for path, p in part.named_parameters()} for name, part in model.parts().items()}


def match_file(file: PatchFile, places: Places, shapes: Shapes) -> Match:
    """What `file` holds for the model with these `places` and `shapes`; reads no tensor."""
    header, match = file.header, Match(file)
    scales = PeftScales(header)
    keys, unknown = grouped(header.tensors)
    for name in unknown:
        match.leave(_unknown_kind(name), [name])
    crossed = [0, 0]  # cross-attentions that fit, and that do not
    for key, keyed in keys.items():
        place = places.get(normal_key(key))
        if place is None:
            match.leave("for a text encoder" if is_text_key(key) else "for the network", keyed.slots.values())
            continue
        part, module = place
        left = dict(keyed.slots)
        patches = []
        if keyed.kind:
            used = keyed.used()
            patches.append((module if module == TEXT_PROJECTION else f"{module}.weight", keyed.kind, used))
        patches.extend((f"{module}.bias", slot, {slot: keyed.slots[slot]}) for slot in BIASES if slot in keyed.slots)
        for parameter, kind, slots in patches:
            left = {slot: name for slot, name in left.items() if slot not in slots}
            ranks = [header.tensors[slots[slot]].shape for slot in RANKS.get(kind, ()) if slot in slots]
            rank = ranks[0][0] if ranks and ranks[0] else None
            scale = scales.scale(normal_key(key), rank) if kind in RANKS else 1.0
            patch = Patch(file.stamp, key, kind, slots, file, scale, transposed=parameter == TEXT_PROJECTION)
            fits = parameter in shapes[part] and patch.fits(shapes[part][parameter])
            if ".attn2.to_k" in parameter:
                crossed[0 if fits else 1] += 1
            if fits:
                match.add(part, parameter, patch)
            else:
                match.leave("of a shape that does not fit", slots.values())
        match.leave("without the others that belong to them", left.values())
    match.foreign = crossed[0] == 0 < crossed[1]
    return match


def _unknown_kind(name: str) -> str:
    last = [piece for piece in name.split(".") if not piece.isdigit()][-1:]
    return f"of the unknown kind {last[0][:40]!r}" if last else "of an unknown kind"


def _complaints(name: str, models: Sequence[Model], matches: Sequence[Match]) -> list[str]:
    """Sentences about what of the file does not fit, if any, and where it acts if that is not everywhere.

    `models` are one model or that and its refiner, with what was matched with each. Raises BadModelFile if nothing fits.
    """
    fitting = next((pair for pair in zip(models, matches, strict=True) if pair[1].fits), None)
    if fitting is None:
        raise _misfit(name, models, matches)
    model, match = fitting
    told = []
    if match.left:
        left, tensors = sum(match.left.values()), len(match.file.header.tensors)
        told.append(
            f"{name}: {left} of {tensors} tensors fit nothing in {model.name} and were left out: {_counted(match)}."
        )
    if model.refines:
        told.append(f"{name} acts on the refiner only: it does not fit {models[0].name}.")
    elif len(matches) == 2 and "unet" in match.patches and not matches[1].fits:
        told.append(f"{name} acts on the base model only: it does not fit the refiner {models[1].name}.")
    return told


def _misfit(name: str, models: Sequence[Model], matches: Sequence[Match]) -> BadModelFile:
    """The error for a file that fits none of `models`."""
    match, everywhere = matches[0], " and ".join(model.name for model in models)
    wanted = "Choose a LoRA that was made for SDXL, or take it out of the list."
    if match.foreign:
        return BadModelFile(
            f"{name} was made for a model of another family: its cross-attention has other sizes than {everywhere}. {wanted}"
        )
    tensors, counted = len(match.file.header.tensors), _counted(match)
    if counted:
        return BadModelFile(
            f"{name} does nothing with {everywhere}: none of its {tensors} tensors fits: {counted}. {wanted}"
        )
    return BadModelFile(f"{name} does nothing with {everywhere}: none of its {tensors} tensors fits. {wanted}")


def _counted(match: Match) -> str:
    """What fits nowhere: how many tensors of which kind, with an example of each; "" if all fit."""
    return ", ".join(f"{n} {kind} (such as {match.example[kind][:100]})" for kind, n in match.left.most_common(5))
