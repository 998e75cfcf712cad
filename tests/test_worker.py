"""Worker: order, failure, cancelling, owners."""

import logging
import time

import pytest

from core import worker as worker_module
from core.errors import UserError
from core.events import Failed, Finished, Progress, Saved, Warned
from core.pace import Pace
from core.settings import Settings
from core.task import AsyncTask
from core.worker import KEPT_PER_OWNER, LONGEST_QUEUE, Worker


class Engine:
    """Stands for the pipeline: only what the worker itself asks of it."""

    freed = 0

    def free_memory(self):
        self.freed += 1


def script(task, engine):
    """A handler whose behaviour the prompt names."""
    word = task.settings.prompt
    yield Progress(share=0.0, text="begin", preview=b"jpeg")
    if word == "user error":
        raise UserError("mend this")
    if word == "defect":
        raise RuntimeError("boom")
    if word == "memory":
        raise MemoryError
    if word == "silent":
        return
    while word == "long":
        task.check()
        time.sleep(0.005)
    yield Saved(path="/out/" + word, seed=0, width=64, height=64)
    yield Finished(paths=("/out/" + word,), seconds=0.0)


@pytest.fixture
def worker():
    worker = Worker(script, Engine)
    worker.start()
    yield worker
    worker.close()
    assert not worker._thread.is_alive()


def submit(worker, word, owner="me"):
    task = AsyncTask(Settings(prompt=word), owner)
    worker.submit(task)
    return task


def last(task):
    return list(task.events())[-1]


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_tasks_run_in_the_order_they_came(worker):
    tasks = [submit(worker, f"picture {n}") for n in range(5)]
    for task in tasks:
        assert last(task) == Finished(paths=(f"/out/{task.settings.prompt}",), seconds=0.0)
    until(lambda: worker.tasks("me") == list(reversed(tasks)))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("user error", "mend this"),
        ("defect", "Easel failed at “begin”: RuntimeError: boom"),
        ("memory", "too little memory"),
        ("silent", "defect of Easel"),
    ],
)
def test_a_failure_ends_its_own_task_and_the_next_one_runs(worker, word, message):
    """D22: a failure is told, with its stage and its cause."""
    failed, good = submit(worker, word), submit(worker, "good")
    event = last(failed)
    assert isinstance(event, Failed) and message in event.message and failed.state == "failed"
    assert isinstance(last(good), Finished)
    assert (worker._pipeline.freed == 1) == (word == "memory")


def test_an_engine_that_cannot_even_free_its_memory_is_replaced_for_the_next_task():
    """As after an error of a GPU that stays: whatever is asked of it fails."""
    made = []

    class Broken(Engine):
        def free_memory(self):
            raise RuntimeError("CUDA error: unspecified launch failure")

    def make():
        made.append(Broken())
        return made[-1]

    worker = Worker(script, make)
    worker.start()
    failed, good = submit(worker, "memory"), submit(worker, "good")
    assert "too little memory" in last(failed).message
    assert isinstance(last(good), Finished) and len(made) == 2
    worker.close()


def test_d15_an_engine_that_cannot_start_is_told_until_it_could():
    broken = [RuntimeError("no driver")]

    def make():
        if broken:
            raise broken[0]
        return Engine()

    worker = Worker(script, make)
    worker.start()
    until(lambda: "RuntimeError: no driver" in worker.trouble)
    assert "no driver" in last(submit(worker, "first")).message
    broken.clear()
    assert isinstance(last(submit(worker, "second")), Finished) and worker.trouble == ""
    worker.close()


def test_a_defect_of_the_worker_itself_ends_its_own_task_and_the_next_one_runs():
    class Broken(Pace):
        def watch(self, task):
            if task.settings.prompt == "unlucky":
                raise RuntimeError("boom")
            return super().watch(task)

    worker = Worker(script, Engine, pace=Broken())
    worker.start()
    failed, good = submit(worker, "unlucky"), submit(worker, "good")
    assert "defect of Easel" in last(failed).message and failed.state == "failed"
    assert isinstance(last(good), Finished)
    until(lambda: worker.tasks("me") == [good, failed])
    worker.close()


