"""Whole text-to-image runs against diffusers: same weights, same first noise, neutral settings."""

import lzma
from dataclasses import replace

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from tiny import write_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.device import DeviceChoice, choose_device
from core.models.clip import from_open_clip
from core.models.configs import TINY, TINY_CLIP_G, TINY_CLIP_L, VAEConfig
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Settings
from core.text.tokenizer import MERGES, vocabulary
from core.weights.files import Catalog

# diffusers has one number of groups for all norms, so these widths are such that ours is 32 throughout too.
UNET = replace(TINY, model_channels=128)
VAE = VAEConfig(channels=128, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
NEUTRAL = Settings(
    prompt="a red apple on a table", negative_prompt="blue", base_model="peer.safetensors", width=64, height=64, seed=3, steps=10,
    guidance_scale=4.0, sharpness=0.0, adm_scaler_positive=1.0, adm_scaler_negative=1.0, adm_scaler_end=0.0,
)  # fmt: skip


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def text_model(kind, config, tensors, pad):
    act = "quick_gelu" if config.quick_gelu else "gelu"
    model = kind(
        CLIPTextConfig(
            hidden_size=config.width, intermediate_size=config.mlp_width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, projection_dim=config.projection or 64, hidden_act=act,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=pad,
        )
    )  # fmt: skip
    names = model.state_dict().keys()
    wanted = {("" if n in names else "text_model.") + n if n not in tensors else n: t for n, t in tensors.items()}
    stripped = {n if n in names else n.removeprefix("text_model."): t for n, t in wanted.items()}
    missing, unexpected = model.load_state_dict(stripped, strict=False)
    assert not [n for n in missing if "position_ids" not in n] and not unexpected
    return model.eval()


def tokenizer(pad):
    merges = lzma.decompress(MERGES.read_bytes()).decode("utf-8")
    pairs = [tuple(line.split(" ")) for line in merges.splitlines()]
    return CLIPTokenizer(vocab=vocabulary(merges), merges=pairs, pad_token=pad, model_max_length=77)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    path = write_checkpoint(folder / "peer.safetensors", unet=UNET, vae=VAE, dtype=torch.float32)
    tensors = load_file(path)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(128, 256), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 1], attention_head_dim=[2, 4],
        cross_attention_dim=UNET.context_dim, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=UNET.adm_in_channels,
    )  # fmt: skip
    unet.load_state_dict(convert_ldm_unet_checkpoint(tensors, unet.config))
    vae = AutoencoderKL(
        block_out_channels=(128,) * 4, layers_per_block=1, latent_channels=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    vae.load_state_dict(convert_ldm_vae_checkpoint(tensors, vae.config))
    clip_l = part(tensors, "conditioner.embedders.0.transformer.")
    clip_g = from_open_clip(part(tensors, "conditioner.embedders.1.model."))
    projection = clip_g.pop("text_projection")
    clip_g["text_projection.weight"] = projection.T.contiguous()
    pipe = StableDiffusionXLPipeline(
        vae=vae.eval(), unet=unet.eval(), scheduler=EulerDiscreteScheduler(),
        text_encoder=text_model(CLIPTextModel, TINY_CLIP_L, clip_l, 49407),
        text_encoder_2=text_model(CLIPTextModelWithProjection, TINY_CLIP_G, clip_g, 0),
        tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"), add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return folder, pipe


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CASES = {
    "euler normal": (
        replace(NEUTRAL, sampler="euler", scheduler="normal"),
        EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace"),
    ),
    "dpmpp_2m karras": (
        replace(NEUTRAL, sampler="dpmpp_2m", scheduler="karras"),
        DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, timestep_spacing="linspace"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_whole_run_equals_diffusers(peer, tmp_path, case):
    folder, pipe = peer
    settings, pipe.scheduler = CASES[case]
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    pipeline = Pipeline(Catalog([folder], hash_cache=tmp_path / "hashes.json"), device, tmp_path)
    pipeline.refresh_everything(settings.base_model)
    [plan] = plan_images(settings)
    *_, last = pipeline.process_diffusion(settings, plan, pipeline.process_prompt(plan, settings))

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(settings.seed))
    sigma_max = 14.6146
    if isinstance(
        pipe.scheduler, EulerDiscreteScheduler
    ):  # it scales its first noise by sigma; training had sqrt(1 + sigma^2)
        noise = noise * (1 + sigma_max**2) ** 0.5 / sigma_max
    theirs = pipe(
        prompt=settings.prompt, negative_prompt=settings.negative_prompt, width=64, height=64, num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale, latents=noise, output_type="latent",
    ).images  # fmt: skip
    error = (last.x - theirs).norm() / theirs.norm()
    assert error < 1e-3

    pixels = torch.from_numpy(pipeline.decode(last.x, settings).copy()).float()
    with torch.no_grad():
        decoded = pipe.vae.decode(theirs / 0.13025).sample[0].permute(1, 2, 0)
    assert (pixels - ((decoded + 1) / 2).clamp(0, 1) * 255).abs().max() <= 1.5
