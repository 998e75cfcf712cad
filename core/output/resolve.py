"""From the names that a picture gives to the files that are here: by the exact name, the name alone, or the hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from core.output.reading import Named, ReadMetadata
from core.settings import Lora, Settings

# Settings field -> the kind of thing it names, as `names` and `hashes` are keyed.
KINDS = {
    "base_model": "checkpoints",
    "refiner_model": "checkpoints",
    "vae": "vae",
    "text_encoder_l": "text_encoders",
    "text_encoder_g": "text_encoders",
    "loras": "loras",
    "styles": "styles",
}
ENDINGS = (".safetensors", ".sft", ".ckpt", ".pth", ".pt", ".bin", ".gguf")
RENAMED_STYLES = {"Default (Slightly Cinematic)": "Fooocus Cinematic", "Fooocus Anime": "Fooocus Masterpiece"}
MOST_LORAS, MOST_STYLES = (f.metadata["most"] for f in fields(Settings) if f.name in ("loras", "styles"))


def resolve(
    read: ReadMetadata,
    names: Mapping[str, Sequence[str]],
    hashes: Mapping[str, Mapping[str, str]] | None = None,
    find_style: Callable[[str], str] | None = None,
) -> ReadMetadata:
    """`read` with every model file and style that it names looked up among `names`.

    `names` has the installed names by kind (KINDS: "checkpoints", "loras", "vae", "text_encoders", "styles"); `hashes`, by
    kind and name, the SHA-256 of those files whose hash is known. What is found stands in `settings` under its name here
    and no longer in `named`; what is not found stands in `named` and not in `settings`. Kinds that `names` does not have
    stay as they are. `find_style` gives the installed name of a style that goes by another one, "" for none.
    """
    settings, missing = dict(read.settings), []
    for name_of, kind in KINDS.items():
        wanted = _wanted(read, name_of)
        if kind not in names:
            missing += [one for one in read.named if one.field == name_of]
            continue
        if not wanted:
            continue
        match = _matcher(names[kind], (hashes or {}).get(kind, {}))
        if name_of == "styles":
            pairs = [(one, _style(one.name, names[kind], find_style)) for one in wanted]
        else:
            pairs = [(one, match(one)) for one in wanted]
        missing += [one for one, found in pairs if not found]
        found = _found(name_of, [(one, name) for one, name in pairs if name])
        if found:
            settings[name_of] = found
        else:
            settings.pop(name_of, None)
    missing += [one for one in read.named if one.field not in KINDS]
    return replace(read, settings=settings, named=tuple(missing))


def without_ending(name: str) -> str:
    """`name` without a model file's ending; other dots are part of the name (`sd_xl_base_1.0`)."""
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), name)


def stem_of(name: str) -> str:
    """The name of a model file without folder and ending."""
    return without_ending(name.replace("\\", "/").rpartition("/")[2])


def _wanted(read: ReadMetadata, name_of: str) -> list[Named]:
    """What is named for a field. Settings, if they have it, are exact; `named` then only adds the hash."""
    named = [one for one in read.named if one.field == name_of]
    value = read.settings.get(name_of)
    if not value:
        return named
    if name_of == "styles":
        return [Named(field=name_of, name=style) for style in value]
    if name_of == "loras":
        known = {one.name: one.hash for one in named}
        return [
            Named(
                field=name_of, name=lora.name, hash=known.get(lora.name, ""), weight=lora.weight, enabled=lora.enabled
            )
            for lora in value
        ]
    return [Named(field=name_of, name=value, hash=named[0].hash if named else "")]


def _style(name: str, names: Sequence[str], find: Callable[[str], str] | None) -> str:
    name = RENAMED_STYLES.get(name, name)
    if name in names:
        return name
    folded = name.casefold()
    return next((one for one in names if one.casefold() == folded), "") or (find(name) if find else "")


def _found(name_of: str, pairs: list[tuple[Named, str]]) -> Any:
    if name_of == "loras":
        return tuple(Lora(name, one.weight, one.enabled) for one, name in pairs)[:MOST_LORAS]
    if name_of == "styles":
        return tuple(name for _, name in pairs)[:MOST_STYLES]
    return pairs[-1][1] if pairs else ""


def _matcher(names: Sequence[str], hashes: Mapping[str, str]) -> Callable[[Named], str]:
    """A function from what is named to the name here, "" for none.

    Of several files with the name, the one whose hash fits counts, then the first. A file of another name with the very
    hash is better than one with the name and another hash.
    """
    full: dict[str, list[str]] = {}
    stems: dict[str, list[str]] = {}
    for name in names:
        path = without_ending(name).lower()
        full.setdefault(path, []).append(name)
        stems.setdefault(path.rpartition("/")[2], []).append(name)
    exact = set(names)

    def match(wanted: Named) -> str:
        path = without_ending(wanted.name.replace("\\", "/")).lower()
        same = [wanted.name] if wanted.name in exact else full.get(path) or stems.get(path.rpartition("/")[2]) or []
        fits = [name for name in same if wanted.hash and hashes.get(name, "").lower().startswith(wanted.hash)]
        if not fits and wanted.hash:
            fits = [name for name, digits in hashes.items() if digits.lower().startswith(wanted.hash) and name in exact]
        return next(iter(fits or same), "")

    return match
