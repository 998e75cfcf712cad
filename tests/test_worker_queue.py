"""The queue of the worker: order, pause, editing, what a restart finds, forecasts."""

import threading
import time

import pytest

from core.errors import UserError
from core.events import Finished, Progress, Saved
from core.pace import Kind, Pace
from core.queue_store import QueueStore
from core.settings import Settings
from core.task import AsyncTask
from core.worker import HELD_FOR, LONGEST_QUEUE, Worker


class Engine:
    """A step is made when the test says so."""

    def __init__(self):
        self.steps = threading.Semaphore(0)

    def free_memory(self): ...


def handler(task, engine):
    for index in range(task.pictures):
        if index in task.made:
            continue
        while not engine.steps.acquire(timeout=0.005):
            task.check()
        yield Progress(share=index / task.pictures, text="Step 1 of 1", image=index + 1)
        task.made[index] = f"/out/{index}.png"
        yield Saved(path=f"/out/{index}.png", seed=0, width=64, height=64, index=index)
    yield Finished(paths=tuple(task.made.values()), seconds=0.0)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def make(engine, tmp_path):
    """Makes workers on one installation; the last one is running at a time, as the program is."""
    workers = []

    def make(**options):
        if workers:
            workers[-1].close()
        worker = Worker(handler, lambda: engine, QueueStore(tmp_path / "queue.sqlite3"), **options)
        worker.start()
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(make):
    return make()


def submit(worker, prompt, owner="me", **more):
    task = AsyncTask(Settings(prompt=prompt, base_model="m", **more), owner)
    worker.submit(task)
    return task


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def waiting(worker, owner="me"):
    return [task.settings.prompt for task in worker.tasks(owner) if task.state == "waiting"]


def occupied(worker, owner="me"):
    """Something runs, so that what comes next waits."""
    task = submit(worker, "running", owner)
    until(lambda: task.state == "running")
    return task


def test_a_task_can_be_put_to_any_place_among_ones_own(worker):
    occupied(worker)
    tasks = [submit(worker, name) for name in "abcd"]
    for task, place, order in [(3, 0, "dabc"), (3, 2, "abdc"), (0, 3, "bdca"), (1, 2**70, "dcab"), (1, -5, "bdca")]:
        assert worker.move(tasks[task].id, "me", place)
        assert "".join(waiting(worker)) == order
    assert not worker.move("no such task", "me", 0)


def test_moving_a_task_leaves_those_of_others_where_they_are(worker):
    occupied(worker)
    for name, owner in [("a", "me"), ("x", "you"), ("b", "me"), ("y", "you"), ("c", "me")]:
        submit(worker, name, owner)
    c = next(task for task in worker.tasks("me") if task.settings.prompt == "c")
    assert not worker.move(c.id, "you", 0)
    assert worker.move(c.id, "me", 0)
    assert [task.settings.prompt for task in worker.async_tasks] == ["c", "x", "a", "y", "b"]


def test_the_running_task_is_finished_in_a_pause_and_the_next_one_waits(worker, engine):
    running, second = occupied(worker), submit(worker, "second")
    worker.hold("me")
    engine.steps.release(2)
    until(lambda: running.done)
    time.sleep(0.03)
    assert worker.held("me") and second.state == "waiting" and running.state == "finished"
    worker.release("me")
    until(lambda: second.done)


def test_a_pause_holds_only_the_tasks_of_the_one_who_paused(worker, engine):
    occupied(worker, "you")
    mine, yours = submit(worker, "mine"), submit(worker, "yours", "you")
    assert worker.position(yours) == 2
    worker.hold("me")
    assert worker.position(yours) == 1 and not worker.held("you")
    engine.steps.release(3)
    until(lambda: yours.done)
    assert mine.state == "waiting"


@pytest.mark.parametrize(
    "keep_waiting", [lambda worker, task: worker.hold("me"), lambda worker, task: worker.edit(task.id, "me")]
)
def test_what_is_held_or_edited_begins_an_hour_after_its_owner_was_there(make, engine, keep_waiting):
    now = [0.0]
    worker = make(clock=lambda: now[0])
    occupied(worker, "you")
    mine, yours = submit(worker, "mine"), submit(worker, "yours", "you")
    keep_waiting(worker, mine)
    for now[0] in (3500.0, 7000.0):
        worker.seen("me")
    engine.steps.release(3)
    until(lambda: yours.done)
    assert mine.state == "waiting"
    now[0] = 7000.0 + HELD_FOR
    submit(worker, "later", "you")
    until(lambda: mine.done)
    assert not worker.held("me") and worker.edited("me") is None


