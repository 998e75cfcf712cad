"""The same LoRA files in diffusers with PEFT, which computes them beside the weights, and in ours, merged."""

import copy

import peft
import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from loras import kohya, low_rank, modules, write
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from test_peer_flow import UNET, part, text_model, tokenizer
from tiny import write_checkpoint
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from core.models.clip import from_open_clip
from core.models.configs import TINY_CLIP_G, TINY_CLIP_L
from core.settings import Lora
from core.weights.checkpoint import load_checkpoint
from core.weights.files import Files
from core.weights.lora import Loras, Model
from core.weights.lora_names import network_names

LINEAR = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in"]
TEXT = ["q_proj", "v_proj", "out_proj", "fc1", "fc2"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj", "conv_in", "linear_1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "peer.safetensors", unet=UNET, dtype=torch.float32)


@pytest.fixture(scope="module")
def plain(checkpoint):
    tensors = load_file(checkpoint)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(128, 256), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 1], attention_head_dim=[2, 4],
        cross_attention_dim=UNET.context_dim, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=UNET.adm_in_channels,
    )  # fmt: skip
    unet.load_state_dict(convert_ldm_unet_checkpoint(tensors, unet.config))
    clip_l = part(tensors, "conditioner.embedders.0.transformer.")
    clip_g = from_open_clip(part(tensors, "conditioner.embedders.1.model."))
    clip_g["text_projection.weight"] = clip_g.pop("text_projection").T.contiguous()
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(), unet=unet.eval(), scheduler=EulerDiscreteScheduler(),
        text_encoder=text_model(CLIPTextModel, TINY_CLIP_L, clip_l, 49407),
        text_encoder_2=text_model(CLIPTextModelWithProjection, TINY_CLIP_G, clip_g, 0),
        tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"), add_watermarker=False,
    )  # fmt: skip


@pytest.fixture
def pipe(plain):
    """Networks of its own, so that adapters end with the test."""
    components = {name: value for name, value in plain.components.items() if value is not None}
    for name in ("unet", "text_encoder", "text_encoder_2"):
        components[name] = copy.deepcopy(components[name])
    return StableDiffusionXLPipeline(**components, add_watermarker=False)


@pytest.fixture
def ours(checkpoint):
    loaded = load_checkpoint(checkpoint)
    return Model("peer.safetensors", loaded.unet, loaded.clip_l, loaded.clip_g)


def inputs():
    generator = torch.Generator().manual_seed(5)
    tensors = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([901.0, 7.0]),
        torch.randn(2, 77, UNET.context_dim, generator=generator),
        torch.randn(2, 96, generator=generator),
        torch.randint(0, 49406, (2, 77), generator=generator),
    )
    tensors[-1][:, 40] = 49407  # the end of the text, where the pooled vector is taken from
    return tensors


@torch.no_grad()
def of_peer(pipe):
    x, t, context, pooled, ids = inputs()
    conditions = {"text_embeds": pooled, "time_ids": torch.zeros(2, 6)}
    clip_g = pipe.text_encoder_2(ids, output_hidden_states=True)
    return {
        "unet": pipe.unet(x, t, context, added_cond_kwargs=conditions).sample,
        "clip_l": pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2],
        "clip_g": clip_g.hidden_states[-2],
        "pooled": clip_g.text_embeds,
    }


@torch.no_grad()
def of_ours(model):
    x, t, context, pooled, ids = inputs()
    sizes = torch.cat([torch.ones(2, 6, 128), torch.zeros(2, 6, 128)], dim=2).flatten(1)  # cosines and sines of 0
    return {
        "unet": model.unet(x, t, context, torch.cat([pooled, sizes], dim=1)),
        "clip_l": model.clip_l(ids, -2).hidden,
        "clip_g": model.clip_g(ids, -2).hidden,
        "pooled": model.clip_g(ids, -2).pooled,
    }


def far(one, other):
    return {name: float((one[name] - other[name]).norm() / other[name].norm()) for name in one}


def compare(pipe, ours, folder, strength, parts=("unet", "clip_l", "clip_g")):
    """Both with the file "a" at `strength`: the LoRA must tell, and both must agree; without it, bit for bit as before."""
    before, plain = of_ours(ours), of_peer(pipe)
    assert max(far(before, plain).values()) < 1e-5
    loras = Loras(Files([folder], "loras"))
    matched = loras.match(ours, [Lora("a.safetensors", strength)])
    assert not matched.warnings
    loras.put(ours, matched, device=torch.device("cpu"))
    pipe.load_lora_weights(folder, weight_name="a.safetensors", adapter_name="a", low_cpu_mem_usage=False)
    pipe.set_adapters("a", strength)
    agree(of_ours(ours), of_peer(pipe), before, parts)
    loras.put(ours, loras.match(ours, []), device=torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in of_ours(ours).items())


def agree(ours, theirs, before, parts):
    assert all(far(before, theirs)[name] > 0.01 for name in parts), far(before, theirs)
    assert max(far(ours, theirs).values()) < 5e-5, far(ours, theirs)


def peer_names():
    """Our module -> diffusers' name for it."""
    shapes = modules(UNET)["unet"]
    return {module: name for name, module in network_names(shapes, UNET).items() if ".processor" not in name and "_blocks." in name
            and name.startswith(("down_", "mid_", "up_"))}  # fmt: skip


