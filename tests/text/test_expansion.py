"""Which expander continues a prompt, and what the user is told of it."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from gpt2_folder import write_gpt2_folder
from safetensors.torch import load_file, save_file

from core.errors import BadModelFile, ModelNotFound
from core.prompt.plan import plan_images
from core.settings import Settings
from core.text.expansion import Expansions
from core.text.gpt2 import Gpt2Expander
from core.text.tokenizer import ClipTokenizer
from core.text.vocabulary import Vocabulary
from core.weights.files import Files
from core.weights.memory import Memory

KNOWS_ALL = Vocabulary(ClipTokenizer())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prompt_expansion"


def make(folder):
    return Expansions(Files([folder], "prompt_expansion"), Memory(torch.device("cpu")))


@pytest.fixture
def loads(monkeypatch):
    """The folders that a model was loaded from, or was to be."""
    folders = []
    real = Gpt2Expander.load

    def load(folder, *args):
        folders.append(folder.path)
        return real(folder, *args)

    monkeypatch.setattr(Gpt2Expander, "load", load)
    return folders


def damage(folder):
    """Put NaN where every word comes from."""
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("ln_f.weight"))
    save_file(tensors | {name: tensors[name] * float("nan")}, folder / "model.safetensors", {"format": "pt"})


def plan(**settings):
    [plan] = plan_images(Settings(**{"prompt": "a fox", "styles": ("Fooocus V2",), "seed": 3, **settings}))
    return plan


def test_without_a_model_the_programs_own_phrases_are_used_and_told_once(folder):
    expansions = make(folder)
    for _ in range(2):
        expansions.refresh("auto")
    [notice] = expansions.take_notices()
    assert "Easel's own phrases" in notice and str(folder) in notice
    assert expansions(plan(), KNOWS_ALL).startswith("a fox, ")
    expansions.refresh("auto")
    assert expansions.take_notices() == []


def test_a_model_that_is_there_is_used_and_told_once(folder):
    write_gpt2_folder(folder / "fooocus_expansion")
    expansions = make(folder)
    expansions.refresh("phrases")
    own = expansions(plan(), KNOWS_ALL)
    assert expansions.take_notices() == []  # who chose it knows
    for _ in range(2):
        expansions.refresh("auto")
    [notice] = expansions.take_notices()
    assert "GPT-2" in notice and "fooocus_expansion" in notice
    assert expansions(plan(), KNOWS_ALL) != own
    expansions.refresh("phrases")
    assert expansions(plan(), KNOWS_ALL) == own


def test_files_right_in_the_configured_folder_are_a_model_too(folder):
    """The reference's own configuration names the model's folder itself."""
    expansions = make(write_gpt2_folder(folder))
    expansions.refresh("gpt2")
    assert len(expansions(plan(), KNOWS_ALL)) > 100


def test_a_model_stays_loaded_until_its_files_change(folder):
    path = write_gpt2_folder(folder / "model")
    expansions = make(folder)
    expansions.refresh()
    network, text = expansions._gpt2, expansions(plan(), KNOWS_ALL)
    expansions.refresh()
    assert expansions._gpt2 is network
    other = write_gpt2_folder(folder.parent / "other", seed=1)
    (other / "model.safetensors").replace(path / "model.safetensors")
    os.utime(path / "model.safetensors", ns=(1, 1))
    expansions.refresh()
    assert expansions._gpt2 is not network and expansions(plan(), KNOWS_ALL) != text
    expansions.forget()
    expansions.refresh()
    assert expansions(plan(), KNOWS_ALL) != text


def test_a_model_that_cannot_be_used_is_told_and_the_phrases_step_in(folder):
    path = write_gpt2_folder(folder / "model")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    expansions = make(folder)
    expansions.refresh("auto")
    [notice] = expansions.take_notices()
    assert "own phrases" in notice and "pytorch_model.bin is a pickle" in notice and "launch.py convert" in notice
    assert expansions(plan(), KNOWS_ALL).startswith("a fox, ")
    with pytest.raises(BadModelFile, match="pickle"):
        expansions.refresh("gpt2")


def test_a_good_folder_is_found_beside_a_bad_one(folder):
    bad = write_gpt2_folder(folder / "a")
    (bad / "config.json").unlink()
    write_gpt2_folder(folder / "b")
    expansions = make(folder)
    expansions.refresh("gpt2")
    assert len(expansions(plan(), KNOWS_ALL)) > 100


@pytest.mark.parametrize("whole", ["first", "second"])
def test_of_two_folders_of_one_name_in_two_places_each_has_its_own_files(tmp_path, whole):
    """Such as Fooocus's with its pickle, and the one that was made of it elsewhere."""
    first, second = (tmp_path / place / "fooocus_expansion" for place in ("first", "second"))
    good, pickled = (first, second) if whole == "first" else (second, first)
    shutil.copytree(write_gpt2_folder(good), pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    expansions = Expansions(Files([first.parent, second.parent], "prompt_expansion"), Memory(torch.device("cpu")))
    expansions.refresh("gpt2")
    [notice] = expansions.take_notices()
    assert notice.endswith(f"{good}.")


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_a_bad_folder_that_comes_first_does_not_cost_the_good_one_at_every_picture(folder, lacking, loads):
    bad = write_gpt2_folder(folder / "a")
    (bad / lacking).rename(bad / "pytorch_model.bin")
    write_gpt2_folder(folder / "b")
    expansions = make(folder)
    for _ in range(4):
        expansions.refresh()
    assert [path.name for path in loads if path.name == "b"] == ["b"]


def test_a_model_that_gives_nan_is_told_and_the_phrases_step_in(folder, loads):
    path = write_gpt2_folder(folder / "model")
    damage(path)
    expansions = make(folder)
    expansions.refresh("phrases")
    phrases = expansions(plan(), KNOWS_ALL)
    for _ in range(3):
        expansions.refresh("auto")
        assert expansions(plan(), KNOWS_ALL) == phrases
    assert loads == [path]
    [_, notice] = expansions.take_notices()
    assert "own phrases" in notice and f"The GPT-2 model in {path} is damaged" in notice
    with pytest.raises(BadModelFile, match="is damaged"):
        expansions.refresh("gpt2")


def test_where_one_model_gives_nan_the_next_folder_is_taken(folder):
    damage(write_gpt2_folder(folder / "a"))
    good = write_gpt2_folder(folder / "b")
    texts = []
    for place in (folder, good):
        expansions = make(place)
        expansions.refresh("gpt2")
        texts.append(expansions(plan(), KNOWS_ALL))
    assert texts[0] == texts[1]


def test_asking_for_a_model_that_is_not_there_is_an_error(folder):
    with pytest.raises(ModelNotFound, match=r"There is no GPT-2 model in .*prompt_expansion"):
        make(folder).refresh("gpt2")


def test_a_missing_package_is_told_with_what_to_install(folder, monkeypatch):
    write_gpt2_folder(folder / "model")
    monkeypatch.setitem(sys.modules, "transformers", None)
    expansions = make(folder)
    expansions.refresh("auto")
    [notice] = expansions.take_notices()
    assert "own phrases" in notice and "pip install" in notice


def test_the_seed_counts_modulo_two_to_the_32nd_and_the_styles_count_for_the_phrases(folder):
    expansions = make(folder)
    expansions.refresh()
    assert expansions(plan(seed=2**32 + 3), KNOWS_ALL) == expansions(plan(), KNOWS_ALL)
    dark = [expansions(plan(prompt=f"a fox\nat night, {i}", seed=i), KNOWS_ALL) for i in range(30)]
    assert not any("light" in text for text in dark)


def test_transformers_is_imported_only_when_a_model_is_opened():
    script = "import sys, core.pipeline; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_text_that_is_given_stays_and_one_of_another_prompt_does_not():
    given = "a fox, glowing"
    assert plan(prompt_expansion=given).settings.prompt_expansion == given
    assert plan(prompt_expansion=given, prompt="a cat").settings.prompt_expansion == ""
    assert plan(prompt_expansion=given, styles=()).settings.prompt_expansion == ""


@pytest.mark.parametrize("budget", [1, 10**5, None])
def test_where_memory_is_short_the_same_words_come(folder, budget):
    """The network then is on the device only while it computes."""
    write_gpt2_folder(folder / "model")
    free = make(folder)
    tight = Expansions(Files([folder], "prompt_expansion"), Memory(torch.device("cpu"), budget))
    for expansions in (free, tight):
        expansions.refresh()
    assert tight(plan(), KNOWS_ALL) == free(plan(), KNOWS_ALL)
