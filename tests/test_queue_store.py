"""The queue on disk: what a restart and a kill leave, whose it is, damage, two processes."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from core.axes import Axis, Grid
from core.queue_store import LONGEST_KEPT, QueueStore
from core.settings import Lora, Settings
from core.task import AsyncTask

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache" / "queue.sqlite3"


def task(prompt, owner="me", **more):
    return AsyncTask(Settings(prompt=prompt, seed=2**63 - 1, loras=(Lora("ink.safetensors", 0.5),)), owner, **more)


def prompts(store, owner="me"):
    return [left.settings.prompt for left in store.left(owner)]


def restarted(store, file):
    store.close()
    return QueueStore(file)


def test_tasks_are_found_by_the_next_start_with_all_their_settings_and_in_their_order(file):
    store = QueueStore(file)
    tasks = [task(f"picture {n}") for n in range(4)]
    store.add(tasks)
    store.begin(tasks[0])
    store.order([tasks[3], tasks[1], tasks[2]])
    assert store.left("me") == []  # nothing is left over while they wait
    store = restarted(store, file)
    assert prompts(store) == ["picture 0", "picture 3", "picture 1", "picture 2"]
    left = store.left("me")
    assert [one.running for one in left] == [True, False, False, False]
    assert left[1].settings == tasks[3].settings
    store.close()


def test_a_grid_and_the_pictures_made_already_come_back(file):
    store = QueueStore(file)
    grid = Grid(Axis("steps", ("2", "4")), Axis("seed", ("5", "6")))
    half = task("grid", grid=grid)
    store.add([half])
    half.made.update({0: "/out/0.png", 2: "/out/2.png"})
    store.progress(half)
    store = restarted(store, file)
    [left] = store.left("me")
    again = left.task("me")
    assert again.grid == grid and again.made == half.made and again.cells == half.cells
    assert again.id != half.id and again.state == "waiting"
    store.close()


def test_what_is_done_or_unwanted_is_not_offered(file):
    store = QueueStore(file)
    tasks = [task("done"), task("kept")]
    store.add(tasks)
    store.drop(tasks[:1])
    store = restarted(store, file)
    assert prompts(store) == ["kept"]
    store.forget_left("me")
    assert prompts(store) == []
    store = restarted(store, file)
    assert prompts(store) == []
    store.close()


def test_left_tasks_wait_through_several_restarts_and_new_ones_stand_apart(file):
    store = QueueStore(file)
    store.add([task("old")])
    store = restarted(store, file)
    store.add([task("new")])
    assert prompts(store) == ["old"]
    store.forget_left("me")
    store = restarted(store, file)
    assert prompts(store) == ["new"]
    store.close()


def test_everybody_is_offered_their_own_and_the_file_does_not_hold_their_secret(file):
    store = QueueStore(file)
    secret = "s3cret" * 7 + "x"
    store.add([task("mine", owner=secret), task("yours", owner="you")])
    store = restarted(store, file)
    assert prompts(store, secret) == ["mine"] and prompts(store, "you") == ["yours"] and prompts(store, "") == []
    store.forget_left("you")
    assert prompts(store, secret) == ["mine"]
    store.close()
    assert secret.encode() not in b"".join(path.read_bytes() for path in file.parent.iterdir())


def test_a_killed_process_loses_nothing(file):
    code = f"""
        import os, signal
        from pathlib import Path
        from core.queue_store import QueueStore
        from core.settings import Settings
        from core.task import AsyncTask
        store = QueueStore(Path({str(file)!r}))
        tasks = [AsyncTask(Settings(prompt=f"picture {{n}}"), "me") for n in range(3)]
        store.add(tasks)
        store.begin(tasks[0])
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and done.stdout == "ready\n"
    store = QueueStore(file)
    assert prompts(store) == ["picture 0", "picture 1", "picture 2"]
    store.close()


def test_two_processes_of_one_installation_do_not_offer_each_other_s_tasks(file):
    """D21: several programs on one folder do not disturb each other."""
    first, second = QueueStore(file), QueueStore(file)
    first.add([task("first")])
    second.add([task("second")])
    assert first.left("me") == second.left("me") == []
    first.close()
    second.close()
    first, second = QueueStore(file), QueueStore(file)
    assert (prompts(first), prompts(second)) == (["first", "second"], [])  # the next one that asks is offered all
    first.close()
    second.close()


