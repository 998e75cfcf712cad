"""needs: which model files a request or a preset wants, which of them are there, and where to get the others. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from core.errors import BadModelFile, BadSetting, ModelNotFound
from core.output.resolve import without_ending
from core.performance import MODES
from core.settings import Lora
from core.weights.damaged import damage
from core.weights.files import Catalog
from core.weights.sources import INTERPOSER, SOURCES, Source, path_trouble, source

FIELDS = {  # Settings field -> kind of its file
    "base_model": "checkpoints",
    "refiner_model": "checkpoints",
    "vae": "vae",
    "text_encoder_l": "text_encoders",
    "text_encoder_g": "text_encoders",
}
NAMES_OF_MANY = (  # without their endings: what publishers call the one file of a folder
    "pytorch_lora_weights", "diffusion_pytorch_model", "pytorch_model", "adapter_model", "model", "model_fp16",
)  # fmt: skip
NOT_FETCHED = {  # what a name holds -> why Easel does not fetch that, and what to do
    "expansion": "Of Fooocus's GPT-2 expander the weights alone are published, which are of no use without the words and the "
    "tokenizer that come with that program. `python launch.py convert FOLDER` takes its folder fooocus_expansion.",
}


class FilesOfAKind(Protocol):
    """The side of `core.weights.files.Files` that matters here."""

    @property
    def folders(self) -> Sequence[Path]:
        """Where the files are looked for; a new one goes into the first."""

    def names(self) -> list[str]:
        """The names of the safetensors files, relative to their folders, with `/`."""

    def paths(self) -> Mapping[str, Path]:
        """All files of any format by name."""


class FilesByKind(Protocol):
    """The side of `core.weights.files.Catalog` that matters here."""

    def files(self, kind: str) -> FilesOfAKind:
        """The files of `kind`, such as "loras"."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One file that is wanted. `url` is "" and `bytes` None where Easel does not know where it is published.

    `present`: it is there, perhaps in a folder of the user's own: `found` is its name then. A file of that name that is
    damaged, or not the known one, is not present: `damage` says what is wrong with it and what to do.
    """

    name: str
    kind: str
    url: str = ""
    bytes: int | None = None
    sha256: str = ""
    present: bool = False
    found: str = ""
    damage: str = ""
    licence: str = ""  # "" = not known
    folder: Path | None = None  # where a download goes

    @property
    def is_of_unknown_size(self) -> bool:
        """Whether it could be fetched and only its server can say how large it is."""
        return bool(self.url) and not (self.present or self.damage or self.bytes)

    @property
    def source(self) -> Source:
        """What to hand to `download`. Raises ModelNotFound if nobody knows where the file is published."""
        if not self.url:
            raise ModelNotFound(
                f"{self.name} is not there, and Easel does not know where it is published. Put it into {self.folder}."
            )
        return Source(self.name, self.kind, self.url, self.bytes, self.sha256)


Sources: TypeAlias = Mapping[str, Mapping[str, Source]]  # kind -> file name -> where it is published


def needed(
    settings: Mapping[str, Any], files: FilesByKind, downloads: Sources | None = None, known: Sources | None = None
) -> list[Need]:
    """The files that `settings` (field names and values, some or all) name, and all of `downloads`.

    `downloads` is a preset's own. What it does not have is looked up in `known`, then in the table of sources, which also
    says how large a file is whose address alone is given, and what its SHA-256 must be.
    """
    wanted: dict[tuple[str, str], None] = {}
    for field, kind in FIELDS.items():
        if settings.get(field):
            wanted[kind, settings[field]] = None
    for lora in settings.get("loras", ()):
        entry = lora if isinstance(lora, Lora) else Lora(**lora)
        if entry.enabled:
            wanted["loras", entry.name] = None
    mode = MODES.get(settings.get("performance", "custom"))
    if mode and mode.lora:
        wanted["loras", mode.lora.file] = None
    own = downloads or {}
    for kind, sources in own.items():
        wanted |= {(kind, name): None for name in sources}
    places = (own, known or {})
    given = {(kind, name): entry for place in reversed(places) for kind in place for name, entry in place[kind].items()}
    found = ((kind, name, _published(name, kind, given.get((kind, name)))) for kind, name in wanted)
    return [_need(name, kind, files, None if path_trouble(name) else entry) for kind, name, entry in found]


def named(names: Iterable[str], files: FilesByKind) -> list[Need]:
    """The files of the table that are called `names`. Raises BadSetting with near ones for a name that is not in it."""
    needs = []
    for name in names:
        entry = source(name)
        if entry is None:
            near = [known for known in SOURCES if name.lower() in known.lower()]
            listed = f"Near it: {', '.join(near)}." if near else "`python launch.py download --list` names them all."
            listed = next((words for part, words in NOT_FETCHED.items() if part in name.lower()), listed)
            raise BadSetting(f"Easel knows no file {name!r} to download. {listed}")
        needs.append(_need(entry.name, entry.kind, files, entry))
    return needs


def needed_by_refiner(name: str, catalog: Catalog) -> list[Need]:
    """The file of the refiner `name`, and what goes with it: a Stable Diffusion 1.5 one needs the latent interposer."""
    needs = needed({"refiner_model": name}, catalog)
    with suppress(ModelNotFound, BadModelFile):  # a file that is not there, or is none, needs nothing else yet
        if name and catalog.info(name).family == "sd15":
            needs += named([INTERPOSER], catalog)
    return needs


def find_name(wanted: str, names: Sequence[str]) -> str:
    """The first of `names` that `wanted` means, in whatever folder below it lies; "" if there is none."""
    return next(iter(names_meant(wanted, names)), "")


def names_meant(wanted: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that `wanted` means: the very name, else the whole path, else the last part of it.

    Case does not count, a backslash is a slash, and the ending may be left out. A path that ends in one of NAMES_OF_MANY means
    no file elsewhere.
    """
    if wanted in names:
        return [wanted]
    path = _path(wanted)
    folder, _, last = path.rpartition("/")
    whole = [name for name in names if path in _with_and_without_ending(_path(name))]
    if whole or (folder and without_ending(last).removesuffix(".fp16") in NAMES_OF_MANY):
        return whole
    return [name for name in names if last in _with_and_without_ending(_path(name).rpartition("/")[2])]


