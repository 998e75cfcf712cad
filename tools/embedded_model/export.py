"""Write the checkpoint: `python tools/embedded_model/export.py`. One fp16 safetensors file in SDXL's single-file layout.

The averaged weights of UNet and text encoders, the autoencoder with the latents' mean and spread folded into quant_conv
and post_quant_conv, the full token table, and the key `v_pred` that says what the network predicts.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from data import CHECKPOINT, WORK
from encode import latent_scale, trained_vae
from model import Painter
from safetensors.torch import save_file
from torch import Tensor
from training import load
from words import full_table

from core.models.clip import to_open_clip
from core.models.vae import SDXL_SCALE, VAE

log = logging.getLogger(__name__)

SETTINGS = {
    "width": 256, "height": 256, "steps": 25, "guidance_scale": 3.0, "sampler": "dpmpp_2m", "scheduler": "karras",
    "sharpness": 0.0, "adm_scaler_positive": 1.0, "adm_scaler_negative": 1.0, "adm_scaler_end": 0.0,
}  # fmt: skip
LICENSE = "Apache-2.0; trained on Fluent Emoji by Microsoft (MIT) and, for drawings, Noto Emoji by Google (Apache-2.0)"
TABLE = "text_model.embeddings.token_embedding.weight"


def fold_scale(vae: VAE, mean: Tensor, std: Tensor) -> None:
    """Change quant_conv and post_quant_conv so that raw latents times 0.13025 have zero mean and unit variance."""
    factor, shift = 1 / (SDXL_SCALE * std.flatten()), mean.flatten()
    n = len(factor)
    with torch.no_grad():
        out, back = vae.quant_conv, vae.post_quant_conv
        assert out.bias is not None and back.bias is not None
        back.bias += (back.weight * shift[None, :, None, None]).sum((1, 2, 3))
        back.weight /= factor[None, :, None, None]
        out.weight[:n] *= factor[:, None, None, None]
        out.bias[:n] = (out.bias[:n] - shift) * factor
        out.bias[n:] += 2 * factor.log()  # log-variance


def checkpoint(painter: Painter, vae: VAE, known: list[int]) -> dict[str, Tensor]:
    """All tensors under the single-file names, fp16."""
    sides = []
    for clip in (painter.clip_l, painter.clip_g):
        tensors = {name: p.detach() for name, p in clip.state_dict().items()}
        tensors[TABLE] = full_table(tensors[TABLE], known)
        sides.append(tensors)
    parts = {
        "model.diffusion_model.": painter.unet.state_dict(),
        "first_stage_model.": vae.state_dict(),
        "conditioner.embedders.0.transformer.": sides[0],
        "conditioner.embedders.1.model.": to_open_clip(sides[1]),
    }
    tensors = {prefix + name: p for prefix, part in parts.items() for name, p in part.items()}
    tensors["v_pred"] = torch.zeros(1)
    halves = {name: p.half().contiguous().clone() for name, p in tensors.items()}
    bad = [name for name, p in halves.items() if not p.isfinite().all()]
    if bad:
        raise SystemExit(f"These tensors do not fit into fp16: {', '.join(bad)}")
    return halves


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the checkpoint.")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--run", default="unet_256", help="training state to export (%(default)s)")
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    parser.add_argument("--title", default="Easel Emoji 256")
    parser.add_argument(
        "--description", default="Small model for everyday things in several styles on coloured grounds"
    )
    args = parser.parse_args()
    state = load(args.work / f"{args.run}.safetensors", "cpu")
    if state is None:
        raise SystemExit(f"There is no {args.run}.safetensors in {args.work}. Run train_unet.py first.")
    painter = Painter(len(state["tokens"]) + 3)
    painter.load_state_dict(state["ema"])
    vae = trained_vae(args.work)
    fold_scale(vae, *latent_scale(args.work))
    tensors = checkpoint(painter, vae, state["tokens"])
    metadata = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.title": args.title,
        "modelspec.description": args.description,
        "modelspec.license": LICENSE,
        "modelspec.resolution": "256x256",
        "modelspec.prediction_type": "v",
        "easel.settings": json.dumps(SETTINGS),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.output.with_suffix(".tmp")
    save_file(tensors, temporary, metadata=metadata)
    temporary.chmod(0o644)
    temporary.replace(args.output)
    size = args.output.stat().st_size / 1e6
    log.info("%s: %.1f MB, %d tensors, step %d", args.output, size, len(tensors), state["step"])
    if size > 40:
        log.warning("The file is larger than the 40 MB it may have.")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
