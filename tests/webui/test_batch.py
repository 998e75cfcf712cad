"""Many pictures at once: lists of prompts, grids, and the buttons of the queue, without a browser."""

import time

import pytest

from core.errors import BadSetting, UserError
from core.queue_store import QueueStore
from core.settings import Settings
from core.task import AsyncTask
from core.worker import LONGEST_QUEUE, Worker
from tests.webui.stand_in import handler, make_app
from webui.controls import shown
from webui.generate import MOST_PROMPTS, Desk
from webui.tabs.batch import axis_label, told


@pytest.fixture
def desk(app):
    desk = Desk(app)
    desk.app.worker.hold("me")  # everything waits to be looked at
    return desk


def values(**changes):
    return shown(Settings(base_model="small.safetensors", width=64, height=64, steps=3, prompt="a cat")) | changes


def axes(x="steps", x_values="1, 2", y="", y_values=""):
    return {"x": x, "x_values": x_values, "y": y, "y_values": y_values}


def waiting(desk, owner="me"):
    return [task for task in desk.app.worker.tasks(owner) if task.state == "waiting"]


def test_each_line_of_a_list_becomes_a_task_with_the_other_settings(desk):
    text = "a fox\r\n\n  a castle, by night \n\ta boat"
    assert desk.submit_list(values(negative_prompt="blue"), "me", text, any_seed=True) == 3
    tasks = waiting(desk)
    assert [task.settings.prompt for task in tasks] == ["a fox", "a castle, by night", "a boat"]
    assert {task.settings.negative_prompt for task in tasks} == {"blue"}
    assert len({task.settings.seed for task in tasks}) == 3


def test_a_chosen_seed_is_the_seed_of_every_prompt(desk):
    desk.submit_list(values(seed="77"), "me", "a\nb", any_seed=False)
    assert {task.settings.seed for task in waiting(desk)} == {77}


@pytest.mark.parametrize(
    ("text", "words"),
    [("\n \n", "list is empty"), ("a\n" * (MOST_PROMPTS + 1), "201 prompts; at most 200"), ("x" * 30_000, "20000")],
)
def test_a_list_that_cannot_be_made_is_explained_and_nothing_of_it_queued(desk, text, words):
    with pytest.raises(BadSetting, match=words):
        desk.submit_list(values(), "me", text, any_seed=True)
    assert waiting(desk) == []


def test_a_list_longer_than_the_room_left_is_refused_whole(desk):
    desk.submit_list(values(), "me", "a\n" * 150, any_seed=True)
    with pytest.raises(UserError, match="room for 50 more"):
        desk.submit_list(values(), "me", "a\n" * 51, any_seed=True)
    assert len(waiting(desk)) == 150


def test_a_grid_is_one_task_of_all_its_cells(desk):
    settings = desk.submit_grid(values(), "me", axes(y="base_model", y_values="small, large"), any_seed=True)
    [task] = waiting(desk)
    assert task.settings == settings and task.pictures == 4
    assert {cell.settings.base_model for cell in task.cells} == {"small.safetensors", "large.safetensors"}
    assert {cell.settings.seed for cell in task.cells} == {settings.seed}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (axes(x_values=""), "no values for steps"),
        (axes(x="hat"), "cannot be an axis"),
        (axes(y="base_model", y_values="huge"), "There are: small"),
        (axes(x_values="1-50", y="seed", y_values="1-9"), "450 pictures"),
    ],
)
def test_a_grid_that_cannot_be_made_is_explained_and_not_queued(desk, given, words):
    with pytest.raises(BadSetting, match=words):
        desk.submit_grid(values(), "me", given, any_seed=True)
    assert waiting(desk) == []


def test_a_grid_says_how_much_work_it_is(desk):
    task = desk.grid_task(values(), "", axes(y="seed", y_values="1-3"), any_seed=True)
    assert told(task, None) == "2 × 3 = 6 pictures"
    assert told(task, 300.0) == "2 × 3 = 6 pictures, about 5 min"
    assert told(desk.grid_task(values(), "", axes(), any_seed=True), None) == "2 pictures"
    assert told(desk.grid_task(values(), "", axes(x_values="3"), any_seed=True), None) == "1 picture"


def test_a_task_that_is_edited_gets_what_is_asked_for_next_in_its_place(desk):
    for prompt in ("first", "second"):
        desk.submit(values(prompt=prompt), "me", any_seed=True)
    first, second = waiting(desk)
    assert desk.act("edit", "you", first.id, 0) is None
    assert desk.act("edit", "me", first.id, 0) is first
    desk.submit_list(values(), "me", "of a list", any_seed=True)
    desk.submit_grid(values(prompt="a grid"), "me", axes(), any_seed=True, in_place=True)
    desk.submit(values(prompt="of another page"), "me", any_seed=True)
    desk.submit(values(prompt="better"), "me", any_seed=True, in_place=True)
    desk.submit(values(prompt="another"), "me", any_seed=True, in_place=True)
    prompts = [task.settings.prompt for task in waiting(desk)]
    assert prompts == ["better", "second", "of a list", "a grid", "of another page", "another"]
    assert desk.act("edit", "me", second.id, 0) is second
    assert desk.act("keep", "me", second.id, 0) is None
    desk.submit(values(prompt="last"), "me", any_seed=True)
    assert [task.settings.prompt for task in waiting(desk)] == [*prompts, "last"]


def test_nobody_moves_holds_or_cancels_the_tasks_of_others(desk):
    for prompt in ("first", "second"):
        desk.submit(values(prompt=prompt), "me", any_seed=True)
    first, second = waiting(desk)
    for action in ("cancel", "cancel_all", "move", "release", "edit", "forget", "take_up", "no such action"):
        assert desk.act(action, "you", second.id, 0) is None
    assert waiting(desk) == [first, second]
    assert desk.act("move", "me", second.id, 0) is None
    assert waiting(desk) == [second, first]


def test_the_page_is_told_when_the_queue_goes_on(desk, engine):
    desk.submit(values(steps=1), "me", any_seed=True)
    assert "Paused" in desk.view("me").progress and 'data-action="release"' in desk.view("me").tasks
    desk.act("release", "me", "", 0)
    engine.step()
    deadline = time.monotonic() + 5
    while "easel/pictures/" not in desk.view("me").stage:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_finds_no_room_in_the_queue_stays_on_offer(engine, tmp_path):
    file = tmp_path / "queue.sqlite3"
    store = QueueStore(file)
    store.add([AsyncTask(Settings(prompt=f"picture {n}"), "me") for n in range(LONGEST_QUEUE + 1)])
    store.close()
    worker = Worker(handler, lambda: engine, QueueStore(file))  # not started: all of them wait
    desk = Desk(make_app(worker))
    desk.act("take_up", "me", "", 0)
    assert len(waiting(desk)) == LONGEST_QUEUE and worker.room("me") == 0
    assert [left.settings.prompt for left in worker.left_over("me")] == [f"picture {LONGEST_QUEUE}"]
    with pytest.raises(UserError, match="200 tasks are waiting already"):
        desk.act("take_up", "me", "", 0)
    assert len(worker.left_over("me")) == 1
    desk.cancel(waiting(desk)[0].id, "me")
    desk.act("take_up", "me", "", 0)
    assert waiting(desk)[-1].settings.prompt == f"picture {LONGEST_QUEUE}" and worker.left_over("me") == []
    worker.close()


def test_settings_are_called_in_a_grid_what_they_are_called_in_the_page():
    assert axis_label("guidance_scale") == "Guidance scale" and axis_label("clip_skip") == "CLIP skip"
    assert axis_label("prompt") == "Prompt: seek and replace"
