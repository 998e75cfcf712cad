"""Judge a checkpoint: `python tools/embedded_model/evaluate.py`. Prints one JSON object, writes contact sheets.

top1        share of pictures whose nearest reference (64 px, in the named style on the named colour, over all things, moved
            and scaled a little) is the thing named
colour      share of the pictures whose prompt names a background colour with a border that is nearest to it; colour_unnamed: of
            the others, that are on white
style       share of the pictures whose prompt names a style that style_judge.py, trained on real pictures of other things,
            sees in it; style_unnamed: of the others, that it sees in 3D
style_real  the same of real pictures of the model's things
sharpness   gradient energy of the picture over that of the right reference, at full size, capped at 1 (mean of the root)
sharp_top1  mean of that over all pictures, counting 0 where the thing is wrong: blobs cannot score
*_held_out  the same over pairs of thing and colour that were never trained together
diversity   mean absolute difference of two seeds of the same prompt, of 255
nearest     for held-out pairs: root mean square distance to the nearest of 60 training pictures of the same thing, of 255
negative_*  share of the pictures with a negative prompt that have lost what it names: the style ("3d") and the ground ("white
            background") that a thing's name alone gives, and of keywords ("fruit") the thing drawn without it
negative_top1  share of those that have lost style or ground and still show the thing
vae_psnr_*  dB, of pictures that were not trained on, by style
Pictures are made by the program's own engine with the settings the file recommends, or (`--run`) from a training state by
the small sampler of sample.py, many at a time, while training goes on. Seeds are fixed, prompts come from things.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from captions import on_ground, with_article
from data import CHECKPOINT, COLOURS, STAGES, STYLES, THINGS, WHITE, WORK, held_out, pictures_of
from encode import latent_scale, trained_vae
from model import Painter
from PIL import Image
from sample import decode, sample_painter, sheet
from scene import Mix, Scene, paint, plain
from start import adopt
from style_judge import examples, styles_of, through, train_judge
from train_vae import held_pictures, psnr
from training import load
from words import Words

from core.device import DeviceChoice, choose_device
from core.models.vae import VAE
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Settings
from core.weights.checkpoint import load_vae
from core.weights.files import Catalog

log = logging.getLogger(__name__)

STYLE_WORDS = {"3d": ", 3d", "flat": ", flat", "line": ", line art", "drawing": ", drawing"}
SHIFTS = [(0, 0), *((y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0))]  # of 64 px
SCALES = (0.8, 0.84, 0.88)
KEYWORDS = (
    "fruit", "animal", "food", "vehicle", "dessert", "plant", "bird", "insect", "clothes", "flower", "sport", "music",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A prompt and what it should show."""

    thing: int
    colour: int
    style: int
    prompt: str
    held_out: bool
    styled: bool = False  # the prompt names the style, and the ground


def questions(things: int, styles: list[int], per_thing: int) -> list[Question]:
    """For each thing: its name alone, then named grounds, one of them held out, in named styles that take turns."""
    rng, unseen, found = np.random.default_rng(11), held_out(), []
    for t, thing in enumerate(THINGS[:things]):
        found.append(Question(t, WHITE, 0, with_article(thing.names[0]), False))
        new = [c for c in range(len(COLOURS)) if (t, c) in unseen]
        old = [c for c in range(len(COLOURS)) if (t, c) not in unseen and c != WHITE]
        picked = [*rng.permutation(new)[:1], *rng.permutation(old)][: per_thing - 1]
        for i, c in enumerate(map(int, picked)):
            style = styles[(t + i) % len(styles)]
            prompt = on_ground(with_article(thing.names[-1]), c) + STYLE_WORDS[STYLES[style]]
            found.append(Question(t, c, style, prompt, (t, c) in unseen, styled=True))
    return found


class Artist(Protocol):
    """Makes pictures uint8 (B, H, W, 3) of prompts."""

    vae: VAE

    def paint(self, prompts: list[str], seeds: list[int], **changes: Any) -> np.ndarray: ...


