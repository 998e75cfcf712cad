"""Train UNet and text encoders: `train_unet.py --side 128`, then `--side 256 --weights unet_128.safetensors`. Resumes where it stopped.

v-prediction over all 1000 noise levels alike, things drawn alike, a tenth of the captions left out for guidance. Sizes are
conditioned as in SDXL; most samples name an original size that was drawn at random, so that the reference's habit of
naming larger and smaller sizes leaves pictures as they are.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import COLOUR_NAMES, THINGS, WHITE, WORK, caption, with_article
from encode import encode_pool, latent_scale, trained_vae
from model import Painter
from muon import Muon
from sample import decode, sample_painter, sheet, sigma_table
from torch import Tensor, nn
from training import Average, Budget, Team, arguments, due, load, save
from words import Words

log = logging.getLogger(__name__)

NO_CAPTION, HIDDEN_WORD, TRUE_SIZE = 0.1, 0.01, 0.4  # shares


class Latents:
    """The pool, and batches from it: things alike, white three times as often as any other colour."""

    def __init__(self, path: Path, words: Words, seed: int) -> None:
        with np.load(path) as stored:
            self.latents = torch.from_numpy(stored["latents"])
            thing, colour = stored["thing"], stored["colour"]
        self.rows: list[dict[int, np.ndarray]] = []
        for t in range(len(THINGS)):
            mine = np.flatnonzero(thing == t)
            self.rows.append({int(c): mine[colour[mine] == c] for c in np.unique(colour[mine])})
        self.words = words
        self.rng = np.random.default_rng(seed)
        self.deck: list[int] = []

    def batch(self, n: int) -> tuple[Tensor, list[list[int]]]:
        """Latents (n, 4, h, w) float32 and their captions as rows of words."""
        chosen: list[int] = []
        contents: list[list[int]] = []
        while len(chosen) < n:
            if not self.deck:
                self.deck = [int(t) for t in self.rng.permutation(len(THINGS))]
            t = self.deck.pop()
            colours = list(self.rows[t])
            weights = np.array([3.0 if c == WHITE else 1.0 for c in colours])
            c = colours[self.rng.choice(len(colours), p=weights / weights.sum())]
            chosen.append(int(self.rng.choice(self.rows[t][c])))
            contents.append(self.caption(t, c))
        return self.latents[chosen].float(), contents

    def caption(self, thing: int, colour: int) -> list[int]:
        if self.rng.random() < NO_CAPTION:
            return []
        content = self.words.content(caption(thing, colour, self.rng))
        return [self.words.unknown if self.rng.random() < HIDDEN_WORD else row for row in content]

    def sizes(self, n: int, side: int) -> Tensor:
        """Size conditions (n, 6): height, width, crop top and left, target height and width."""
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * n, dtype=torch.float32)
        other = self.rng.random(n) >= TRUE_SIZE
        factors = torch.from_numpy(self.rng.uniform(0.5, 2.0, (n, 1))).float()
        sizes[other, :2] = (sizes[:, :2] * factors).round()[other]
        return sizes


def sheet_prompts() -> list[str]:
    """Twenty-four things, half on white without saying so, half on named grounds."""
    picks = [(i * 5 + i // 12) % len(THINGS) for i in range(24)]
    titles = [with_article(THINGS[t].names[0]) for t in picks]
    return [x if i % 2 else f"{x} on a {COLOUR_NAMES[1 + i // 2 % 11]} background" for i, x in enumerate(titles)]


def optimizers(painter: Painter, rate: float, kind: str, team: Team) -> list[torch.optim.Optimizer]:
    """Muon for the UNet's inner matrices and convolutions, Adam for all else; or Adam alone."""
    matrices = [p for name, p in painter.unet.named_parameters()
                if p.ndim >= 2 and not name.startswith(("input_blocks.0.", "out.", "time_embed", "label_emb"))]  # fmt: skip
    if kind == "adam":
        matrices = []
    inner = {id(p) for p in matrices}
    rest = [p for p in painter.parameters() if id(p) not in inner]
    both: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=0)]
    return [*both, Muon(matrices, lr=rate, team=team)] if matrices else both


