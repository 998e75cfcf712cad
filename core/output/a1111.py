"""The text form of a picture's settings that AUTOMATIC1111's web UI began and most programs and sites can read.

    a red apple, studio light <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 1152x896, ...

What this vocabulary cannot say exactly follows under our own names (`Easel sampler: dpmpp_2m_sde_gpu`), so that reading
the text gives the very settings back. Reading is linear in the length of the text. No torch, no Pillow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from core.errors import BadMetadata, BadSetting
from core.output.a1111_keys import SAMPLER_NAMES, SCHEDULER_NAMES, entries, put_embeddings, put_pairs, take_embeddings
from core.output.foreign import brackets
from core.output.foreign.texts import one_line
from core.output.reading import Reading, ReadMetadata, whole_text
from core.output.record import PROGRAM, Record
from core.output.resolve import stem_of
from core.settings import Lora, Settings, parse_setting, written_setting

# What says nothing about the picture itself.
NOT_OF_THE_PICTURE = ("image_number", "image_grid", "preview", "output_format", "save_metadata")

MOST_PAIRS = 500  # more are not looked at
MOST_BROKEN = (
    16  # values that begin as JSON and are none, each of which is read to its end; later ones are taken as they stand
)

_OWN = f"{PROGRAM} "
_NEGATIVE = "Negative prompt:"
_PROMPTS = ("prompt", "negative_prompt")
_BEGIN = "Steps: "  # of the line of parameters
_KEY = re.compile(r"\w[\w \-/]{0,60}")


def to_text(record: Record) -> str:
    """The text form of `record`."""
    settings = record.settings
    pairs: list[tuple[str, Any]] = [
        ("Steps", settings.steps),
        ("Sampler", SAMPLER_NAMES.get(settings.sampler, settings.sampler)),
        ("Schedule type", SCHEDULER_NAMES.get(settings.scheduler, settings.scheduler)),
        ("CFG scale", settings.guidance_scale),
        ("Seed", settings.seed),
        ("Size", f"{settings.width}x{settings.height}"),
        ("Clip skip", settings.clip_skip),
        *_files(record),
        *_of_fooocus(settings),
    ]
    if settings.loras:
        pairs.append((f"{_OWN}loras", settings.loras))
    last = [("Version", f"{PROGRAM} {record.version}")]
    if record.created_by:
        last.append(("User", record.created_by))
    told = from_text(_join(settings, [*pairs, *last])).settings
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name not in NOT_OF_THE_PICTURE and (f.name not in told or told[f.name] != value):
            pairs.append((_OWN + f.name, value))
    return _join(settings, [*pairs, *last])


def has_parameters(text: str) -> bool:
    """Whether a line of `text` begins as the line of parameters does, so that `from_text` is worth a try."""
    return any(line.startswith(_BEGIN) for line in text.split("\n"))


def from_text(text: str) -> ReadMetadata:
    """Read a text form, ours or another program's. Raises BadMetadata if there is no line of parameters."""
    lines = text.strip().split("\n")
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(_BEGIN)), len(lines) - 1)
    pairs: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, value in islice(_pairs(lines[at]), MOST_PAIRS):
        (others if value is None or not _KEY.fullmatch(key) else pairs)[key] = value or ""
    if len(pairs) < 3:
        raise BadMetadata('The text has no line of parameters such as "Steps: 30, Sampler: Euler, Seed: 1".')
    version = pairs.get("Version", "")
    own = {key.removeprefix(_OWN): pairs.pop(key) for key in list(pairs) if key.startswith(_OWN)}
    ours = bool(own) or version.startswith(_OWN)
    reading = Reading("fooocus" if version.startswith("Fooocus") else "a1111")
    prompts = _prompts(lines[:at])
    for name, prompt in zip(_PROMPTS, prompts, strict=True):
        reading.put(name, name, prompt)
    theirs = reading.source == "a1111" and not ours
    embeddings = take_embeddings(pairs) if theirs else {}
    put_pairs(reading, pairs, ours=ours)
    if theirs:
        _translate(reading)
        put_embeddings(reading, embeddings)
    for name, value in own.items():  # last: they are exact
        try:
            reading.put(_OWN + name, name, parse_setting(name, value))
        except BadSetting:
            reading.reject(_OWN + name, value)
    if loras := reading.settings.get("loras"):
        prompt, tags = reading.settings.get("prompt", ""), _tags(loras)
        if "prompt" not in own:
            reading.put("prompt", "prompt", "" if prompt == tags.strip() else prompt.removesuffix(tags))
        hashes = {name: parts[0] for name, parts in entries(pairs.get("Lora hashes", ""))}
        for lora in loras:
            reading.name("loras", lora.name, hashes.get(stem_of(lora.name)), weight=lora.weight, enabled=lora.enabled)
    usable = reading.named or reading.settings.keys() - set(_PROMPTS)
    if not usable and not (lines[at].startswith(_BEGIN) and any(prompts)):
        raise BadMetadata("The text has parameters, but none that this program can use.")
    for key, value in others.items():
        reading.reject(key, value)
    if rest := " ".join(lines[at + 1 :]).strip():
        reading.reject("Text after the parameters", rest)
    return reading.done()


