"""Prompt expansion on the whole way, prompt to picture and back, on the tiny checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gpt2_folder import write_gpt2_folder
from PIL import Image
from tiny import write_checkpoint

from core.device import DeviceChoice, choose_device
from core.errors import ModelNotFound
from core.events import Progress, Saved, Warned
from core.handler import handler
from core.output.metadata import read_settings, read_settings_text
from core.pipeline import Pipeline
from core.prompt.plan import plan_images
from core.settings import Settings
from core.task import AsyncTask
from core.text.expansion import Expansions
from core.text.gpt2 import NextToken
from core.weights.files import Catalog

SMALL = {
    "width": 64, "height": 64, "steps": 2, "prompt": "a red fox", "base_model": "tiny.safetensors", "seed": 7,
    "sampler": "euler", "preview": False, "styles": ("Fooocus V2",),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    write_checkpoint(folder / "checkpoints/tiny.safetensors")
    write_gpt2_folder(folder / "prompt_expansion/fooocus_expansion")
    return folder


def make_pipeline(folder, tmp_path, expansion="prompt_expansion"):
    device = choose_device(DeviceChoice(device="cpu", unet_precision="fp32", vae_precision="fp32"))
    others = {"prompt_expansion": [folder / expansion]}
    return Pipeline(Catalog([folder / "checkpoints"], others=others), device, tmp_path / "outputs")


@pytest.fixture(params=["gpt2", "phrases"])
def pipelines(request, folder, tmp_path):
    """Two machines; the one has GPT-2, the other has not, in both orders."""
    with_gpt2, without = make_pipeline(folder, tmp_path), make_pipeline(folder, tmp_path, "nothing")
    return (with_gpt2, without) if request.param == "gpt2" else (without, with_gpt2)


@pytest.fixture
def pipeline(folder, tmp_path):
    return make_pipeline(folder, tmp_path)


def run(pipeline, **settings):
    return list(handler(AsyncTask(Settings(**{**SMALL, **settings})), pipeline))


def saved(events):
    return [event for event in events if isinstance(event, Saved)]


def pixels(event):
    with Image.open(event.path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("output_format", ["png", "jpeg"])
def test_a_picture_is_made_again_from_its_file_even_where_there_is_another_expander(pipelines, output_format):
    here, elsewhere = pipelines
    first, second = saved(run(here, image_number=2, output_format=output_format))
    for picture in (first, second):
        read = read_settings(picture.path)
        settings = Settings.from_dict(read.settings)
        assert settings.prompt_expansion.startswith("a red fox, ") and settings.prompt == "a red fox"
        assert read.typed == {"prompt_expansion": ""}  # what the user gave was no text
        for pipeline in (here, elsewhere):
            [again] = saved(list(handler(AsyncTask(settings), pipeline)))
            np.testing.assert_array_equal(pixels(again), pixels(picture))
    texts = [read_settings(picture.path).settings["prompt_expansion"] for picture in (first, second)]
    assert texts[0] != texts[1]  # each picture has its own seed
    assert texts[0] != read_settings(saved(run(elsewhere))[0].path).settings["prompt_expansion"]


def test_the_text_that_other_programs_read_makes_the_picture_again_too(pipelines):
    here, elsewhere = pipelines
    [picture] = saved(run(here, prompt='__animal__, "quoted", (fur:1.2)\nsecond line', styles=("Fooocus V2", "Anime")))
    with Image.open(picture.path) as image:
        text = image.text["parameters"]
    settings = Settings.from_dict({**SMALL, **read_settings_text(text).settings})
    [again] = saved(list(handler(AsyncTask(settings), elsewhere)))
    np.testing.assert_array_equal(pixels(again), pixels(picture))


def test_a_recorded_text_does_not_stay_with_another_prompt(pipeline):
    [picture] = saved(run(pipeline))
    settings = Settings.from_dict(read_settings(picture.path).settings)
    [other] = saved(list(handler(AsyncTask(replace(settings, prompt="a cat")), pipeline)))
    assert read_settings(other.path).settings["prompt_expansion"].startswith("a cat, ")
    [without] = saved(list(handler(AsyncTask(replace(settings, styles=())), pipeline)))
    assert read_settings(without.path).settings["prompt_expansion"] == ""
    [plain] = saved(run(pipeline, styles=()))
    np.testing.assert_array_equal(pixels(without), pixels(plain))


def refuse_to_expand(monkeypatch):
    for name in ("refresh", "__call__"):
        monkeypatch.setattr(Expansions, name, lambda *_, **__: pytest.fail("no expander was wanted"))


def test_a_text_of_the_users_own_is_taken_as_it_stands(pipeline, monkeypatch):
    refuse_to_expand(monkeypatch)
    [picture] = saved(run(pipeline, prompt_expansion="a red fox, in the snow"))
    assert not np.array_equal(pixels(picture), pixels(saved(run(pipeline, styles=()))[0]))


def test_the_added_text_is_one_more_text_that_is_not_pooled(pipeline):
    """Q07: kept as in the reference."""
    [plan] = plan_images(Settings(**SMALL))
    pipeline.refresh_everything("tiny.safetensors", expander="gpt2")
    expanded = pipeline.expand_prompt(plan)
    assert pipeline.expand_prompt(expanded) is expanded
    text = expanded.settings.prompt_expansion
    for each in (plan, expanded):  # who forgets to expand has it done
        positive = pipeline.process_prompt(each, each.settings).positive
        plain, added = pipeline.clip_encode(["a red fox"]), pipeline.clip_encode([text])
        torch.testing.assert_close(positive.tokens, torch.cat([plain.tokens, added.tokens], dim=1), rtol=0, atol=0)
        torch.testing.assert_close(positive.pooled, plain.pooled, rtol=0, atol=0)


def test_without_the_style_nothing_is_loaded_and_nothing_added(pipeline, monkeypatch):
    refuse_to_expand(monkeypatch)
    pipeline.refresh_everything("tiny.safetensors")
    [plan] = plan_images(Settings(**{**SMALL, "styles": ()}))
    assert pipeline.expand_prompt(plan) is plan
    assert pipeline.process_prompt(plan, plan.settings).positive.tokens.shape[1] == 77


def test_what_was_added_and_by_whom_is_told(pipelines):
    here, _ = pipelines
    events = run(here, image_number=2)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert len(told) == 1 and told[0].startswith("Fooocus V2 continues prompts with ")
    shown = [e.text for e in events if isinstance(e, Progress) and e.text.startswith("Added to the prompt: ")]
    assert len(shown) == 2 and all("fox" not in text and len(text) < 150 for text in shown)
    assert not [event for event in run(here) if isinstance(event, Warned)]


def test_a_re_roll_of_the_same_seed_draws_no_word_again(pipeline, monkeypatch):
    [first] = saved(run(pipeline))
    monkeypatch.setattr(NextToken, "forward", lambda *_: pytest.fail("this was to be remembered"))
    [again] = saved(run(pipeline, steps=3))
    assert (
        read_settings(again.path).settings["prompt_expansion"] == read_settings(first.path).settings["prompt_expansion"]
    )


def test_an_expander_can_be_chosen(pipelines, folder):
    here, elsewhere = pipelines
    texts = {
        read_settings(saved(run(pipeline, expander="phrases"))[0].path).settings["prompt_expansion"]
        for pipeline in (here, elsewhere)
    }
    assert len(texts) == 1
    without = next(
        p for p in pipelines if p.catalog.files("prompt_expansion").folders != (folder / "prompt_expansion",)
    )
    with pytest.raises(ModelNotFound, match="GPT-2"):
        run(without, expander="gpt2")


def test_after_letting_go_of_everything_the_expander_comes_back(pipeline):
    [first] = saved(run(pipeline))
    pipeline.free_memory()
    [again] = saved(run(pipeline))
    np.testing.assert_array_equal(pixels(again), pixels(first))


def test_q03_13_4_the_global_random_state_is_not_what_the_expander_leaves_behind(pipeline):
    """In the reference the expander seeds it, and the noise of an encoded picture hangs on the last one that did."""
    [plan] = plan_images(Settings(**SMALL))
    pipeline.refresh_everything("tiny.safetensors")
    before = torch.get_rng_state()
    pipeline.refresh_everything("tiny.safetensors", expander="gpt2")
    pipeline.expand_prompt(plan)
    assert torch.equal(torch.get_rng_state(), before)