def spelled(spelling):
    """One LoRA as tensors, in the words of those who write such files."""
    generator, tensors, theirs = torch.Generator().manual_seed(1), {}, peer_names()
    for side, shapes in modules(UNET).items():
        encoder = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}.get(side)
        for module, shape in shapes.items():
            up, down = low_rank(shape, 4, generator, size=0.1)
            if spelling.startswith("kohya"):
                key = kohya(
                    side, theirs[module] if encoder is None and spelling == "kohya, diffusers' blocks" else module
                )
                tensors |= {
                    f"{key}.lora_up.weight": up,
                    f"{key}.lora_down.weight": down,
                    f"{key}.alpha": torch.tensor(2.0),
                }
            elif spelling == "PEFT":
                key = f"{encoder}.{module}" if encoder else f"unet.{theirs[module]}"
                tensors |= {f"{key}.lora_B.weight": up, f"{key}.lora_A.weight": down}
            elif encoder:
                tensors |= {
                    f"{encoder}.{module}.lora_linear_layer.up.weight": up,
                    f"{encoder}.{module}.lora_linear_layer.down.weight": down,
                }
            else:
                head, dot, last = theirs[module].rpartition(".to_")
                key = f"unet.{head}.processor.to_{last.removesuffix('.0')}" if dot else f"unet.{theirs[module]}"
                joint = "_lora" if dot else ".lora"
                tensors |= {f"{key}{joint}.up.weight": up, f"{key}{joint}.down.weight": down}
    return tensors


@pytest.mark.parametrize(
    ("spelling", "strength"),
    [("kohya", 1.0), ("kohya, diffusers' blocks", -0.6), ("PEFT", 1.7), ("oldest diffusers", 0.4)],
)
def test_every_spelling_does_what_diffusers_does_with_it(pipe, ours, tmp_path, spelling, strength):
    write(tmp_path / "a.safetensors", spelled(spelling))
    compare(pipe, ours, tmp_path, strength)


def adapted(network, config):
    """The adapter that PEFT puts on `network`, of random numbers, as it saves it; the network is as before."""
    trained = copy.deepcopy(network)
    trained.add_adapter(config)
    generator = torch.Generator().manual_seed(2)
    state = get_peft_model_state_dict(trained, adapter_name="default")
    for name, tensor in state.items():
        if "magnitude" in name:
            tensor.mul_(1 + 0.3 * torch.rand(tensor.shape, generator=generator))
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return state


@pytest.mark.parametrize(
    "extras", [{}, {"use_rslora": True}, {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_k": 5}}]
)
@pytest.mark.parametrize("text", [True, False])
def test_a_file_that_diffusers_saved(pipe, ours, tmp_path, extras, text):
    """Convolutions too, and the text projection; alpha is in its metadata."""
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR + CONVOLUTIONS, **extras)
    layers = {"unet_lora_layers": adapted(pipe.unet, config), "unet_lora_adapter_metadata": config.to_dict()}
    if text:
        config = peft.LoraConfig(r=4, lora_alpha=3, target_modules=[*TEXT, "text_projection"])
        for number, encoder in (("", pipe.text_encoder), ("_2", pipe.text_encoder_2)):
            layers |= {
                f"text_encoder{number}_lora_layers": adapted(encoder, config),
                f"text_encoder{number}_lora_adapter_metadata": config.to_dict(),
            }
    pipe.save_lora_weights(tmp_path, weight_name="a.safetensors", **layers)
    compare(pipe, ours, tmp_path, 1.0, ("unet", "clip_l", "clip_g", "pooled") if text else ("unet",))


def test_q08_dora_as_diffusers_saves_it(pipe, ours, tmp_path):
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=[*LINEAR, "conv1", "conv_shortcut"], use_dora=True)
    pipe.save_lora_weights(
        tmp_path, unet_lora_layers=adapted(pipe.unet, config), weight_name="a.safetensors",
        unet_lora_adapter_metadata=config.to_dict(),
    )  # fmt: skip
    compare(pipe, ours, tmp_path, 1.0, ("unet",))


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=4, alpha=2, target_modules=[*LINEAR, "conv1"], use_effective_conv2d=False),
        peft.LoHaConfig(r=4, alpha=2, target_modules=[*LINEAR, "conv1"], use_effective_conv2d=True),
        peft.LoKrConfig(r=4, alpha=2, target_modules=[*LINEAR, "conv1"], use_effective_conv2d=True),
        peft.LoKrConfig(r=4, alpha=2, target_modules=[*LINEAR, "conv1"], decompose_both=True, decompose_factor=8),
    ],
    ids=["LoHa", "LoHa, kernels", "LoKr, kernels", "LoKr, both"],
)
def test_loha_and_lokr_of_peft(pipe, ours, tmp_path, config):
    peft.inject_adapter_in_model(config, pipe.unet)
    generator = torch.Generator().manual_seed(2)
    before = of_ours(ours)
    state = get_peft_model_state_dict(pipe.unet)
    for tensor in state.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    prefixed = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    config.save_pretrained(tmp_path)
    write(tmp_path / "adapter_model.safetensors", prefixed)
    loras = Loras(Files([tmp_path], "loras"))
    loras.put(ours, loras.match(ours, [Lora("adapter_model.safetensors")]), device=torch.device("cpu"))
    agree(of_ours(ours), of_peer(pipe), before, ("unet",))
