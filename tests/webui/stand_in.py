"""A page over the real Worker with a stand-in engine: it draws coloured pictures at a pace that a test sets."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from core.errors import ModelNotFound
from core.events import Event, Finished, Progress, Saved
from core.output.record import Record
from core.pace import Pace
from core.prompt.resources import PromptResources
from core.queue_store import QueueStore
from core.settings import Settings
from core.sheet import sheets
from core.task import AsyncTask
from core.weights.lora_info import LoraInfo
from core.worker import Worker
from webui.app import App

MODELS = {"small.safetensors": (256, 256), "large.safetensors": (1024, 1024)}
FILES = {"checkpoints": list(MODELS), "loras": ["felt.safetensors", "ink.safetensors"], "vae": ["soft.safetensors"]}


@dataclass
class Engine:
    """Stands in for the pipeline. `step()` lets one step pass; `pace` seconds a step let them pass by themselves."""

    outputs: Path
    pace: float | None = None
    _steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def step(self, count: int = 1) -> None:
        self._steps.release(count)

    def wait(self, task: AsyncTask) -> None:
        if self.pace is not None:
            time.sleep(self.pace)
            return
        while not self._steps.acquire(timeout=0.02):
            task.check()

    def free_memory(self) -> None: ...


def draw(colour: int, size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour % 256, 90, 200 - colour % 200)).save(file, kind)
    return file.getvalue()


def handler(task: AsyncTask, engine: Engine) -> Iterator[Event]:
    if task.settings.prompt == "break":
        raise RuntimeError("the engine broke <b>badly</b>")
    for image in range(task.pictures):
        if image in task.made:
            continue
        settings = task.request(image)
        for step in range(1, settings.steps + 1):
            engine.wait(task)
            if task.stopped:
                yield Finished(paths=tuple(task.made.values()), seconds=1.0, stopped=True)
                return
            yield Progress(
                share=(image + step / settings.steps) / task.pictures, text=f"Step {step} of {settings.steps}",
                step=step, steps=settings.steps, image=image + 1, images=task.pictures,
                preview=draw(20 * step, (64, 64), "jpeg"), seconds_left=float(settings.steps - step),
            )  # fmt: skip
        path = engine.outputs / f"{task.id}-{image}.png"
        path.write_bytes(draw(settings.seed + image, (settings.width, settings.height), "png"))
        task.made[image] = str(path)
        seed = settings.seed + (0 if task.cells else image)
        yield Saved(path=str(path), seed=seed, width=settings.width, height=settings.height, index=image)
    yield from sheets(task, Record(task.settings), engine.outputs)
    yield Finished(paths=tuple(task.made.values()), seconds=1.0)


def settings_of(name: str) -> Settings:
    """What the stand-in models recommend."""
    name = name or "small.safetensors"
    if name not in MODELS:
        raise ModelNotFound(f"No checkpoint {name!r}. Choose one of: {', '.join(MODELS)}.")
    small = Settings(base_model=name, width=256, height=256, steps=4, guidance_scale=3.0)
    return small if name.startswith("small") else replace(small, width=1152, height=896, steps=30, guidance_scale=4.0)


def make_app(worker: Worker) -> App:
    return App(
        worker=worker,
        models=lambda: list(MODELS),
        native_size=lambda name: MODELS.get(name, (256, 256)),
        defaults=settings_of,
        files=lambda kind: FILES.get(kind, []),
        resources=PromptResources(loras=lambda: FILES["loras"], embeddings=lambda: ["gentle hands.safetensors"]),
        lora_info=lambda name: LoraInfo(name=name, path=Path(name), size=1, family="sdxl", trigger_words=("wool",)),
    )


def main(port: int, outputs: Path, pace: float, host: str = "127.0.0.1") -> None:
    """Serve the page over the stand-in engine until SIGTERM or Ctrl-C. Its queue is kept beside the pictures."""
    from webui.server import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store, learned = QueueStore(outputs / "queue.sqlite3"), Pace(outputs / "pace.json")
    worker = Worker(handler, lambda: Engine(outputs=outputs, pace=pace), store, learned)
    worker.start()
    serve(
        make_app(worker),
        host=host,
        port=port,
        in_browser=False,
        ready=lambda address: print("ready", address, flush=True),
    )
    worker.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