def test_nothing_has_to_happen_for_a_pause_of_somebody_gone_to_end(worker, engine, monkeypatch):
    monkeypatch.setattr("core.worker.HELD_FOR", 0.05)
    worker.hold("me")
    mine = submit(worker, "mine")
    engine.steps.release(1)
    until(lambda: mine.done)


def test_of_many_pauses_those_are_forgotten_that_hold_nothing(worker):
    worker.hold("me")
    submit(worker, "mine")
    for number in range(2 * LONGEST_QUEUE):
        worker.hold(f"nobody {number}")
    assert worker.held("me") and len(worker._held) <= LONGEST_QUEUE + 1


def test_all_of_ones_own_are_cancelled_at_once_and_nothing_of_others(worker):
    running = occupied(worker)
    mine, yours = [submit(worker, name) for name in "ab"], submit(worker, "yours", "you")
    assert worker.cancel_all("me") == 3
    until(lambda: running.state == "stopped")
    assert [task.state for task in mine] == ["stopped", "stopped"]
    until(lambda: yours.state == "running")
    assert worker.cancel_all("nobody") == 0


def test_a_task_that_is_edited_keeps_its_place_and_waits_for_what_comes_in_it(worker, engine):
    running, second, third = occupied(worker), submit(worker, "second"), submit(worker, "third")
    assert worker.edit(second.id, "you") is None and worker.edit(running.id, "me") is None
    assert worker.edited("me") is None
    assert worker.edit(second.id, "me") is second and worker.edited("me") is second
    engine.steps.release(2)
    until(lambda: third.done)
    assert second.state == "waiting"
    better = AsyncTask(Settings(prompt="better"), "me")
    fourth = submit(worker, "fourth")
    until(lambda: fourth.state == "running")
    submit(worker, "fifth")
    assert worker.put_back(better) and worker.edited("me") is None
    assert waiting(worker) == ["better", "fifth"] and worker.find(second.id, "me") is None
    assert not worker.put_back(AsyncTask(Settings(), "me"))
    engine.steps.release(3)
    until(lambda: better.done)


def test_a_task_that_is_let_go_begins_as_it_was(worker, engine):
    running, second = occupied(worker), submit(worker, "second")
    worker.edit(second.id, "me")
    engine.steps.release(2)
    until(lambda: running.done)
    time.sleep(0.03)
    assert second.state == "waiting"
    worker.let_go("me")
    until(lambda: second.done)


def test_one_edits_one_task_at_a_time_and_a_cancelled_one_no_more(worker):
    occupied(worker)
    second, third = submit(worker, "second"), submit(worker, "third")
    worker.edit(second.id, "me")
    worker.edit(third.id, "me")
    assert worker.edited("me") is third
    worker.cancel(third.id, "me")
    assert worker.edited("me") is None and not worker.put_back(AsyncTask(Settings(), "me"))


def test_an_edited_task_is_offered_again_in_its_place_as_it_was_last(make):
    worker = make()
    occupied(worker)
    second = submit(worker, "second")
    submit(worker, "third")
    worker.edit(second.id, "me")
    worker.put_back(AsyncTask(Settings(prompt="better"), "me"))
    again = make()
    assert [left.settings.prompt for left in again.left_over("me")][1:] == ["better", "third"]


def test_several_tasks_are_taken_all_or_none(worker):
    occupied(worker)
    worker.submit(*(AsyncTask(Settings(), "me") for _ in range(LONGEST_QUEUE - 2)))
    with pytest.raises(UserError, match="3 tasks, and the queue has room for 2 more"):
        worker.submit(*(AsyncTask(Settings(), "me") for _ in range(3)))
    assert len(waiting(worker)) == LONGEST_QUEUE - 2


