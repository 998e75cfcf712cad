"""Train UNet and text encoders: `train_unet.py --side 128`, then `--side 128 256 --weights unet_128.safetensors`.

Resumes where it stopped, and may be stopped and go on (SIGSTOP, SIGCONT). v-prediction over all 1000 noise levels alike, a
tenth of the captions left out for guidance, sizes and crops conditioned as in SDXL. Several sides are trained together: each
step is of one side, by its share of the steps. `--weights` may be a run with another vocabulary: words that it knew keep
their rows.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captions import on_ground, with_article
from data import STAGES, THINGS, WORK
from encode import latent_scale, trained_vae
from model import Painter
from muon import Muon
from pool import Batch, Pool
from sample import decode, sample_painter, sheet, sigma_table
from start import start
from torch import Tensor, nn
from training import Average, Budget, Team, arguments, due, load, mixed_noise, save
from words import Words

log = logging.getLogger(__name__)

SHADED_FROM = 0.3  # noise level
AS_THEY_ARE = 0.3  # share of flat pictures
FURTHEST = 4.0  # times the noise level


def sheet_prompts() -> list[str]:
    """Thirty-two prompts over things, styles, grounds and compositions; the same at every evaluation."""
    names = [with_article(thing.names[0]) for thing in THINGS[: STAGES[1]]]
    picks = [names[i * 37 % len(names)] for i in range(24)]
    grounds = [on_ground(x, 1 + i % 11) if i % 2 else x for i, x in enumerate(picks[:12])]
    styled = [f"{x}, {('3d', 'flat', 'line art')[i % 3]}" for i, x in enumerate(picks[12:])]
    return [
        *grounds, *styled, "a red apple and a banana", "a fox next to a cat", "a small dog on a green background", "a car on the left",
        "a rose, yellow and red gradient background", "a fox, flat, purple background", "a fox, line art", "a fox",
    ]  # fmt: skip


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


def loss_at(net: Painter, words: Words, batch: Batch, noise: Tensor, t: Tensor, sigmas: Tensor) -> Tensor:
    """Mean squared error of v at steps `t` (B,) of the noise levels `sigmas` (1000,)."""
    latents, sigma = batch.latents.to(sigmas.device), sigmas[t][:, None, None, None]
    v = (1 + sigma.square()).rsqrt() * (noise - sigma * latents)
    return F.mse_loss(predicted(net, words, batch, noise, t, sigmas), v)


def predicted(net: Painter, words: Words, batch: Batch, noise: Tensor, t: Tensor, sigmas: Tensor) -> Tensor:
    """What `net` says is v (B, 4, h, w), float32, of the noised batch."""
    device, sigma = sigmas.device, sigmas[t][:, None, None, None]
    x = (1 + sigma.square()).rsqrt() * (batch.latents.to(device) + sigma * noise)
    left, right = words.batch(batch.contents)
    with torch.autocast(device.type, torch.bfloat16):
        out = net(x, t, (left.to(device), right.to(device)), batch.sizes.to(device))
    return out.float()


def own_errors(net: Painter, words: Words, batch: Batch, noise: Tensor, t: Tensor, sigmas: Tensor) -> Tensor:
    """`noise` (B, 4, h, w) with what `net` itself gets wrong in one step that comes down to steps `t` (B,).

    The step begins at up to FURTHEST times the noise level and is a deterministic one of a sampler (DDIM). Its errors go into
    the noise, so that the network has to take them away again: it learns from inputs as its own sampling makes them
    (scheduled sampling: Bengio et al. 2015). Less below SHADED_FROM.
    """
    low = sigmas[t]
    begin = torch.searchsorted(sigmas, low * (1 + (FURTHEST - 1) * torch.rand(len(t), device=t.device)))
    begin = begin.clamp(max=len(sigmas) - 1)
    high = sigmas[begin][:, None, None, None]
    with torch.no_grad():
        v = predicted(net, words, batch, noise, begin, sigmas)
    true = (1 + high.square()).rsqrt() * (noise - high * batch.latents.to(t.device))
    wrong = high * (1 + high.square()).rsqrt() * (true - v)  # the picture that it sees, less the true one
    low = low[:, None, None, None]
    return noise + (1 - low / high) * wrong / low.clamp(min=SHADED_FROM)


def shading(batch: Batch, sigma: Tensor, most: float) -> Tensor:
    """What to add to the noise (B, 4, h, w) of `batch` at levels `sigma` (B,), so that flat pictures seem to have shading.

    A sampler's own errors look so, and a network that never met them in training keeps them: its pictures are flat only in
    part (input perturbation: Ning et al. 2023). It is smooth and fine in a mixture of chance, of up to `most` of the latents'
    spread, less below SHADED_FROM, and on all flat pictures but the share AS_THEY_ARE.
    """
    latents = batch.latents
    strength = most * torch.rand(len(latents)) * (batch.flat & (torch.rand(len(latents)) >= AS_THEY_ARE))
    return (strength / sigma.cpu().clamp(min=SHADED_FROM))[:, None, None, None] * mixed_noise(latents, 6, "bicubic")


def offset_noise(latents: Tensor, offset: float) -> Tensor:
    """Noise (B, C, h, w) for `latents`, each channel of it with a mean of its own, of a spread of `offset`.

    At the highest noise level the picture's mean is not quite lost, and the network reads a seed's own mean as the colour of the
    ground, whatever the prompt says. With an offset it says little (Guttenberg 2023; SDXL took 0.05: Podell et al. 2023,
    section 2.5).
    """
    return torch.randn_like(latents) + offset * torch.randn(*latents.shape[:2], 1, 1)


def main() -> None:
    parser = arguments("Train UNet and text encoders.", WORK, minutes=1e9, batch=32, rate=1e-3)
    parser.add_argument("--side", type=int, nargs="+", default=[256], help="pixels, one or more (%(default)s)")
    parser.add_argument("--share", type=float, nargs="*", help="of the steps, for each side (default: alike)")
    parser.add_argument("--things", type=int, default=STAGES[1], help="as in the pool (%(default)s)")
    parser.add_argument(
        "--weights", default="", help="to start from: a state in the work folder, or a checkpoint's path"
    )
    parser.add_argument("--optimizer", choices=("muon", "adam"), default="muon")
    parser.add_argument("--name", default="", help="name of the run's files (default unet_SIDE)")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument(
        "--shading", type=float, default=0.0, help="most that flat pictures get, of the latents' spread"
    )
    parser.add_argument(
        "--own-errors", type=float, default=0.0, help="share of the steps that learn from the network's own errors"
    )
    parser.add_argument("--offset", type=float, default=0.0, help="spread of the noise's mean in each channel")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    team = Team()
    folder, device, sides = args.work, args.device, args.side
    share = np.cumsum(args.share or [1] * len(sides)) / sum(args.share or [1] * len(sides))
    batches = [
        max(1, args.batch * min(sides) ** 2 // side**2) for side in sides
    ]  # --batch is that of the smallest side
    name = args.name or f"unet_{max(sides)}"
    path = folder / f"{name}.safetensors"

    words = Words(args.things)
    painter, shadow = Painter(words.size).to(device), Painter(words.size).to(device)
    steps_of = optimizers(painter, args.rate, args.optimizer, team)
    average = Average(painter, args.ema)
    budget = Budget(args.minutes, args.samples, args.decay_from)
    step = 0
    state = load(path, device)
    if state is not None:
        if state["tokens"] != words.known:
            raise SystemExit(
                f"things.json has other words than {path.name}. Go on with --weights {path.name} --name OTHER."
            )
        for optimizer, stored in zip(steps_of, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        step, average.steps = state["step"], state["step"]
        budget.seconds, budget.seen = state["seconds"], state["seen"]
    elif args.weights:
        state = start(painter, words, folder, args.weights)
    if state is not None:
        painter.load_state_dict(state["model"])
        average.weights = {name: p.to(device).clone() for name, p in state["ema"].items()}
    log.info("%.2f M weights, %d words", sum(p.numel() for p in painter.parameters()) / 1e6, words.size)

    pools = [Pool(folder / f"pool_{side}", words, seed=1000 * step + team.rank) for side in sides]
    tests = [Pool(folder / f"pool_{side}", words, seed=99).batch(60, 0.0) for side in sides]
    sigmas = sigma_table().to(device)
    vae, scale = trained_vae(folder, device), latent_scale(folder)
    parameters = list(painter.parameters())
    torch.manual_seed(1000 * step + team.rank)
    together = np.random.default_rng(step)  # the same choices in all processes
    budget.restart_clock()
    progress, evaluate = budget.progress, due(args.every)
    running: list[list[float]] = [[] for _ in sides]
    while True:
        done = progress >= 1
        if (next(evaluate) or done) and team.rank == 0:
            shadow.load_state_dict(average.weights)
            save(path, {"model": painter.state_dict(), "ema": average.weights, "step": step, "seconds": budget.seconds,
                        "seen": budget.seen, "optimizers": [o.state_dict() for o in steps_of], "tokens": words.known})  # fmt: skip
            line: dict[str, Any] = {
                "step": step,
                "minutes": round(budget.seconds / 60, 2),
                "samples": budget.seen,
                "rate": steps_of[0].param_groups[0]["lr"],
            }
            for side, losses, test in zip(sides, running, tests, strict=True):
                noise = torch.randn(test.latents.shape, generator=torch.Generator().manual_seed(5)).to(device)
                with torch.no_grad():
                    tested = loss_at(shadow, words, test, noise, torch.arange(60, device=device) * 999 // 59, sigmas)
                line[f"loss_{side}"] = round(float(np.mean(losses or [0])), 4)
                line[f"loss_of_average_{side}"] = round(float(tested), 4)
                losses.clear()
            log.info(json.dumps(line))
            for side in sides:
                latents = sample_painter(shadow, words, sheet_prompts(), size=(side, side), steps=12)
                sheet(decode(vae, latents, scale), 8).save(folder / f"{name}_{budget.seen:07d}_{side}.webp", quality=85)
            budget.restart_clock()
        if done:
            return
        for optimizer in steps_of:
            for group in optimizer.param_groups:
                group["lr"] = args.rate * budget.rate(step, warm_up=50, progress=progress)
        if step % 200 == 0:
            for pool in pools:
                pool.refresh()
        which = int(np.searchsorted(share, together.random(), side="right"))
        batch = pools[which].batch(batches[which], together.random())
        t = torch.randint(1000, (len(batch.latents),), device=device)
        noise = offset_noise(batch.latents, args.offset)
        if args.shading:
            noise += shading(batch, sigmas[t], args.shading)
        noise = noise.to(device)
        if together.random() < args.own_errors:
            noise = own_errors(painter, words, batch, noise, t, sigmas)
        loss = loss_at(painter, words, batch, noise, t, sigmas)
        for optimizer in steps_of:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        progress = team.share(parameters, budget.progress)
        nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        for optimizer in steps_of:
            optimizer.step()
        average.update(painter)
        running[which].append(loss.item())
        step += 1
        budget.add(len(batch.latents) * team.size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
