"""The SDXL refiner against diffusers' two pipelines, base halfway and refiner from there: same weights, same first noise."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file
from test_peer_flow import BETAS, NEUTRAL, peer
from tiny_refiners import TINY_REFINER, write_refiner

from core.device import DeviceChoice, choose_device
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.weights.files import Catalog

__all__ = ["peer"]  # the fixture: the base model's pipeline, and the folder of its checkpoint

REFINER = replace(TINY_REFINER, model_channels=128)


@pytest.fixture(scope="module")
def refiner(peer):
    folder, base = peer
    tensors = load_file(write_refiner(folder / "refiner.safetensors", unet=REFINER))
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(128, 256), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 1], attention_head_dim=[2, 4],
        cross_attention_dim=REFINER.context_dim, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=REFINER.adm_in_channels,
    )  # fmt: skip
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(floats, unet.config))
    # Its text encoder is the base model's bigG: the same weights in the published files.
    pipe = StableDiffusionXLImg2ImgPipeline(
        vae=base.vae, unet=unet.eval(), scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace"),
        text_encoder=None, tokenizer=None, text_encoder_2=base.text_encoder_2, tokenizer_2=base.tokenizer_2,
        requires_aesthetics_score=True, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_separate_swap_equals_diffusers_ensemble_of_experts(peer, refiner, tmp_path):
    folder, base = peer
    base.scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    settings = replace(
        NEUTRAL, sampler="euler", scheduler="normal", refiner_model="refiner.safetensors", refiner_switch=0.5,
        refiner_swap="separate",
    )  # fmt: skip
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    pipeline = Pipeline(Catalog([folder], hash_cache=tmp_path / "hashes.json"), device, tmp_path)
    pipeline.refresh_everything(settings.base_model, refiner_model=settings.refiner_model)
    [plan] = plan_images(settings)
    *_, last = pipeline.process_diffusion(settings, plan, pipeline.process_prompt(plan, settings))

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(settings.seed))
    sigma_max = 14.6146
    asked = {
        "prompt": settings.prompt, "negative_prompt": settings.negative_prompt, "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance_scale, "output_type": "latent",
    }  # fmt: skip
    half = base(**asked, width=64, height=64, latents=noise * (1 + sigma_max**2) ** 0.5 / sigma_max, denoising_end=0.5)
    theirs = refiner(**asked, image=half.images, denoising_start=0.5, aesthetic_score=6.0, negative_aesthetic_score=2.5)
    error = (last.x - theirs.images).norm() / theirs.images.norm()
    assert error < 1e-3
    assert (half.images - theirs.images).norm() / theirs.images.norm() > 0.02
