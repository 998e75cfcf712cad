"""sources: where model files are published, how large they are, and the SHA-256 of those that are known. No torch.

The addresses are the reference's, so that a mirror of its files serves Easel too. A row with a SHA-256 has the exact size
of that very file; a row without one has the size for planning only, and the hub's own word counts for the check.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from core.weights.header import PICKLES, is_safetensors

HUB = "https://huggingface.co"
HOSTS = ("huggingface.co", "github.com", "civitai.com")  # that a preset may name; config.json: download_hosts
LOOPBACK = ("127.0.0.1", "localhost", "::1")

INTERPOSER = "xl-to-v1_interposer-v4.0.safetensors"  # what every Stable Diffusion 1.5 refiner needs

RAIL = "OpenRAIL++-M"  # Stable Diffusion XL's licence, and of most that was made from it

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One published file: its name below the first folder of its kind, its address, and its size in bytes."""

    name: str
    kind: str
    url: str
    size: int | None = None
    sha256: str = ""  # 64 hex digits; "" = not known here
    purpose: str = ""
    licence: str = ""  # the publisher's; "" = not known here

    @property
    def exact_size(self) -> int | None:
        """The size to insist on; None if it is known only roughly."""
        return self.size if self.sha256 else None

    @property
    def is_pickle(self) -> bool:
        """Whether Easel refuses to open such a file, because opening it could run a program."""
        return PurePosixPath(self.name).suffix.lower() in PICKLES


def with_mirror(url: str, mirror: str) -> str:
    """`url` with the hub's address replaced by `mirror`, such as "https://hf-mirror.example"; other hosts are left alone."""
    if mirror and (url == HUB or url.startswith(f"{HUB}/")):
        return mirror.rstrip("/") + url[len(HUB) :]
    return url


def without_secrets(url: str) -> str:
    """`url` for a message: without a user's name and password, and without the query, which may be a signature or a key."""
    return re.sub(r"^([^/]*//)[^/]*@", r"\1", re.split(r"[?#]", url)[0])


def name_trouble(name: object) -> str:
    """What is wrong with `name` as the place of a new file below a models folder, as a sentence; "" if nothing is."""
    trouble = path_trouble(name)
    if not trouble and not is_safetensors(str(name)):
        return f"{str(name)[:100]!r} is no safetensors file; Easel reads no others."
    return trouble


def path_trouble(name: object) -> str:
    """What is wrong with `name` as a path that stays inside a folder on every system, as a sentence; "" if nothing is."""
    if not isinstance(name, str) or not name or len(name) > 300:
        return f"{str(name)[:60]!r} is no file name."
    parts = name.split("/")
    bad = any(
        part in ("", ".", "..") or part != part.strip() or part.startswith(".") or part.endswith(".") for part in parts
    )
    if bad or re.search(r'[\\:*?"<>|\x00-\x1f\x7f]', name) or any(_RESERVED.fullmatch(part) for part in parts):
        return f"{name[:100]!r} is no file name: a path inside the folder was wanted, with '/' and without '..'."
    return ""


def address_trouble(url: object, hosts: Collection[str] = HOSTS) -> str:
    """What is wrong with `url` as an address that a preset names, as a sentence; "" if nothing is."""
    if not isinstance(url, str) or len(url) > 2000 or re.search(r"[\s\x00-\x1f\x7f]", url):
        return f"{without_secrets(str(url))[:100]!r} is no address."
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return f"{without_secrets(url)[:100]!r} is no address."
    if parts.scheme != "https" or parts.username or parts.password:
        return (
            f"{without_secrets(url)[:100]!r} is no address that Easel fetches from: it must begin with https:// and hold no "
            "password."
        )
    if host not in hosts:
        return (
            f"{host!r} is not among the hosts that a preset may name ({', '.join(hosts)}). If you trust it, add it to "
            "download_hosts in config.json."
        )
    return ""


def source(name: str) -> Source | None:
    """The published file that is stored as `name`, whatever folder it is in; None if the table has none."""
    return SOURCES.get(name) or SOURCES.get(PurePosixPath(name).name)


