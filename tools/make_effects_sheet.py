"""Make docs/effects.webp: what LoRAs, an embedding and a refiner do to pictures of the embedded model: python -m tools.make_effects_sheet

Every picture is drawn as the page draws it, and again with the addition: the same prompt, the same seed. The refiner is the
embedded model with its pixel art LoRA merged into it, in a folder that is gone afterwards.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.device import DeviceChoice, choose_device
from core.events import Saved
from core.handler import handler
from core.pipeline import Pipeline
from core.presets import settings_of
from core.prompt.resources import PromptResources
from core.sheet import Sheet, draw
from core.task import AsyncTask
from core.weights.files import Catalog

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
STYLE_LORA, THING_LORA, EMBEDDING = "easel-pixel-art", "easel-teapot", "easel-polar-bear"
REFINER = "refiner.safetensors"
UNET = "model.diffusion_model."
SEED = 7
CELL = 144  # pixels
QUALITY = 85  # of WebP


@dataclass(frozen=True)
class Pair:
    """A prompt without the addition and with it."""

    plain: str
    added: str
    settings: dict[str, Any] = field(default_factory=dict)  # of the second picture alone


def style(prompt: str) -> Pair:
    return Pair(prompt, f"{prompt} <lora:{STYLE_LORA}:1>")


def thing(prompt: str) -> Pair:
    return Pair(prompt, f"{prompt} <lora:{THING_LORA}:1>")


def embedding(prompt: str) -> Pair:
    return Pair(prompt, prompt.replace("polar bear", f"(embedding:{EMBEDDING}:1)"))


def refined(prompt: str) -> Pair:
    return Pair(prompt, prompt, {"refiner_model": REFINER, "refiner_switch": 0.8})


EFFECTS = {
    "LoRA of a style": [
        style("a fox, pixel art"),
        style("a car on a yellow background, pixel art"),
        style("an ice cream, pixel art"),
    ],
    "LoRA of a thing": [
        thing("a teapot"),
        thing("a teapot on a green background"),
        thing("a teapot on a black background"),
    ],
    "embedding of a thing": [
        embedding("a polar bear"),
        embedding("a polar bear on a blue background"),
        embedding("a polar bear on a red background"),
    ],
    "refiner for the last 20 % of the steps": [
        refined("a fox, pixel art"),
        refined("a car on a yellow background, pixel art"),
        refined("an ice cream, pixel art"),
    ],
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "effects.webp")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder))
        pictures = {}
        for row, (name, pairs) in enumerate(EFFECTS.items()):
            for column, path in enumerate(studio.pictures(pairs)):
                pictures[column, row] = path
            print(name, flush=True)
        columns = 2 * max(map(len, EFFECTS.values()))
        across = ("without", "with") * (columns // 2)
        picture = draw(Sheet(pictures, columns, len(EFFECTS), across, tuple(EFFECTS)), longest=CELL * (columns + 2))
    write(picture, args.output)


class Studio:
    """The engine with the models that ship, and a refiner of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        own = folder / "checkpoints"
        own.mkdir()
        base = next((MODELS / "checkpoints").glob("easel*.safetensors"))
        merge(base, MODELS / "loras" / f"{STYLE_LORA}.safetensors", own / REFINER)
        kinds = {kind: (MODELS / kind,) for kind in ("loras", "embeddings", "vae_approx")}
        self.catalog = Catalog([MODELS / "checkpoints", own], others=kinds)
        self.base = base.name
        self.pipeline = Pipeline(self.catalog, choose_device(DeviceChoice()), folder / "outputs")
        self.pipeline.prompt_resources = PromptResources(
            loras=self.catalog.files("loras").names, embeddings=self.catalog.files("embeddings").names
        )

    def pictures(self, pairs: list[Pair]) -> Iterator[Path]:
        """The first picture, the same with the addition, the second, and so on."""
        for pair in pairs:
            yield self.picture(pair.plain)
            yield self.picture(pair.added, **pair.settings)

    def picture(self, prompt: str, **changes: Any) -> Path:
        given = {"base_model": self.base, "prompt": prompt, "seed": SEED, "styles": [], "preview": False, **changes}
        task = AsyncTask(settings_of(self.catalog, {}, given))
        [saved] = [event for event in handler(task, self.pipeline) if isinstance(event, Saved)]
        return Path(saved.path)


def merge(base: Path, lora: Path, target: Path) -> None:
    """The checkpoint `base` with a kohya LoRA of its UNet added to its weights."""
    weights, added = load_file(base), load_file(lora)
    with safe_open(base, framework="pt") as file:
        metadata = file.metadata()
    for name in list(weights):
        key = f"lora_unet_{name.removeprefix(UNET).removesuffix('.weight').replace('.', '_')}"
        if name.startswith(UNET) and f"{key}.lora_up.weight" in added:
            up, down = added[f"{key}.lora_up.weight"].float(), added[f"{key}.lora_down.weight"].float()
            delta = up.flatten(1) @ down.flatten(1) * (added[f"{key}.alpha"].item() / up.shape[1])
            weights[name] = (weights[name].float() + delta.reshape(weights[name].shape)).half()
    save_file(weights, target, metadata=metadata)


def write(picture: Image.Image, target: Path) -> None:
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=6)
    part = target.with_suffix(".part")
    part.write_bytes(data.getvalue())
    part.replace(target)
    print(f"{target.name}: {data.tell() >> 10} KB")


if __name__ == "__main__":
    main()