def _translate(reading: Reading) -> None:
    """Say the prompts of another program, each one text with AUTOMATIC1111's weights, in our way."""
    for name in _PROMPTS:
        if name in reading.settings:
            text = one_line(reading.settings[name])
            if exchanged := brackets.exchanges(text):
                reading.reject(f"Prompt editing in {name}", ", ".join(exchanged))
            reading.put(name, name, brackets.translated(text))


def _files(record: Record) -> Iterator[tuple[str, Any]]:
    """The model files by the names and hashes that other programs look for."""
    settings = record.settings
    if settings.base_model:
        if record.base_model_sha256:
            yield "Model hash", record.base_model_sha256[:10]
        yield "Model", stem_of(settings.base_model)
    if settings.vae:
        yield "VAE", stem_of(settings.vae)
    if settings.refiner_model:
        digits = record.hashes.get(settings.refiner_model, "")[:10]
        yield "Refiner", f"{stem_of(settings.refiner_model)} [{digits}]" if digits else stem_of(settings.refiner_model)
        yield "Refiner switch at", settings.refiner_switch
    hashed = [(stem_of(lora.name), record.hashes[lora.name]) for lora in settings.loras if record.hashes.get(lora.name)]
    if hashed:
        yield "Lora hashes", ", ".join(f"{name}: {digits[:12]}" for name, digits in hashed)


def _of_fooocus(settings: Settings) -> Iterator[tuple[str, Any]]:
    """What Fooocus has keys for in this text, in its words."""
    s = settings
    yield "Sharpness", s.sharpness
    yield "ADM Guidance", f"({s.adm_scaler_positive!r}, {s.adm_scaler_negative!r}, {s.adm_scaler_end!r})"
    yield "Scheduler", s.scheduler
    if s.freeu:
        yield "FreeU", f"({s.freeu_b1!r}, {s.freeu_b2!r}, {s.freeu_s1!r}, {s.freeu_s2!r})"
    if s.styles:
        yield "Styles", repr(list(s.styles))
    if s.loras:
        yield "Lora weights", ", ".join(f"{stem_of(lora.name)}: {lora.weight}" for lora in s.loras if lora.enabled)


def _tags(loras: Sequence[Lora]) -> str:
    """LoRAs as A1111 writes them behind a prompt."""
    return "".join(f" <lora:{stem_of(lora.name)}:{written_setting(lora.weight)}>" for lora in loras if lora.enabled)


def _join(settings: Settings, pairs: list[tuple[str, Any]]) -> str:
    prompt = (settings.prompt + _tags(settings.loras)) if settings.prompt else _tags(settings.loras).strip()
    lines = [prompt] if prompt else []
    lines += [f"{_NEGATIVE} {settings.negative_prompt}"] if settings.negative_prompt else []
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs))
    return str(whole_text("\n".join(lines))).replace("\0", "")


def _quoted(value: Any) -> str:
    text = written_setting(value)
    if text and not re.search(r'[,:"\x00-\x1f]', text) and text.strip() == text and text[0] not in "[{":
        return text
    return json.dumps(text, ensure_ascii=False)


def _pairs(line: str) -> Iterator[tuple[str, str | None]]:
    """The `key: value` pairs of a line, None as the value of what is no pair.

    A value may be quoted as JSON text, or be JSON.
    """
    decoder = json.JSONDecoder()
    at, broken = 0, 0
    while at < len(line):
        if line[at] in " ,\t\r":
            at += 1
            continue
        comma = line.find(",", at)
        end = comma if comma >= 0 else len(line)
        key, colon, _ = line[at:end].partition(":")
        if not colon:
            yield key.rstrip(), None
            at = end
            continue
        start = at + len(key) + 1
        while start < len(line) and line[start] == " ":
            start += 1
        value = line[start:end].strip()
        if broken < MOST_BROKEN and line.startswith(('"', "{", "["), start):
            try:
                decoded, end = decoder.raw_decode(line, start)
                value = decoded if isinstance(decoded, str) else line[start:end]
            except (ValueError, RecursionError):  # an unclosed quote: taken as it stands
                broken += 1
        yield key, value
        at = max(end, start)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """The prompt and the negative prompt in front of the line of parameters."""
    lines = [line.strip() for line in lines]
    cut = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = [line.removeprefix(_NEGATIVE).strip() for line in lines[cut:]]
    return "\n".join(lines[:cut]), "\n".join(negative)
