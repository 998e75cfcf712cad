"""cli_convert: `convert`, which makes safetensors files of models that are kept in pickles.

What is opened is opened in a process of its own (`core.weights.convert`). This side looks at names and shapes alone, says where
the new file goes, and gives it its name when it is whole. The original stays as it is, and nothing is ever overwritten.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from core.cli import BAD_INPUT, DONE, FAILED
from core.errors import BadModelFile, BadSetting, ModelNotFound, UserError
from core.output.files import move_to_free_name
from core.weights.header import read_header
from core.weights.lora_format import grouped
from core.weights.sources import source

SCRIPT = Path(__file__).parent / "weights" / "convert.py"
GPT2_WEIGHTS = "pytorch_model.bin"
GPT2_WORDS = ("config.json", "positive.txt")  # beside the weights and a tokenizer
GPT2_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
MOST_NAMED = 5  # of what was left out
ABANDONED = 24 * 3600  # seconds since anything was written into an unfinished file

Shapes = Mapping[str, Sequence[int]]

BEGINNINGS = (  # kind of folder -> how names of tensors begin, one of which such a file has; the first that fits counts
    ("controlnet", ("control_model.", "controlnet_", "input_hint_block.", "ip_adapter.")),
    ("checkpoints", ("model.diffusion_model.",)),
    ("vae", ("first_stage_model.", "encoder.down", "decoder.up")),
    ("upscale_models", ("conv_first.", "model.1.sub.")),
    ("text_encoders", ("text_model.",)),
    ("sam", ("mask_decoder.",)),
)
EMBEDDING_NAMES = {"clip_l", "clip_g", "text_encoders_0", "text_encoders_1", "emb_params"}
EMBEDDING_WIDTHS = (768, 1024, 1280)
MOST_OF_AN_EMBEDDING = 4  # tensors
APPROX_DECODER = {f"conv{number}.{part}" for number in range(1, 9) for part in ("weight", "bias")}
TINY_DECODER = re.compile(r"(taesd_decoder\.|decoder\.(layers\.)?)?\d+\.(conv\.\d+\.|skip\.)?(weight|bias)")


def convert(
    path: str,
    output: str | None = None,
    *,
    models: Path,
    searched: Mapping[str, Sequence[Path]],
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Convert the file or GPT-2 folder at `path`; the exit code. The new path goes to `out`, all else to `err`.

    It goes into the folder `output`, else into the one of its kind below `models`. `searched`: kind -> where Easel looks for such
    files.
    """
    out, err = out or sys.stdout, err or sys.stderr
    try:
        made, notes = converted(Path(path), Path(output) if output else None, models, searched)
    except UserError as error:
        print(error, file=err)
        return BAD_INPUT
    except OSError as error:
        print(f"{error.filename or path} cannot be read or written: {error.strerror or error}.", file=err)
        return FAILED
    for note in notes:
        print(note, file=err)
    print(made, file=out, flush=True)
    return DONE


def converted(
    path: Path, output: Path | None, models: Path, searched: Mapping[str, Sequence[Path]]
) -> tuple[Path, list[str]]:
    """Where the safetensors version of `path` now is, and what the user should know. Raises UserError and OSError."""
    path = path.expanduser().absolute()
    output = output.expanduser().absolute() if output else None
    if not path.exists():
        raise ModelNotFound(f"There is no file or folder {path}. Name a model file, or the folder of a GPT-2 model.")
    if output and output.exists() and not output.is_dir():
        raise BadSetting(f"--output is {output}, which is a file. Name a folder.")
    if path.name == GPT2_WEIGHTS and (path.parent / "config.json").is_file():
        path = path.parent
    if path.is_dir():
        kind = "prompt_expansion"
        target, left_out = _make_gpt2(path.resolve(), output or models / kind)
    else:
        target, kind, left_out = _make_file(path, output, models)
    notes = [_told_left_out(path, left_out)] if left_out else []
    if not output and target.parent not in searched.get(kind, (target.parent,)):
        notes.append(f'Easel does not search {target.parent}: add it to "{kind}" in config.json.')
    return target, notes


def _make_file(path: Path, output: Path | None, models: Path) -> tuple[Path, str, list[str]]:
    """Convert the file at `path`: where it is now, its kind, and what it held besides."""
    with Reader(path) as reader:
        if _is_gpt2(reader.shapes):
            raise BadModelFile(
                f"{path} holds the weights of a GPT-2 model, which needs more files. Name the folder that has them all."
            )
        kind = kind_of(reader.shapes, path.name, embedding=reader.embedding)
        if not kind and not output:
            raise BadSetting(
                f"What kind of model {path.name} is cannot be told. Say where it should go with --output FOLDER."
            )
        target = (output or models / kind) / f"{path.stem}.safetensors"
        with _part(target) as part:
            reader.write(part)
            read_header(part)  # what was written is checked as any file is
            if not move_to_free_name(part, target):
                raise _taken(target)
        return target, kind, reader.left_out


