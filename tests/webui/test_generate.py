import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import BadSetting
from core.settings import Settings
from webui.controls import shown
from webui.generate import MOST_WATCHES, Desk, interval_after


def run(story):
    """The result of a coroutine, on a loop of its own: in this thread playwright may be running one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, story).result()


@pytest.fixture
def desk(app):
    return Desk(app)


def ask(desk, owner, **changes):
    values = shown(Settings(base_model="small.safetensors", width=64, height=64, steps=3)) | changes
    return desk.submit(values, owner, any_seed=True)


async def watched(desk, owner, until, seconds=5.0):
    """The views that `owner` gets until one fulfils `until`."""
    views = []

    async def watch():
        async for view in desk.watch(owner):
            views.append(view)
            if until(view):
                return

    await asyncio.wait_for(watch(), seconds)
    return views


def idle(view):
    """Whether nothing is under way."""
    return 'role="progressbar"' not in view.progress


async def running(desk, owner):
    """Wait until the worker has taken a task of `owner`."""
    while not any(task.state == "running" for task in desk.app.worker.tasks(owner)):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("model", [["small.safetensors"], {"a": 1}, 7, True])
def test_a_model_that_a_browser_cannot_choose_is_refused_in_a_sentence(desk, model):
    with pytest.raises(BadSetting, match=r"base_model is .*; it must be text"):
        ask(desk, "me", base_model=model)
    assert desk.app.worker.tasks("me") == []


def test_a_picture_of_a_second_is_seen_seven_times_and_a_long_run_twice_a_second():
    """D69: previews come throttled."""
    times, now = [], 0.0
    while (now := now + interval_after(now)) < 1:
        times.append(now)
    assert times[0] <= 0.15 and len(times) == 7
    assert interval_after(60) == interval_after(3600) == 0.5


def test_previews_arrive_one_by_one_and_then_the_picture(desk, engine):
    """D69: a finished picture is told by its address."""

    async def story():
        ask(desk, "me", steps=4)
        await running(desk, "me")
        seen = []
        async for view in desk.watch("me"):
            if "preview" in view.stage and view.stage not in seen:
                seen.append(view.stage)
            engine.step()
        return seen, view

    seen, last = run(asyncio.wait_for(story(), 10))
    assert len(seen) >= 3
    assert "easel/pictures/" in last.stage
    assert 'data-end="done"' in last.progress


def test_a_watcher_that_goes_away_leaves_the_task_running(desk, engine):
    """D17: a task outlives the page that asked for it."""

    async def story():
        ask(desk, "me")
        await running(desk, "me")
        watching = desk.watch("me")
        await anext(watching)
        await watching.aclose()
        engine.step(3)
        return await watched(desk, "me", until=idle)

    assert "easel/pictures/" in run(story())[-1].gallery
    assert not desk.bell._wakers


def test_of_too_many_that_watch_for_one_visitor_the_oldest_leaves(desk):
    async def story():
        for owner in ("me", "you"):
            ask(desk, owner)
        _yours, *mine = watches = [desk.watch("you"), *(desk.watch("me") for _ in range(MOST_WATCHES + 1))]
        for watch in watches:
            await anext(watch)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(mine[0]), 5)
        left = list(desk.bell._wakers)
        for watch in watches:
            await watch.aclose()
        return [(waker.owner, waker.dismissed) for waker in left]

    assert run(story()) == [("you", False), *[("me", False)] * MOST_WATCHES]


def test_nobody_sees_or_stops_the_tasks_of_somebody_else(desk):
    async def story():
        ask(desk, "me", prompt="my secret")
        await running(desk, "me")
        mine = desk.app.worker.tasks("me")[0]
        desk.stop("you")
        desk.skip("you")
        desk.cancel(mine.id, "you")
        return mine, await watched(desk, "you", until=lambda view: True)

    mine, views = run(story())
    assert mine.last_stop is None
    assert "secret" not in "".join(str(view) for view in views)


def test_a_second_request_waits_in_line_with_its_own_settings_and_can_be_cancelled(desk):
    """D14: a queue with places, which one can leave."""

    async def story():
        ask(desk, "me", prompt="first")
        await running(desk, "me")
        ask(desk, "me", prompt="second", width=128)
        before = desk.view("me").tasks
        waiting = desk.app.worker.tasks("me")[1]
        desk.cancel(waiting.id, "me")
        return before, waiting, desk.view("me").tasks

    before, waiting, after = run(story())
    assert "first" in before and "second" in before and "128 × 64" in before
    assert waiting.state == "stopped"
    assert "first" in after and "second" not in after


def test_stop_ends_the_running_task_and_the_next_one_starts(desk, engine):
    """D13: a stop belongs to its task."""

    async def story():
        ask(desk, "me", prompt="first")
        await running(desk, "me")
        ask(desk, "me", prompt="second")
        first = desk.app.worker.tasks("me")[0]
        desk.stop("me")
        while not first.done:
            await asyncio.sleep(0.005)
        engine.step(3)
        return first, await watched(desk, "me", until=lambda view: idle(view) and "second" in view.gallery)

    first, views = run(story())
    assert first.state == "stopped"
    assert "first" not in views[-1].gallery


def test_skip_is_passed_to_the_running_task(desk):
    async def story():
        ask(desk, "me")
        await running(desk, "me")
        task = desk.app.worker.tasks("me")[0]
        desk.skip("me")
        return task

    assert run(story()).last_stop == "skip"


def test_somebody_waiting_is_told_when_the_others_are_done(desk, engine):
    """D16: who watches is woken, and asks nobody meanwhile."""

    async def story():
        ask(desk, "you")
        await running(desk, "you")
        ask(desk, "me")
        views = []

        async def watch():
            async for view in desk.watch("me"):
                views.append(view)
                engine.step(3)

        await asyncio.wait_for(watch(), 8)
        return views

    views = run(story())
    assert "Waiting for 1 other task" in views[0].progress
    assert "easel/pictures/" in views[-1].stage


def test_a_bad_setting_starts_nothing(desk):
    with pytest.raises(BadSetting, match=r"width is 100.*multiple of 8"):
        ask(desk, "me", width=100)
    assert desk.app.worker.tasks("me") == []


def test_an_idle_browser_is_told_once_and_not_kept(desk):
    views = run(watched(desk, "me", until=lambda view: False))
    assert len(views) == 1


def test_an_error_of_the_engine_reaches_the_page_and_the_next_task_runs(desk, engine):
    async def story():
        ask(desk, "me", prompt="break")
        failed = await watched(desk, "me", until=lambda view: "problem" in view.stage)
        ask(desk, "me")
        engine.step(3)
        return failed, await watched(desk, "me", until=lambda view: "easel/pictures/" in view.stage)

    failed, _ = run(story())
    assert "the engine broke &lt;b&gt;badly" in failed[-1].stage
