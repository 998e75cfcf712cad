"""Judge a checkpoint: `python tools/embedded_model/evaluate.py`. Prints one JSON object, writes a contact sheet.

top1        share of pictures whose nearest reference (64 px, on the named colour, over all things) is the thing named
colour      share of pictures whose border is nearest to the named background colour (white if none is named)
sharpness   gradient energy of the picture over that of the right reference, at full size, capped at 1 (mean)
sharp_top1  mean of that ratio over all pictures, counting 0 where the thing is wrong: blobs cannot score
*_held_out  the same over pairs of thing and colour that were never trained together
diversity   mean absolute difference of two seeds of the same prompt, of 255
vae_psnr    dB, of 100 pictures that were not trained on
Pictures are made by the program's own engine with the settings the file recommends; seeds are fixed, prompts come from
things.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from data import COLOUR_NAMES, COLOURS, THINGS, WHITE, WORK, held_out, place, with_article
from encode import trained_vae
from export import TARGET
from PIL import Image
from sample import sheet
from train_vae import HELD_OUT, psnr

from core.device import DeviceChoice, choose_device
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Settings
from core.weights.files import Catalog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A prompt and what it should show."""

    thing: int
    colour: int
    prompt: str
    held_out: bool


def questions(per_thing: int = 3) -> list[Question]:
    """For each thing: its name alone, then named grounds, one of them held out where there is one."""
    rng, unseen, found = np.random.default_rng(11), held_out(), []
    for t, thing in enumerate(THINGS):
        found.append(Question(t, WHITE, with_article(thing.names[0]), False))
        new = [c for c in range(len(COLOURS)) if (t, c) in unseen]
        old = [c for c in range(len(COLOURS)) if (t, c) not in unseen and c != WHITE]
        picked = [*rng.permutation(new)[:1], *rng.permutation(old)][: per_thing - 1]
        for c in map(int, picked):
            prompt = f"{with_article(thing.names[-1])} on a {COLOUR_NAMES[c]} background"
            found.append(Question(t, c, prompt, (t, c) in unseen))
    return found


class Engine:
    """The program's own engine, with the settings that the checkpoint recommends and some of the caller's."""

    def __init__(self, path: Path, work: Path, *, threads: int, **changes: Any) -> None:
        catalog = Catalog([path.parent])
        self.pipeline = Pipeline(catalog, choose_device(DeviceChoice(threads=threads)), work / "outputs")
        self.pipeline.refresh_everything(path.name)
        given = {name: value for name, value in changes.items() if value is not None}
        self.settings = Settings.from_dict({**catalog.info(path.name).settings, **given})

    def paint(self, prompts: list[str], seeds: list[int]) -> np.ndarray:
        """Pictures uint8 (B, H, W, 3)."""
        return np.stack([self._paint(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])

    def _paint(self, prompt: str, seed: int) -> np.ndarray:
        settings = replace(self.settings, prompt=prompt, seed=seed)
        plan = plan_images(settings)[0]
        conditions = self.pipeline.process_prompt(plan, settings)
        *_, last = self.pipeline.process_diffusion(settings, plan, conditions)
        return self.pipeline.decode(last.x, settings)


def small(pixels: np.ndarray) -> np.ndarray:
    """Pictures at 64 px as floats (N, 64 * 64 * 3)."""
    return np.stack(
        [np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.BOX), np.float32).ravel() for p in pixels]
    )


def ground_of(pixels: np.ndarray) -> int:
    """The named colour nearest to the median of the outermost six rows and columns."""
    border = np.concatenate(
        [
            pixels[:6].reshape(-1, 3),
            pixels[-6:].reshape(-1, 3),
            pixels[:, :6].reshape(-1, 3),
            pixels[:, -6:].reshape(-1, 3),
        ]
    )
    distance = np.linalg.norm(np.asarray(list(COLOURS.values()), np.float32) - np.median(border, axis=0), axis=1)
    return int(distance.argmin())


def gradient_energy(pixels: np.ndarray) -> float:
    p = pixels.astype(np.float32)
    return float(np.square(np.diff(p, axis=0)).mean() + np.square(np.diff(p, axis=1)).mean())


