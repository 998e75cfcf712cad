"""What a preset comes to with the files that are there, and what switching from one to another changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from core import presets_choice
from core.presets import Preset
from core.presets_choice import diff, switched
from core.settings import Lora, Settings
from core.weights.sources import Source

OWN = "easel-emoji-256.safetensors"
choose = partial(presets_choice.choose, stand_in="easel")
SHIPPED = [Path(__file__).parents[1] / "presets"]


@dataclass(frozen=True)
class Files:
    there: tuple[str, ...]
    folders: tuple[Path, ...] = (Path("models"),)

    def names(self) -> list[str]:
        return list(self.there)

    def paths(self) -> dict[str, Path]:
        return {name: Path("models") / name for name in self.there}


@dataclass(frozen=True)
class Catalog:
    checkpoints: tuple[str, ...] = (OWN,)
    loras: tuple[str, ...] = ()
    vae: tuple[str, ...] = ()
    text_encoders: tuple[str, ...] = ()

    def files(self, kind: str) -> Files:
        return Files(getattr(self, kind, ()))


@pytest.fixture(autouse=True)
def whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of these tests have names alone; none of them counts as damaged."""
    monkeypatch.setattr("core.weights.needs.damage", lambda path, exact_size, size: "")


BIG = Preset(
    name="big",
    settings={
        "base_model": "sd_xl_base_1.0_0.9vae.safetensors",
        "refiner_model": "sd_xl_refiner_1.0_0.9vae.safetensors",
        "loras": [{"name": "sd_xl_offset_example-lora_1.0.safetensors", "weight": 0.5}, {"name": "mine.safetensors"}],
        "guidance_scale": 7.0,
    },
    previous=("newer.safetensors", "older.safetensors"),
)


def test_with_all_files_there_the_preset_is_taken_as_it_is_wherever_they_lie() -> None:
    catalog = Catalog(
        ("x/sd_xl_base_1.0_0.9vae.safetensors", "sd_xl_refiner_1.0_0.9vae.safetensors"),
        ("sd_xl_offset_example-lora_1.0.safetensors", "mine.safetensors"),
    )
    choice = choose(BIG, catalog, SHIPPED)
    assert choice.preset is BIG and choice.notes == () and choice.missing == ()
    assert choice.settings["base_model"] == "x/sd_xl_base_1.0_0.9vae.safetensors"
    assert choice.settings["loras"] == (
        Lora("sd_xl_offset_example-lora_1.0.safetensors", 0.5),
        Lora("mine.safetensors"),
    )


def test_without_its_checkpoint_the_preset_that_stands_in_is_used_and_it_is_said() -> None:
    choice = choose(replace(BIG, previous=()), Catalog(), SHIPPED)
    assert choice.preset.name == "easel" and choice.settings == {"base_model": OWN}
    [note] = choice.notes
    assert note.startswith("The preset 'big' wants sd_xl_base_1.0_0.9vae.safetensors, which is not there.")
    assert (
        f"Until it is, the preset 'easel' with {OWN} is used." in note
        and "13.1 GB" in note
        and note.endswith("python launch.py download --preset big")
    )
    assert [need.name for need in choice.missing] == [
        "sd_xl_base_1.0_0.9vae.safetensors",
        "sd_xl_refiner_1.0_0.9vae.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors",
        "mine.safetensors",
    ]


def test_which_preset_stands_in_is_the_callers_choice(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"base_model": "small.safetensors", "steps": 5}')
    wanted = replace(BIG, previous=())
    choice = presets_choice.choose(wanted, Catalog(("small.safetensors",)), [tmp_path], stand_in="mine")
    assert choice.preset.name == "mine" and choice.settings == {"base_model": "small.safetensors", "steps": 5}
    unnamed = presets_choice.choose(wanted, Catalog(), SHIPPED)
    assert unnamed.preset.name == "default" and "the checkpoint that is there is used" in unnamed.notes[0]


def test_of_the_defaults_only_what_has_to_do_with_no_model_goes_along() -> None:
    defaults = Preset(name="config.json", settings={"output_format": "webp", "steps": 50, "vae": "other.safetensors"})
    choice = choose(replace(BIG, previous=()), Catalog(), SHIPPED, defaults)
    assert choice.settings == {"base_model": OWN, "output_format": "webp"}


def test_an_older_checkpoint_does_and_the_refiner_stays() -> None:  # D49
    catalog = Catalog((OWN, "older.safetensors", "sd_xl_refiner_1.0_0.9vae.safetensors"), ("mine.safetensors",))
    choice = choose(BIG, catalog, SHIPPED)
    assert choice.preset is BIG
    assert choice.settings["base_model"] == "older.safetensors"
    assert choice.settings["refiner_model"] == "sd_xl_refiner_1.0_0.9vae.safetensors"
    assert choice.settings["loras"] == (Lora("mine.safetensors"),)
    assert "The older older.safetensors is used" in choice.notes[0]
    assert "goes without sd_xl_offset_example-lora_1.0.safetensors" in choice.notes[1]
    assert choose(BIG, catalog, SHIPPED, older_models=False).settings["base_model"] == OWN


