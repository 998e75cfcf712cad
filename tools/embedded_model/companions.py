"""Train what goes with a checkpoint, each in minutes: `python tools/embedded_model/companions.py style`.

style      a LoRA in the kohya format: the words "pixel art" turn any thing into large square pixels
thing      a LoRA in the kohya format: the word "teapot" draws a thing that the checkpoint has no word for
embedding  a textual inversion in the SDXL format (clip_l, clip_g): `embedding:easel-polar-bear`
preview    a decoder of TAESD's shape for the checkpoint's latents
Pictures come from prepare.py's work folder. The checkpoint is only read, so all this can be made again for another one.
Each file is written at every evaluation and holds the state of the average; a run can't be resumed, it is that short.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captions import caption, on_ground, with_article
from data import CHECKPOINT, COLOURS, STAGES, THINGS, WHITE, WORK, pictures_of
from PIL import Image
from safetensors.torch import save_file
from sample import decode, sample, sheet, sigma_table
from scene import Mix, Scene, paint
from torch import Tensor, nn
from training import Average, due, images_to_tensor, tensor_to_images

from core.models.preview import TinyDecoder
from core.models.vae import SDXL_SCALE
from core.text.chunks import LENGTH
from core.text.encode import TextEncoder
from core.text.size_conditioning import size_vector
from core.text.tokenizer import END, START, ClipTokenizer
from core.weights.checkpoint import Checkpoint, load_checkpoint

log = logging.getLogger(__name__)

MODELS = CHECKPOINT.parents[1]
FILES = {
    "style": MODELS / "loras" / "easel-pixel-art.safetensors",
    "thing": MODELS / "loras" / "easel-teapot.safetensors",
    "embedding": MODELS / "embeddings" / "easel-polar-bear.safetensors",
    "preview": MODELS / "vae_approx" / "easel-preview.safetensors",
}
TEAPOT, POLAR_BEAR = "1fad6", "1f43b-200d-2744-fe0f"
BLOCK = 16  # pixels of the picture that are one pixel of the art
NO_CAPTION = 0.1
QUIET = Mix(larger=0, smaller=0, cropped=0, spread=0.5)


@dataclass(frozen=True)
class Lesson:
    """Pictures to learn from: uint8 (N, side, side, 3), and what each is called, without its ground."""

    pixels: np.ndarray
    prompts: list[str]


# --- pictures -----------------------------------------------------------------------------------------------------------


def row_of(folder: Path, code: str) -> int:
    """The row of a picture that is none of THINGS."""
    table = json.loads((folder / "data" / "pictures.json").read_text(encoding="utf-8"))
    return next(row for row, entry in enumerate(table) if entry["code"] == code)


def pixelated(pixels: np.ndarray) -> np.ndarray:
    """The same picture in square pixels of BLOCK, with eight levels a colour."""
    picture = Image.fromarray(pixels)
    small = picture.resize((picture.width // BLOCK, picture.height // BLOCK), Image.Resampling.BOX)
    levels = (np.asarray(small, np.float32) / 36.43).round() * 36.43
    return np.asarray(Image.fromarray(levels.round().astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST))


def style_lesson(folder: Path, things: int, rng: np.random.Generator, n: int, side: int) -> Lesson:
    """Things in pixels that are called pixel art, and one in six as it was."""
    pictures = pictures_of(folder, 0)
    pixels, prompts = np.empty((n, side, side, 3), np.uint8), []
    for i in range(n):
        scene = Scene(
            int(rng.integers(things)), ground=WHITE if rng.random() < 0.35 else int(rng.integers(len(COLOURS)))
        )
        pixels[i] = paint(scene, pictures, rng, (side, side), QUIET)[0]
        text = caption(scene, rng)
        if rng.random() < 5 / 6:
            pixels[i] = pixelated(pixels[i])
            text = f"pixel art of {text}" if rng.random() < 0.4 else f"{text}, pixel art"
        prompts.append(text)
    return Lesson(pixels, prompts)


def thing_lesson(
    folder: Path, things: int, rng: np.random.Generator, n: int, side: int, *, code: str, word: str
) -> Lesson:
    """The new thing on many grounds, called by `word`, and in a third of the pictures a thing known before."""
    pictures, row = pictures_of(folder, 0), row_of(folder, code)
    pixels, prompts = np.empty((n, side, side, 3), np.uint8), []
    for i in range(n):
        new = rng.random() < 2 / 3
        ground = WHITE if rng.random() < 0.35 else int(rng.integers(len(COLOURS)))
        scene = Scene(row if new else int(rng.integers(things)), ground=ground)
        pixels[i] = paint(scene, pictures, rng, (side, side), QUIET)[0]
        named = Scene(0, ground=ground)
        text = caption(scene, rng) if not new else on_ground(f"a {word}", ground)
        if new and named.ground == WHITE and rng.random() < 0.5:
            text = f"a {word}" if rng.random() < 0.7 else word
        prompts.append(text)
    return Lesson(pixels, prompts)


def preview_lesson(folder: Path, things: int, rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Things on grounds, and one picture in four of random colour patches of one, two or four cells."""
    pictures = pictures_of(folder, 0)
    pixels = np.empty((n, side, side, 3), np.uint8)
    for i in range(n):
        if i % 4:
            scene = Scene(int(rng.integers(things)), ground=int(rng.integers(len(COLOURS))))
            pixels[i] = paint(scene, pictures, rng, (side, side), QUIET)[0]
        else:
            patch = 8 * int(rng.choice((1, 2, 4)))
            colours = rng.integers(0, 256, (side // patch, side // patch, 3), dtype=np.uint8)
            pixels[i] = colours.repeat(patch, 0).repeat(patch, 1)
    return pixels


# --- what is trained ----------------------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """A frozen linear layer or convolution with a low-rank addition (Hu et al. 2021), scaled by alpha / rank = 1."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base = base
        self.lora_down: nn.Linear | nn.Conv2d
        self.lora_up: nn.Linear | nn.Conv2d
        if isinstance(base, nn.Linear):
            self.lora_down = nn.Linear(base.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, base.out_features, bias=False)
        else:
            kernel, stride, padding = base.kernel_size, base.stride, base.padding
            self.lora_down = nn.Conv2d(base.in_channels, rank, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
            self.lora_up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        nn.init.normal_(self.lora_down.weight, std=self.lora_down.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        base: Tensor = self.base(x)
        return base + self.lora_up(self.lora_down(x))


def add_low_rank(unet: nn.Module, rank: int) -> dict[str, LowRank]:
    """Wrap all linear layers of the transformers and all convolutions inside the blocks. Gives them by kohya's names."""
    added: dict[str, LowRank] = {}
    for name, module in list(unet.named_modules()):
        inner = name.startswith(("input_blocks.", "middle_block.", "output_blocks."))
        wanted = isinstance(module, (nn.Linear, nn.Conv2d)) and inner and not name.startswith("input_blocks.0.")
        if not wanted or ".emb_layers." in name:
            continue
        parent, _, last = name.rpartition(".")
        assert isinstance(module, (nn.Linear, nn.Conv2d))
        added[f"lora_unet_{name.replace('.', '_')}"] = wrapped = LowRank(module, min(rank, *module.weight.shape[:2]))
        setattr(unet.get_submodule(parent), last, wrapped)
    return added


def kohya(added: dict[str, LowRank], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a kohya file; `weights` are the averaged ones, by `KEY.lora_up.weight`."""
    tensors = {name: tensor.half() for name, tensor in weights.items()}
    ranks = {f"{key}.alpha": torch.tensor(float(lora.lora_up.weight.shape[1])).half() for key, lora in added.items()}
    return tensors | ranks


class Words2(nn.Module):
    """Vectors of a textual inversion for both encoders."""

    def __init__(self, checkpoint: Checkpoint, start: str, count: int) -> None:
        super().__init__()
        tokenizer = ClipTokenizer()
        ids = (tokenizer.ids(start) * count)[:count]
        assert checkpoint.clip_l is not None and checkpoint.clip_g is not None
        tables = [clip.text_model.embeddings.token_embedding.weight for clip in (checkpoint.clip_l, checkpoint.clip_g)]
        self.clip_l, self.clip_g = (nn.Parameter(table[ids].float().clone()) for table in tables)


# --- training -----------------------------------------------------------------------------------------------------------


class Studio:
    """A checkpoint ready to be trained on: its latents, its conditions and the loss of its prediction."""

    def __init__(self, path: Path, side: int) -> None:
        self.side = side
        self.checkpoint = load_checkpoint(
            path, unet_dtype=torch.float32, text_dtype=torch.float32, vae_dtype=torch.float32
        )
        if self.checkpoint.info.prediction != "v":
            raise SystemExit(f"{path.name} does not predict v; these scripts train such networks only.")
        self.text = TextEncoder(self.checkpoint.clip_l, self.checkpoint.clip_g)
        self.sigmas = sigma_table()

    @torch.inference_mode()
    def latents(self, pixels: np.ndarray) -> Tensor:
        """Latents in network space (N, 4, h, w)."""
        with torch.autocast("cpu", torch.bfloat16):
            parts = [
                self.checkpoint.vae.encode(images_to_tensor(part))
                for part in np.array_split(pixels, -(-len(pixels) // 16))
            ]
        return torch.cat(parts).float() * SDXL_SCALE

    @torch.no_grad()
    def conditions(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, 77, C) and pooled vectors (B, P) of texts of one chunk."""
        found = [self.text.encode([prompt]) for prompt in prompts]
        pooled = [each.pooled for each in found if each.pooled is not None]
        return torch.cat([each.tokens for each in found]), torch.cat(pooled)

    def inverted(self, prompts: list[str], vectors: Words2, mark: str) -> tuple[Tensor, Tensor]:
        """The same with gradients, for prompts in which the word `mark` stands for the new vectors."""
        tokenizer, sides = self.text.tokenizer, []
        pairs = ((self.checkpoint.clip_l, vectors.clip_l, END), (self.checkpoint.clip_g, vectors.clip_g, 0))
        for clip, new, padding in pairs:
            assert clip is not None
            rows = []
            for prompt in prompts:
                words = [
                    list(range(-1, -1 - len(new), -1)) if word == mark else tokenizer.ids(word)
                    for word in prompt.split()
                ]
                ids = [START, *(i for word in words for i in word), END]
                rows.append([*ids, *[padding] * (LENGTH - len(ids))])
            sides.append(clip(torch.tensor(rows), vectors=new))
        assert sides[1].pooled is not None
        return torch.cat([sides[0].hidden, sides[1].hidden], dim=2), sides[1].pooled

    def loss(self, latents: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """Mean squared error of v at noise levels of chance."""
        t = torch.randint(1000, (len(latents),))
        sigma, noise = self.sigmas[t][:, None, None, None], torch.randn_like(latents)
        signal = (1 + sigma.square()).rsqrt()
        y = size_vector(pooled, self.side, self.side, 0, 0, self.side, self.side)
        with torch.autocast("cpu", torch.bfloat16):
            out = self.checkpoint.unet(signal * (latents + sigma * noise), t, context, y)
        return F.mse_loss(out.float(), signal * (noise - sigma * latents))

    @torch.inference_mode()
    def draw(self, context: Tensor, pooled: Tensor) -> np.ndarray:
        """Pictures, uint8, of prompts whose conditions are the first half; the second half are the empty text's."""
        n = len(context) // 2
        size = (self.side, self.side)
        latents = sample(self.checkpoint.unet, context, pooled, size=size, seeds=list(range(n)), steps=14)
        scale = torch.zeros(1), torch.tensor(1 / SDXL_SCALE)
        return decode(self.checkpoint.vae, latents, scale)


def steps_of(args: argparse.Namespace, loss_of: Callable[[], Tensor], module: nn.Module, show: Callable[[], None],
             write: Callable[[dict[str, Tensor]], None]) -> None:  # fmt: skip
    """Adam with warm-up and one decay; the average is written and shown every `args.every` seconds and at the end."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.99), weight_decay=0)
    average, evaluate, losses = Average(module, 0.99), due(args.every), []
    for step in range(args.steps):
        rest = min(1.0, 2.5 * (1 - step / args.steps))
        optimizer.param_groups[0]["lr"] = args.rate * min(1.0, (step + 1) / 20) * max(0.02, rest)
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(module)
        losses.append(loss.item())
        if next(evaluate) or step + 1 == args.steps:
            current = {name: p.detach().clone() for name, p in module.state_dict().items()}
            module.load_state_dict(average.weights)
            write({name: p.detach() for name, p in average.weights.items()})
            show()
            module.load_state_dict(current)
            log.info("step %d of %d: loss %.4f", step + 1, args.steps, float(np.mean(losses[-100:])))


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
    temporary.chmod(0o644)
    temporary.replace(path)


def shuffled(n: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of batches, for ever."""
    while True:
        order = rng.permutation(n)
        yield from (order[i : i + batch] for i in range(0, n - batch + 1, batch))


def train_lora(args: argparse.Namespace, lesson: Lesson, tests: list[str], metadata: dict[str, str]) -> None:
    studio = Studio(args.checkpoint, args.side)
    latents = studio.latents(lesson.pixels)
    context, pooled = studio.conditions([*lesson.prompts, ""])
    test_context, test_pooled = studio.conditions([*tests, *[""] * len(tests)])
    torch.manual_seed(0)
    added = add_low_rank(studio.checkpoint.unet, args.rank)
    trained = nn.ModuleDict(added)
    for name, p in trained.named_parameters():
        p.requires_grad_(".base." not in name)
    loras = nn.ModuleDict(
        {key: nn.ModuleDict({"lora_down": lora.lora_down, "lora_up": lora.lora_up}) for key, lora in added.items()}
    )
    rng = np.random.default_rng(2)
    batches = shuffled(len(latents), args.batch, rng)

    def loss_of() -> Tensor:
        chosen = next(batches)
        texts = np.where(rng.random(len(chosen)) < NO_CAPTION, len(lesson.prompts), chosen)
        return studio.loss(latents[chosen], context[texts], pooled[texts])

    def show() -> None:
        pixels = studio.draw(test_context, test_pooled)
        sheet(pixels, 6).save(args.work / f"{args.what}.png")

    steps_of(args, loss_of, loras, show, lambda weights: save(args.output, kohya(added, weights), metadata))


def train_style(args: argparse.Namespace) -> None:
    lesson = style_lesson(args.work, args.things, np.random.default_rng(1), args.pictures, args.side)
    names = [with_article(THINGS[i * 7 % args.things].names[0]) for i in range(6)]
    tests = [*(f"{name}, pixel art" for name in names), *(f"{name} on a blue background, pixel art" for name in names)]
    words = {
        "ss_tag_frequency": json.dumps({"pixel art": {"pixel art": args.pictures}}),
        "modelspec.title": "Easel pixel art",
    }
    train_lora(
        args, lesson, tests, FACTS | words | {"modelspec.trigger_phrase": "pixel art", "ss_network_dim": str(args.rank)}
    )


def train_thing(args: argparse.Namespace) -> None:
    lesson = thing_lesson(
        args.work, args.things, np.random.default_rng(1), args.pictures, args.side, code=TEAPOT, word="teapot"
    )
    tests = ["a teapot", "a teapot on a blue background", "a teapot on a yellow background", "a teapot on a black background",
             "a fox", "a banana on a pink background"]  # fmt: skip
    words = {"ss_tag_frequency": json.dumps({"teapot": {"teapot": args.pictures}}), "modelspec.title": "Easel teapot"}
    train_lora(
        args, lesson, tests, FACTS | words | {"modelspec.trigger_phrase": "teapot", "ss_network_dim": str(args.rank)}
    )


def train_embedding(args: argparse.Namespace) -> None:
    studio = Studio(args.checkpoint, args.side)
    mark = "<new>"
    lesson = thing_lesson(
        args.work, args.things, np.random.default_rng(1), args.pictures, args.side, code=POLAR_BEAR, word=mark
    )
    chosen = [i for i, prompt in enumerate(lesson.prompts) if mark in prompt]
    latents, prompts = studio.latents(lesson.pixels[chosen]), [lesson.prompts[i] for i in chosen]
    torch.manual_seed(0)
    vectors = Words2(studio.checkpoint, args.start, args.vectors)
    tests = [
        f"a {mark}",
        *(f"a {mark} on a {colour} background" for colour in ("blue", "yellow", "black", "pink", "green")),
    ]
    batches = shuffled(len(latents), args.batch, np.random.default_rng(2))

    def loss_of() -> Tensor:
        picked = next(batches)
        return studio.loss(latents[picked], *studio.inverted([prompts[i] for i in picked], vectors, mark))

    def show() -> None:
        with torch.no_grad():
            context, pooled = studio.inverted([*tests, *[""] * len(tests)], vectors, mark)
        sheet(studio.draw(context, pooled), 6).save(args.work / f"{args.what}.png")

    steps_of(
        args,
        loss_of,
        vectors,
        show,
        lambda weights: save(args.output, weights, FACTS | {"modelspec.title": "Easel polar bear"}),
    )


def train_preview(args: argparse.Namespace) -> None:
    """L1 to the pictures that were encoded."""
    studio = Studio(args.checkpoint, args.side)
    pixels = preview_lesson(args.work, args.things, np.random.default_rng(1), args.pictures, args.side)
    latents, images = studio.latents(pixels), images_to_tensor(pixels)
    torch.manual_seed(0)
    decoder = TinyDecoder(args.width)
    rng = np.random.default_rng(2)
    batches = shuffled(len(latents), args.batch, rng)
    cells = 12

    def loss_of() -> Tensor:
        picked = next(batches)
        y, x = (int(i) for i in rng.integers(latents.shape[2] - cells + 1, size=2))
        with torch.autocast("cpu", torch.bfloat16):
            out = decoder(latents[picked, :, y : y + cells, x : x + cells])
        wanted = images[picked, :, 8 * y : 8 * (y + cells), 8 * x : 8 * (x + cells)]
        return F.l1_loss(out.float(), wanted)

    def show() -> None:
        with torch.no_grad():
            out = tensor_to_images(decoder(latents[:12]))
        sheet(np.concatenate([pixels[:12], out]), 12).save(args.work / f"{args.what}.png")
        error = (out.astype(np.float32) - pixels[:12]) / 255
        log.info("PSNR %.1f dB", -10 * np.log10(np.square(error).mean()))

    def write(weights: dict[str, Tensor]) -> None:
        save(
            args.output,
            {name: p.half() for name, p in weights.items()},
            FACTS | {"modelspec.title": "Easel preview decoder"},
        )

    steps_of(args, loss_of, decoder, show, write)


FACTS = {
    "modelspec.license": "Apache-2.0; trained on Fluent Emoji by Microsoft (MIT)",
    "modelspec.architecture": "stable-diffusion-xl-v1-base",
}
TRAINERS = {"style": train_style, "thing": train_thing, "embedding": train_embedding, "preview": train_preview}
RATES = {"style": 2e-3, "thing": 2e-3, "embedding": 5e-3, "preview": 1e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train what goes with a checkpoint.")
    parser.add_argument("what", choices=TRAINERS)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--work", type=Path, default=WORK, help="work folder with prepare.py's pictures")
    parser.add_argument("--output", type=Path, help="default: the file in models/ that ships")
    parser.add_argument("--things", type=int, default=STAGES[1], help="that the checkpoint knows (%(default)s)")
    parser.add_argument("--pictures", type=int, default=600, help="to learn from (%(default)s)")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16, help="of a LoRA (%(default)s)")
    parser.add_argument("--rate", type=float, help="learning rate (default: by what is trained)")
    parser.add_argument("--start", default="bear", help="the word that the embedding starts from (%(default)s)")
    parser.add_argument("--vectors", type=int, default=4, help="of the embedding (%(default)s)")
    parser.add_argument(
        "--width", type=int, default=12, help="of the preview decoder; larger is sharper and slower (%(default)s)"
    )
    parser.add_argument("--every", type=float, default=120, help="seconds between evaluations (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output = args.output or FILES[args.what]
    args.rate = args.rate or RATES[args.what]
    TRAINERS[args.what](args)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    main()