def judge(pixels: np.ndarray, asked: list[Question], pictures: np.ndarray) -> dict[str, np.ndarray]:
    """For each picture: is it the right thing, is its ground right, how sharp is it (0 to 1), how far is the right one (rms)."""
    side = pixels.shape[1]
    right, ground, sharp, rms = [], [], [], []
    for c in sorted({q.colour for q in asked}):
        rgb = COLOURS[COLOUR_NAMES[c]]
        references = np.stack([place(p, rgb, scale=0.87, dx=0, dy=0, side=side) for p in pictures])
        tiny = small(references)
        for i in [i for i, q in enumerate(asked) if q.colour == c]:
            distance = np.sqrt(np.square(tiny - small(pixels[i : i + 1])).mean(axis=1))
            right.append((i, distance.argmin() == asked[i].thing))
            rms.append((i, distance[asked[i].thing]))
            ground.append((i, ground_of(pixels[i]) == c))
            ratio = gradient_energy(pixels[i]) / gradient_energy(references[asked[i].thing])
            sharp.append((i, min(1.0, ratio) ** 0.5))
    named = {"top1": right, "colour": ground, "sharpness": sharp, "rms": rms}
    return {name: np.asarray([v for _, v in sorted(values)], np.float32) for name, values in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge a checkpoint.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=TARGET)
    parser.add_argument("--work", type=Path, default=WORK, help="work folder with prepare.py's pictures")
    parser.add_argument("--steps", type=int, help="instead of what the file recommends")
    parser.add_argument("--guidance", type=float, help="instead of what the file recommends")
    parser.add_argument("--sampler", help="instead of what the file recommends")
    parser.add_argument("--per-thing", type=int, default=3, help="prompts a thing (%(default)s)")
    parser.add_argument(
        "--sheet", type=Path, default=None, help="where the contact sheet goes (default: beside the checkpoint)"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    stored = np.load(args.work / "data" / "pictures.npy", mmap_mode="r")
    engine = Engine(
        args.checkpoint,
        args.work,
        threads=args.threads,
        steps=args.steps,
        guidance_scale=args.guidance,
        sampler=args.sampler,
    )

    asked = questions(args.per_thing)
    start = time.perf_counter()
    pixels = engine.paint([q.prompt for q in asked], [1000 + i for i in range(len(asked))])
    seconds = (time.perf_counter() - start) / len(asked)
    scores = judge(pixels, asked, stored[: len(THINGS)])
    unseen = np.asarray([q.held_out for q in asked])
    again = [q.prompt for q in asked if q.colour == WHITE][:12]
    twins = [engine.paint(again, list(range(seed, seed + len(again)))).astype(np.float32) for seed in (1, 501)]
    held = np.stack([place(p, (255, 255, 255), scale=0.87, dx=0, dy=0, side=256) for p in stored[-HELD_OUT:]])
    figures = {
        "pictures": len(asked),
        "top1": scores["top1"].mean(),
        "colour": scores["colour"].mean(),
        "sharpness": scores["sharpness"].mean(),
        "sharp_top1": (scores["top1"] * scores["sharpness"]).mean(),
        "rms_of_255": scores["rms"].mean(),
        "top1_held_out": scores["top1"][unseen].mean(),
        "colour_held_out": scores["colour"][unseen].mean(),
        "diversity": np.abs(twins[0] - twins[1]).mean(),
        "vae_psnr": psnr(trained_vae(args.work), held, "cpu"),
        "seconds_a_picture": seconds,
    }
    print(json.dumps({name: round(float(value), 3) for name, value in figures.items()}))
    for name in ("top1", "colour"):
        wrong = [asked[i].prompt for i in np.flatnonzero(scores[name] == 0)]
        print(f"{name} wrong: {'; '.join(wrong) or 'none'}")
    step = args.per_thing
    grid = sheet(pixels[[step * t + t % step for t in range(len(THINGS))]], 10)
    grid = grid.resize((1600, 1600 * grid.height // grid.width), Image.Resampling.LANCZOS)
    grid.save(args.sheet or args.checkpoint.with_suffix(".webp"), quality=90)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
