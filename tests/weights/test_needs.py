"""Which files a request wants, and which of them are there."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import BadSetting, ModelNotFound
from core.settings import Lora
from core.weights.files import Catalog
from core.weights.needs import find_name, named, names_meant, needed, needed_by_refiner
from core.weights.sources import INTERPOSER, SOURCES, Source

EMPTY = struct.pack("<Q", 2) + b"{}"  # a whole safetensors file, without tensors
LIGHTNING, DMD2 = "sdxl_lightning_4step_lora.safetensors", "dmd2_sdxl_4step_lora_fp16.safetensors"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    for name in ("checkpoints/SDXL/base.safetensors", "loras/own.safetensors"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_bytes(EMPTY)
    kinds = ("loras", "vae", "embeddings", "text_encoders", "prompt_expansion", "vae_approx")
    return Catalog([tmp_path / "checkpoints"], others={kind: [tmp_path / kind] for kind in kinds})


def test_every_file_that_a_request_names_is_listed_once(catalog: Catalog) -> None:
    settings = {
        "base_model": "base.safetensors",
        "refiner_model": "sd_xl_refiner_1.0_0.9vae.safetensors",
        "vae": "",
        "text_encoder_l": "clip_l.safetensors",
        "loras": [{"name": "own.safetensors"}, Lora("off.safetensors", enabled=False), Lora("own.safetensors", 0.2)],
        "performance": "lightning",
        "steps": 4,
    }
    found = {need.name: need for need in needed(settings, catalog)}
    assert list(found) == [
        "base.safetensors",
        "sd_xl_refiner_1.0_0.9vae.safetensors",
        "clip_l.safetensors",
        "own.safetensors",
        "sdxl_lightning_4step_lora.safetensors",
    ]
    assert [need.present for need in found.values()] == [True, False, False, True, False]
    assert found["base.safetensors"].found == "SDXL/base.safetensors"
    refiner = found["sd_xl_refiner_1.0_0.9vae.safetensors"]
    assert (refiner.kind, refiner.bytes) == ("checkpoints", 6_075_981_930) and refiner.folder == catalog.folders[0]
    assert refiner.source.exact_size == refiner.bytes and refiner.url.startswith("https://huggingface.co/stabilityai/")
    with pytest.raises(ModelNotFound, match=r"clip_l\.safetensors is not there.*Put it into .*text_encoders"):
        _ = found["clip_l.safetensors"].source


@pytest.mark.parametrize("folder", ["../../../elsewhere/", "/elsewhere/", "C:/", "..\\"])
def test_no_name_in_a_preset_leads_a_download_out_of_its_folder(catalog: Catalog, folder: str) -> None:
    [need] = needed({"base_model": f"{folder}juggernautXL_v8Rundiffusion.safetensors"}, catalog)
    assert not need.url
    [need] = needed({"base_model": "sdxl/juggernautXL_v8Rundiffusion.safetensors"}, catalog)
    assert need.url and need.name == "sdxl/juggernautXL_v8Rundiffusion.safetensors"


def test_a_request_that_names_nothing_needs_nothing(catalog: Catalog) -> None:
    assert needed({}, catalog) == [] == needed({"base_model": "", "performance": "speed"}, catalog)


def test_a_presets_own_addresses_win_over_the_table(catalog: Catalog) -> None:
    name = "sdxl_lcm_lora.safetensors"
    own = {"loras": {name: Source(name, "loras", "https://github.com/x", 7, "ab" * 32)}}
    [need] = needed({}, catalog, own)
    assert (need.url, need.bytes, need.sha256) == ("https://github.com/x", 7, "ab" * 32)
    [need] = needed({"performance": "extreme_speed"}, catalog, None, own)
    assert need.bytes == 7


@pytest.mark.parametrize("url", ["https://github.com/x", SOURCES["sdxl_lcm_lora.safetensors"].url])
def test_a_known_file_of_which_a_preset_says_the_address_alone_keeps_its_size_and_checksum(
    catalog: Catalog, url: str
) -> None:
    name = "sdxl_lcm_lora.safetensors"
    [need] = needed({}, catalog, {"loras": {name: Source(name, "loras", url)}})
    row = SOURCES[name]
    assert (need.url, need.bytes, need.sha256, need.licence) == (url, row.size, row.sha256, row.licence)
    [need] = needed({}, catalog, {"vae": {name: Source(name, "vae", url)}})
    assert (need.bytes, need.sha256) == (None, "")  # only its name is the same


def test_another_address_of_a_file_whose_checksum_nobody_knows_has_no_known_size(catalog: Catalog) -> None:
    for url, size in (("https://github.com/x", None), (SOURCES[DMD2].url, SOURCES[DMD2].size)):
        [need] = needed({}, catalog, {"loras": {DMD2: Source(DMD2, "loras", url)}})
        assert (need.url, need.bytes) == (url, size)


def test_files_of_the_table_are_asked_for_by_name(catalog: Catalog, tmp_path: Path) -> None:
    [need] = named(["xlvaeapp.pth"], catalog)
    assert not need.present and need.source == SOURCES[need.name].__class__(need.name, need.kind, need.url, need.bytes)
    (tmp_path / "vae_approx").mkdir()
    file = tmp_path / "vae_approx/xlvaeapp.pth"
    file.write_bytes(b"x" * 5000)
    [stump] = named(["xlvaeapp.pth"], catalog)
    assert not stump.present and "with 5000 bytes instead of" in stump.damage
    file.write_bytes(b"x" * (need.bytes or 0))
    assert named(["xlvaeapp.pth"], catalog)[0].present
    with pytest.raises(BadSetting, match=r"no file 'juggernaut' to download\. Near it: juggernautXL_v8"):
        named(["juggernaut"], catalog)


def test_the_gpt2_expander_is_not_fetched_and_the_way_to_it_is_told(catalog: Catalog) -> None:
    """Its weights alone are published, and of no use without the files that come with Fooocus."""
    assert not [name for name in SOURCES if "expansion" in name]
    for name in ("fooocus_expansion", "fooocus_expansion/pytorch_model.bin"):
        with pytest.raises(BadSetting, match=rf"no file '{name}' to download\. .*launch\.py convert FOLDER"):
            named([name], catalog)


def test_a_damaged_file_is_not_present(catalog: Catalog, tmp_path: Path) -> None:
    """Q30: what is cut off or another file is told with what to do, and left as it is."""
    for name in (LIGHTNING, DMD2):
        (tmp_path / "loras" / name).write_bytes(b"cut off")
    [need] = needed({"performance": "lightning"}, catalog)  # of known size
    assert not need.present and need.found == ""
    assert f"{LIGHTNING} is there already, with 7 bytes instead of 393854592" in need.damage
    assert need.damage.endswith("Move it away or delete it, then download again.")
    [need] = needed({"performance": "dmd2"}, catalog)  # of about known size
    assert not need.present and "safetensors header cannot be read" in need.damage
    (tmp_path / "loras" / DMD2).write_bytes(EMPTY)
    [need] = needed({"performance": "dmd2"}, catalog)
    assert need.present and need.damage == ""
    (tmp_path / "loras" / LIGHTNING).unlink()
    (tmp_path / "loras" / LIGHTNING).symlink_to(tmp_path / "nowhere")
    [need] = needed({"performance": "lightning"}, catalog)
    assert not need.present and "cannot be read" in need.damage
    assert (tmp_path / "loras" / LIGHTNING).is_symlink()


@pytest.mark.parametrize(("family", "names"), [("sd15", [INTERPOSER]), ("sdxl", [])])
def test_a_refiner_of_stable_diffusion_1_needs_the_interposer(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, family: str, names: list[str]
) -> None:
    monkeypatch.setattr(catalog, "info", lambda name: SimpleNamespace(family=family))
    needs = needed_by_refiner("base.safetensors", catalog)
    assert [need.name for need in needs if not need.present] == names
    assert needed_by_refiner("", catalog) == []


def test_a_refiner_that_is_not_there_or_is_none_needs_nothing_else(catalog: Catalog) -> None:
    [need] = needed_by_refiner("sd_xl_refiner_1.0_0.9vae.safetensors", catalog)
    assert need.url and not need.present
    [need] = needed_by_refiner("base.safetensors", catalog)
    assert need.present


def test_a_file_is_found_in_whatever_folder_it_lies() -> None:
    names = ["a/Same.safetensors", "same.safetensors"]
    assert find_name("same.safetensors", names) == "same.safetensors"
    assert find_name("other/same.safetensors", names[:1]) == "a/Same.safetensors"
    assert find_name("none.safetensors", names) == ""


def test_a_name_that_half_the_publishers_use_means_no_file_of_another_folder() -> None:
    names = ["artist--pixel/pytorch_lora_weights.safetensors", "taesd/diffusion_pytorch_model.fp16.safetensors"]
    assert find_name("lcm-lora-sdxl/pytorch_lora_weights.safetensors", names) == ""
    assert find_name("sdxl-vae/diffusion_pytorch_model.fp16.safetensors", names) == ""
    assert find_name("TAESD/diffusion_pytorch_model.fp16", names) == names[1]
    assert find_name("pytorch_lora_weights", names) == names[0]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("foo.safetensors", ["foo.safetensors"]),
        ("Foo.safetensors", ["Foo.safetensors"]),
        ("foo", ["foo.safetensors", "Foo.safetensors"]),
        (r"ANIME\foo", ["anime/Foo.safetensors"]),
        ("bar", ["old/bar.safetensors", "new/Bar.SFT"]),
        ("bar.sft", ["new/Bar.SFT"]),
        ("elsewhere/bar.safetensors", ["old/bar.safetensors"]),
        ("ba", []),
    ],
)
def test_a_name_means_a_whole_path_before_the_last_part_of_one(wanted: str, meant: list[str]) -> None:
    names = ["foo.safetensors", "Foo.safetensors", "anime/Foo.safetensors", "old/bar.safetensors", "new/Bar.SFT"]
    assert names_meant(wanted, names) == meant
