"""Which files a request wants, and which of them are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import BadSetting, ModelNotFound
from core.settings import Lora
from core.weights.files import Catalog
from core.weights.needs import find_name, named, needed
from core.weights.sources import SOURCES, Source


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    for name in ("checkpoints/SDXL/base.safetensors", "loras/own.safetensors"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    kinds = ("loras", "vae", "embeddings", "text_encoders", "prompt_expansion")
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


def test_a_request_that_names_nothing_needs_nothing(catalog: Catalog) -> None:
    assert needed({}, catalog) == [] == needed({"base_model": "", "performance": "speed"}, catalog)


def test_a_presets_own_addresses_win_over_the_table(catalog: Catalog) -> None:
    own = {
        "loras": {"sdxl_lcm_lora.safetensors": Source("sdxl_lcm_lora.safetensors", "loras", "https://github.com/x", 7)}
    }
    [need] = needed({}, catalog, own)
    assert (need.url, need.bytes) == ("https://github.com/x", 7)
    [need] = needed({"performance": "extreme_speed"}, catalog, None, own)
    assert need.bytes == 7


def test_files_of_the_table_are_asked_for_by_name(catalog: Catalog, tmp_path: Path) -> None:
    [need] = named(["fooocus_expansion/pytorch_model.bin"], catalog)
    assert not need.present and need.source == SOURCES[need.name].__class__(need.name, need.kind, need.url, need.bytes)
    (tmp_path / "prompt_expansion/fooocus_expansion").mkdir(parents=True)
    (tmp_path / "prompt_expansion/fooocus_expansion/pytorch_model.bin").write_bytes(b"x")
    assert named(["fooocus_expansion/pytorch_model.bin"], catalog)[0].present
    with pytest.raises(BadSetting, match=r"no file 'juggernaut' to download\. Near it: juggernautXL_v8"):
        named(["juggernaut"], catalog)


def test_a_file_is_found_in_whatever_folder_it_lies() -> None:
    names = ["a/Same.safetensors", "same.safetensors"]
    assert find_name("same.safetensors", names) == "same.safetensors"
    assert find_name("other/same.safetensors", names[:1]) == "a/Same.safetensors"
    assert find_name("none.safetensors", names) == ""
