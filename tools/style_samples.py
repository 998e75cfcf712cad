"""Make the sample pictures of the styles: one sheet of small pictures, drawn by the program's own engine.

    python -m tools.style_samples                       all styles, with the checkpoint that ships with the program
    python -m tools.style_samples --limit 2 --out /tmp  try it: two styles, into another folder

Writes styles.webp (square cells, row by row) and styles.json (size of a cell, cells a row, names in the order of cells)
into webui/assets. What was drawn before is kept in .work/style_samples and drawn again only when the style, the prompt
or the checkpoint changes; so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from core.prompt.styles import Style, StyleLibrary

ROOT = Path(__file__).resolve().parents[1]
CELL = 96  # pixels
COLUMNS = 16
LARGEST = 1_500_000  # bytes of the sheet: a page loads it whole
PROMPT = "a fox"  # it has a shape, a color and a face, and every style changes at least one of them
SEED = 7


@dataclass(frozen=True)
class Sheet:
    """Samples on one picture: name and picture of each, all CELL x CELL."""

    samples: tuple[tuple[str, Image.Image], ...]

    def webp(self) -> bytes:
        """The picture as a file of at most LARGEST bytes; quality gives way."""
        rows = -(-len(self.samples) // COLUMNS)
        sheet = Image.new("RGB", (CELL * min(COLUMNS, len(self.samples)), CELL * rows), "white")
        for number, (_, picture) in enumerate(self.samples):
            sheet.paste(picture, (CELL * (number % COLUMNS), CELL * (number // COLUMNS)))
        for quality in range(85, 20, -10):
            data = io.BytesIO()
            sheet.save(data, "WEBP", quality=quality, method=6)
            if data.tell() <= LARGEST:
                break
        return data.getvalue()

    def index(self) -> str:
        """Where each style's cell is, as JSON."""
        names = [name for name, _ in self.samples]
        return json.dumps({"cell": CELL, "columns": COLUMNS, "names": names}, ensure_ascii=False, indent=1) + "\n"


class Painter:
    """The engine with one checkpoint, at the settings that the file recommends."""

    def __init__(self, checkpoint: Path, threads: int | None) -> None:
        from core.device import DeviceChoice, choose_device
        from core.pipeline import Pipeline
        from core.presets import settings_of
        from core.weights.files import Catalog

        catalog = Catalog([checkpoint.parent])
        self._pipeline = Pipeline(catalog, choose_device(DeviceChoice(threads=threads)), ROOT / ".work" / "outputs")
        self._pipeline.refresh_everything(checkpoint.name)
        self._settings = settings_of(catalog, {}, {"base_model": checkpoint.name, "seed": SEED, "preview": False})

    def paint(self, prompt: str, style: Style) -> Image.Image:
        """`prompt` in `style`, CELL x CELL."""
        from dataclasses import replace

        from core.prompt.plan import plan_images

        settings = replace(self._settings, prompt=prompt, styles=(style.name,))
        [plan] = plan_images(settings, self._pipeline.prompt_resources)
        conditions = self._pipeline.process_prompt(plan, settings)
        *_, last = self._pipeline.process_diffusion(settings, plan, conditions)
        return thumbnail(Image.fromarray(self._pipeline.decode(last.x, settings)))


def thumbnail(picture: Image.Image) -> Image.Image:
    """The middle square of `picture`, CELL x CELL."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((CELL, CELL), Image.Resampling.LANCZOS)


def identity(style: Style, prompt: str, checkpoint: Path) -> str:
    """A file name that changes with all that the sample depends on."""
    status = checkpoint.stat()
    told = (
        style.name,
        style.prompt,
        style.negative_prompt,
        prompt,
        checkpoint.name,
        status.st_size,
        status.st_mtime_ns,
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24] + ".png"


def samples(
    styles: list[Style], prompt: str, checkpoint: Path, work: Path, threads: int | None
) -> Iterator[tuple[str, Image.Image]]:
    """Each style's name and sample; those that are in `work` are not drawn again."""
    painter: Painter | None = None
    work.mkdir(parents=True, exist_ok=True)
    for number, style in enumerate(styles, 1):
        file = work / identity(style, prompt, checkpoint)
        if not file.exists():
            painter = painter or Painter(checkpoint, threads)
            began = time.monotonic()
            data = io.BytesIO()
            painter.paint(prompt, style).save(data, "PNG")
            written(file, data.getvalue())
            print(f"{number}/{len(styles)} {style.name}: {time.monotonic() - began:.1f} s", flush=True)
        with Image.open(file) as picture:
            yield style.name, picture.convert("RGB")


def written(file: Path, data: bytes) -> None:
    """Write `file` whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(file)


def embedded_checkpoint() -> Path:
    """The checkpoint that ships with the program, the largest if there are several."""
    found = sorted((ROOT / "models" / "checkpoints").glob("easel*.safetensors"), key=lambda file: file.stat().st_size)
    if not found:
        raise SystemExit("There is no easel*.safetensors in models/checkpoints; name a file with --checkpoint.")
    return found[-1]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only so many styles")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "webui" / "assets")
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "style_samples")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    styles = list(StyleLibrary().read())[: args.limit]
    checkpoint = (args.checkpoint or embedded_checkpoint()).resolve()
    sheet = Sheet(tuple(samples(styles, args.prompt, checkpoint, args.work, args.threads)))
    args.out.mkdir(parents=True, exist_ok=True)
    written(args.out / "styles.webp", data := sheet.webp())
    written(args.out / "styles.json", sheet.index().encode("utf-8"))
    print(f"{len(sheet.samples)} samples, {len(data) >> 10} KB, in {args.out}")


if __name__ == "__main__":
    main()