def told_total(needs: Sequence[Need]) -> str:
    """How large `needs` are together, as far as that is known."""
    total = told_size(sum(need.bytes or 0 for need in needs))
    some = any(need.bytes for need in needs) and not all(need.bytes for need in needs)
    return f"more than {total}" if some else total


def told_size(size: float | None) -> str:
    """Such as `6.94 GB`; no file has 0 bytes: that, like None, is a size that nobody knows."""
    return told_amount(size) if size else "size unknown"


def told_amount(size: float) -> str:
    """Such as `6.94 GB`, `12 bytes`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def _path(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _with_and_without_ending(name: str) -> tuple[str, str]:
    return name, without_ending(name)


def _published(name: str, kind: str, given: Source | None) -> Source | None:
    """`given`, with what the table knows of the same file; without it the table's row.

    Another address must serve the very file of the row, which only its SHA-256 can guard.
    """
    row = source(name)
    if given is None or row is None:
        return given or row
    is_same = given.url == row.url or row.sha256
    return replace(row, url=given.url) if is_same and row.kind == kind and not given.sha256 else given


def _need(name: str, kind: str, files: FilesByKind, entry: Source | None) -> Need:
    of_kind = files.files(kind)
    folder = next(iter(of_kind.folders), None)
    paths = of_kind.paths()
    found = find_name(name, sorted(paths, key=str.lower))
    wrong = damage(paths[found], entry.exact_size if entry else None, entry.size if entry else None) if found else ""
    return Need(
        name=name,
        kind=kind,
        url=entry.url if entry else "",
        bytes=entry.size if entry else None,
        sha256=entry.sha256 if entry else "",
        present=bool(found) and not wrong,
        found="" if wrong else found,
        damage=wrong,
        licence=entry.licence if entry else "",
        folder=folder,
    )