def test_a_preset_goes_without_a_text_encoder_that_is_not_there_and_it_is_said() -> None:
    preset = Preset(
        name="p", settings={"base_model": OWN, "text_encoder_l": "l.safetensors", "text_encoder_g": "g.safetensors"}
    )
    choice = choose(preset, Catalog(text_encoders=("x/g.safetensors",)), SHIPPED)
    assert choice.settings == {"base_model": OWN, "text_encoder_g": "x/g.safetensors"}
    [note] = choice.notes
    assert note.startswith("The preset 'p' goes without l.safetensors: not there.")


def test_a_fast_mode_without_its_lora_is_left_and_it_is_said() -> None:
    preset = Preset(name="lightning", settings={"base_model": OWN, "performance": "lightning"})
    choice = choose(preset, Catalog(), SHIPPED)
    assert choice.settings == {"base_model": OWN}
    assert "the mode Lightning with its sdxl_lightning_4step_lora.safetensors" in choice.notes[0]
    with_lora = choose(preset, Catalog(loras=("sdxl_lightning_4step_lora.safetensors",)), SHIPPED)
    assert with_lora.settings["performance"] == "lightning" and not with_lora.notes


def test_a_file_that_nobody_publishes_is_to_be_put_there() -> None:
    choice = choose(Preset(name="p", settings={"base_model": "secret.safetensors"}), Catalog(), SHIPPED)
    assert "Put secret.safetensors into your models folder" in choice.notes[0]


def test_a_size_that_nobody_knows_is_told_as_such() -> None:
    source = Source("own.safetensors", "checkpoints", "https://huggingface.co/x")
    preset = Preset(
        name="p", settings={"base_model": "own.safetensors"}, downloads={"checkpoints": {"own.safetensors": source}}
    )
    assert "To download what is missing (size unknown): python" in choose(preset, Catalog(), SHIPPED).notes[0]
    both = replace(preset, settings=preset.settings | {"vae": "ponyDiffusionV6XL_vae.safetensors"})
    assert "(more than 335 MB)" in choose(both, Catalog(), SHIPPED).notes[0]


def test_a_default_model_of_the_configuration_that_is_absent_is_told_as_such() -> None:
    defaults = Preset(
        name="config.json",
        settings={"base_model": "gone.safetensors"},
        downloads={
            "checkpoints": {
                "gone.safetensors": Source("gone.safetensors", "checkpoints", "https://huggingface.co/x", 10**9)
            }
        },
    )
    choice = choose(Preset(name="default"), Catalog(), SHIPPED, defaults)
    assert choice.notes[0].startswith("The configuration wants gone.safetensors") and "(1 GB)" in choice.notes[0]


def test_a_diff_tells_both_values_of_what_differs_and_nothing_else() -> None:
    made = Settings(prompt="a cat", steps=12)
    assert diff(made, Settings()) == {"prompt": ("", "a cat"), "steps": (30, 12)}
    assert diff(made, made) == {}


DEFAULT = Settings(base_model="a.safetensors")
ANIME = {
    "base_model": "b.safetensors",
    "guidance_scale": 6.0,
    "width": 896,
    "height": 1152,
    "negative_prompt": "blurry",
}


def after(preset: dict[str, object]) -> Settings:
    return Settings(**{"base_model": "a.safetensors", **preset})  # type: ignore[arg-type]


@pytest.mark.parametrize("typed", ["", "a cat"])
def test_switching_keeps_what_was_typed(typed: str) -> None:
    current = replace(DEFAULT, prompt="my long prompt", negative_prompt=typed)
    made = switched(current, DEFAULT, after(ANIME), ANIME)
    assert made.prompt == "my long prompt"
    assert made.negative_prompt == (typed or "blurry")


def test_switching_changes_only_what_the_preset_speaks_of_or_nobody_has_touched() -> None:  # D48
    current = replace(DEFAULT, image_number=7, seed=5, freeu=True, sharpness=9.0, guidance_scale=2.0)
    made = switched(current, DEFAULT, after(ANIME), ANIME)
    assert (made.image_number, made.seed, made.freeu, made.sharpness) == (7, 5, True, 9.0)
    assert (made.guidance_scale, made.width, made.base_model) == (6.0, 896, "b.safetensors")


def test_what_a_preset_brought_goes_with_it() -> None:
    made = switched(replace(after(ANIME), prompt="x", steps=9), after(ANIME), DEFAULT, {})
    assert made == replace(DEFAULT, prompt="x", steps=9)


def test_a_size_goes_with_its_model_even_if_it_was_touched() -> None:
    small = Settings(base_model="small.safetensors", width=256, height=256)
    made = switched(
        replace(small, width=320), small, after({"base_model": "b.safetensors"}), {"base_model": "b.safetensors"}
    )
    assert (made.width, made.height) == (1152, 896)