def test_what_listens_to_a_task_and_fails_holds_up_nobody(worker):
    def gone():
        raise RuntimeError("Event loop is closed")

    task = AsyncTask(Settings(prompt="first"), "me")
    task.subscribe(gone)
    worker.submit(task)
    assert isinstance(last(submit(worker, "good")), Finished) and task.done


def test_what_a_task_says_is_told_as_this_installation_wants_it_and_logged_as_it_is(caplog):
    def handler(task, engine):
        yield Warned(message="a file in /srv/easel is odd")
        raise UserError("there is nothing in /srv/easel")

    worker = Worker(handler, Engine, shown=lambda text: text.replace("/srv/", "…/"))
    worker.start()
    with caplog.at_level(logging.WARNING, logger="core.worker"):
        task = submit(worker, "x")
        last(task)
    worker.close()
    assert task.kept() == [
        Warned(message="a file in …/easel is odd"),
        Failed(message="there is nothing in …/easel"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "a file in /srv/easel is odd",
        "there is nothing in /srv/easel",
    ]


def test_an_engine_that_cannot_start_fails_the_task_and_is_tried_again():
    """D15: a model that cannot be loaded ends no worker."""
    attempts = []

    def make():
        attempts.append(1)
        if len(attempts) <= 2:
            raise UserError("no model")
        return Engine()

    worker = Worker(script, make)
    worker.start()
    assert last(submit(worker, "one")).message == "no model"
    assert isinstance(last(submit(worker, "two")), Finished)
    worker.close()


def test_a_running_task_can_be_cancelled(worker):
    task = submit(worker, "long")
    until(lambda: task.state == "running")
    assert worker.cancel(task.id, "me")
    assert last(task).stopped
    assert isinstance(last(submit(worker, "next")), Finished)


def test_a_waiting_task_can_be_cancelled_and_the_others_stay(worker):
    first, second, third = submit(worker, "long"), submit(worker, "second"), submit(worker, "third")
    until(lambda: first.state == "running")
    assert [worker.position(t) for t in (first, second, third)] == [0, 1, 2]
    assert worker.tasks("me") == [first, second, third]
    assert worker.cancel(second.id, "me")
    assert last(second).stopped and second.state == "stopped"
    assert not worker.cancel(second.id, "me")
    assert worker.position(third) == 1
    first.stop()
    assert isinstance(last(third), Finished)


def test_nobody_sees_or_stops_the_tasks_of_others(worker):
    task = submit(worker, "long", owner="me")
    assert worker.tasks("you") == [] and worker.find(task.id, "you") is None
    assert not worker.cancel(task.id, "you")
    until(lambda: task.state == "running")
    assert worker.find(task.id, "me") is task
    task.stop()


def test_only_the_newest_finished_tasks_are_kept(worker):
    """D17: what is kept of finished tasks is bounded."""
    tasks = [submit(worker, str(n)) for n in range(KEPT_PER_OWNER + 5)]
    last(tasks[-1])
    until(lambda: worker.tasks("me")[0] is tasks[-1])
    assert len(worker.tasks("me")) == KEPT_PER_OWNER


def test_of_all_visitors_together_only_the_newest_finished_tasks_are_kept(worker, monkeypatch):
    monkeypatch.setattr(worker_module, "KEPT", 5)
    tasks = [submit(worker, str(n), owner=f"visitor {n}") for n in range(8)]
    last(tasks[-1])
    until(lambda: worker.tasks("visitor 7") and worker._running is None)
    assert [n for n in range(8) if worker.tasks(f"visitor {n}")] == [3, 4, 5, 6, 7]


def test_a_full_queue_is_refused_with_a_sentence(worker):
    blocker = submit(worker, "long")
    until(lambda: blocker.state == "running")
    for _ in range(LONGEST_QUEUE):
        submit(worker, "x")
    with pytest.raises(UserError, match="waiting already"):
        submit(worker, "x")


def test_close_ends_what_runs_and_what_waits():
    worker = Worker(script, Engine)
    worker.start()
    running, waiting = submit(worker, "long"), submit(worker, "later")
    until(lambda: running.state == "running")
    worker.close()
    assert last(running).stopped and last(waiting).stopped
    assert not worker._thread.is_alive()
