"""From names in a picture to files that are here: by exact name, by name alone, by hash; what is missing is told."""

import json

from foreign_samples import A1111, COMFYUI, FOOOCUS

from core.output.metadata import read_settings_text, resolve
from core.output.reading import Named, ReadMetadata
from core.settings import Lora, Settings

NAMES = {
    "checkpoints": ["xl/sd_xl_base_1.0.safetensors", "other.safetensors", "sd_xl_refiner_1.0.safetensors"],
    "loras": ["art/oil_paint.safetensors", "renamed.safetensors", "Second.safetensors"],
    "vae": ["sdxl_vae.safetensors"],
    "styles": ["Fooocus V2", "Fooocus Enhance"],
}


def one(field, **named):
    return ReadMetadata(settings={"steps": 3}, named=(Named(field=field, **named),), source="a1111")


def found(named, names, hashes=None):
    kind = {"base_model": "checkpoints", "loras": "loras"}[named.named[0].field]
    read = resolve(named, {kind: names}, {kind: hashes or {}})
    return read.settings.get(named.named[0].field)


def test_all_that_is_here_goes_into_the_settings_and_the_rest_is_told():
    hashes = {"loras": {"renamed.safetensors": "0123456789ab" + "0" * 52}}
    read = resolve(read_settings_text(A1111), NAMES, hashes)
    assert read.settings["base_model"] == "xl/sd_xl_base_1.0.safetensors"
    assert read.settings["refiner_model"] == "sd_xl_refiner_1.0.safetensors"
    assert read.settings["vae"] == "sdxl_vae.safetensors"
    assert read.settings["loras"] == (Lora("art/oil_paint.safetensors", 0.7), Lora("renamed.safetensors", 1.0))
    assert read.named == ()
    Settings(**read.settings)
    assert resolve(read_settings_text(A1111), {**NAMES, "loras": []}).named == (
        Named(field="loras", name="oil_paint", hash="a1b2c3d4e5f6", weight=0.7),
        Named(field="loras", name="sub detail", hash="0123456789ab"),
    )


def test_a_name_is_found_exactly_then_without_folder_ending_and_case_then_by_hash():
    names = ["b/model.safetensors", "a/model.safetensors", "sd_xl_base_1.0.safetensors"]
    assert found(one("base_model", name="a/model.safetensors"), names) == "a/model.safetensors"
    assert found(one("base_model", name="a\\Model"), names) == "a/model.safetensors"
    assert found(one("base_model", name="model.ckpt"), names) == "b/model.safetensors"
    assert found(one("base_model", name="sd_xl_base_1.0"), names) == "sd_xl_base_1.0.safetensors"  # .0 is no ending
    assert found(one("base_model", name="sd_xl_base_1"), names) is None
    hashes = {"a/model.safetensors": "AB" * 32, "sd_xl_base_1.0.safetensors": "cd" * 32}
    assert found(one("base_model", name="model", hash="abababab"), names, hashes) == "a/model.safetensors"
    assert found(one("base_model", hash="cdcdcdcdcd"), names, hashes) == "sd_xl_base_1.0.safetensors"
    assert found(one("base_model", name="model", hash="cdcdcdcdcd"), names, hashes) == "sd_xl_base_1.0.safetensors"
    assert found(one("base_model", name="model", hash="ef" * 5), names, hashes) == "b/model.safetensors"
    assert found(one("base_model", hash="ef" * 5), names, {"gone.safetensors": "ef" * 32}) is None


def test_a_hash_that_is_too_short_to_tell_is_none():
    read = read_settings_text("a\nSteps: 1, Seed: 2, Model hash: ab, Model: x")
    assert read.model_hash == ""


def test_styles_are_taken_by_known_names_and_listed_otherwise():
    read = resolve(read_settings_text(FOOOCUS), NAMES)
    assert read.settings["styles"] == ("Fooocus V2", "Fooocus Enhance")
    assert [named.name for named in read.named if named.field == "styles"] == ["Painter's Delight"]
    old = {"styles": "['Default (Slightly Cinematic)', 'fooocus enhance', 'Ours']", "version": "Fooocus v2.0.0"}
    names = {"styles": ["Fooocus Cinematic", "Fooocus Enhance", "Mine"]}
    read = resolve(read_settings_text(json.dumps(old)), names, find_style=lambda name: {"Ours": "Mine"}.get(name, ""))
    assert read.settings["styles"] == (
        "Fooocus Cinematic",
        "Fooocus Enhance",
        "Mine",
    )  # D26: old names have their new ones


def test_kinds_that_are_not_asked_for_stay_as_they_are():
    plain = read_settings_text(COMFYUI)
    assert set(resolve(plain, {}).named) == set(plain.named)
    assert resolve(plain, {}).settings == plain.settings


def test_our_own_files_are_checked_against_what_is_here():
    settings = Settings(base_model="gone.safetensors", vae="sdxl_vae.safetensors", styles=("Fooocus V2", "Lost"), loras=(Lora("a.safetensors", 0.5), Lora("Second.safetensors", 2, False)))  # fmt: skip
    values = {"settings": settings.to_dict(), "base_model_sha256": "ab" * 32, "hashes": {"a.safetensors": "cd" * 32}}
    read = resolve(read_settings_text(json.dumps(values)), NAMES)
    assert "base_model" not in read.settings
    assert read.settings["loras"] == (Lora("Second.safetensors", 2.0, False),)
    assert read.settings["styles"] == ("Fooocus V2",)
    assert read.settings["vae"] == "sdxl_vae.safetensors"
    assert {(named.field, named.name, named.hash) for named in read.named} == {
        ("base_model", "gone.safetensors", "ab" * 32), ("loras", "a.safetensors", "cd" * 32), ("styles", "Lost", ""),
    }  # fmt: skip
    hashes = {"checkpoints": {"other.safetensors": "ab" * 32}, "loras": {"renamed.safetensors": "cd" * 32}}
    again = resolve(read_settings_text(json.dumps(values)), NAMES, hashes)
    assert again.settings["base_model"] == "other.safetensors"
    assert again.settings["loras"][0] == Lora("renamed.safetensors", 0.5)
    assert again.settings["steps"] == settings.steps


def test_nothing_named_means_nothing_changed():
    read = ReadMetadata(settings={"steps": 3, "vae": "", "loras": ()}, source="easel")
    assert resolve(read, NAMES) == read


def test_more_than_a_request_can_have_is_cut_to_what_it_can():
    named = [Named(field="loras", name=f"l{i}") for i in range(150)] + [
        Named(field="styles", name=f"s{i}") for i in range(150)
    ]
    names = {"loras": [f"l{i}.safetensors" for i in range(150)], "styles": [f"s{i}" for i in range(150)]}
    read = resolve(ReadMetadata(named=tuple(named), source="a1111"), names)
    Settings(**read.settings)
    assert (len(read.settings["loras"]), len(read.settings["styles"])) == (50, 100)
