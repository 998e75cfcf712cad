"""Finding model files and knowing checkpoints by content; no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from core.errors import BadModelFile, ModelNotFound
from core.there import is_file
from core.weights.header import CONVERT, PICKLES, is_safetensors
from core.weights.info import ModelInfo, model_info

__all__ = ["Catalog", "FileHashes", "Files", "ModelInfo"]

WORDS = {
    "checkpoints": "checkpoint",
    "loras": "LoRA",
    "vae": "VAE",
    "embeddings": "embedding",
    "text_encoders": "text encoder",
}


class Files:
    """The model files of one kind in the configured folders, asked anew each time, so that new ones appear by themselves.

    A name is a path relative to its folder, with `/`; if two folders have the same one, the first folder's counts.
    """

    def __init__(self, folders: Sequence[Path], kind: str = "checkpoints") -> None:
        self.folders = tuple(folders)
        self.kind = kind

    def names(self) -> list[str]:
        """Names of all safetensors files, sorted without regard to case."""
        return sorted((name for name in self._files() if is_safetensors(name)), key=lambda n: (n.lower(), n))

    def paths(self) -> dict[str, Path]:
        """All files of any format by name: for those who want to say what to do about a wrong one."""
        return self._files()

    def find(self, name: str) -> Path:
        """Where the file `name` is.

        Only names that `names()` lists are found, so no name leads out of the folders (a link that the user put there
        does). Raises ModelNotFound with what is there, BadModelFile for a pickle.
        """
        path = self._path(name)
        if path and path.suffix.lower() in PICKLES:
            raise BadModelFile(f"{name} is a {path.suffix} file. {CONVERT}")
        if path and is_safetensors(name):
            return path
        word = WORDS.get(self.kind, f"file for {self.kind}")
        folders = ", ".join(str(folder) for folder in self.folders)
        there = self.names()
        if not there:
            if self.kind == "checkpoints":
                raise ModelNotFound(
                    f"There is no checkpoint in {folders}. Put an SDXL checkpoint (.safetensors) there."
                )
            raise ModelNotFound(
                f"There is no {word} {name[:200]!r} in {folders}, nor any other. Put it (.safetensors) there."
            )
        listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        raise ModelNotFound(f"There is no {word} {name[:200]!r} in {folders}. There is: {listed}.")

    def _path(self, name: str) -> Path | None:
        """Where `name` is, by its own way down alone: folders may hold thousands of files, and this is asked at every picture."""
        for folder in self.folders:
            if is_file(folder):
                if _name_of(folder) == name:
                    return folder
                continue
            path = folder
            for part in name.split("/"):
                if part.startswith(".") or part not in _entries(path):
                    break
                path /= part
            else:
                if is_file(path):
                    return path
        return None

    def _files(self) -> dict[str, Path]:
        """All files by name; links are followed, a folder that was met before is not entered again."""
        files: dict[str, Path] = {}
        for folder in self.folders:
            if is_file(folder):  # a single file of another program's, such as one in the Hugging Face cache
                files.setdefault(_name_of(folder), folder)
                continue
            seen: set[str] = set()
            for place, folders, names in os.walk(folder, followlinks=True):
                real = os.path.realpath(place)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                for name in names:
                    if not name.startswith("."):
                        path = Path(place) / name
                        files.setdefault(path.relative_to(folder).as_posix(), path)
        return files


def _entries(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _name_of(file: Path) -> str:
    """The name of a single file; in the Hugging Face cache, where many are called alike, with its repository's before it."""
    for snapshot in file.parents:  # models--ORGANISATION--NAME/snapshots/REVISION
        repository = snapshot.parent.parent.name
        if snapshot.parent.name == "snapshots" and repository.startswith("models--"):
            return f"{repository.removeprefix('models--')}/{file.relative_to(snapshot).as_posix()}"
    return file.name