class Engine:
    """The program's own engine, with the settings that the checkpoint recommends and some of the caller's."""

    def __init__(self, path: Path, work: Path, *, threads: int, **changes: Any) -> None:
        catalog = Catalog([path.parent])
        self.pipeline = Pipeline(catalog, choose_device(DeviceChoice(threads=threads)), work / "outputs")
        self.pipeline.refresh_everything(path.name)
        self.vae = load_vae(path, dtype=torch.float32)
        given = {name: value for name, value in changes.items() if value is not None}
        self.settings = Settings.from_dict({**catalog.info(path.name).settings, **given})

    def paint(self, prompts: list[str], seeds: list[int], **changes: Any) -> np.ndarray:
        settings = replace(self.settings, **changes)
        return np.stack([self._paint(replace(settings, prompt=p, seed=s)) for p, s in zip(prompts, seeds, strict=True)])

    def _paint(self, settings: Settings) -> np.ndarray:
        plan = plan_images(settings)[0]
        conditions = self.pipeline.process_prompt(plan, settings)
        *_, last = self.pipeline.process_diffusion(settings, plan, conditions)
        return self.pipeline.decode(last.x, settings)


class Sketcher:
    """The averaged weights of a training state, with a small sampler: DPM++ 2M, 16 at a time."""

    def __init__(self, work: Path, run: str, side: int, things: int) -> None:
        state = load(work / f"{run}.safetensors", "cpu")
        if state is None:
            raise SystemExit(f"There is no {run}.safetensors in {work}.")
        self.words, self.side = Words(things), side
        self.painter = Painter(self.words.size)
        self.painter.load_state_dict(adopt(self.painter, self.words, state)["ema"])
        self.vae, self.scale = trained_vae(work), latent_scale(work)

    def paint(self, prompts: list[str], seeds: list[int], **changes: Any) -> np.ndarray:
        size = (changes.get("height", self.side), changes.get("width", self.side))
        given = {
            "steps": changes.get("steps", 16),
            "guidance": changes.get("guidance_scale", 3.0),
            "negative": changes.get("negative_prompt", ""),
        }
        parts = [
            sample_painter(self.painter, self.words, prompts[i : i + 16], size=size, seeds=seeds[i : i + 16], **given)
            for i in range(0, len(prompts), 16)
        ]
        return decode(self.vae, torch.cat(parts), self.scale)


def small(pixels: np.ndarray) -> np.ndarray:
    """A picture at 64 px as floats (64, 64, 3)."""
    return np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BOX), np.float32)


def ground_of(pixels: np.ndarray) -> int:
    """The named colour nearest to the median of the outermost rows and columns."""
    edge = max(3, len(pixels) // 42)
    sides = (pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:])
    border = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    return int(np.linalg.norm(np.asarray(list(COLOURS.values()), np.float32) - border, axis=1).argmin())


def gradient_energy(pixels: np.ndarray) -> float:
    p = pixels.astype(np.float32)
    return float(np.square(np.diff(p, axis=0)).mean() + np.square(np.diff(p, axis=1)).mean())


def references(thing: int, colour: int, style: int, pictures: np.ndarray) -> np.ndarray:
    """The thing at three sizes, 64 px, as rows of floats (3, 12288)."""
    return np.stack([small(plain(thing, colour, style, pictures, 128, scale)).ravel() for scale in SCALES])