def test_of_several_processes_that_ended_one_restart_offers_all_and_keeps_it(file):
    stores = [QueueStore(file) for _ in range(3)]
    for number, store in enumerate(stores):
        tasks = [task(f"{name} of {number}") for name in ("running", "waiting")]
        store.add(tasks)
        store.begin(tasks[0])
    for store in stores:
        store.close()
    running, waiting = ([f"{name} of {number}" for number in range(3)] for name in ("running", "waiting"))
    store = QueueStore(file)
    assert prompts(store) == running + waiting
    store.add([task("new")])
    store = restarted(store, file)
    assert prompts(store) == [*running, *waiting, "new"]
    store.forget_left("me")
    store = restarted(store, file)
    assert prompts(store) == []
    store.close()


def test_a_process_that_starts_while_the_last_one_is_closing_offers_its_tasks_as_soon_as_it_is_gone(file):
    old, new = QueueStore(file), QueueStore(file)
    old.add([task("old")])
    assert prompts(new) == []
    new.add([task("new")])
    old.close()
    assert prompts(new) == ["old"]
    new = restarted(new, file)
    assert sorted(prompts(new)) == ["new", "old"]
    new.close()


def test_its_own_file_is_not_looked_at_as_another_ones(file, monkeypatch):
    store = QueueStore(file)
    store.add([AsyncTask(Settings(), "me")])
    looked = []
    monkeypatch.setattr("core.queue_store._held", looked.append)
    assert store.left("me") == [] and looked == []
    store.close()


def test_what_another_process_leaves_long_after_the_start_waits_for_the_next_one(file, monkeypatch):
    monkeypatch.setattr("core.queue_store.SETTLING", -1.0)
    other, store = QueueStore(file), QueueStore(file)
    other.add([task("of the other")])
    assert prompts(store) == []
    other.close()
    assert prompts(store) == []
    store = restarted(store, file)
    assert prompts(store) == ["of the other"]
    store.close()


@pytest.mark.parametrize("trouble", ["damaged", "newer"])
def test_a_file_of_another_process_that_cannot_be_read_is_left_as_it_is(file, trouble):
    first, second = QueueStore(file), QueueStore(file)
    first.add([task("first")])
    second.add([task("second")])
    first.close()
    second.close()
    other = file.with_name("queue-2.sqlite3")
    if trouble == "damaged":
        other.write_bytes(b"this is no database at all" * 100)
    else:
        connection = sqlite3.connect(other)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    store = QueueStore(file)
    assert prompts(store) == ["first"]
    store.close()
    assert other.is_file() and not list(file.parent.glob("*damaged*"))


def test_a_damaged_file_is_kept_aside_and_told(file, caplog):
    file.parent.mkdir()
    file.write_bytes(b"this is no database at all" * 100)
    store = QueueStore(file)
    store.add([task("new")])
    assert "damaged" in caplog.text
    store = restarted(store, file)
    assert prompts(store) == ["new"]
    store.close()
    assert [path.read_bytes()[:7] for path in file.parent.glob("*damaged*")] == [b"this is"]


def test_without_a_place_to_write_the_queue_lives_in_memory_and_says_so_once(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    store = QueueStore(tmp_path / "cache" / "queue.sqlite3")
    store.add([task("a")])
    store.drop([task("b")])
    assert store.left("me") == []
    assert caplog.text.count("cannot be used") == 1
    store.close()


def test_tasks_of_another_version_are_read_as_far_as_they_are_understood(file, caplog):
    store = QueueStore(file)
    store.add([task("one"), task("two"), task("three")])
    store.close()
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("""UPDATE tasks SET request = replace(request, '"steps"', '"hats"') WHERE place = 1""")
        connection.execute("""UPDATE tasks SET request = replace(request, '"karras"', '"spiral"') WHERE place = 2""")
    connection.close()
    store = QueueStore(file)
    assert prompts(store) == ["one", "three"]  # what `hats` were, nobody knows: the usual steps
    assert "cannot be read any more" in caplog.text
    store.close()


def test_tasks_that_nobody_came_back_for_are_dropped_in_the_end(file):
    store = QueueStore(file)
    old = task("old")
    old.created -= LONGEST_KEPT + 60
    store.add([old, task("young")])
    store = restarted(store, file)
    assert prompts(store) == ["young"]
    store.close()


def test_nothing_is_written_without_a_file(tmp_path):
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        store = QueueStore()
        store.add([task("a")])
        assert store.left("me") == []
        store.close()
    finally:
        os.chdir(here)
    assert list(tmp_path.iterdir()) == []