class Catalog(Files):
    """The checkpoints, and through `files` the model files of all other kinds. Several threads may use one."""

    def __init__(
        self,
        checkpoint_folders: Sequence[Path],
        *,
        hash_cache: Path | None = None,
        others: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        super().__init__(checkpoint_folders)
        self._others = {kind: Files(folders, kind) for kind, folders in (others or {}).items()}
        self._hashes = FileHashes(hash_cache)
        self._infos: dict[tuple[str, tuple[str, int, int]], ModelInfo] = {}  # by name, too: links make several of one

    def files(self, kind: str) -> Files:
        """The files of `kind`, such as "loras"; a kind that has no folders has no files."""
        return self if kind == self.kind else self._others.get(kind, Files((), kind))

    def info(self, name: str) -> ModelInfo:
        """What the checkpoint `name` is, from its header. Raises as `find`, and BadModelFile for a damaged file."""
        path = self.find(name)
        key = (name, _identity(path))
        if key not in self._infos:
            self._infos[key] = model_info(path, name)
        return self._infos[key]

    def default(self, chosen: Collection[str] = ()) -> str:
        """The name of the largest checkpoint that can be the base model; "" if there is no file at all.

        One that can be it by itself goes before one that needs the parts `chosen` (keys of PARTS) from files of their own.
        Raises BadModelFile with what the largest lacks where none can.
        """
        infos = sorted(self._readable(), key=lambda info: info.size, reverse=True)
        for parts in ((), chosen):
            for info in infos:
                if not info.problem_with(parts):
                    return info.name
        if infos:
            infos[0].check_base(chosen)
        for name in self.names():
            self.info(name)  # says why it cannot be read
        return ""

    def file_hash(self, path: Path) -> str:
        """SHA-256 of the whole file at `path`, 64 hex digits; remembered until the file changes. Raises OSError."""
        return self._hashes.of(path)

    def known_hashes(self, kind: str) -> dict[str, str]:
        """SHA-256 by name, 64 hex digits, of those files of `kind` whose hash is remembered. Nothing is hashed for it."""
        return self._hashes.known({n: p for n, p in self.files(kind).paths().items() if is_safetensors(n)})

    def _readable(self) -> Iterator[ModelInfo]:
        for name in self.names():
            try:
                yield self.info(name)
            except (BadModelFile, ModelNotFound):
                continue


class FileHashes:
    """SHA-256 of files, kept in a JSON file by path, size and time of change. A broken cache file counts as empty."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def of(self, path: Path) -> str:
        """The hash of the file at `path`, 64 hex digits. Raises OSError if it cannot be read."""
        key = " ".join(map(str, _identity(path)))
        with self._lock:
            self._known = self._read() | self._known
            if key not in self._known:
                self._known[key] = _sha256(path)
                self._known = self._read() | self._known  # another program may have added to it meanwhile
                self._write()
            return self._known[key]

    def known(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """The hashes that are remembered of the files `paths`, by the names that these have there."""
        table = self._read() | self._known  # without the lock, which is held for as long as a file is being hashed
        found = {}
        for name, path in paths.items():
            with contextlib.suppress(OSError):  # gone since it was listed
                if digits := table.get(" ".join(map(str, _identity(path)))):
                    found[name] = digits
        return found

    def _read(self) -> dict[str, str]:
        try:
            table = json.loads(self._cache.read_text(encoding="utf-8")) if self._cache else {}
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(table, dict):
            return {}
        return {key: value for key, value in table.items() if isinstance(value, str) and len(value) == 64}

    def _write(self) -> None:
        if self._cache is None:
            return
        temporary = self._cache.with_name(f"{self._cache.name}.{os.getpid()}.tmp")
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True), encoding="utf-8")
            temporary.replace(self._cache)
        except OSError:  # a folder that cannot be written costs time at the next start, nothing else
            with contextlib.suppress(OSError):
                temporary.unlink()


def _identity(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
