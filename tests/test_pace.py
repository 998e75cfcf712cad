"""The pace of this machine: what is learned from a task's events, what is foretold."""

import json

import pytest

from core.axes import Axis, Grid
from core.events import Finished, Progress, Saved
from core.pace import REMEMBERED, Kind, Pace
from core.settings import Settings
from core.task import AsyncTask


class Clock:
    """The time, as the test wants it."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("core.pace.time", clock)
    return clock


def request(**changes):
    return Settings(**{"base_model": "m", "width": 512, "height": 512, "steps": 10, "guidance_scale": 4.0} | changes)


def run(pace, clock, settings, step=0.5, before=1.0, after=2.0, grid=None):
    """The events of a task at a steady pace: `before` the first step of each picture, `after` the last one."""
    task = AsyncTask(settings, grid=grid)
    watch = pace.watch(task)
    for index in range(task.pictures):
        steps = task.request(index).steps
        watch.see(Progress(share=0, text="Loading models", image=index + 1))
        clock.now += before
        watch.see(Progress(share=0, text="Reading the prompt", image=index + 1))
        for n in range(steps):
            clock.now += step
            watch.see(Progress(share=0, text=f"Step {n + 1} of {steps}", image=index + 1, step=n + 1, steps=steps))
        clock.now += after
        watch.see(Saved(path="", seed=0, width=8, height=8, index=index))
    watch.see(Finished(paths=(), seconds=1.0))
    watch.end()


def foretold(pace, settings, **more):
    return pace.seconds(AsyncTask(settings, **more))


def test_nothing_is_foretold_before_a_picture_of_the_model_was_made(clock):
    pace = Pace()
    assert foretold(pace, request()) is None
    run(pace, clock, request())
    assert foretold(pace, request(base_model="other")) is None


def test_steps_pictures_and_what_stands_around_them_add_up(clock):
    pace = Pace()
    run(pace, clock, request(steps=10), step=0.5, before=1.0, after=2.0)
    assert foretold(pace, request(steps=10)) == pytest.approx(10 * 0.5 + 3.0)
    assert foretold(pace, request(steps=30, image_number=4)) == pytest.approx(4 * (30 * 0.5 + 3.0))
    run(pace, clock, request(steps=1, width=64, height=64), step=0.25)
    assert foretold(pace, request(steps=8, width=64, height=64)) == pytest.approx(8 * 0.25 + 3.0)


def test_size_guidance_and_calls_a_step_are_kept_apart(clock):
    pace = Pace()
    run(pace, clock, request(guidance_scale=4.0), step=0.5)
    run(pace, clock, request(guidance_scale=1.0), step=0.3)
    run(pace, clock, request(width=1024, height=1024), step=3.0)
    assert foretold(pace, request(guidance_scale=1.0)) == pytest.approx(10 * 0.3 + 3.0)
    assert foretold(pace, request(width=1024, height=1024)) == pytest.approx(10 * 3.0 + 3.0)
    assert foretold(pace, request(sampler="heun")) == pytest.approx(10 * 2 * 0.5 + 3.0)
    assert foretold(pace, request(performance="speed")) == pytest.approx(30 * 0.5 + 3.0)  # the mode has 30 steps


def test_what_was_never_made_is_judged_by_the_nearest_size(clock):
    pace = Pace()
    run(pace, clock, request(), step=0.5, before=0.0, after=0.0)
    assert foretold(pace, request(width=1024, height=512)) == pytest.approx(10 * 1.0)
    assert foretold(pace, request(guidance_scale=1.0)) == pytest.approx(10 * 0.25)


def test_one_slow_minute_does_not_spoil_the_median_and_old_runs_are_forgotten(clock):
    pace = Pace()
    for step in (0.5, 0.5, 60.0):
        run(pace, clock, request(), step=step)
    assert foretold(pace, request()) == pytest.approx(10 * 0.5 + 3.0)
    for _ in range(REMEMBERED):
        run(pace, clock, request(), step=0.1)
    assert foretold(pace, request()) == pytest.approx(10 * 0.1 + 3.0)


def test_a_grid_is_the_sum_of_its_cells_and_pictures_made_already_cost_nothing(clock):
    pace = Pace()
    run(pace, clock, request(), step=0.5)
    grid = Grid(Axis("steps", ("10", "20")), Axis("guidance_scale", ("3", "5")))
    assert foretold(pace, request(), grid=grid) == pytest.approx(2 * (10 * 0.5 + 3) + 2 * (20 * 0.5 + 3))
    assert foretold(pace, request(), grid=grid, made={0: "", 1: "", 2: ""}) == pytest.approx(20 * 0.5 + 3)


def test_a_grid_is_learned_from_cell_by_cell(clock):
    pace = Pace()
    run(pace, clock, request(), step=0.5, grid=Grid(Axis("steps", ("5", "10"))))
    assert foretold(pace, request()) == pytest.approx(10 * 0.5 + 3.0)


def test_a_skipped_picture_teaches_nothing_wrong(clock):
    pace, task = Pace(), AsyncTask(request(image_number=2))
    watch = pace.watch(task)
    watch.see(Progress(share=0, text="Reading the prompt", image=1))
    for n in range(3):
        clock.now += 50
        watch.see(Progress(share=0, text=f"Step {n + 1} of 10", image=1, step=n + 1))
    watch.see(Progress(share=0, text="Reading the prompt", image=2))
    for n in range(10):
        clock.now += 0.5
        watch.see(Progress(share=0, text=f"Step {n + 1} of 10", image=2, step=n + 1))
    watch.see(Saved(path="", seed=0, width=8, height=8, index=1))
    assert foretold(pace, request()) == pytest.approx(10 * 0.5)


def test_what_was_learned_outlives_the_program(clock, tmp_path):
    file = tmp_path / "cache" / "pace.json"
    run(Pace(file), clock, request(), step=0.5)
    assert foretold(Pace(file), request()) == pytest.approx(10 * 0.5 + 3.0)
    assert [path.name for path in file.parent.iterdir()] == ["pace.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '[["m", 0, 2, [1], [1]]]', '[["m", 64, 2, ["x"], [1]]]', "[" * 100_000]
)
def test_a_damaged_file_is_as_none(tmp_path, text, clock):
    file = tmp_path / "pace.json"
    file.write_text(text)
    pace = Pace(file)
    assert foretold(pace, request()) is None
    run(pace, clock, request())
    assert json.loads(file.read_text())


def test_the_file_does_not_grow_for_ever(clock, monkeypatch):
    monkeypatch.setattr("core.pace.MOST_KINDS", 5)
    pace = Pace()
    for n in range(9):
        pace.learn(Kind(f"model {n}", 64, 1), 1.0, 1.0)
    assert foretold(pace, request(base_model="model 0", guidance_scale=1.0)) is None
    assert foretold(pace, request(base_model="model 8", guidance_scale=1.0)) is not None
