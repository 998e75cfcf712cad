"""Refiner files: which can be one, what is read of them, and what an unsuitable one is told to be."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from tiny_refiners import TINY_REFINER, TINY_SD15, write_refiner, write_sd15

from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, ModelNotFound
from core.models.clip import CLIPText
from core.models.configs import (
    CLIP_G,
    CLIP_L,
    REFINER,
    SD15,
    SDXL,
    SSD_1B,
    TINY,
    TINY_CLIP_G,
    TINY_CLIP_L,
    TINY_VAE,
    VEGA,
    CLIPConfig,
)
from core.models.unet import UNet
from core.models.vae import VAE
from core.weights.info import model_info
from core.weights.refiner import check_pair, load_refiner, twin


@pytest.fixture(scope="module")
def device():
    return choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refiners")
    return {
        "sdxl": write_checkpoint(folder / "sdxl.safetensors"),
        "sdxl-refiner": write_refiner(folder / "refiner.safetensors"),
        "sd15": write_sd15(folder / "sd15.safetensors"),
    }


@pytest.mark.parametrize(("family", "config"), [("sdxl", TINY), ("sdxl-refiner", TINY_REFINER), ("sd15", TINY_SD15)])
def test_each_family_loads_its_network_and_sd15_its_vae_too(files, device, family, config):
    refiner = load_refiner(files[family], device=device)
    assert refiner.info.family == family and refiner.unet.config == config
    assert (refiner.vae is not None) == (family == "sd15")
    stored = load_file(files[family])["model.diffusion_model.out.2.bias"]
    torch.testing.assert_close(refiner.unet.out[2].bias, stored.float(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["conditioner.", "first_stage_model."])
def test_a_refiners_text_encoders_need_not_be_there_nor_an_sdxl_vae(files, device, tmp_path, prefix):
    tensors = load_file(files["sdxl"])
    save_file({n: t for n, t in tensors.items() if not n.startswith(prefix)}, tmp_path / "part.safetensors")
    assert load_refiner(tmp_path / "part.safetensors", device=device).info.family == "sdxl"


def test_an_sd15_refiner_must_bring_its_vae(device, tmp_path):
    path = write_sd15(tmp_path / "no_vae.safetensors", vae=False)
    with pytest.raises(BadModelFile, match=r"no_vae\.safetensors lacks the autoencoder"):
        load_refiner(path, device=device)


def test_a_family_that_can_be_no_refiner_is_named_with_those_that_can(device, tmp_path):
    """Q25: another family loads in the program this comes from, and fails later."""
    tensors = {
        name.replace("model.diffusion_model.", "", 1): t
        for name, t in UNet(TINY).state_dict().items()
        if not name.startswith("label_emb")
    }
    wide = {
        n: torch.zeros(t.shape[0], 1024) if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else t
        for n, t in tensors.items()
    }
    save_file({f"model.diffusion_model.{n}": t.contiguous() for n, t in wide.items()}, tmp_path / "two.safetensors")
    assert model_info(tmp_path / "two.safetensors").family == "sd2"
    with pytest.raises(BadModelFile, match="Stable Diffusion 2 checkpoint") as caught:
        load_refiner(tmp_path / "two.safetensors", device=device)
    for words in ("SDXL refiner", "SDXL checkpoint", "SSD-1B", "Segmind Vega", "Stable Diffusion 1.5"):
        assert words in str(caught.value)


def test_a_refiner_whose_own_vae_makes_latents_of_another_kind_is_told(files, device, tmp_path):
    prefix = "first_stage_model."
    tensors = {name: t for name, t in load_file(files["sd15"]).items() if not name.startswith(prefix)}
    other = VAE(replace(TINY_VAE, channel_mult=(1, 1, 2))).state_dict()
    save_file(tensors | {prefix + name: tensor for name, tensor in other.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(BadModelFile, match=r"odd\.safetensors: the VAE makes latents of another kind, .* at 1/4"):
        load_refiner(tmp_path / "odd.safetensors", device=device)


def test_a_missing_file_is_told(device, tmp_path):
    with pytest.raises(ModelNotFound):
        load_refiner(tmp_path / "nothing.safetensors", device=device)


@pytest.mark.parametrize("family", ["sdxl", "sdxl-refiner", "sd15"])
def test_a_refiner_of_another_width_than_the_base_models_text_is_refused(files, device, family):
    refiner = load_refiner(files[family], device=device)
    with torch.device("meta"):
        clip_l, clip_g = CLIPText(TINY_CLIP_L), CLIPText(TINY_CLIP_G)
        wide = CLIPText(CLIPConfig(width=128, layers=1, mlp_width=128))
    check_pair(refiner, clip_l, clip_g)
    with pytest.raises(BadModelFile, match=r"wants text conditions \d+ wide"):
        check_pair(refiner, wide, wide)


@pytest.mark.parametrize(
    ("family", "config"),
    [("sdxl", SDXL), ("ssd-1b", SSD_1B), ("vega", VEGA), ("sdxl-refiner", REFINER), ("sd15", SD15)],
)
def test_every_published_refiner_understands_a_published_sdxl(family, config):
    clip_l, clip_g = SimpleNamespace(config=CLIP_L), SimpleNamespace(config=CLIP_G)
    check_pair(
        SimpleNamespace(info=SimpleNamespace(family=family), unet=SimpleNamespace(config=config)), clip_l, clip_g
    )


def test_a_twin_shares_every_weight_and_loses_none_to_the_other(files, device):
    unet = load_refiner(files["sdxl"], device=device).unet
    other = twin(unet)
    assert other is not unet
    theirs = dict(other.named_parameters())
    assert all(theirs[name] is weight for name, weight in unet.named_parameters()) and len(theirs) > 100
    before = unet.out[2].bias
    unet.out[2].bias = torch.nn.Parameter(before + 1, requires_grad=False)
    assert other.out[2].bias is before
