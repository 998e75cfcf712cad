"""convert: the tensors of a pickle container, written as a safetensors file. A program of its own, not imported by Easel.

`core.cli_convert` starts it as `python -I -B convert.py PATH`. It is the only place that opens pickles, and it does so with
torch's unpickler for weights, which makes tensors and plain containers and calls nothing that the file names. Behind that
unpickler stands a guard: from the moment the file is opened, this process reaches no network, starts no program and writes
no file but the one that it was told to write.

It talks in JSON, a line each. It says `{"shapes": ..., "left_out": ..., "embedding": ...}`, reads the path of a new file, writes that
and says `{"bytes": ...}`; or it says `{"refused": sentence}`, or of an error of the system `{"failed": [number, words, path]}`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int16: "I16", torch.uint16: "U16", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32",
    torch.uint32: "U32", torch.float32: "F32", torch.int64: "I64", torch.uint64: "U64", torch.float64: "F64",
}  # fmt: skip
WRAPPERS = ("state_dict", "params_ema", "params", "model")  # keys under which trainers put the weights
SIDES = {768: "clip_l", 1280: "clip_g"}  # width of an embedding's vectors -> the text encoder of SDXL
DEEPEST = 8  # tables within tables
LARGEST_EMBEDDING = 2**23  # bytes of a file whose raw vectors may be looked for
MOST_BLOBS = 4  # raw pieces with vectors; a file with more is something else
STAND_INS = "pytorch_lightning."  # whose classes lie beside the weights of checkpoints, and hold none
FORBIDDEN = (
    "socket.", "subprocess.", "ctypes.", "shutil.", "urllib.", "http.", "ftplib.", "smtplib.", "winreg.", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "os.remove", "os.rename", "os.rmdir", "os.mkdir",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.kill", "pty.spawn", "pickle.find_class",
)  # fmt: skip


class Refused(Exception):
    """The file cannot or may not be converted; the message says why, without the file's name in front."""


@dataclass
class Contents:
    """The tensors of a file by name, what else was in it, and whether they are an embedding's vectors."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    embedding: bool = False


class StandIn:
    """Takes the place of a class that is not needed. Whatever it is made with, it does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


class Guard:
    """An audit hook: what a file has no business to do raises PermissionError. `target` is the file that may be written."""

    def __init__(self) -> None:
        self.target = ""

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = args[0], args[2] or 0
            if flags & (os.O_WRONLY | os.O_RDWR) and path != self.target:
                raise PermissionError(f"writing to {path!r} was refused")
        elif event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} was refused")


def read(path: Path) -> Contents:
    """What the container at `path` holds. Raises Refused, and OSError if the file cannot be read."""
    with path.open("rb") as file:
        start = file.read(16)
    archive = start.startswith(b"PK\x03\x04")
    if not archive and not (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        if start[8:9] == b"{":
            raise Refused("is a safetensors file already; put it into the folder of its kind as it is.")
        raise Refused("is no PyTorch file: neither a zip archive nor a pickle. Download it again, or look for another.")
    try:
        with torch.serialization.safe_globals(_stand_ins(path) if archive else []):
            top = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        vectors = raw_vectors(path) if archive else None
        if vectors is not None:
            return Contents({"emb_params": vectors}, ["everything but the last table of vectors"], embedding=True)
        raise Refused(_why(str(error))) from None
    except Exception as error:  # the library raises KeyError, RuntimeError, EOFError and others for damage
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a place before the file's beginning
            raise
        if "TorchScript" in str(error):
            raise Refused(
                "is a TorchScript program, not weights alone. Look for a .safetensors version of it."
            ) from None
        raise Refused("is damaged or cut off. Download it again; the transfer may have been interrupted.") from None
    return contents(top)


def contents(top: Any) -> Contents:
    """The tensors of the unpickled `top` under the names that Easel reads. Raises Refused if there are none."""
    if isinstance(top, Mapping) and "string_to_param" in top:  # AUTOMATIC1111's and the paper's own embeddings
        named = top["string_to_param"]
        vectors = [value for value in named.values() if isinstance(value, Tensor)] if isinstance(named, Mapping) else []
        if not vectors:
            raise Refused("is an embedding without vectors. Download it again, or look for another.")
        return Contents({"emb_params": vectors[0].detach()}, _others(top, "string_to_param"), embedding=True)
    if isinstance(top, (list, tuple)):
        return _listed(top)
    left_out: list[str] = []
    while isinstance(top, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(top.get(key), Mapping) and top[key]), None)
        if wrapper is None:
            break
        left_out += _others(top, wrapper)
        top = top[wrapper]
    found = Contents(left_out=left_out)
    for name, value in _leaves(top) if isinstance(top, Mapping) else ():
        if not isinstance(value, Tensor) or name == "__metadata__":  # the one name that safetensors keeps for itself
            found.left_out.append(name)
        elif name in found.tensors:
            raise Refused(f"has two tensors of the name {name[:100]!r}. Look for a .safetensors version of it.")
        else:
            found.tensors[name] = value.detach()
    if not found.tensors:
        raise Refused("holds no tensors under names, so it is no model that Easel knows how to convert.")
    return found


