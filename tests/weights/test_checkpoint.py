"""Checkpoint files to networks: bit for bit, without copies, and with a sentence for every file that will not do."""

import json
import shutil
import struct
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.errors import BadModelFile, ModelNotFound
from core.models.clip import CLIPText, from_open_clip, to_open_clip
from core.models.configs import REFINER, SD15, TINY, TINY_CLIP_G, TINY_CLIP_L, TINY_VAE, CLIPConfig
from core.models.unet import UNet
from core.models.vae import VAE
from core.weights.checkpoint import load_checkpoint, load_vae
from tools import make_layout_lists as peer

UNET, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
CLIP_L, CLIP_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def stored(path):
    return load_file(path)


@pytest.fixture
def rewritten(tmp_path, stored):
    """Writes the checkpoint again with changes: tensors to put in, prefixes to leave out."""

    def rewritten(changes=None, without=(), name="changed.safetensors"):
        tensors = {key: value for key, value in stored.items() if not key.startswith(tuple(without) or ("\0",))}
        save_file({**tensors, **(changes or {})}, tmp_path / name)
        return tmp_path / name

    return rewritten


def part(tensors, prefix):
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def same(module, tensors):
    state = module.state_dict()
    assert state.keys() == tensors.keys()
    return all(torch.equal(state[name], tensors[name]) for name in state)


def test_all_parts_arrive_bit_for_bit_as_stored(path, stored):
    checkpoint = load_checkpoint(path)
    assert same(checkpoint.unet, part(stored, UNET))
    assert same(checkpoint.vae, part(stored, VAE_PREFIX))
    assert same(checkpoint.clip_l, part(stored, CLIP_L))
    assert same(checkpoint.clip_g, from_open_clip(part(stored, CLIP_G)))
    assert checkpoint.unet.config == TINY and checkpoint.vae.config == TINY_VAE
    assert checkpoint.clip_l.config == TINY_CLIP_L and checkpoint.clip_g.config == TINY_CLIP_G
    assert checkpoint.info.family == "sdxl"
    for module in (checkpoint.unet, checkpoint.vae, checkpoint.clip_l, checkpoint.clip_g):
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        assert not any(t.is_meta for t in (*module.parameters(), *module.buffers()))


def test_each_part_is_converted_to_its_type(path, stored):
    checkpoint = load_checkpoint(
        path, unet_dtype=torch.bfloat16, vae_dtype=torch.float32, text_dtype=torch.float16, device=torch.device("cpu")
    )
    assert same(checkpoint.unet, {name: t.to(torch.bfloat16) for name, t in part(stored, UNET).items()})
    assert same(checkpoint.vae, {name: t.float() for name, t in part(stored, VAE_PREFIX).items()})
    assert checkpoint.clip_l.text_model.final_layer_norm.weight.dtype == torch.float16


def test_a_device_stands_for_its_types(path):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="bf16", vae_precision="fp32"))
    checkpoint = load_checkpoint(path, device=device)
    assert checkpoint.unet.dtype == torch.bfloat16
    assert checkpoint.vae.dtype == torch.float32
    assert checkpoint.clip_g.text_projection.dtype == torch.float16  # as stored


def test_weights_that_keep_their_type_are_views_of_one_map(path):
    """All in one stretch of memory no longer than the file: so nothing was copied."""
    checkpoint = load_checkpoint(path)
    modules = (checkpoint.unet, checkpoint.vae, checkpoint.clip_l, checkpoint.clip_g)
    places = [p.data_ptr() for module in modules for p in module.parameters()]
    assert max(places) - min(places) < path.stat().st_size


def test_the_loaded_weights_can_be_changed_and_the_file_stays(path):
    before = path.read_bytes()
    checkpoint = load_checkpoint(path)
    with torch.no_grad():
        checkpoint.unet.out[2].weight.add_(1)
        checkpoint.vae.quant_conv.weight.zero_()
    assert path.read_bytes() == before


def test_loaded_networks_compute(path):
    checkpoint = load_checkpoint(path, unet_dtype=torch.float32, vae_dtype=torch.float32)
    with torch.inference_mode():
        ids = torch.zeros(1, 77, dtype=torch.long)
        hidden = torch.cat([checkpoint.clip_l(ids).hidden, checkpoint.clip_g(ids).hidden], dim=2)
        y = torch.cat([checkpoint.clip_g(ids).pooled, torch.zeros(1, 6 * 256)], dim=1)
        latent = checkpoint.unet(torch.randn(1, 4, 8, 8), torch.tensor([500.0]), hidden, y)
        assert checkpoint.vae.decode(latent).isfinite().all()


