"""The list of tasks: words, buttons, what is offered after a restart."""

from html.parser import HTMLParser

import pytest

from core.axes import Axis, Grid
from core.events import Finished, Saved
from core.queue_store import LeftTask
from core.settings import Settings
from core.task import AsyncTask
from core.worker import Forecast
from webui.render import view
from webui.task_list import Standing, about, task_list

HOSTILE = "<img src=x onerror=alert(1)> \"' {{x}} ${alert(4)} </li>"


class Reader(HTMLParser):
    """Text by the class of its element, and the buttons."""

    def __init__(self, html):
        super().__init__()
        self.buttons, self.tags, self.items, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "li":
            self.items.append((attributes["data-task"], []))
        if tag == "button":
            (self.items[-1][1] if self.items else self.buttons).append(attributes["data-action"])

    def handle_data(self, data):
        self.text += data


def task(prompt="a fox", state="waiting", **settings):
    made = AsyncTask(Settings(prompt=prompt, width=512, height=768, **settings), "me")
    made.state = state
    return made


def listed(tasks, **standing):
    return Reader(task_list(tasks, lambda task: tasks.index(task), Standing(**standing)))


def test_a_waiting_task_can_be_moved_edited_and_cancelled_a_running_one_only_cancelled():
    tasks = [task("now", "running"), task("next"), task("last")]
    found = listed(tasks)
    assert found.items == [
        (tasks[0].id, ["cancel"]),
        (tasks[1].id, ["up", "down", "edit", "cancel"]),
        (tasks[2].id, ["up", "down", "edit", "cancel"]),
    ]
    assert found.buttons == ["hold", "cancel_all"]


def test_a_task_that_is_edited_can_be_left_as_it_was():
    tasks = [task("now", "running"), task("next")]
    found = listed(tasks, edited=tasks[1])
    assert found.items[1] == (tasks[1].id, ["keep", "cancel"])
    assert "being edited" in task_list(tasks, lambda task: 1, Standing(edited=tasks[1]))


def test_a_single_waiting_task_has_nowhere_to_be_moved():
    assert listed([task()]).items[0][1] == ["edit", "cancel"]


def test_one_running_task_needs_no_buttons_for_the_queue():
    found = listed([task("now", "running")])
    assert found.buttons == [] and found.items[0][1] == ["cancel"]
    assert listed([]).tags == []


def test_every_button_says_in_words_what_it_does_to_which_task():
    for tag, attributes in listed([task("a fox"), task("a cat")]).tags:
        if tag == "button" and attributes["data-action"] in ("up", "down", "edit", "cancel"):
            assert attributes["aria-label"].endswith((": a fox", ": a cat"))


def test_size_number_and_time_of_each_task_are_told_and_the_time_of_all():
    tasks = [task("now", "running", steps=30), task("four", image_number=4), task("unknown")]
    forecast = Forecast({tasks[0].id: 20.0, tasks[1].id: 200.0}, 220.0, complete=False)
    text = listed(tasks, forecast=forecast).text
    for words in ("512 × 768 · 30 steps", "4 images · about 3 min", "waiting, 1 ahead"):
        assert words in text
    assert "3 tasks · at least about 4 min until all are done" in text


def test_a_grid_and_what_was_made_before_a_restart_are_told():
    grid = AsyncTask(Settings(), "me", grid=Grid(Axis("steps", ("1", "2")), Axis("seed", ("1", "2"))))
    assert "grid of 4 images" in listed([grid]).text
    half = AsyncTask(Settings(image_number=5), "me", made={0: "a", 1: "b"})
    assert "2 of 5 images made" in listed([half]).text


def test_a_pause_is_seen_even_when_nothing_waits():
    found = listed([], held=True)
    assert found.buttons == ["release"] and "Paused: new tasks wait, too" in found.text
    assert "Paused; what runs is still finished" in listed([task("now", "running")], held=True).text
    assert "paused" in listed([task()], held=True).text


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ([False], "1 task was waiting when Easel ended"),
        ([False] * 3, "3 tasks were waiting when Easel ended"),
        ([True], "1 task was under way when Easel ended"),
        ([True, False, False], "1 task was under way and 2 were waiting when Easel ended"),
        ([True, False], "1 task was under way and 1 was waiting when Easel ended"),
    ],
)
def test_what_the_last_run_left_is_offered_in_plain_words(left, words):
    tasks = [LeftTask(settings=Settings(prompt=f"picture {n}"), running=running) for n, running in enumerate(left)]
    found = listed([], left=tasks)
    assert words in found.text and "picture 0" in found.text
    assert found.buttons == ["take_up", "forget"]


def test_a_hostile_prompt_is_only_text():
    left = [LeftTask(settings=Settings(prompt=HOSTILE))]
    found = listed([task(HOSTILE), task(HOSTILE)], left=left)
    assert {tag for tag, _ in found.tags} <= {"div", "p", "span", "ul", "li", "button"}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert found.text.count(HOSTILE) == 3


def test_a_finished_grid_shows_its_sheet_on_the_stage_and_all_pictures_in_the_gallery():
    made = AsyncTask(Settings(prompt="red"), "me", grid=Grid(Axis("prompt", ("red", "green"))))
    for index in range(2):
        made.publish(Saved(path="", seed=0, width=64, height=64, index=index))
    made.publish(Saved(path="", seed=0, width=200, height=100, sheet=True))
    made.publish(Finished(paths=("", ""), seconds=3.0))
    shown = view([made], lambda task: 0)
    assert shown.stage.count("<a ") == 1 and "200 × 100" in shown.stage and "All pictures on one: red" in shown.stage
    assert shown.gallery.count("<a ") == 3 and 'data-prompt="green"' in shown.gallery
    assert "2 of 2 images" in shown.progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 5 s"), (12, "about 10 s"), (54, "about 55 s"), (56, "about 1 min"), (100, "about 2 min"),
        (3599, "about 1 h"), (5400, "about 1 h 30 min"), (36_000, "about 10 h"),
    ],
)  # fmt: skip
def test_a_time_to_come_is_no_more_exact_than_it_is_known(seconds, words):
    assert about(seconds) == words