def main() -> None:
    parser = arguments("Train UNet and text encoders.", WORK, minutes=25, batch=32, rate=1e-3)
    parser.add_argument("--side", type=int, default=256, help="pixels (%(default)s)")
    parser.add_argument("--weights", default="", help="state file in the work folder whose weights to start from")
    parser.add_argument("--optimizer", choices=("muon", "adam"), default="muon")
    parser.add_argument("--name", default="", help="name of the run's files (default unet_SIDE)")
    parser.add_argument(
        "--variants", type=int, default=4, help="places per pair, if latents must be encoded (%(default)s)"
    )
    parser.add_argument("--spread", type=float, default=0.2, help="how much the places differ, 0 to 1 (%(default)s)")
    parser.add_argument("--ema", type=float, default=0.998)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    team = Team()
    folder, device, side = args.work, args.device, args.side
    name = args.name or f"unet_{side}"
    path = folder / f"{name}.safetensors"

    words = Words()
    painter, shadow = Painter(words.size).to(device), Painter(words.size).to(device)
    steps_of = optimizers(painter, args.rate, args.optimizer, team)
    average = Average(painter, args.ema)
    budget = Budget(args.minutes, args.samples, args.decay_from)
    step = 0
    state = load(path, device)
    if state is not None:
        for optimizer, stored in zip(steps_of, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        step, average.steps = state["step"], state["step"]
        budget.seconds, budget.seen = state["seconds"], state["seen"]
    elif args.weights:
        state = load(folder / args.weights, device)
        if state is None:
            raise SystemExit(f"There is no {args.weights} in {folder}.")
    if state is not None:
        painter.load_state_dict(state["model"])
        average.weights = state["ema"]
    log.info("%.2f M weights, %d words", sum(p.numel() for p in painter.parameters()) / 1e6, words.size)

    latents_file = folder / f"latents_{side}.npz"
    if not latents_file.exists() and team.rank == 0:
        encode_pool(folder, side, variants=args.variants, spread=args.spread, device=device)
    team.sum(torch.zeros(1))  # the others wait for the pool
    pool, test = Latents(latents_file, words, seed=1000 * step + team.rank), Latents(latents_file, words, seed=99)
    test_latents, test_contents = test.batch(60)
    test_noise = torch.randn(test_latents.shape, generator=torch.Generator().manual_seed(5))
    table = sigma_table().to(device)

    def loss_at(
        net: Painter, latents: Tensor, contents: list[list[int]], noise: Tensor, t: Tensor, sizes: Tensor
    ) -> Tensor:
        sigma = table[t][:, None, None, None]
        signal = (1 + sigma.square()).rsqrt()
        x, v = signal * (latents + sigma * noise), signal * (noise - sigma * latents)
        left, right = words.batch(contents)
        with torch.autocast(device, torch.bfloat16):
            out = net(x, t, (left.to(device), right.to(device)), sizes)
        return F.mse_loss(out.float(), v)

    vae, scale = trained_vae(folder, device), latent_scale(folder)
    parameters = list(painter.parameters())
    torch.manual_seed(1000 * step + team.rank)
    budget.restart_clock()
    progress, evaluate = budget.progress, due(args.every)
    running, count = 0.0, 0
    while True:
        done = progress >= 1
        if (next(evaluate) or done) and team.rank == 0:
            shadow.load_state_dict(average.weights)
            save(path, {"model": painter.state_dict(), "ema": average.weights, "step": step, "seconds": budget.seconds,
                        "seen": budget.seen, "optimizers": [o.state_dict() for o in steps_of]})  # fmt: skip
            with torch.no_grad():
                t = torch.arange(60, device=device) * 999 // 59
                sizes = torch.tensor([[side, side, 0, 0, side, side]] * 60, dtype=torch.float32, device=device)
                tested = loss_at(shadow, test_latents.to(device), test_contents, test_noise.to(device), t, sizes)
            line = {"step": step, "minutes": round(budget.seconds / 60, 2), "samples": budget.seen,
                    "loss": round(running / max(1, count), 4), "loss_of_average": round(float(tested), 4)}  # fmt: skip
            log.info(json.dumps(line))
            running, count = 0.0, 0
            pixels = decode(vae, sample_painter(shadow, words, sheet_prompts(), side=side, steps=12), scale)
            sheet(pixels, 8).save(folder / f"{name}_{budget.seen:07d}.png")
            budget.restart_clock()
        if done:
            return
        for optimizer in steps_of:
            for group in optimizer.param_groups:
                group["lr"] = args.rate * budget.rate(step, warm_up=50, progress=progress)
        latents, contents = pool.batch(args.batch)
        latents = latents.to(device)
        t = torch.randint(1000, (args.batch,), device=device)
        loss = loss_at(
            painter, latents, contents, torch.randn_like(latents), t, pool.sizes(args.batch, side).to(device)
        )
        for optimizer in steps_of:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        progress = team.share(parameters, budget.progress)
        nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        for optimizer in steps_of:
            optimizer.step()
        average.update(painter)
        running, count = running + loss.item(), count + 1
        step += 1
        budget.add(args.batch * team.size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