def test_tensors_out_of_line_with_their_type_are_read_too(tmp_path, stored):
    """A byte at the front of the data shifts all tensors to odd places; the format allows it."""
    entries, blob = {"pad": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, [b"\0"]
    at = 1
    for name, tensor in stored.items():
        data = tensor.numpy().tobytes()
        entries[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        blob.append(data)
        at += len(data)
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    file = tmp_path / "odd.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blob))
    checkpoint = load_checkpoint(file, vae_dtype=torch.float32)
    assert same(checkpoint.unet, part(stored, UNET))
    assert same(checkpoint.vae, {name: t.float() for name, t in part(stored, VAE_PREFIX).items()})


def test_what_tools_leave_in_files_does_no_harm(rewritten):
    extras = {
        "alphas_cumprod": torch.zeros(1000),
        "betas": torch.zeros(1000),
        "v_pred": torch.zeros(1),
        "ztsnr": torch.zeros(1),
        "denoiser.sigmas": torch.zeros(1000),
        "model_ema.decay": torch.zeros(1),
        f"{CLIP_L}text_model.embeddings.position_ids": torch.arange(77)[None],
        f"{CLIP_L}text_projection.weight": torch.zeros(64, 64),
        f"{CLIP_G}logit_scale": torch.tensor(4.6),
        f"{VAE_PREFIX}loss.logvar": torch.zeros(1),
        f"{VAE_PREFIX}model_ema.decay": torch.zeros(1),
    }
    checkpoint = load_checkpoint(rewritten(extras))
    assert checkpoint.info.prediction == "v" and checkpoint.info.zero_terminal_snr


def test_both_spellings_of_the_projection_give_the_same_encoder(rewritten, stored):
    """One of them is the other way round (register: Q24)."""
    matrix = stored[f"{CLIP_G}text_projection"]
    other = rewritten({f"{CLIP_G}text_projection.weight": matrix.T.contiguous()}, without=[f"{CLIP_G}text_projection"])
    assert torch.equal(load_checkpoint(other).clip_g.text_projection, matrix)


def test_an_eight_bit_file_computes_in_a_type_that_networks_have(rewritten, stored):
    eight = {name: t.to(torch.float8_e4m3fn) for name, t in stored.items() if name.startswith(UNET)}
    unet = load_checkpoint(rewritten(eight)).unet
    assert unet.dtype == torch.float32
    assert same(unet, {name[len(UNET) :]: t.float() for name, t in eight.items()})


@pytest.mark.parametrize(
    "changes, without, words",
    [
        ({}, [VAE_PREFIX], "lacks the autoencoder"),
        ({}, [CLIP_L], "lacks the text encoder CLIP-L"),
        ({}, [CLIP_G], "lacks the text encoder CLIP-G"),
        ({}, [UNET], "a checkpoint with network, text encoders and VAE was wanted"),
        ({}, [f"{UNET}out.0"], "the network lacks tensors, 2 in all: out.0.bias, out.0.weight. Download"),
        ({f"{UNET}extra.weight": torch.zeros(1)}, [], "the network has unknown tensors, 1 in all: extra.weight"),
        ({}, [f"{VAE_PREFIX}decoder.mid"], "the VAE lacks .*decoder.mid"),
        (
            {f"{VAE_PREFIX}quant_conv.weight": torch.zeros(8, 4, 1, 1)},
            [],
            r"quant_conv.weight has the shape \[8, 4, 1, 1\]",
        ),
        (
            {f"{CLIP_L}text_model.final_layer_norm.bias": torch.zeros(3)},
            [],
            "CLIP-L.*final_layer_norm.bias has the shape",
        ),
        ({}, [f"{CLIP_G}transformer.resblocks.1."], "CLIP-G has unknown tensors"),
        (
            {},
            [f"{VAE_PREFIX}encoder.conv_in.weight"],
            "the VAE cannot be read: the tensor encoder.conv_in.weight is missing",
        ),
    ],
)
def test_a_file_with_wrong_parts_is_told_by_name(rewritten, changes, without, words):
    with pytest.raises(BadModelFile, match=f"changed.safetensors.*{words}"):
        load_checkpoint(rewritten(changes, without))


def test_parts_that_do_not_belong_together_are_told(rewritten, stored):
    wider = CLIPText(CLIPConfig(width=128, layers=1, mlp_width=128)).state_dict()
    with pytest.raises(BadModelFile, match="224 wide together, and the network wants 160"):
        load_checkpoint(rewritten({CLIP_L + name: t for name, t in wider.items()}, without=[CLIP_L]))


def test_another_family_is_told(rewritten):
    sd2 = replace(TINY, context_dim=1024, adm_in_channels=None)
    changed = rewritten({UNET + name: t for name, t in UNet(sd2).state_dict().items()}, without=[UNET])
    with pytest.raises(
        BadModelFile, match=r"changed\.safetensors is a Stable Diffusion 2 .*Easel needs an SDXL checkpoint"
    ):
        load_checkpoint(changed)


def test_truncated_pickled_and_renamed_files_are_told_and_nothing_is_renamed(tmp_path, path):
    """D72: a file that cannot be read keeps its name. Register: Q27, Q28."""
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    torch.save({"a": torch.zeros(3)}, tmp_path / "pickle.ckpt")
    shutil.copy(tmp_path / "pickle.ckpt", tmp_path / "renamed.safetensors")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for name, words in (("cut.safetensors", "cut off"), ("pickle.ckpt", "convert"), ("renamed.safetensors", "pickle")):
        with pytest.raises(BadModelFile, match=f"{name}.*{words}"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(ModelNotFound):
        load_checkpoint(tmp_path / "none.safetensors")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_autoencoder_by_itself_loads_in_all_three_layouts(tmp_path):
    torch.manual_seed(0)
    small = {**peer.VAE, "block_out_channels": (32, 32, 64, 64), "norm_num_groups": 8, "layers_per_block": 1}
    other = AutoencoderKL(**small).state_dict()
    ldm = {name: t.contiguous() for name, t in peer.vae_to_ldm(other).items()}
    files = {"diffusers": other, "plain": ldm, "prefixed": {VAE_PREFIX + name: t for name, t in ldm.items()}}
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        vae = load_vae(tmp_path / f"{name}.safetensors")
        assert isinstance(vae, VAE) and same(vae, ldm)


def test_refiner_and_sd15_plans_load_with_the_one_encoder_they_have(tmp_path):
    refiner = replace(REFINER, model_channels=32, context_dim=64, adm_in_channels=64 + 5 * 256)
    sd15 = replace(SD15, model_channels=32, context_dim=64)
    clip = CLIPText(CLIPConfig(width=64, layers=1, mlp_width=64, projection=64)).state_dict()
    vae = {VAE_PREFIX + name: t for name, t in VAE(TINY_VAE).state_dict().items()}
    text_g = {f"conditioner.embedders.0.model.{name}": t for name, t in to_open_clip(clip).items()}
    bare = {
        name.removeprefix("text_model."): t for name, t in clip.items() if name != "text_projection"
    }  # as old files
    text_l = {f"cond_stage_model.transformer.{name}": t for name, t in bare.items()}
    for name, config, text in (("refiner", refiner, text_g), ("sd15", sd15, text_l)):
        unet = {UNET + key: t for key, t in UNet(config).state_dict().items()}
        save_file({**unet, **vae, **text}, tmp_path / f"{name}.safetensors")
        checkpoint = load_checkpoint(tmp_path / f"{name}.safetensors")
        assert checkpoint.unet.config == config
        assert (checkpoint.clip_l is None, checkpoint.clip_g is None) == (name == "refiner", name == "sd15")


@pytest.mark.parametrize("storage", [None, torch.float8_e4m3fn])
def test_loading_can_be_broken_off_before_each_tensor(path, storage):
    """D20: a checkpoint may take a minute to read."""

    class Enough(Exception):
        pass

    def check():
        calls.append(1)
        if len(calls) >= most:
            raise Enough

    wanted = DeviceChoice(device="cpu", unet_precision="fp32" if storage is None else "fp8")
    device = choose_device(wanted)
    calls, most = [], 10**9
    whole = load_checkpoint(path, device=device, check=check)
    tensors = len(calls)
    assert tensors == sum(len(each.state_dict()) for each in (whole.unet, whole.vae, whole.clip_l, whole.clip_g))
    for most in (1, 5, tensors // 2, tensors):
        calls = []
        with pytest.raises(Enough):
            load_checkpoint(path, device=device, check=check)
        assert len(calls) <= most + 1  # the other thread, which is about to ask as well