def test_where_there_are_several_visitors_none_of_them_fills_the_queue(make):
    """D7: no quota."""
    worker = make(most_of_one=5)
    occupied(worker)
    worker.submit(*(AsyncTask(Settings(), "me") for _ in range(2)))
    with pytest.raises(UserError, match=r"have 5 tasks here at a time, .* now 2 more are possible, and these are 3\."):
        worker.submit(*(AsyncTask(Settings(), "me") for _ in range(3)))
    assert len(waiting(worker)) == 2
    worker.submit(*(AsyncTask(Settings(), "me") for _ in range(2)))
    with pytest.raises(UserError, match="now 0 more"):
        submit(worker, "too much")
    submit(worker, "one more", "you")
    assert waiting(worker, "you") == ["one more"]
    worker = make(most_of_one=5)
    worker.submit(*(left.task("me") for left in worker.left_over("me")))  # all that one had is taken up again


def test_a_restart_offers_what_ran_and_what_waited_and_runs_nothing_unasked(make, engine):
    worker = make()
    occupied(worker)
    submit(worker, "second")
    submit(worker, "yours", "you")
    worker = make()
    assert [left.settings.prompt for left in worker.left_over("me")] == ["running", "second"]
    assert [left.settings.prompt for left in worker.left_over("you")] == ["yours"]
    assert worker.left_over("") == [] and worker.tasks("me") == []
    worker.submit(*(left.task("me") for left in worker.left_over("me")))
    worker.forget_left_over("me")
    engine.steps.release(2)
    until(lambda: [task.state for task in worker.tasks("me")] == ["finished", "finished"])
    worker = make()
    assert worker.left_over("me") == [] and len(worker.left_over("you")) == 1


def test_pictures_that_were_made_before_a_restart_are_not_made_again(make, engine):
    worker = make()
    task = submit(worker, "four", image_number=4)
    engine.steps.release(3)
    until(lambda: len(task.made) == 3)
    worker = make()
    [left] = worker.left_over("me")
    again = left.task("me")
    worker.submit(again)
    engine.steps.release(1)
    until(lambda: again.done)
    assert [event.index for event in again.kept() if isinstance(event, Saved)] == [3]
    assert len(again.kept()[-1].paths) == 4


@pytest.mark.parametrize("end", ["finished", "cancelled", "stopped"])
def test_what_came_to_an_end_is_not_offered_again(make, engine, end):
    worker = make()
    running, second = occupied(worker), submit(worker, "second")
    if end == "finished":
        engine.steps.release(2)
    elif end == "cancelled":
        worker.cancel_all("me")
    else:
        worker.cancel(second.id, "me")
        worker.cancel(running.id, "me")
    until(lambda: running.done and second.done)
    assert make().left_over("me") == []


def test_the_forecast_counts_ones_own_tasks_and_those_before_them(engine):
    pace = Pace()
    pace.learn(Kind("m", 64 * 64, 2), call=2.0, rest=1.0)
    worker = Worker(handler, lambda: engine, pace=pace)  # not started: everything waits
    size = {"width": 64, "height": 64, "steps": 10}
    first, yours = submit(worker, "a", **size), submit(worker, "x", "you", **size)
    last = submit(worker, "b", image_number=2, **size)
    submit(worker, "y", "you", **size)
    mine = worker.forecast("me")
    assert mine.tasks == {first.id: 21.0, last.id: 42.0} and mine.until_done == 84.0 and mine.complete
    worker.hold("you")
    assert worker.forecast("me").until_done == 63.0
    worker.hold("me")
    worker.release("you")
    assert worker.forecast("you").tasks[yours.id] == 21.0 and worker.forecast("you").until_done == 42.0
    unknown = AsyncTask(Settings(base_model="other"), "me")
    worker.submit(unknown)
    forecast = worker.forecast("me")
    assert unknown.id not in forecast.tasks and not forecast.complete and forecast.until_done == 105.0
    assert worker.forecast("nobody").until_done is None and worker.forecast("nobody").complete
    assert worker.estimate(unknown) is None
    worker.close()


def test_the_worker_learns_its_pace_from_what_it_makes(worker, engine):
    task = submit(worker, "a", width=64, height=64, steps=1)
    engine.steps.release(1)
    until(lambda: task.done)
    assert worker.estimate(AsyncTask(task.settings)) is not None