def _make_gpt2(path: Path, folder: Path) -> tuple[Path, list[str]]:
    """Convert the GPT-2 folder at `path` to one of the same name in `folder`: where that is, and what the weights' file held
    besides."""
    _check_gpt2(path)
    target = folder / path.name
    with Reader(path / GPT2_WEIGHTS) as reader:
        if not _is_gpt2(reader.shapes):
            raise BadModelFile(f"{path / GPT2_WEIGHTS} is no GPT-2 model. Of any other model, name its file.")
        with _part(target) as part:
            part.mkdir()
            for name in (*GPT2_WORDS, *(name for names in GPT2_TOKENIZERS for name in names)):
                if (path / name).is_file():
                    shutil.copyfile(path / name, part / name)
            reader.write(part / "model.safetensors")
            read_header(part / "model.safetensors")
            if target.exists():
                raise _taken(target)
            part.rename(target)
        return target, reader.left_out


def _is_gpt2(shapes: Shapes) -> bool:
    return any(name.endswith("h.0.attn.c_attn.weight") for name in shapes)


def _taken(target: Path) -> BadSetting:
    return BadSetting(
        f"{target} is there already, and nothing is overwritten. Move it away, or name another folder with --output."
    )


def kind_of(shapes: Shapes, file_name: str, *, embedding: bool = False) -> str:
    """The kind of folder that a file with tensors of these `shapes` belongs into; "" if it cannot be told."""
    if embedding:
        return "embeddings"
    keys, _ = grouped(shapes)
    if 2 * sum(len(keyed.slots) for keyed in keys.values() if keyed.kind) >= len(shapes):
        return "loras"
    for kind, beginnings in BEGINNINGS:
        if any(name.startswith(beginnings) for name in shapes):
            return kind
    if shapes.keys() == APPROX_DECODER:
        return "vae_approx"
    if all(TINY_DECODER.fullmatch(name) for name in shapes) and any(
        len(shape) == 4 and shape[1] == 4 for shape in shapes.values()
    ):
        return "vae_approx"
    flat = len(shapes) <= MOST_OF_AN_EMBEDDING and all(len(shape) in (1, 2) for shape in shapes.values())
    wide = any(shape[-1:] in ([width], (width,)) for shape in shapes.values() for width in EMBEDDING_WIDTHS)
    if flat and (wide or EMBEDDING_NAMES & shapes.keys()):
        return "embeddings"
    known = source(file_name)
    return known.kind if known else ""


class Reader:
    """The process that opens the container at `path`. Raises BadModelFile with what it says if it refuses.

    `shapes`: of the tensors by name; `left_out`: names of what else the file holds; `embedding`: whether they are vectors of an
    embedding.
    """

    def __init__(self, path: Path) -> None:
        # Without torch's switches, one of which is for reading pickles unchecked.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "PYTHON"))}
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(SCRIPT), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
        )
        try:
            said = self._said()
        except BaseException:
            self.close()
            raise
        self.shapes: dict[str, list[int]] = said["shapes"]
        self.left_out: list[str] = said["left_out"]
        self.embedding: bool = said["embedding"]

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, target: Path) -> None:
        """Have the tensors written to the new file `target`. Raises BadModelFile, and OSError where it cannot be stored."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(str(target)).encode() + b"\n")
        self._process.stdin.flush()
        self._said()

    def close(self) -> None:
        """End the process, if it has not ended by itself."""
        self._process.kill()
        self._process.communicate()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {}
        if not line:
            raise BadModelFile(
                f"{self._path.name} could not be read: the reading process ended with code {self._process.wait()}. Is there "
                "enough memory for the whole file?"
            )
        if "refused" in said:
            raise BadModelFile(said["refused"])
        if "failed" in said:
            raise OSError(*said["failed"])
        return said


def _check_gpt2(folder: Path) -> None:
    """Raises BadModelFile unless `folder` has what a GPT-2 expander needs, with its weights in a pickle."""
    if (folder / "model.safetensors").is_file():
        raise BadModelFile(
            f"{folder} has a model.safetensors already. Easel reads it as it is: copy the folder into models/prompt_expansion."
        )
    if not (folder / GPT2_WEIGHTS).is_file():
        raise BadModelFile(f"{folder} has no {GPT2_WEIGHTS}. Name a model file, or the folder of a GPT-2 model.")
    lacks = [name for name in GPT2_WORDS if not (folder / name).is_file()]
    if not any(all((folder / name).is_file() for name in names) for names in GPT2_TOKENIZERS):
        lacks.append("tokenizer.json (or vocab.json and merges.txt)")
    if lacks:
        raise BadModelFile(
            f"{folder} lacks {' and '.join(lacks)}. Copy the whole folder from where the model came from."
        )


@contextmanager
def _part(target: Path) -> Iterator[Path]:
    """A name beside `target` that the catalogue passes over; what is left under it in the end is removed, and what a
    command that was killed left of the same target.

    Raises BadSetting at once, before gigabytes are written, if `target` is taken.
    """
    if target.exists():
        raise _taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{escape(target.name)}.*.part"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            _remove(left)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
    finally:
        _remove(part)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _told_left_out(path: Path, names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    entries = f"{len(names)} {'entry' if len(names) == 1 else 'entries'}"
    return f"Left out {entries} of {path.name} besides the weights: {shown}{more}."
