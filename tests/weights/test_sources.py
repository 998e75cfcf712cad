"""The table of model files, and what names and addresses a preset may bring."""

from __future__ import annotations

import pytest

from core.performance import MODES
from core.weights.sources import HOSTS, SOURCES, address_trouble, name_trouble, source, with_mirror, without_secrets

# The reference's downloads: name here, kind of folder, size in MB as published or computed from tensor shapes.
PUBLISHED = """
xlvaeapp.pth vae_approx 0.21
vaeapp_sd15.pth vae_approx 0.21
xl-to-v1_interposer-v4.0.safetensors vae_approx 5.7
juggernautXL_v8Rundiffusion.safetensors checkpoints 7100
sd_xl_offset_example-lora_1.0.safetensors loras 50
animaPencilXL_v500.safetensors checkpoints 6900
realisticStockPhoto_v20.safetensors checkpoints 6900
playground-v2.5-1024px-aesthetic.fp16.safetensors checkpoints 6900
ponyDiffusionV6XL.safetensors checkpoints 6900
ponyDiffusionV6XL_vae.safetensors vae 330
sd_xl_base_1.0_0.9vae.safetensors checkpoints 6900
sd_xl_refiner_1.0_0.9vae.safetensors checkpoints 6100
sdxl_lcm_lora.safetensors loras 394
sdxl_lightning_4step_lora.safetensors loras 394
sdxl_hyper_sd_4step_lora.safetensors loras 787
inpaint.fooocus.patch inpaint 1300
inpaint_v25.fooocus.patch inpaint 2600
inpaint_v26.fooocus.patch inpaint 1300
control-lora-canny-rank128.safetensors controlnet 396
fooocus_xl_cpds_128.safetensors controlnet 396
clip_vision_vit_h.safetensors clip_vision 1260
ip-adapter-plus_sdxl_vit-h.bin controlnet 1000
ip-adapter-plus-face_sdxl_vit-h.bin controlnet 1000
detection_Resnet50_Final.pth controlnet 109
stable-diffusion-safety-checker.bin safety_checker 1200
sam_vit_b_01ec64.pth sam 380
sam_vit_l_0b3195.pth sam 1250
sam_vit_h_4b8939.pth sam 2560
groundingdino_swint_ogc.pth inpaint 690
u2net.onnx inpaint 176
isnet-general-use.onnx inpaint 179
silueta.onnx inpaint 43
model_base_caption_capfilt_large.pth clip_vision 900
wd-v1-4-moat-tagger-v2.onnx clip_vision 326
"""


@pytest.mark.parametrize("line", PUBLISHED.strip().splitlines())
def test_what_the_reference_downloads_is_known_with_its_kind_and_size(line: str) -> None:
    name, kind, megabytes = line.split()
    row = SOURCES[name]
    assert row.kind == kind and row.size is not None
    assert row.size / 1e6 == pytest.approx(float(megabytes), rel=0.035)


def test_the_face_parser_that_the_reference_never_uses_is_not_fetched() -> None:  # Q33
    assert source("parsing_parsenet.pth") is None


def test_every_row_can_be_fetched_and_checked() -> None:
    for name, row in SOURCES.items():
        assert row.name == name and not address_trouble(row.url), name
        assert len(row.sha256) in (0, 64) and row.exact_size in (None, row.size)
    big = [row for row in SOURCES.values() if row.kind in ("checkpoints", "vae")]
    assert big and all(row.sha256 for row in big)


def test_the_loras_of_the_fast_modes_are_in_the_table() -> None:
    assert all(mode.lora.file in SOURCES for mode in MODES.values() if mode.lora)


def test_a_source_is_found_in_whatever_folder_the_name_has() -> None:
    assert source("SDXL/animaPencilXL_v500.safetensors") is SOURCES["animaPencilXL_v500.safetensors"]
    assert source("mine.safetensors") is None


def test_a_mirror_replaces_the_hub_and_nothing_else() -> None:
    hub = "https://huggingface.co/a/b/resolve/main/c"
    assert with_mirror(hub, "https://mirror.example/") == "https://mirror.example/a/b/resolve/main/c"
    assert with_mirror(hub, "") == hub
    for other in ("https://huggingface.co.evil.example/a", "https://github.com/huggingface.co/a"):
        assert with_mirror(other, "https://mirror.example") == other


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors", "a/../../x.safetensors", "/x.safetensors", "C:/x.safetensors", "C:x.safetensors", "a\\x.safetensors",
        "x.safetensors/", "x\0.safetensors", "x\n.safetensors", ".hidden.safetensors", "a//x.safetensors", "nul.safetensors",
        "con/x.safetensors", "x.ckpt", "x.safetensors.exe", "", " x.safetensors", "x.safetensors.", None, 5, "x" * 400 + ".safetensors",
    ],
)  # fmt: skip
def test_no_preset_names_a_file_outside_its_folder_or_of_another_kind(name: object) -> None:  # D9
    assert name_trouble(name)


@pytest.mark.parametrize("name", ["x.safetensors", "a/b/x y.v2.safetensors", "größe.safetensors"])
def test_ordinary_names_are_fine_with_a_folder_too(name: str) -> None:  # D50
    assert not name_trouble(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co/x", "https://evil.example/x", "https://user:pass@huggingface.co/x", "file:///etc/passwd", "ftp://huggingface.co/x",
        "https://huggingface.co.evil.example/x", "https://huggingface.co@evil.example/x", "https://127.0.0.1/x", "https://huggingface.co /x",
        "https://[x", "", None, "javascript:alert(1)", "https://huggingface.co/" + "x" * 3000,
    ],
)  # fmt: skip
def test_no_preset_names_an_address_on_an_unknown_host(url: object) -> None:  # D9
    assert address_trouble(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:hunter2@mirror.example:8443/a/b", "https://mirror.example:8443/a/b"),
        ("https://cdn.example/a@b?X-Amz-Signature=1#2", "https://cdn.example/a@b"),
        ("https://[broken?key=1", "https://[broken"),
        ("//user@host", "//host"),
        ("", ""),
    ],
)
def test_an_address_in_a_message_holds_no_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_password_in_a_presets_address_is_not_repeated() -> None:
    assert "hunter2" not in address_trouble("https://user:hunter2@huggingface.co/x")


def test_hosts_that_the_user_trusts_may_be_named() -> None:
    assert address_trouble("https://models.example/x") and not address_trouble(
        "https://models.example/x", (*HOSTS, "models.example")
    )
