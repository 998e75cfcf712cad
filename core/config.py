"""Config: this installation, read once at the start: folders, device, precision, port, who may come in."""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.access import Users, read_users, user_from_text
from core.arguments import PRECISIONS
from core.errors import BadConfig

HOW_TO_SET_A_PASSWORD = (
    "Set one with: python launch.py add-user NAME   (or --auth USER:PASSWORD, or the environment variable EASEL_AUTH)"
)

# Folders of files that the user may bring, below `models`; each is a field of config.json and may be a list of folders.
MODEL_KINDS = ("loras", "vae", "embeddings", "text_encoders", "vae_approx", "prompt_expansion")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every choice that belongs to the installation rather than to a picture.

    A value comes from the command line, else from the environment (EASEL_ and the field's name in capitals), else from
    config.json beside launch.py, else from here.
    """

    root: Path  # the folder of launch.py
    outputs: Path
    models: Path
    checkpoints: tuple[Path, ...]  # searched in this order
    presets: Path
    wildcards: tuple[Path, ...] = ()
    styles: tuple[Path, ...] = ()  # the user's; the program's own library is always there
    model_folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # by kind, see MODEL_KINDS
    preset: str = "default"
    host: str = "127.0.0.1"
    port: int = 7865
    share: bool = False
    users: Users = field(default_factory=Users)  # nobody: no password is asked for
    theme: str = "auto"
    in_browser: bool = True
    device: str = "auto"
    gpu_device_id: int | None = None
    threads: int | None = None  # None: as torch chooses
    unet_precision: str = "auto"
    vae_precision: str = "auto"
    clip_precision: str = "auto"
    vae_in_cpu: bool = False

    @property
    def hash_cache(self) -> Path:
        """Where checksums of model files are remembered."""
        return self.root / ".cache" / "hashes.json"

    @property
    def open_to_others(self) -> bool:
        """Whether other computers can reach the page."""
        return self.share or not _is_loopback(self.host)

    @classmethod
    def load(cls, args: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> Config:
        """The configuration from parsed flags, environment variables and `root`/config.json.

        Raises BadConfig naming where the value came from, and when the page is to be open to others without a password.
        """
        values = _gathered(_spelled_out(args), environ, root)
        models = values.pop("models", root / "models")
        own = dict.fromkeys((models / "checkpoints", root / "models" / "checkpoints"))
        users = _users(args, environ, root)
        settings = {
            "root": root,
            "models": models,
            "checkpoints": tuple(own),
            "outputs": root / "outputs",
            "presets": root / "presets",
            "wildcards": (root / "wildcards",),
            "styles": (root / "styles",),
            "model_folders": {
                kind: values.pop(kind, tuple(dict.fromkeys((models / kind, root / "models" / kind))))
                for kind in MODEL_KINDS
            },
            "users": users,
        }
        config = cls(**(settings | values))
        if config.open_to_others and not config.users:
            flag = "--share" if config.share else f"--listen {config.host}"
            raise BadConfig(f"{flag} opens the page to others, and nobody has a password yet. {HOW_TO_SET_A_PASSWORD}")
        return config


def _spelled_out(args: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that stand for several fields, or for one under another name, as these fields."""
    found = {name: value for name, value in args.items() if name in READERS}
    if args.get("always_cpu") is not None:
        found["device"] = "cpu"
        if args["always_cpu"] != "all":
            found["threads"] = args["always_cpu"]
    if args.get("all_precision") is not None:
        for part in ("unet", "vae", "clip"):
            found.setdefault(f"{part}_precision", args["all_precision"])
    return found


def _gathered(flags: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    """Each field that somebody gave, read and checked; the first of flags, environment and file wins."""
    file = root / "config.json"
    in_file = _read_file(file)
    here = Path.cwd()
    values: dict[str, Any] = {}
    for name, read in READERS.items():
        flag, variable = FLAGS.get(name, "--" + name.replace("_", "-")), f"EASEL_{name.upper()}"
        if name in flags:
            values[name] = read(flags[name], flag, here)
        elif environ.get(variable):
            values[name] = read(environ[variable], variable, here)
        elif name in in_file:
            values[name] = read(in_file[name], f"{name} in {file}", root)
    return values


def _read_file(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{file} cannot be read ({error}). Mend it, or delete it to take the defaults.") from None
    if not isinstance(values, dict):
        raise BadConfig(f'{file} must hold a JSON object such as {{"port": 7866}}.')
    for name in values:
        if name not in READERS:
            near = difflib.get_close_matches(name, READERS, n=1)
            meant = f"Did you mean {near[0]!r}?" if near else f"The names are: {', '.join(READERS)}."
            raise BadConfig(f"{file}: there is no {name!r}. {meant}")
    return values


def _users(args: Mapping[str, Any], environ: Mapping[str, str], root: Path) -> Users:
    if args.get("auth"):
        return user_from_text(args["auth"], "--auth")
    if environ.get("EASEL_AUTH"):
        return user_from_text(environ["EASEL_AUTH"], "EASEL_AUTH")
    return read_users(root / "auth.json")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _folder(value: Any, origin: str, base: Path) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadConfig(f"{origin} is {value!r}; it must be the path of a folder.")
    folder = base / Path(value).expanduser()
    if folder.exists() and not folder.is_dir():
        raise BadConfig(f"{origin} is {value!r}, which is a file; it must be a folder.")
    return folder.resolve()


def _folders(value: Any, origin: str, base: Path) -> tuple[Path, ...]:
    several = value if isinstance(value, list) else [value]
    if not several:
        raise BadConfig(f"{origin} is an empty list; it must name at least one folder.")
    return tuple(_folder(each, origin, base) for each in several)


def _text(value: Any, origin: str, base: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadConfig(f"{origin} is {value!r}; it must be text.")
    return value


def _switch(value: Any, origin: str, base: Path) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise BadConfig(f"{origin} is {value!r}; it must be true or false.")
    return words[value.lower()]


def _whole(low: int, high: int) -> Callable[[Any, str, Path], int]:
    def read(value: Any, origin: str, base: Path) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = low - 1
        if isinstance(value, (bool, float)) or not low <= number <= high:
            raise BadConfig(f"{origin} is {value!r}; it must be a whole number from {low} to {high}.")
        return number

    return read


def _one_of(*choices: str) -> Callable[[Any, str, Path], str]:
    def read(value: Any, origin: str, base: Path) -> str:
        if value not in choices:
            raise BadConfig(f"{origin} is {value!r}; it must be one of: {', '.join(choices)}.")
        return str(value)

    return read


READERS: dict[str, Callable[[Any, str, Path], Any]] = {
    "outputs": _folder,
    "models": _folder,
    "checkpoints": _folders,
    **dict.fromkeys(MODEL_KINDS, _folders),
    "presets": _folder,
    "wildcards": _folders,
    "styles": _folders,
    "preset": _text,
    "host": _text,
    "port": _whole(1, 65535),
    "share": _switch,
    "theme": _one_of("auto", "light", "dark"),
    "in_browser": _switch,
    "device": _one_of("auto", "cpu", "cuda", "mps"),
    "gpu_device_id": _whole(0, 127),
    "threads": _whole(1, 1024),
    "unet_precision": _one_of("auto", *PRECISIONS),
    "vae_precision": _one_of("auto", *PRECISIONS),
    "clip_precision": _one_of("auto", *PRECISIONS),
    "vae_in_cpu": _switch,
}
FLAGS = {"outputs": "--output", "models": "--models-path", "host": "--listen", "threads": "--always-cpu"}
