"""Metadata as other programs write it, composed by hand after the documented structure of each format."""

import gzip
import io
import json
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

A1111 = (
    "masterpiece, a lighthouse at dusk <lora:oil_paint:0.7>, waves <lora:sub detail:1:0.5>\nsecond line\n"
    "Negative prompt: blurry, lowres\n"
    "Steps: 28, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 832x1216, "
    "Model hash: 31e35c80fc, Model: sd_xl_base_1.0, VAE hash: 63aeecb90f, VAE: sdxl_vae.safetensors, Clip skip: 2, RNG: CPU, "
    'Denoising strength: 0.35, Hires upscale: 1.5, Hires steps: 12, Hires upscaler: 4x-UltraSharp, Lora hashes: "oil_paint: '
    'a1b2c3d4e5f6, sub detail: 0123456789ab", Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.75, '
    'TI hashes: "easyneg: 66a7279a88", Version: v1.10.1'
)
FOOOCUS_RECORD = {
    "prompt": "a lighthouse at dusk",
    "negative_prompt": "blurry",
    "prompt_expansion": "a lighthouse at dusk, glowing, intricate",
    "styles": "['Fooocus V2', 'Fooocus Enhance', \"Painter's Delight\"]",
    "performance": "Speed",
    "steps": 30,
    "resolution": "(896, 1152)",
    "guidance_scale": 4.0,
    "sharpness": 2.0,
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8Rundiffusion",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "clip_skip": 2,
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "vae": "Default (model)",
    "seed": "9223372036854775807",
    "lora_combined_1": "sd_xl_offset_example-lora_1.0 : 0.1",
    "metadata_scheme": "fooocus",
    "version": "Fooocus v2.5.5",
}
FOOOCUS = json.dumps(
    FOOOCUS_RECORD
    | {
        "base_model_hash": "aeb7e9e689",
        "full_prompt": ["a lighthouse at dusk, glowing, intricate"],
        "full_negative_prompt": ["blurry"],
        "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    },
    sort_keys=True,
)
FOOOCUS_LOG = json.dumps(
    {
        "Prompt": "a fox",
        "Negative Prompt": "",
        "Styles": "['SAI Anime']",
        "Performance": "Extreme Speed",
        "Resolution": "(1024, 1024)",
        "Sharpness": 0.0,
        "Guidance Scale": 1.0,
        "ADM Guidance": "(1.0, 1.0, 0.0)",
        "Base Model": "sub/animaPencilXL.safetensors",
        "Refiner Model": "None",
        "Refiner Switch": 1.0,
        "Sampler": "lcm",
        "Scheduler": "lcm",
        "Seed": 5,
        "LoRA 1": "ink.safetensors : 0.5",
        "LoRA 2": "sdxl_lcm_lora.safetensors : 1.0",
        "Version": "v2.1.8",
    }
)
FOOOCUS_TEXT = (
    "cinematic still a fox . emotional, harmonious\n"
    "Negative prompt: anime, cartoon, ugly\n"
    "Steps: 40, Sampler: DPM++ 2M SDE Karras, Seed: 77, Size: 1152x896, CFG scale: 4, Sharpness: 3.5, "
    'ADM Guidance: "(1.5, 0.8, 0.3)", Model: sd_xl_base_1.0, Model hash: 31e35c80fc, Performance: Speed, Scheduler: karras, '
    'VAE: Default (model), Raw prompt: "a fox", Raw negative prompt: ugly, Refiner: sd_xl_refiner_1.0, '
    "Refiner hash: 7440042bbd, Overwrite Switch: 30, Refiner Swap Method: separate, Adaptive CFG: 5, Clip skip: 2, "
    'FreeU: "(1.01, 1.02, 0.99, 0.95)", Lora hashes: "ink: 0123456789", Lora weights: "ink: -0.5", Version: Fooocus v2.5.5'
)

COMFYUI_GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
            "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
        "_meta": {"title": "KSampler"},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl\\sd_xl_base_1.0.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1280, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["12", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["12", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["13", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "first.safetensors", "strength_model": 0.8, "strength_clip": 0.8, "model": ["4", 0], "clip": ["4", 1],
        },
    },
    "11": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "second.safetensors", "strength_model": -0.5, "strength_clip": 1.0, "model": ["10", 0],
            "clip": ["10", 1],
        },
    },
    "12": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["11", 1]}},
    "13": {"class_type": "VAELoader", "inputs": {"vae_name": "sdxl_vae.safetensors"}},
}  # fmt: skip
COMFYUI = json.dumps(COMFYUI_GRAPH)

