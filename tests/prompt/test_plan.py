"""The plan: what each picture of a request is made from, and what makes it again alone."""

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSetting
from core.prompt.plan import explain, plan_images, typed_otherwise
from core.prompt.resolve import MOST_TEXTS, Choice
from core.prompt.resources import PromptResources
from core.prompt.styles import StyleLibrary, Text
from core.prompt.wildcards import Wildcards
from core.settings import MAX_SEED, Lora, Settings

STYLES = [
    {"name": "around", "prompt": "nice {prompt} indeed", "negative_prompt": "ugly"},
    {"name": "beside", "prompt": "plain", "negative_prompt": "bad\nworse"},
    {"name": "only negative", "negative_prompt": "dull"},
]
WORDS = {"color": "red\ngreen\nblue", "thing": "cat\ndog", "tag": "<lora:film:0.7>", "odd": "a dog.\n[[x,y]] ,, z"}


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompt")
    (folder / "styles").mkdir()
    (folder / "styles" / "test.json").write_text(json.dumps(STYLES))
    (folder / "wildcards").mkdir()
    for name, text in WORDS.items():
        (folder / "wildcards" / f"{name}.txt").write_text(text)
    return PromptResources(
        styles=StyleLibrary([folder / "styles"], own=None),
        wildcards=Wildcards([folder / "wildcards"], own=None),
        loras=lambda: ["look/film.safetensors", "other.safetensors"],
    )


def plans(resources, prompt="", **settings):
    return plan_images(Settings(prompt=prompt, **settings), resources)


def one(resources, prompt="", **settings):
    return plans(resources, prompt, **settings)[0]


def test_without_styles_the_lines_are_the_texts(resources):
    plan = one(resources, "a  fox,hat \n\n. second,one", negative_prompt="dark\nwet")
    assert plan.positive == ("a fox, hat", "second,one")
    assert plan.negative == ("dark", "wet")
    assert (plan.positive_pooled, plan.negative_pooled) == (2, 2)


def test_styles_come_before_the_other_lines_and_the_negative_prompt_behind_theirs(resources):
    """Sections 5.3 and 2.14 of the specification."""
    plan = one(resources, "fox\nsecond", negative_prompt="dark\nwet", styles=("Beside", "Around"))
    assert plan.positive == ("plain", "nice fox indeed", "second")
    assert plan.negative == ("bad", "worse", "ugly", "dark", "wet")


def test_without_a_place_for_it_the_prompt_comes_first(resources):
    assert one(resources, "fox", styles=("Beside",)).positive == ("fox", "plain")


def test_empty_texts_are_left_out_and_an_empty_prompt_is_one_empty_text(resources):
    plan = one(resources, "", styles=("Only Negative",))
    assert (plan.positive, plan.negative) == (("",), ("dull",))
    assert one(resources, "").negative == ("",)


def test_the_expansion_is_asked_for_by_its_pseudo_style_and_adds_no_text(resources):
    plan = one(resources, "fox\nsecond", styles=("Fooocus V2", "Around"))
    assert plan.expansion and plan.main == "fox" and plan.positive == ("nice fox indeed", "second")
    assert plan.settings.styles == ("Fooocus V2", "Around")
    assert not one(resources, "fox", styles=("Around",)).expansion


def test_an_empty_main_prompt_turns_the_expansion_off(resources):
    assert not one(resources, " ,", styles=("Fooocus V2",)).expansion


def test_picture_n_has_seed_plus_n_and_wraps(resources):
    assert [plan.seed for plan in plans(resources, "a", seed=MAX_SEED - 1, image_number=4)] == [
        MAX_SEED - 1, MAX_SEED, 0, 1,
    ]  # fmt: skip


def test_without_increment_every_picture_has_the_bare_seed_and_equal_pictures_are_told(resources):
    """Defect D57: the reference makes the same picture several times without a word."""
    same = plans(resources, "__color__ a", seed=5, image_number=3, seed_increment=False)
    assert [plan.seed for plan in same] == [5, 5, 5]
    assert len({plan.positive for plan in same}) == 1
    assert "the same" in same[0].notices[0] and not same[1].notices
    for prompt, ordered in (("[[a, b, c]]", False), ("__color__", True)):
        varied = plans(resources, prompt, image_number=3, seed_increment=False, read_wildcards_in_order=ordered)
        assert len({plan.positive for plan in varied}) == 3 and not varied[0].notices


def test_chance_is_used_for_main_negative_other_lines_other_negative_lines_then_random_style(resources):
    """KEEP of the reference, section 2.14 step 5."""
    colors = ["red", "green", "blue"]
    for seed in range(30):
        plan = one(
            resources,
            "__color__\n2 __color__",
            negative_prompt="__color__\n2 __color__",
            seed=seed,
            styles=("Random Style",),
        )
        chance = Random(seed)
        main, negative, extra, extra_negative = (chance.choice(colors) for _ in range(4))
        style = chance.choice(["Around", "Beside", "Only Negative"])
        assert plan.settings.styles == (style,)
        assert plan.main == main
        assert plan.positive[-1] == f"2 {extra}" and plan.negative[-2:] == (negative, f"2 {extra_negative}")