def judge(pixels: np.ndarray, asked: list[Question], things: int, sets: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """For each picture: the nearest thing, is it the right one, is its ground right, how sharp is it (0 to 1), how far is the
    right one (rms)."""
    n = len(asked)
    scores = {name: np.zeros(n, np.float32) for name in ("top1", "colour", "sharpness", "rms", "nearest")}
    for colour, style in sorted({(q.colour, q.style) for q in asked}):
        known = np.stack([references(t, colour, style, sets[style]) for t in range(things)]).reshape(things * 3, -1)
        squares = np.square(known).sum(axis=1)
        for i in [i for i, q in enumerate(asked) if (q.colour, q.style) == (colour, style)]:
            picture = small(pixels[i])
            moved = np.stack([np.roll(picture, shift, (0, 1)).ravel() for shift in SHIFTS])
            distance = squares[:, None] - 2 * known @ moved.T + np.square(moved).sum(axis=1)
            best = np.sqrt(np.maximum(distance.min(axis=1), 0) / known.shape[1]).reshape(things, 3).min(axis=1)
            right = plain(asked[i].thing, colour, style, sets[style], pixels.shape[1])
            scores["nearest"][i] = best.argmin()
            scores["top1"][i] = best.argmin() == asked[i].thing
            scores["rms"][i] = best[asked[i].thing]
            scores["colour"][i] = ground_of(pixels[i]) == colour
            scores["sharpness"][i] = min(1.0, gradient_energy(pixels[i]) / gradient_energy(right)) ** 0.5
    return scores


def nearest_training(pixels: np.ndarray, question: Question, sets: dict[int, np.ndarray]) -> float:
    """Distance (rms, of 255) to the nearest of 60 pictures of the thing on colours it was trained on."""
    rng, unseen = np.random.default_rng(5), held_out()
    seen = [c for c in range(len(COLOURS)) if (question.thing, c) not in unseen]
    scenes = [Scene(question.thing, style=question.style, ground=int(rng.choice(seen))) for _ in range(60)]
    trained = [paint(scene, sets[question.style], rng, (128, 128), Mix())[0] for scene in scenes]
    mine = small(pixels)
    return min(float(np.sqrt(np.square(small(p) - mine).mean())) for p in trained)


def negatives(
    artist: Artist,
    things: int,
    every: int,
    styles: list[int],
    sets: dict[int, np.ndarray],
    style_of: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """What negative prompts take away, for every n-th of the `things` and all KEYWORDS; `style_of` indexes `styles`.

    Asked are the pictures that have it without a negative prompt, with the same seed.
    """

    def seen(pixels: np.ndarray, thing: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each picture its ground, its style, the nearest thing of that ground and style, and is that `thing`."""
        grounds, drawn = [ground_of(p) for p in pixels], [styles[i] for i in style_of(pixels)]
        asked = [Question(*parts, "", False) for parts in zip(thing, grounds, drawn, strict=True)]
        scores = judge(pixels, asked, things, sets)
        return np.asarray(grounds), np.asarray(drawn), scores["nearest"].astype(int), scores["top1"] > 0

    def share(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else 0.0

    some = list(range(0, things, every))
    names, seeds = [with_article(THINGS[t].names[0]) for t in some], [2000 + t for t in some]
    ground, style, _, _ = seen(artist.paint(names, seeds), some)
    without_ground, _, _, right = seen(artist.paint(names, seeds, negative_prompt="white background"), some)
    _, without_style, _, right_too = seen(artist.paint(names, seeds, negative_prompt="3d"), some)
    white, solid = ground == WHITE, style == 0
    lost, flattened = white & (without_ground != WHITE), solid & (without_style != 0)
    words, seeds = [with_article(word) for word in KEYWORDS], [3000 + i for i in range(len(KEYWORDS))]
    _, _, first, _ = seen(artist.paint(words, seeds), [0] * len(words))
    pairs = zip(words, first, seeds, strict=True)
    again = [artist.paint([word], [seed], negative_prompt=THINGS[thing].names[0])[0] for word, thing, seed in pairs]
    _, _, second, _ = seen(np.stack(again), [0] * len(words))
    return {
        "negative_ground": share(lost[white]),
        "negative_style": share(flattened[solid]),
        "negative_thing": share(second != first),
        "negative_top1": share(np.concatenate([right[lost], right_too[flattened]])),
    }


def sheets(artist: Artist, path: Path, things: int, styles: list[int]) -> None:
    """Contact sheets beside `path`: 64 prompts, styles side by side, guidance and steps."""
    names = [with_article(thing.names[0]) for thing in THINGS[:things]]
    picks = [i * things // 64 for i in range(64)]
    grounds = [on_ground(names[t], 1 + i % 11) if i % 2 else names[t] for i, t in enumerate(picks)]
    rows: dict[str, tuple[int, list[tuple[str, dict[str, Any]]]]] = {
        "": (8, [(prompt, {}) for prompt in grounds]),
        "-styles": (8, [(names[t] + STYLE_WORDS[STYLES[s]], {}) for s in styles for t in picks[::8]]),
        "-guidance": (8, [(names[t], {"guidance_scale": g}) for g in (1.0, 2.0, 3.0, 5.0, 8.0) for t in picks[3::8]]),
        "-steps": (8, [(names[t], {"steps": n}) for n in (4, 8, 15, 25) for t in picks[5::8]]),
    }
    for name, (columns, asked) in rows.items():
        pictures = [
            artist.paint([prompt], [7 + i % columns], **changes)[0] for i, (prompt, changes) in enumerate(asked)
        ]
        grid = sheet(np.stack(pictures), columns)
        grid = grid.resize((1280, 1280 * grid.height // grid.width), Image.Resampling.LANCZOS)
        grid.save(path.with_name(f"{path.stem}{name}.webp"), quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge a checkpoint or a training state.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--run", help="a training state in the work folder instead, such as unet_256")
    parser.add_argument("--side", type=int, default=256, help="of a training state's pictures (%(default)s)")
    parser.add_argument("--work", type=Path, default=WORK, help="work folder with prepare.py's pictures")
    parser.add_argument("--things", type=int, default=STAGES[1], help="the first so many (%(default)s)")
    parser.add_argument("--styles", default="3d,flat,line", help="that it knows (%(default)s)")
    parser.add_argument("--steps", type=int, help="instead of what the file recommends")
    parser.add_argument("--guidance", type=float, help="instead of what the file recommends")
    parser.add_argument("--sampler", help="instead of what the file recommends")
    parser.add_argument("--per-thing", type=int, default=3, help="prompts a thing (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="ask every n-th question only (%(default)s)")
    parser.add_argument("--figures-only", action="store_true", help="no contact sheets")
    parser.add_argument("--sheets", type=Path, help="where the contact sheets go (default: beside the checkpoint)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    styles = [STYLES.index(name) for name in args.styles.split(",")]
    sets = {style: pictures_of(args.work, style) for style in styles}
    artist: Artist
    if args.run:
        artist, path = Sketcher(args.work, args.run, args.side, args.things), args.work / f"{args.run}.safetensors"
    else:
        changes = {"steps": args.steps, "guidance_scale": args.guidance, "sampler": args.sampler}
        artist, path = Engine(args.checkpoint, args.work, threads=args.threads, **changes), args.checkpoint

    asked = questions(args.things, styles, args.per_thing)[:: args.every]
    if not any(q.held_out for q in asked):
        raise SystemExit("No question with a held-out pair is among them. Give a smaller --every.")
    start = time.perf_counter()
    pixels = artist.paint([q.prompt for q in asked], [1000 + i for i in range(len(asked))])
    figures: dict[str, float] = {
        "pictures": len(asked),
        "seconds_a_picture": (time.perf_counter() - start) / len(asked),
    }
    scores = judge(pixels, asked, args.things, sets)
    unseen = np.asarray([q.held_out for q in asked])
    figures |= {name: float(scores[name].mean()) for name in ("top1", "sharpness", "rms")}
    named = np.asarray([q.styled for q in asked])
    figures |= {
        "colour": float(scores["colour"][named].mean()),
        "colour_unnamed": float(scores["colour"][~named].mean()),
    }
    figures["sharp_top1"] = float((scores["top1"] * scores["sharpness"]).mean())
    figures |= {f"{name}_held_out": float(scores[name][unseen].mean()) for name in ("top1", "colour")}
    for style in styles:
        mine = np.asarray([q.style == style for q in asked])
        figures[f"top1_{STYLES[style]}"] = float(scores["top1"][mine].mean())
    if len(styles) > 1:
        judge_of_styles = train_judge(args.work, styles, args.things, artist.vae)
        judged = styles_of(judge_of_styles, pixels)
        seen = np.asarray([styles[judged[i]] == q.style for i, q in enumerate(asked)])
        figures["style"], figures["style_unnamed"] = float(seen[named].mean()), float(seen[~named].mean())
        for style in styles:
            mine = np.asarray([q.styled and q.style == style for q in asked])
            figures[f"style_{STYLES[style]}"] = float(seen[mine].mean())
        real, labels = examples(args.work, styles, range(args.things), 300, np.random.default_rng(9))
        figures["style_real"] = float(np.mean(styles_of(judge_of_styles, through(artist.vae, real)) == labels.numpy()))
        style_of = partial(styles_of, judge_of_styles)
        figures |= negatives(artist, args.things, 2 * args.every, styles, sets, style_of)
    again = [q.prompt for q in asked if q.colour == WHITE][:12]
    twins = [artist.paint(again, list(range(seed, seed + len(again)))).astype(np.float32) for seed in (1, 501)]
    figures["diversity"] = float(np.abs(twins[0] - twins[1]).mean())
    held = [i for i, q in enumerate(asked) if q.held_out][:30]
    figures["nearest"] = min(nearest_training(pixels[i], asked[i], sets) for i in held)
    for style in styles:
        figures[f"vae_psnr_{STYLES[style]}"] = psnr(artist.vae, held_pictures(args.work, style), "cpu")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    for name in ("top1", "colour"):
        wrong = [asked[i].prompt for i in np.flatnonzero(scores[name] == 0)]
        print(f"{name} wrong: {'; '.join(wrong) or 'none'}")
    if args.figures_only:
        return
    sheets(artist, args.sheets or path.with_suffix(".webp"), args.things, styles)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
