"""AsyncTask: the stream of events and the stop."""

import pickle
import threading

import pytest

from core.events import Failed, Finished, Progress, Saved, Warned
from core.settings import Settings
from core.task import AsyncTask, Interrupted


def saved(n: int) -> Saved:
    return Saved(path=f"/out/{n}.png", seed=n, width=64, height=64)


def test_a_reader_gets_every_lasting_event_in_order_and_then_the_end():
    task = AsyncTask(Settings())
    events = []
    reader = threading.Thread(target=lambda: events.extend(task.events()))
    reader.start()
    for n in range(20):
        task.publish(Progress(share=n / 20, text="Step"))
        task.publish(saved(n))
    task.publish(Warned(message="careful"))
    task.publish(Finished(paths=(), seconds=1.0))
    reader.join(5)
    assert not reader.is_alive()
    lasting = [event for event in events if not isinstance(event, Progress)]
    assert lasting == [*map(saved, range(20)), Warned(message="careful"), Finished(paths=(), seconds=1.0)]


def test_a_reader_who_joins_late_finds_the_newest_progress_and_all_that_was_saved():
    task = AsyncTask(Settings())
    task.publish(saved(0))
    task.publish(Progress(share=0.1, text="Step 1", preview=b"old"))
    task.publish(Progress(share=0.2, text="Step 2", preview=b"new"))
    task.publish(Progress(share=0.3, text="Step 3"))
    events = task.events()
    assert next(events).text == "Step 3"
    assert next(events) == saved(0)
    assert task.preview == b"new"


@pytest.mark.parametrize("end", [Finished(paths=(), seconds=0), Failed(message="no")])
def test_a_task_that_is_done_keeps_no_preview(end):
    task = AsyncTask(Settings())
    task.publish(Progress(share=0.5, text="Step 1", preview=b"jpeg"))
    assert task.preview == task.progress.preview == b"jpeg"
    task.publish(end)
    assert not task.preview and task.progress == Progress(share=0.5, text="Step 1")


def test_the_state_follows_the_last_event():
    for event, state in [
        (Finished(paths=(), seconds=0), "finished"),
        (Finished(paths=(), seconds=0, stopped=True), "stopped"),
        (Failed(message="no"), "failed"),
    ]:
        task = AsyncTask(Settings())
        assert not task.done
        task.publish(event)
        assert task.state == state and task.done


def test_check_raises_once_stop_or_skip_was_pressed():
    task = AsyncTask(Settings())
    task.check()
    task.skip()
    with pytest.raises(Interrupted):
        task.check()
    task.unskip()
    task.check()
    task.stop()
    task.skip()  # a stop is not weakened to a skip
    task.unskip()
    with pytest.raises(Interrupted):
        task.check()
    assert task.stopped


def test_listeners_are_told_until_they_leave():
    task, calls = AsyncTask(Settings()), []
    leave = task.subscribe(lambda: calls.append(1))
    task.publish(Progress(share=0, text=""))
    leave()
    leave()
    task.publish(Progress(share=0, text=""))
    assert len(calls) == 1


def test_ids_cannot_be_guessed_and_events_are_picklable():
    assert len({AsyncTask(Settings()).id for _ in range(100)}) == 100
    assert len(AsyncTask(Settings()).id) >= 22  # 132 bits in base64
    event = Progress(share=0.5, text="x", preview=b"jpeg")
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 (our own bytes)