def test_a_random_style_is_drawn_for_each_picture(resources):
    drawn = {plan.settings.styles for plan in plans(resources, "a", styles=("Random Style",), image_number=30)}
    assert drawn == {("Around",), ("Beside",), ("Only Negative",)}


def test_an_unknown_style_is_left_out_and_told(resources):
    """Defect D26: in the reference it makes the whole run fail."""
    plan = one(resources, "fox", styles=("Arround", "Beside"))
    assert plan.positive == ("fox", "plain") and plan.settings.styles == ("Beside",)
    assert "'Arround'" in plan.notices[0] and "'Around'" in plan.notices[0]


def test_style_tags_add_styles_to_this_prompt(resources):
    plan = one(resources, "fox <style:around>, hat\n<style:Beside> <style:Around>", styles=("Beside",))
    assert plan.settings.styles == ("Beside", "Around")
    assert plan.positive == ("plain", "nice fox, hat indeed")
    assert plan.settings.prompt == "fox, hat\n"
    assert one(resources, "fox <style:Fooocus V2>").expansion


def test_a_style_under_two_names_counts_once(resources):
    plan = one(resources, "fox <style:BESIDE>", styles=("around", "Beside", "Around", "Fooocus V2", "fooocus-v2"))
    assert plan.settings.styles == ("Around", "Beside", "Fooocus V2")
    assert plan.positive == ("nice fox indeed", "plain")
    found = explain(Settings(prompt="fox <style:Fooocus Sharp>", styles=("Easel Sharp",)), PromptResources())
    assert found.styles == ("Easel Sharp",)


def test_lora_tags_act_in_all_lines_and_per_picture_after_wildcards_and_arrays(resources):
    """Defect D46: in the reference tags in arrays act on all pictures, those from wildcards and other lines are text."""
    first, second = plans(resources, "a [[<lora:film:1>, <lora:other:.5>]]", image_number=2)
    assert first.loras == (Lora("look/film.safetensors", 1.0),) and second.loras == (Lora("other.safetensors", 0.5),)
    assert first.positive == second.positive == ("a",)
    assert one(resources, "a __tag__").loras == (Lora("look/film.safetensors", 0.7),)
    plan = one(resources, "a\nb <lora:film:1>")
    assert plan.loras == (Lora("look/film.safetensors", 1.0),) and plan.positive == ("a", "b")


def test_loras_of_rows_come_first_and_those_that_are_off_do_nothing(resources):
    rows = (Lora("look/film.safetensors", 0.2), Lora("x.safetensors", enabled=False))
    assert one(resources, "a", loras=rows).loras == rows[:1]
    assert one(resources, "a <lora:film:1> <lora:other:1>", loras=rows).loras == (
        rows[0],
        Lora("other.safetensors", 1.0),
    )


def test_the_limit_of_loras_is_kept_and_told(resources):
    few = replace(resources, most_loras=1)
    plan = one(few, "a <lora:film:1> <lora:other:1>")
    assert len(plan.loras) == 1 and "other.safetensors" in plan.notices[0]


def test_unknown_names_are_told(resources):
    """Defect D23: the reference drops tags and wildcards that it does not know in silence."""
    plan = one(resources, "a __colr__ <lora:flim:1>")
    assert plan.positive == ("a colr",)
    assert "__color__" in plan.notices[0] and "'film'" in plan.notices[1]


def test_tags_in_the_negative_prompt_do_nothing_and_are_told(resources):
    plan = one(resources, "a", negative_prompt="b <lora:film:1> <style:around>")
    assert plan.negative == ("b",) and not plan.loras and not plan.settings.styles
    assert "negative prompt" in plan.notices[0]


def test_arrays_outside_the_first_line_stay_text_and_are_told(resources):
    plan = one(resources, "a\n[[b, c]]")
    assert plan.positive == ("a", "[[b, c]]") and "first line" in plan.notices[0]


def test_a_prompt_without_syntax_stays_as_it_was_typed_in_the_record(resources):
    plan = one(resources, "  a ,, fox\n\nb", styles=("Around",), image_number=3, seed=4)
    assert plan.settings == Settings(prompt="  a ,, fox\n\nb", styles=("Around",), seed=4)
    assert typed_otherwise(plan.settings, plan) == {}


def again(plan, resources):
    [alone] = plan_images(plan.settings, resources)
    return (alone.seed, alone.positive, alone.negative, alone.loras, alone.expansion, alone.main, alone.settings) == (
        plan.seed, plan.positive, plan.negative, plan.loras, plan.expansion, plan.main, plan.settings,
    )  # fmt: skip