def _lllyasviel(name: str, repository: str = "misc") -> str:
    return f"{HUB}/lllyasviel/{repository}/resolve/main/{name}"


def _mashb1t(name: str, repository: str = "misc") -> str:
    return f"{HUB}/mashb1t/{repository}/resolve/main/{name}"


def _stability(name: str, repository: str) -> str:
    return f"{HUB}/stabilityai/stable-diffusion-xl-{repository}-1.0/resolve/main/{name}"


def _rembg(name: str) -> str:
    return f"https://github.com/danielgatis/rembg/releases/download/v0.0.0/{name}"


def _facexlib(name: str, version: str) -> str:
    return f"https://github.com/xinntao/facexlib/releases/download/{version}/{name}"


def _rows() -> tuple[Source, ...]:
    """The table. Sizes in bytes."""
    return (
        # checkpoints
        Source(
            "juggernautXL_v8Rundiffusion.safetensors", "checkpoints",
            _lllyasviel("fav/juggernautXL_v8Rundiffusion.safetensors", "fav_models"), 7_105_348_592,
            "aeb7e9e6897a1e58b10494bd989d001e3d4bc9b634633cd7b559838f612c2867", "general pictures",
        ),
        Source(
            "animaPencilXL_v500.safetensors", "checkpoints",
            _mashb1t("fav/animaPencilXL_v500.safetensors", "fav_models"), 6_938_041_144,
            "896faa18cd6852ccf977e2dec76191c38f256d031204e233cb3ed76f6088d55b", "anime",
        ),
        Source(
            "realisticStockPhoto_v20.safetensors", "checkpoints",
            _lllyasviel("fav/realisticStockPhoto_v20.safetensors", "fav_models"), 6_938_054_242,
            "f99f3dec38a09b4834a4a073bdc45aabd42b422b4d327f5e8001afcb5ffb5f45", "photographs",
        ),
        Source(
            "playground-v2.5-1024px-aesthetic.fp16.safetensors", "checkpoints",
            _mashb1t("fav/playground-v2.5-1024px-aesthetic.fp16.safetensors", "fav_models"), 6_938_040_576,
            "bcaa7dd6780974f000b17b5a6c63e6f867a75c51ffa85c67d6b196882c69b992", "Playground v2.5",
        ),
        Source(
            "ponyDiffusionV6XL.safetensors", "checkpoints",
            _mashb1t("fav/ponyDiffusionV6XL.safetensors", "fav_models"), 6_938_041_050,
            "67ab2fd8ec439a89b3fedb15cc65f54336af163c7eb5e4f2acc98f090a29b0b3", "Pony Diffusion V6",
        ),
        Source(
            "sd_xl_base_1.0_0.9vae.safetensors", "checkpoints",
            _stability("sd_xl_base_1.0_0.9vae.safetensors", "base"), 6_938_078_334,
            "e6bb9ea85bbf7bf6478a7c6d18b71246f22e95d41bcdd80ed40aa212c33cfeff", "SDXL 1.0", RAIL,
        ),
        Source(
            "sd_xl_refiner_1.0_0.9vae.safetensors", "checkpoints",
            _stability("sd_xl_refiner_1.0_0.9vae.safetensors", "refiner"), 6_075_981_930,
            "8d0ce6c016004cbdacd50f937dad381d8c396628d621a7f97191470532780164", "SDXL 1.0 refiner", RAIL,
        ),
        # LoRAs
        Source(
            "sd_xl_offset_example-lora_1.0.safetensors", "loras",
            _stability("sd_xl_offset_example-lora_1.0.safetensors", "base"), 49_553_604,
            "4852686128f953d0277d0793e2f0335352f96a919c9c16a09787d77f55cbdf6f", "deeper contrast", RAIL,
        ),
        Source(
            "SDXL_FILM_PHOTOGRAPHY_STYLE_V1.safetensors", "loras",
            _mashb1t("fav/SDXL_FILM_PHOTOGRAPHY_STYLE_V1.safetensors", "fav_models"), 912_593_164,
            "9e2a98e1f27dbdbb0bda11523dee3444df099599bff7471c6e557f6ad55f27eb", "film photography",
        ),
        Source(
            "sdxl_lcm_lora.safetensors", "loras", _lllyasviel("sdxl_lcm_lora.safetensors"), 393_854_624,
            "c3dbf7eb26dd00ae6b6b95da69be9f1cb95a3b2c5bcf9be82323227a19b91329", "performance extreme_speed", RAIL,
        ),
        Source(
            "sdxl_lightning_4step_lora.safetensors", "loras",
            _mashb1t("sdxl_lightning_4step_lora.safetensors"), 393_854_592,
            "bf56cf2657efb15e465d81402ed481d1e11c4677e4bcce1bc11fe71ad8506b79", "performance lightning", RAIL,
        ),
        Source(
            "sdxl_hyper_sd_4step_lora.safetensors", "loras",
            _mashb1t("sdxl_hyper_sd_4step_lora.safetensors"), 787_359_648,
            "12f81a27d00a751a40d68fd15597091896c5a90f3bd632fb6c475607cbdad76e", "performance hyper_sd",
        ),
        Source(
            "dmd2_sdxl_4step_lora_fp16.safetensors", "loras",
            f"{HUB}/tianweiy/DMD2/resolve/main/dmd2_sdxl_4step_lora_fp16.safetensors", 394_000_000, "", "performance dmd2",
            "CC BY-NC 4.0",
        ),
        # VAEs, preview decoders, text
        Source(
            "ponyDiffusionV6XL_vae.safetensors", "vae",
            _mashb1t("fav/ponyDiffusionV6XL_vae.safetensors", "fav_models"), 334_641_162,
            "235745af8d86bf4a4c1b5b4f529868b37019a10f7c0b2e79ad0abca3a22bc6e1", "VAE of Pony Diffusion V6",
        ),
        Source("xlvaeapp.pth", "vae_approx", _lllyasviel("xlvaeapp.pth"), 213_777, "", "previews of SDXL, once converted"),
        Source("vaeapp_sd15.pth", "vae_approx", _lllyasviel("vaeapp_sd15.pt"), 213_777, "", "previews of SD 1.5, once converted"),
        Source(
            INTERPOSER, "vae_approx", _mashb1t(INTERPOSER), 5_667_280, "", "SDXL to SD 1.5, for the refiner swap",
            "Apache-2.0",
        ),
        # inpainting, upscaling
        Source(
            "fooocus_inpaint_head.pth", "inpaint", _lllyasviel("fooocus_inpaint_head.pth", "fooocus_inpaint"), 52_602,
            "32f7f838e0c6d8f13437ba8411e77a4688d77a2e34df8857e4ef4d51f6b97692", "inpainting",
        ),
        Source(
            "inpaint.fooocus.patch", "inpaint", _lllyasviel("inpaint.fooocus.patch", "fooocus_inpaint"),
            1_323_000_000, "", "inpaint engine v1",
        ),
        Source(
            "inpaint_v25.fooocus.patch", "inpaint", _lllyasviel("inpaint_v25.fooocus.patch", "fooocus_inpaint"),
            2_580_000_000, "", "inpaint engine v2.5",
        ),
        Source(
            "inpaint_v26.fooocus.patch", "inpaint", _lllyasviel("inpaint_v26.fooocus.patch", "fooocus_inpaint"),
            1_323_362_033, "", "inpaint engine v2.6",
        ),
        Source(
            "fooocus_upscaler_s409985e5.bin", "upscale_models", _lllyasviel("fooocus_upscaler_s409985e5.bin"),
            33_636_613, "", "four times the size",
        ),
        # image prompts
        Source(
            "control-lora-canny-rank128.safetensors", "controlnet",
            _lllyasviel("control-lora-canny-rank128.safetensors"), 395_733_680,
            "56389dbb245ca44de91d662529bd4298abc55ce2318f60bc19454fb72ff68247", "edges (PyraCanny)",
        ),
        Source(
            "fooocus_xl_cpds_128.safetensors", "controlnet", _lllyasviel("fooocus_xl_cpds_128.safetensors"),
            395_706_528, "eec3fd8209a65b41341ea9f415de66909c97b30fb4d20965b3304e8e5251c2f1", "structure (CPDS)",
        ),
        Source(
            "fooocus_ip_negative.safetensors", "controlnet", _lllyasviel("fooocus_ip_negative.safetensors"), 65_616,
            "d7caedfb46780825895718c7c8e9ee077e675c935ddfcf272f1c01a4fc8ea72d", "image prompts",
        ),
        Source(
            "ip-adapter-plus_sdxl_vit-h.bin", "controlnet", _lllyasviel("ip-adapter-plus_sdxl_vit-h.bin"),
            1_013_454_427, "ec70edb7cc8e769c9388d94eeaea3e4526352c9fae793a608782d1d8951fde90", "image prompts",
        ),
        Source(
            "ip-adapter-plus-face_sdxl_vit-h.bin", "controlnet", _lllyasviel("ip-adapter-plus-face_sdxl_vit-h.bin"),
            1_013_454_761, "50e886d82940b3c5873d80c2b06d8a4b0d0fccec70bc44fd53f16ac3cfd7fc36", "faces",
        ),
        Source(
            "clip_vision_vit_h.safetensors", "clip_vision", _lllyasviel("clip_vision_vit_h.safetensors"),
            1_264_000_000, "", "image prompts",
        ),
        Source(
            "detection_Resnet50_Final.pth", "controlnet", _facexlib("detection_Resnet50_Final.pth", "v0.1.0"),
            109_497_761, "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d", "finding faces",
        ),
        # masks, descriptions, safety. The reference's face parser is not here: it fetches it and never uses it.
        Source(
            "sam_vit_b_01ec64.pth", "sam", _mashb1t("sam_vit_b_01ec64.pth"), 375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", "masks",
        ),
        Source(
            "sam_vit_l_0b3195.pth", "sam", _mashb1t("sam_vit_l_0b3195.pth"), 1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", "masks",
        ),
        Source(
            "sam_vit_h_4b8939.pth", "sam", _mashb1t("sam_vit_h_4b8939.pth"), 2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", "masks",
        ),
        Source(
            "groundingdino_swint_ogc.pth", "inpaint",
            "https://github.com/IDEA-Research/GroundingDINO/releases/download/v0.1.0-alpha/groundingdino_swint_ogc.pth",
            693_997_677, "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799", "masks from words",
        ),
        *(
            Source(f"{name}.onnx", "inpaint", _rembg(f"{name}.onnx"), size, "", "masks")
            for name, size in (
                ("u2net", 175_997_641), ("u2netp", 4_574_861), ("u2net_human_seg", 175_997_641),
                ("u2net_cloth_seg", 176_194_565), ("silueta", 44_173_029), ("isnet-general-use", 178_648_008),
                ("isnet-anime", 176_069_933),
            )
        ),
        Source(
            "model_base_caption_capfilt_large.pth", "clip_vision", _lllyasviel("model_base_caption_capfilt_large.pth"),
            896_081_425, "", "describing photographs",
        ),
        Source(
            "wd-v1-4-moat-tagger-v2.onnx", "clip_vision", _lllyasviel("wd-v1-4-moat-tagger-v2.onnx"), 326_197_340, "",
            "describing drawings",
        ),
        Source(
            "wd-v1-4-moat-tagger-v2.csv", "clip_vision", _lllyasviel("wd-v1-4-moat-tagger-v2.csv"), 250_000, "",
            "describing drawings",
        ),
        Source(
            "stable-diffusion-safety-checker.bin", "safety_checker", _mashb1t("stable-diffusion-safety-checker.bin"),
            1_216_067_303, "", "hiding what is not safe for work",
        ),
    )  # fmt: skip


SOURCES = {row.name: row for row in _rows()}