def raw_vectors(path: Path) -> Tensor | None:
    """The vectors (n, width) in the last raw piece of an embedding that the unpickler refuses; None if it has none.

    The pieces under data/ are the plain float32 numbers of tensors, so they need no unpickling.
    """
    if path.stat().st_size > LARGEST_EMBEDDING:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            pieces = [piece for piece in archive.infolist() if re.search(r"(^|/)data/", piece.filename)]
            pieces = [piece for piece in pieces if piece.file_size >= 4 * 768]
            if len(pieces) > MOST_BLOBS or sum(piece.file_size for piece in pieces) > LARGEST_EMBEDDING:
                return None
            for piece in reversed(pieces):
                width = next((width for width in (768, 1024) if piece.file_size % (4 * width) == 0), None)
                if width:
                    vectors = torch.frombuffer(bytearray(archive.read(piece)), dtype=torch.float32).reshape(-1, width)
                    if vectors.isfinite().all():
                        return vectors
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError):
        pass
    return None


def check(found: Contents, size: int) -> None:
    """Raises Refused for what a safetensors file cannot hold, and for tensors out of all proportion to the file's `size`."""
    total = 0
    for name, tensor in found.tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            raise Refused(
                f"has the tensor {name[:100]!r} of the type {str(tensor.dtype).removeprefix('torch.')}, which safetensors "
                "files cannot hold. Look for a .safetensors version of it."
            )
        total += tensor.numel() * tensor.element_size()
    if total > 8 * size + 2**20:  # one number repeated a billion times takes four bytes in a pickle
        raise Refused(f"has {size} bytes and unpacks to {total}, which no real model does. Look for another file.")


def write(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write a safetensors file of `tensors` at the free name `path`, one tensor after the other; its bytes. Raises OSError."""
    # Larger items first, as the library orders them, so that each begins at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in names:
        tensor = tensors[name]
        end = place + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return 8 + len(text) + place


def _stand_ins(path: Path) -> list[Any]:
    """What to let the unpickler make in place of the classes of STAND_INS that the zip archive at `path` names."""
    with suppress(Exception):  # a damaged file is told when it is read
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return [(StandIn, name) for name in names if name.startswith(STAND_INS)]
    return []


def _why(error: str) -> str:
    """What of a file the unpickler refuses, in sentences."""
    named = re.search(r"GLOBAL ([\w.]+)", error)
    what = f"asks for {named[1][:100]}" if named else "holds more than tensors and plain tables"
    return (
        f"{what}, which could run a program, so it is not opened. Look for a .safetensors version of it, and be wary of "
        "where this one is from."
    )


def _listed(top: list[Any] | tuple[Any, ...]) -> Contents:
    """An embedding that is a list of tables: the vectors of each width, one below the other."""
    found = Contents(embedding=True)
    by_width: dict[int, list[Tensor]] = {}
    for number, table in enumerate(top):
        if not isinstance(table, Mapping):
            found.left_out.append(str(number))
            continue
        for name, value in table.items():
            if isinstance(value, Tensor) and value.dim() in (1, 2) and value.is_floating_point():
                by_width.setdefault(value.shape[-1], []).append(value.detach().reshape(-1, value.shape[-1]))
            else:
                found.left_out.append(f"{number}.{name}")
    if not by_width:
        raise Refused("is a list without vectors, so it is no embedding. Look for a .safetensors version of it.")
    for width, vectors in by_width.items():
        name = "emb_params" if len(by_width) == 1 else SIDES.get(width, f"emb_params_{width}")
        found.tensors[name] = torch.cat([each.float() for each in vectors])
    return found


def _leaves(table: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What the tables within `table` hold, by names joined with dots."""
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value and depth < DEEPEST:
            yield from _leaves(value, f"{name}.", depth + 1)
        else:
            yield name, value


def _others(table: Mapping[Any, Any], key: str) -> list[str]:
    return [str(other) for other in table if other != key]


def main(path: Path) -> None:
    """Read the file at `path`, say what it holds, and write it where the answer says."""
    guard = Guard()
    sys.addaudithook(guard)
    try:
        found = read(path)
        check(found, path.stat().st_size)
        shapes = {name: list(tensor.shape) for name, tensor in found.tensors.items()}
        _say(shapes=shapes, left_out=found.left_out, embedding=found.embedding)
        target = sys.stdin.readline().strip()
        if target:
            guard.target = json.loads(target)
            _say(bytes=write(Path(guard.target), found.tensors))
    except Refused as refusal:
        _say(refused=f"{path.name} {refusal}")
    except MemoryError:
        _say(refused=f"{path.name} needs more memory than there is. Close other programs and try again.")
    except OSError as error:
        if error.errno is None:  # the guard's
            _say(refused=f"{path.name} cannot be read or written: {error}.")
        else:
            _say(failed=[error.errno, error.strerror, error.filename or guard.target or str(path)])


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
