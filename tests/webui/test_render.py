import base64
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from core.events import Failed, Finished, Progress, Saved, Warned
from core.settings import Settings
from core.task import AsyncTask
from webui.render import MOST_NAMED, duration, pictures, problem, told_origin, view

HOSTILE = "</textarea><img src=x onerror=alert(1)><script>alert(2)</script>\"' onload=alert(3) {{x}} ${alert(4)}"
OURS = {"div", "span", "p", "ul", "li", "button", "a", "img", "details", "summary"}


class Reader(HTMLParser):
    """Tags, attributes and text of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def one(self, name):
        return next(attributes for tag, attributes in self.tags if name in (attributes.get("class") or "").split())


def first(task):
    return 0


def running(prompt="a fox", **progress):
    task = AsyncTask(Settings(prompt=prompt), "me")
    task.state = "running"
    if progress:
        task.publish(Progress(**progress))
    return task


def finished(prompt="a fox", count=1, seed=5):
    task = AsyncTask(Settings(prompt=prompt, seed=seed, image_number=count), "me")
    for index in range(count):
        task.publish(Saved(path=f"/out/{index}.png", seed=seed + index, width=256, height=192))
    task.publish(Finished(paths=tuple(f"/out/{i}.png" for i in range(count)), seconds=12.0))
    return task


def test_a_hostile_prompt_is_only_text_wherever_it_is_shown():
    """D5: nor in the page."""
    done, now = finished(HOSTILE), running(HOSTILE, share=0.5, text=HOSTILE, preview=b"jpeg")
    broken = AsyncTask(Settings(prompt=HOSTILE), "me")
    broken.publish(Warned(message=HOSTILE))
    broken.publish(Failed(message=HOSTILE))
    for tasks in ([done], [now, done], [broken]):
        shown = view(tasks, first)
        told = told_origin(HOSTILE, [HOSTILE] * 20, [HOSTILE] * 20)
        for html in (shown.stage, shown.progress, shown.tasks, shown.gallery, problem(HOSTILE), told):
            for tag, attributes in Reader(html).tags:
                assert tag in OURS
                assert not [name for name in attributes if name.startswith("on")]
                assert attributes.get("src") != "x"
    assert HOSTILE in Reader(view([broken], first).stage).text
    assert Reader(view([done], first).gallery).one("shot")["data-prompt"] == HOSTILE


def test_settings_of_another_program_are_a_notice_and_look_like_a_problem_only_if_some_could_not_be_used():
    assert Reader(told_origin("Fooocus", (), ())).one("notice")["role"] == "status"
    assert Reader(told_origin("Fooocus", ("ink",), ())).one("problem")["role"] == "alert"
    assert Reader(told_origin("", (), ("hat (1)",))).text == "These could not be used: hat (1)."
    assert told_origin("", (), ()) == ""


def test_long_lists_of_what_could_not_be_used_can_be_opened():
    names = [f"key{i:02}" for i in range(MOST_NAMED + 3)]
    told = Reader(told_origin("", (), names))
    assert told.text.startswith(f"These could not be used: {', '.join(names[:MOST_NAMED])} and 3 more.")
    assert [tag for tag, _ in told.tags if tag in ("details", "li")] == ["details", *["li"] * len(names)]
    assert told.text.endswith("".join(names))


def test_the_newest_preview_is_on_the_stage_as_it_came():
    task = running(share=0.1, text="Step 1 of 9", preview=b"one")
    task.publish(Progress(share=0.2, text="Step 2 of 9", preview=b"two"))
    task.publish(Progress(share=0.3, text="Step 3 of 9"))
    source = Reader(view([task], first).stage).one("preview")["src"]
    assert source == "data:image/jpeg;base64," + base64.b64encode(b"two").decode()


def test_the_progress_tells_share_step_image_and_time_left():
    progress = view(
        [running(share=0.37, text="Decoding", step=7, steps=20, image=2, images=4, seconds_left=83.0)], first
    ).progress
    assert Reader(progress).one("bar")["aria-valuenow"] == "37"
    for words in ("Decoding", "step 7 of 20", "image 2 of 4", "1 min 23 s left"):
        assert words in Reader(progress).text


def test_the_list_shows_running_and_waiting_tasks_each_with_its_cancel_button():
    now, next_one = running("a fox"), AsyncTask(Settings(prompt="a cat", width=512, height=768, image_number=3), "me")
    reader = Reader(view([now, next_one, finished("old")], {now: 0, next_one: 1}.__getitem__).tasks)
    assert [a["data-task"] for tag, a in reader.tags if tag == "li"] == [now.id, next_one.id]
    assert [a["data-action"] for tag, a in reader.tags if tag == "button"].count("cancel") == 2
    for words in ("a fox", "running", "a cat", "512 × 768", "3 images", "waiting, 1 ahead"):
        assert words in reader.text
    assert "old" not in reader.text


def test_all_finished_pictures_are_in_the_gallery_newest_first():
    newer, older = finished("new", count=2, seed=8), finished("old", seed=3)
    shots = [a for tag, a in Reader(view([newer, older], first).gallery).tags if tag == "a"]
    assert [(a["data-prompt"], a["data-seed"]) for a in shots] == [("new", "9"), ("new", "8"), ("old", "3")]
    assert len({a["href"] for a in shots}) == 3


def test_pictures_of_a_running_task_are_in_the_gallery_at_once():
    task = running(share=0.5, text="Step", preview=b"x")
    task.publish(Saved(path="/out/0.png", seed=1, width=64, height=64))
    assert len(pictures(task)) == 1
    assert Reader(view([task], first).gallery).one("shot")["data-seed"] == "1"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Failed(message="Too little memory."), "Too little memory."),
        (Finished(paths=(), seconds=1.0, stopped=True), "Stopped"),
    ],
)
def test_a_task_that_ends_without_a_picture_says_so(event, words):
    task = AsyncTask(Settings(), "me")
    task.publish(event)
    assert words in Reader(view([task], first).stage).text


def test_a_browser_without_tasks_is_greeted_with_examples():
    empty = view([], first)
    assert len([tag for tag, _ in Reader(empty.stage).tags if tag == "button"]) >= 3
    assert (empty.progress, empty.tasks, empty.gallery) == ("", "", "")


def test_a_step_changes_nothing_but_the_progress_and_a_preview():
    """Gradio sends the parts that differ from those before: all others must be the same text."""
    task = running(share=0.1, text="Step 1 of 9", preview=b"one")
    before = view([task], first)
    task.publish(Progress(share=0.2, text="Step 2 of 9"))
    after = view([task], first)
    assert after == replace(before, progress=after.progress) != before
    task.publish(Progress(share=0.3, text="Step 3 of 9", preview=b"two"))
    later = view([task], first)
    assert later == replace(after, progress=later.progress, stage=later.stage)


def test_the_buttons_to_skip_and_stop_are_there_while_a_task_runs():
    """style.css shows them beside a progress bar of the class `running`."""
    task = running(share=0.1, text="Step 1 of 9")
    assert '<div class="bar running" role="progressbar"' in view([task], first).progress
    assert '<div class="bar waiting" role="progressbar"' in view([AsyncTask(Settings(), "me")], first).progress
    task.publish(Finished(paths=(), seconds=1.0))
    assert "bar" not in view([task], first).progress


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")]
)
def test_durations_are_written_for_people(seconds, words):
    assert duration(seconds) == words