# The same picture's graph as the page draws it: widgets by position, links in a list of their own.
COMFYUI_DRAWN = json.dumps(
    {
        "last_node_id": 9,
        "nodes": [
            {
                "id": 3, "type": "KSampler", "mode": 0,
                "inputs": [
                    {"name": "model", "type": "MODEL", "link": 1}, {"name": "positive", "type": "CONDITIONING", "link": 4},
                    {"name": "negative", "type": "CONDITIONING", "link": 6}, {"name": "latent_image", "type": "LATENT", "link": 2},
                ],
                "widgets_values": [156680208700286, "randomize", 20, 8, "euler", "normal", 1],
            },
            {
                "id": 4, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [],
                "outputs": [{"type": "MODEL"}, {"type": "CLIP"}, {"type": "VAE"}],
                "widgets_values": ["sd_xl_base_1.0.safetensors"],
            },
            {"id": 5, "type": "EmptyLatentImage", "mode": 0, "widgets_values": [1024, 768, 1]},
            {
                "id": 6, "type": "CLIPTextEncode", "mode": 0, "inputs": [{"name": "clip", "type": "CLIP", "link": 3}],
                "widgets_values": ["a lighthouse"],
            },
            {
                "id": 7, "type": "CLIPTextEncode", "mode": 0, "inputs": [{"name": "clip", "type": "CLIP", "link": 5}],
                "widgets_values": ["text, watermark"],
            },
            {
                "id": 8, "type": "VAEDecode", "mode": 0,
                "inputs": [{"name": "samples", "type": "LATENT", "link": 7}, {"name": "vae", "type": "VAE", "link": 8}],
            },
            {"id": 9, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 9}]},
            {  # passed by
                "id": 10, "type": "LoraLoaderModelOnly", "mode": 4, "inputs": [{"name": "model", "type": "MODEL", "link": 10}],
                "outputs": [{"type": "MODEL"}], "widgets_values": ["off.safetensors", 1],
            },
            {"id": 11, "type": "Note", "mode": 0, "widgets_values": ["a remark"]},
        ],
        "links": [
            [1, 10, 0, 3, 0, "MODEL"], [2, 5, 0, 3, 3, "LATENT"], [3, 4, 1, 6, 0, "CLIP"], [4, 6, 0, 3, 1, "CONDITIONING"],
            [5, 4, 1, 7, 0, "CLIP"], [6, 7, 0, 3, 2, "CONDITIONING"], [7, 3, 0, 8, 0, "LATENT"], [8, 4, 2, 8, 1, "VAE"],
            [9, 8, 0, 9, 0, "IMAGE"], [10, 4, 0, 10, 0, "MODEL"],
        ],
        "version": 0.4,
    }
)  # fmt: skip

INVOKEAI = json.dumps(
    {
        "generation_mode": "sdxl_txt2img",
        "positive_prompt": "a lighthouse",
        "negative_prompt": "fog",
        "width": 1024,
        "height": 1152,
        "seed": 1906425342,
        "rand_device": "cpu",
        "cfg_scale": 6.0,
        "cfg_rescale_multiplier": 0.25,
        "steps": 32,
        "scheduler": "dpmpp_2m_sde_k",
        "clip_skip": 0,
        "model": {"key": "9b7e8f00", "hash": "blake3:00ff", "name": "Juggernaut XL v9", "base": "sdxl", "type": "main"},
        "loras": [
            {"model": {"key": "1", "hash": "blake3:11", "name": "ink", "base": "sdxl", "type": "lora"}, "weight": 0.75}
        ],
        "vae": {"key": "2", "name": "sdxl-vae-fp16-fix", "base": "sdxl", "type": "vae"},
        "positive_style_prompt": "oil on canvas",
        "negative_style_prompt": "",
        "strength": 0.6,
        "app_version": "4.2.8",
    }
)
INVOKEAI_OLD = json.dumps(
    {
        "model": "stable diffusion",
        "model_weights": "stable-diffusion-1.5",
        "model_hash": "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516",
        "app_id": "invoke-ai/InvokeAI",
        "app_version": "2.3.5",
        "image": {
            "prompt": [{"prompt": "a lighthouse [fog] [rain]", "weight": 1.0}],
            "steps": 50,
            "cfg_scale": 7.5,
            "threshold": 0.0,
            "perlin": 0.2,
            "height": 512,
            "width": 768,
            "seed": 3357757885,
            "seamless": False,
            "type": "txt2img",
            "sampler": "k_euler_a",
            "variations": [],
        },
    }
)
INVOKEAI_DREAM = r'"a \"small\" lighthouse [fog]" -s 50 -S 3357757885 -W 512 -H 640 -C 7.5 -A k_lms'