@pytest.mark.parametrize("ordered", [False, True])
def test_picture_n_of_a_request_is_made_again_alone_by_its_own_settings(resources, ordered):
    """Defect D36: the reference's record loses what wildcards and arrays were; ours holds both what was and what was typed."""
    typed = Settings(
        prompt="[[big, small]] __color__ __thing__ <lora:film:.5>\n__color__ sky", negative_prompt="__thing__", image_number=4,
        styles=("Random Style", "Fooocus V2"), read_wildcards_in_order=ordered, seed=9,
    )  # fmt: skip
    for plan in plan_images(typed, resources):
        assert again(plan, resources)
        assert plan.settings.prompt_syntax and plan.settings.image_number == 1
        assert "__" not in plan.settings.prompt and "[[" not in plan.settings.prompt
        assert plan.settings.prompt.startswith(("big", "small")[plan.index % 2])
        kept = typed_otherwise(typed, plan)
        assert kept["prompt"] == typed.prompt and kept["styles"] == typed.styles and kept["loras"] == ()


def test_it_does_not_hang_on_the_wildcard_files_of_the_day(resources):
    plan = one(resources, "__color__ __thing__", seed=3)
    [alone] = plan_images(plan.settings, PromptResources(styles=resources.styles))
    assert alone.positive == plan.positive


@pytest.mark.parametrize("prompt", ["the __odd__", "__[[color, thing]]__", "<style:around>\nsecond", "[[a[[b]] c]]"])
def test_a_text_that_would_be_read_otherwise_once_more_is_recorded_as_it_stands(resources, prompt):
    for seed in range(4):
        for plan in plans(resources, prompt, image_number=2, seed=seed):
            assert again(plan, resources)


PIECES = st.sampled_from(
    ["__color__", "__odd__", "__", "[[", "]]", ",", " ", "\n", ".", "a", "b", "<lora:film:1>", "<style:around>", "<", ">", "{prompt}",
     "__tag__", "_", "nope", "(a:1.2)"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join), st.lists(PIECES, max_size=6).map("".join), st.integers(0, 5))
def test_whatever_is_typed_each_picture_can_be_made_again_alone(resources, prompt, negative, seed):
    settings = Settings(prompt=prompt, negative_prompt=negative, seed=seed, image_number=2, styles=("Random Style",))
    for plan in plan_images(settings, resources):
        assert again(plan, resources)


def test_as_it_stands_means_no_wildcards_arrays_tags_or_cleaning(resources):
    text = " __color__, [[a, b]] <lora:film:1>,\n\n<style:around>. "
    plan = one(resources, text, negative_prompt="x .", prompt_syntax=False)
    assert plan.positive == (" __color__, [[a, b]] <lora:film:1>,", "<style:around>. ")
    assert plan.negative == ("x .",) and not plan.loras and not plan.notices


def test_more_texts_than_can_be_encoded_are_an_error(resources):
    assert one(resources, "a\n" * MOST_TEXTS).positive
    with pytest.raises(BadSetting, match=f"at most {MOST_TEXTS}"):
        one(resources, "a\n" * (MOST_TEXTS + 1))


def test_an_explanation_tells_part_by_part_what_the_prompt_becomes(resources):
    """An item of an array keeps its blank, as in the reference; blanks make no difference to the text encoders."""
    settings = Settings(
        prompt="[[big, small]] __color__ fox\nsecond <lora:film:.5>",
        negative_prompt="dark",
        styles=("Around", "Fooocus V2"),
        seed=2,
    )
    color = Random(3).choice(["red", "green", "blue"])
    told = explain(settings, resources, index=1)
    assert told.main == f" small {color} fox"
    assert told.positive == (Text(f"nice  small {color} fox indeed", "Around"), Text("second", "line 2"))
    assert told.negative == (Text("ugly", "Around"), Text("dark", "prompt"))
    assert told.choices == (Choice("__color__", color), Choice("[[big, small]]", "small"))
    assert (told.combinations, told.expansion, told.loras) == (2, True, (Lora("look/film.safetensors", 0.5),))
    assert json.loads(json.dumps(told.to_dict()))["styles"] == ["Around", "Fooocus V2"]


def test_an_explanation_agrees_with_the_plan(resources):
    settings = Settings(prompt="__color__ [[a, b]]", styles=("Random Style",), image_number=3, seed=8)
    for plan in plan_images(settings, resources):
        assert tuple(part.text for part in explain(settings, resources, plan.index).positive) == plan.positive


def test_a_prompt_without_tags_asks_for_no_lora_files():
    def fail():
        raise AssertionError("the LoRA folder was listed")

    plan_images(Settings(prompt="a fox"), PromptResources(loras=fail, embeddings=fail))
