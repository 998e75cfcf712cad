"""Config: this installation, read once at the start: folders, device, precision, port, defaults, who may come in."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.access import Users, read_users, user_from_text
from core.config_defaults import Offered, read_defaults
from core.config_keys import MODEL_KINDS, READERS
from core.config_reference import UNUSED, Reference
from core.config_sources import list_or_text, read_object
from core.errors import BadConfig
from core.near import meant
from core.other_programs import folders_of, hub_folder
from core.output.files import write_new
from core.presets import Preset, our_name
from core.reference_keys import KEYS as REFERENCE_KEYS
from core.reference_keys import meaning_of
from core.settings import ASPECT_RATIOS
from core.there import why_unreadable
from core.weights.header import is_safetensors
from core.weights.sources import HOSTS

__all__ = ["FLAGS", "MODEL_KINDS", "READERS", "Config", "make_config_file"]

HOW_TO_SET_A_PASSWORD = (
    "Set one with: python launch.py add-user NAME   (or --auth USER:PASSWORD, or the environment variable EASEL_AUTH)"
)
NO_FOLDERS_BEHIND_A_PASSWORD = "Behind a password the history shows each browser what was made in it, so the pictures of picture_folders are not in it."
CONFIG_FILE = "config.json"
NEW_CONFIG_FILE = {
    "$help": "Choices of this installation, only those that differ from the usual. docs/configuration.md lists all names. "
    'For example: "port": 7870, "outputs": "D:/pictures". Names that begin with $ are comments.'
}
LORA_WEIGHTS = {"lora_min_weight": "default_loras_min_weight", "lora_max_weight": "default_loras_max_weight"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every choice that belongs to the installation rather than to a picture.

    A value comes from the command line, else from the environment (EASEL_ and the field's name in capitals), else from
    config.json beside launch.py, else from the reference's variables and config.txt, else from here.
    """

    root: Path  # the folder of launch.py
    outputs: Path
    models: Path
    checkpoints: tuple[Path, ...]  # searched in this order; folders, or single files
    presets: Path  # the program's own, never written
    user_presets: Path = Path("user_presets")
    wildcards: tuple[Path, ...] = ()
    styles: tuple[Path, ...] = ()  # the user's; the program's own library is always there
    model_folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # by kind, see MODEL_KINDS
    picture_folders: tuple[Path, ...] = ()  # of other programs, for the history
    preset: str = "default"
    defaults: Preset = field(default_factory=lambda: Preset(name=CONFIG_FILE))  # under every preset
    older_models: bool = True  # whether an older checkpoint does where a preset's own is missing
    max_image_number: int = 32
    lora_rows: int = 5
    lora_min_weight: float = -2.0
    lora_max_weight: float = 2.0
    aspect_ratios: tuple[tuple[int, int], ...] = ASPECT_RATIOS  # width and height in pixels
    created_by: str = ""  # written into the metadata of every picture; "": nobody
    hf_mirror: str = ""  # in place of https://huggingface.co
    download_hosts: tuple[str, ...] = HOSTS  # that presets may name
    host: str = "127.0.0.1"
    port: int = 7865
    share: bool = False
    users: Users = field(default_factory=Users)  # nobody: no password is asked for
    users_file: Path | None = None  # that they are from
    theme: str = "auto"
    language: str = ""  # of the page; "": as the browser prefers
    languages: tuple[Path, ...] = ()  # the user's tables of texts; the program's own are always there
    in_browser: bool = True
    device: str = "auto"
    gpu_device_id: int | None = None
    threads: int | None = None  # None: as torch chooses
    unet_precision: str = "auto"
    int8_linears: bool = False
    vae_precision: str = "auto"
    clip_precision: str = "auto"
    vae_in_cpu: bool = False
    memory_budget: float | None = None  # GiB; None: what is free
    offload: bool = False
    notices: tuple[str, ...] = ()  # sentences for the user: what of all this is not used

    @property
    def hash_cache(self) -> Path:
        """Where checksums of model files are remembered."""
        return self.root / ".cache" / "hashes.json"

    @property
    def queue_file(self) -> Path:
        """Where the tasks that wait are kept for the next start."""
        return self.root / ".cache" / "queue.sqlite3"

    @property
    def pace_file(self) -> Path:
        """Where it is remembered how long pictures take on this machine."""
        return self.root / ".cache" / "pace.json"

    @property
    def preset_folders(self) -> tuple[Path, ...]:
        """Where presets are looked for, the user's first."""
        return (self.user_presets, self.presets)

    @property
    def open_to_others(self) -> bool:
        """Whether other computers can reach the page."""
        return self.share or not _is_loopback(self.host)

    @property
    def private_paths(self) -> dict[Path, str]:
        """What visitors read in place of folders: "…/models/loras" below the program's own, "…/loras" elsewhere."""
        kinds = {
            "models": (self.models,),
            "outputs": (self.outputs,),
            "presets": (self.presets, self.user_presets),
            "checkpoints": self.checkpoints,
            **self.model_folders,
            "wildcards": self.wildcards,
            "styles": self.styles,
            "language": self.languages,
            "pictures": self.picture_folders,
        }
        places = {self.root: "…"}
        with suppress(RuntimeError):  # a user without a home
            places.setdefault(Path.home(), "~")
        for kind, folders in kinds.items():
            for place in folders:
                if is_safetensors(place.name):  # a single file
                    places.setdefault(place.parent, "…")
                elif not place.is_relative_to(self.root):
                    places.setdefault(place, f"…/{kind}")
        return places

    @classmethod
    def load(cls, args: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> Config:
        """The configuration from parsed flags, environment variables and `root`/config.json.

        Raises BadConfig naming where the value came from, and when the page is to be open to others without a password.
        """
        values = _gathered(_spelled_out(args), environ, root)
        reference = Reference(environ, root)
        values = {**_without_crossed_weights(reference.config(root), values, reference), **values}
        models = values.pop("models", root / "models")
        hosts = tuple(dict.fromkeys((*HOSTS, *values.pop("download_hosts", ()))))
        shared = _shared(values.pop("use_models_of", {}), environ)
        own = {
            kind: values.pop(kind, tuple(dict.fromkeys((models / kind, root / "models" / kind))))
            for kind in ("checkpoints", *MODEL_KINDS)
        }
        styles = (*values.pop("styles", (root / "styles",)), *shared.get("styles", ()))
        offered = Offered(
            max_image_number=values.get("max_image_number", cls.max_image_number),
            aspect_ratios=values.get("aspect_ratios", cls.aspect_ratios),
            styles=styles,
            hosts=hosts,
        )
        file = root / CONFIG_FILE
        whose = "EASEL_DEFAULTS" if environ.get("EASEL_DEFAULTS") else f"defaults of {file}"
        defaults = read_defaults(reference, values.pop("defaults", {}), file, whose, offered)
        folders = {kind: tuple(dict.fromkeys((*places, *shared.get(kind, ())))) for kind, places in own.items()}
        wildcards = (*values.pop("wildcards", (root / "wildcards",)), *shared.get("wildcards", ()))
        searched = (*(place for places in folders.values() for place in places), *wildcards, *styles)
        settings = {
            "root": root,
            "models": models,
            "checkpoints": folders.pop("checkpoints"),
            "outputs": root / "outputs",
            "presets": root / "presets",
            "user_presets": root / "user_presets",
            "wildcards": wildcards,
            "styles": styles,
            "languages": values.pop("languages", (root / "language",)),
            "model_folders": folders,
            "defaults": defaults,
            "download_hosts": hosts,
            **_users(args, environ, root),
            "notices": (*reference.notices, *defaults.notes, *_unreadable(searched)),
        }
        config = cls(**(settings | values))
        config = replace(config, preset=our_name(config.preset, *config.preset_folders))
        if config.users and config.picture_folders:
            config = replace(config, notices=(*config.notices, NO_FOLDERS_BEHIND_A_PASSWORD))
        if config.open_to_others and not config.users:
            name, value = ("share", "") if config.share else ("host", f" {config.host}")
            given = FLAGS.get(name, f"--{name}") if name in args else name
            raise BadConfig(
                f"{given}{value} opens the page to others, and nobody has a password yet. {HOW_TO_SET_A_PASSWORD}"
            )
        return config


def make_config_file(root: Path) -> None:
    """Put a config.json that changes nothing beside launch.py if there is none: something to write into."""
    with suppress(OSError):  # there already, or a folder that is not ours to write
        write_new(root / CONFIG_FILE, (json.dumps(NEW_CONFIG_FILE, indent=4) + "\n").encode())


def _spelled_out(args: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that stand for several fields, or for one under another name, as these fields."""
    found = {name: value for name, value in args.items() if name in READERS}
    if args.get("always_cpu") is not None:
        found["device"] = "cpu"
        if str(args["always_cpu"]) not in ("all", "-1"):  # the reference's word for all is -1
            found["threads"] = args["always_cpu"]
    if args.get("all_precision") is not None:
        # The decoder is left to choose for itself in fp16, in which SDXL's own overflows; only its own flag asks for that.
        for part in ("unet", "clip") if args["all_precision"] == "fp16" else ("unet", "vae", "clip"):
            found.setdefault(f"{part}_precision", args["all_precision"])
    return found


def _gathered(flags: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    """Each field that somebody gave, read and checked; the first of flags, environment and file wins."""
    file = root / CONFIG_FILE
    in_file = _read_file(file)
    here = Path.cwd()
    values: dict[str, Any] = {}
    for name, read in READERS.items():
        flag, variable = FLAGS.get(name, "--" + name.replace("_", "-")), f"EASEL_{name.upper()}"
        if not environ.get(variable) and environ.get(VARIABLES.get(name, "")):
            variable = VARIABLES[name]
        if name in flags:
            values[name] = read(flags[name], flag, here)
        elif environ.get(variable):
            values[name] = read(list_or_text(environ[variable]), variable, here)
        elif name in in_file:
            values[name] = read(in_file[name], f"{name} in {file}", root)
    return values


def _read_file(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    values = read_object(file)
    for name in values:
        if name not in READERS and not name.startswith("$"):
            words = meant(name, READERS, f"The names are: {', '.join(READERS)}.")
            if meaning_of(name):
                words = f"That is a name of config.txt; here it is {_our_name(name)}."
            raise BadConfig(f"{file}: there is no {name[:100]!r}. {words}")
    return values


def _our_name(key: str) -> str:
    meaning = REFERENCE_KEYS.get(key)
    if meaning is None or meaning.place == "nothing":
        return "nothing"
    return f"{meaning.to!r}" + (" in defaults" if meaning.place == "settings" else "")


def _without_crossed_weights(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], reference: Reference
) -> dict[str, Any]:
    """`theirs` without LoRA weights of which the least is above the greatest, which is told. Raises BadConfig for `ours`."""
    kept = dict(theirs)
    least, most = _lora_weights({**kept, **ours})
    if least > most:
        for name, key in LORA_WEIGHTS.items():
            if name in theirs and name not in ours:
                sentence = f"with {key} {theirs[name]:g}, LoRA weights would go from {least:g} to {most:g}."
                reference.leave_out(key, f"{sentence} {UNUSED}")
                del kept[name]
        least, most = _lora_weights({**kept, **ours})
    if least > most:
        raise BadConfig(
            f"lora_min_weight is {least:g}, more than lora_max_weight, which is {most:g}. Lower the one or raise the other."
        )
    return kept


def _lora_weights(values: Mapping[str, Any]) -> tuple[float, float]:
    least, most = (values.get(name, getattr(Config, name)) for name in LORA_WEIGHTS)
    return least, most


def _shared(programs: Mapping[str, tuple[Path | None, ...]], environ: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """The folders of other programs by kind."""
    found: dict[str, tuple[Path, ...]] = {}
    for program, places in programs.items():
        for place in places:
            for kind, folders in folders_of(program, place or hub_folder(environ)).items():
                found[kind] = (*found.get(kind, ()), *folders)
    return found


def _unreadable(folders: Iterable[Path]) -> Iterator[str]:
    """A sentence for each reason why some of `folders` cannot be read."""
    reasons: dict[str, dict[Path, None]] = {}
    for folder in folders:
        if why := why_unreadable(folder):
            reasons.setdefault(why, {})[folder] = None
    for why, places in reasons.items():
        yield f"{', '.join(map(str, places))} cannot be read: {why}."


def _users(args: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    if args.get("auth"):
        return {"users": user_from_text(args["auth"], "--auth")}
    if environ.get("EASEL_AUTH"):
        return {"users": user_from_text(environ["EASEL_AUTH"], "EASEL_AUTH")}
    file = root / "auth.json"
    return {"users": read_users(file), "users_file": file}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


FLAGS = {"outputs": "--output", "models": "--models-path", "host": "--listen", "threads": "--always-cpu"}
VARIABLES = {"hf_mirror": "HF_MIRROR", "port": "GRADIO_SERVER_PORT"}  # names that other programs know, too