NOVELAI_COMMENT = json.dumps(
    {
        "prompt": "1girl, {{lighthouse}}, [rain], hat (red), 1.5::big hat::",
        "steps": 28,
        "height": 1216,
        "width": 832,
        "scale": 5.0,
        "uncond_scale": 1.0,
        "cfg_rescale": 0.2,
        "seed": 2614183361,
        "n_samples": 1,
        "hide_debug_overlay": False,
        "noise_schedule": "karras",
        "sampler": "k_euler_ancestral",
        "sm": True,
        "sm_dyn": False,
        "uc": "lowres, {bad}",
        "request_type": "PromptGenerateRequest",
        "signed_hash": "x" * 88,
    }
)
NOVELAI = {
    "Title": "NovelAI generated image",
    "Description": "1girl, {{lighthouse}}, [rain], hat (red), 1.5::big hat::",
    "Software": "NovelAI",
    "Source": "NovelAI Diffusion V4 37442FCA",
    "Comment": NOVELAI_COMMENT,
}

SWARMUI = json.dumps(
    {
        "sui_image_params": {
            "prompt": "a lighthouse <lora:ink:0.4>",
            "negativeprompt": "fog",
            "model": "OfficialStableDiffusion/sd_xl_base_1.0",
            "images": 1,
            "seed": 1185430318,
            "steps": 20,
            "cfgscale": 7.0,
            "aspectratio": "1:1",
            "width": 1024,
            "height": 1024,
            "sampler": "dpmpp_2m",
            "scheduler": "karras",
            "vae": "sdxl_vae",
            "clipstopatlayer": -2,
            "loras": ["style/watercolor"],
            "loraweights": ["0.6"],
            "refinermodel": "OfficialStableDiffusion/sd_xl_refiner_1.0",
            "refinercontrolpercentage": 0.2,
            "refinermethod": "StepSwap",
            "variationseed": 12,
            "automaticvae": True,
            "swarm_version": "0.9.4.0",
        },
        "sui_extra_data": {"date": "2025-02-01", "generation_time": "0.01 (prep) and 4.84 (gen) seconds"},
        "sui_models": [
            {
                "name": "OfficialStableDiffusion/sd_xl_base_1.0.safetensors",
                "param": "model",
                "hash": "0xd7a9105a900fd52748f20725",
            }
        ],
    },
    indent=2,
)

TEXTS = {
    "a1111": A1111,
    "fooocus": FOOOCUS,
    "fooocus log": FOOOCUS_LOG,
    "fooocus text": FOOOCUS_TEXT,
    "comfyui": COMFYUI,
    "comfyui drawn": COMFYUI_DRAWN,
    "invokeai": INVOKEAI,
    "invokeai old": INVOKEAI_OLD,
    "novelai": NOVELAI_COMMENT,
    "swarmui": SWARMUI,
}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def png(texts, kind="tEXt", mode="RGB", pixels=None):
    """A PNG with `texts` in chunks of a kind: tEXt, zTXt or iTXt (packed or not)."""
    info = PngInfo()
    for name, text in texts.items():
        if kind.startswith("iTXt"):
            info.add_itxt(name, text, zip=kind.endswith("packed"))
        else:
            info.add_text(name, text, zip=kind == "zTXt")
    data = io.BytesIO()
    picture = Image.fromarray(PIXELS if pixels is None else pixels)
    picture.convert(mode if pixels is None else picture.mode).save(data, "png", pnginfo=info)
    return data.getvalue()


def with_exif(tags, output_format="jpeg", sub=True, **options):
    """A JPEG or WebP with Exif `tags` by number; the comment stands in the sub-directory, or in the first one."""
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag == 0x9286 and sub:
            exif.get_ifd(0x8769)[tag] = value
        else:
            exif[tag] = value
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, output_format, exif=exif, **options)
    return data.getvalue()


def comment(text):
    """The bytes of a UserComment."""
    return b"UNICODE\0" + text.encode("utf-16-be")


def with_hidden(payload, packed=True, width=64, height=200):
    """Pixels (H, W, 4) with `payload` in the lowest bit of alpha, column by column from the top left."""
    data = gzip.compress(payload) if packed else payload
    signature = b"stealth_pngcomp" if packed else b"stealth_pnginfo"
    bits = np.unpackbits(np.frombuffer(signature + (8 * len(data)).to_bytes(4, "big") + data, dtype=np.uint8))
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)
    alpha = np.full(width * height, 255, dtype=np.uint8)
    alpha[: len(bits)] = 254 | bits
    pixels[..., 3] = alpha.reshape(width, height).T
    return pixels


def chunk(kind, data):
    """A PNG chunk."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_with(*chunks):
    """A PNG with `chunks` behind its head."""
    plain = png({})
    return plain[:33] + b"".join(chunks) + plain[33:]
