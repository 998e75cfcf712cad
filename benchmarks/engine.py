"""The engine as launch.py makes it, without a page; and a tiny checkpoint for trying the benchmarks out."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import launch
from benchmarks.child import Child, serve
from benchmarks.common import ROOT
from benchmarks.report import Report
from core.config import Config
from core.presets import load_preset, settings_of
from core.prompt.plan import plan_images
from core.settings import Settings
from core.weights.files import Catalog

if TYPE_CHECKING:
    import numpy as np

    from core.pipeline import Pipeline

TINY_FILE = "easel-benchmark-tiny.safetensors"
TINY_METADATA = {
    "modelspec.resolution": "64x64",
    "easel.settings": json.dumps({"width": 64, "height": 64, "steps": 4, "sampler": "euler", "guidance_scale": 3.0}),
}


def add_installation(made: argparse.ArgumentParser) -> None:
    """The flags that say what the engine works with; --outputs is for the subprocesses."""
    made.add_argument(
        "--checkpoints", type=Path, help="folder with the only checkpoint to use (default: the installation's)"
    )
    made.add_argument("--outputs", type=Path, help=argparse.SUPPRESS)


def engine_flags(checkpoints: Path | None, outputs: Path) -> list[str]:
    """What `add_installation` reads, for a subprocess."""
    return ["--outputs", str(outputs), *(["--checkpoints", str(checkpoints)] if checkpoints else [])]


def launch_options(checkpoints: Path | None, outputs: Path) -> tuple[list[str], dict[str, str]]:
    """The same for launch.py: its flags, and what to add to its environment."""
    return ["--output", str(outputs)], {"EASEL_CHECKPOINTS": str(checkpoints)} if checkpoints else {}


class Engine:
    """Catalogue, pipeline and recommended settings, wired as launch.py does it."""

    def __init__(self, checkpoints: Path | None, outputs: Path) -> None:
        flags = {"outputs": str(outputs), **({"checkpoints": str(checkpoints)} if checkpoints else {})}
        config = Config.load(flags, os.environ, ROOT)
        self._catalog = Catalog(config.checkpoints)
        self._preset = load_preset(config.preset, *config.preset_folders).settings
        self.pipeline: Pipeline = launch.make_pipeline(config, self._catalog)

    def settings(self, **given: Any) -> Settings:
        """What the page would make of `given`."""
        return settings_of(self._catalog, self._preset, given)


def tiny_checkpoints(folder: Path) -> Path:
    """A folder with one tiny random checkpoint in it. Written by a subprocess: torch stays out of this one."""
    with Child("benchmarks.engine", [], ours=False) as child:
        child.ask(path=str(folder / TINY_FILE))
    return folder


@contextmanager
def workplace(args: argparse.Namespace) -> Iterator[tuple[Path, Path | None]]:
    """A folder for the run's files, and the checkpoints to use: those named, a tiny one, or (None) the program's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder, args.checkpoints or (tiny_checkpoints(folder / "checkpoints") if args.tiny else None)


def run(
    args: argparse.Namespace,
    serve_side: Callable[[argparse.Namespace], None],
    measure: Callable[[argparse.Namespace, Path | None, Path], Report],
) -> None:
    """A command on an installation: `serve_side` if this is a subprocess of it, else `measure` in a folder of its own."""
    if args.child:
        serve_side(args)
        return
    with workplace(args) as (folder, checkpoints):
        measure(args, checkpoints, folder).finish(args.output)


def make_picture(pipeline: Pipeline, settings: Settings) -> np.ndarray:
    """One picture by the bare pipeline: no task, no events, no previews, no file. Pixels (H, W, 3)."""
    plan = plan_images(settings)[0]
    pipeline.refresh_everything(settings.base_model)
    conditions = pipeline.process_prompt(plan, settings)
    for step in pipeline.process_diffusion(settings, plan, conditions):
        latent = step.x
    return pipeline.decode(latent, settings)


def _write(path: str) -> Mapping[str, Any]:
    from benchmarks.weights import write_checkpoint

    write_checkpoint(Path(path), tiny=True, metadata=TINY_METADATA)
    return {}


if __name__ == "__main__":
    serve(_write)
