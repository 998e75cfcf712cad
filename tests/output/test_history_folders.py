"""The pictures are the truth: the history is made from them when it is lost or damaged, and follows what happens to them."""

import json
import os
import random
import sqlite3
import threading
import zlib
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from foreign_samples import FOOOCUS_TEXT, chunk, png
from PIL import Image, PngImagePlugin

from core.output.fingerprint import fingerprint
from core.output.history import NAME, History
from core.output.history_database import VERSION, WITH_SECRETS
from core.output.history_files import read_picture
from core.output.history_folders import Folders
from core.output.record import Origin, Record
from core.output.save import save_picture
from core.prompt.style_files import Style
from core.settings import Settings

NOON = datetime(2026, 11, 23, 12, 0, 0).astimezone()
ME = "m" * 43
CASTLE = "a castle\nSteps: 20, Sampler: Euler, Seed: 5"
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def opened(tmp_path):
    """Makes histories of `tmp_path`/outputs; all are closed at the end."""
    made = []

    def opened(*folders, **options):
        made.append(History(tmp_path / "outputs", folders, **options))
        return made[-1]

    yield opened
    for history in made:
        history.close()


def save(history, prompt, minutes=0, origin=None, **settings):
    settings = Settings(prompt=prompt, width=64, height=64, seed=minutes, **settings)
    record = Record(settings, created=NOON + timedelta(minutes=minutes), origin=origin)
    return save_picture(PIXELS, record, history.outputs).path, record


def made(history, prompt, minutes=0, **options):
    file, record = save(history, prompt, minutes, **options)
    history.add(file, record, ME)
    return file


def prompts(history, text="", **options):
    return [picture.prompt for picture in history.search(text, ME, **options).pictures]


def foreign_png(file, text):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(file, pnginfo=info)
    return file


def lose(history):
    """Close it and delete its database."""
    history.close()
    for file in history.outputs.glob(f"{NAME}*"):
        file.unlink()


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_lost_history_is_made_again_from_the_pictures(opened, output_format):
    history = opened()
    first = made(history, "a fox", 1, output_format=output_format, base_model="easel.safetensors", styles=("Oil",))
    made(history, "a larger fox", 2, output_format=output_format, origin=Origin(fingerprint(first), "upscaled"))
    before = history.search("", ME).pictures
    settings = [history.settings(picture) for picture in before]
    lose(history)
    again = opened()
    again.sync()
    after = again.search("", ME).pictures
    told = ("prompt", "model", "styles", "seed", "width", "source", "created", "path", "parent", "kind", "fingerprint")
    for one, other in zip(before, after, strict=True):
        assert [getattr(one, name) for name in told] == [getattr(other, name) for name in told]
    assert [again.settings(picture) for picture in after] == settings
    assert [picture.prompt for picture in again.lineage(after[0], ME).ancestors] == ["a fox"]


def test_pictures_in_the_trash_are_still_there_after_a_loss(opened):
    history = opened()
    file = made(history, "a fox")
    history.trash([history.search("", ME).pictures[0].key], ME)
    lose(history)
    again = opened()
    again.sync()
    assert (prompts(again), prompts(again, trash=True)) == ([], ["a fox"])
    again.restore([again.search("", ME, trash=True).pictures[0].key], ME)
    assert file.is_file() and prompts(again) == ["a fox"]


@pytest.mark.parametrize("damage", ["overwritten", "half", "empty head", "text"])
def test_a_damaged_history_is_put_aside_told_of_and_made_again(opened, damage):
    history = opened()
    for minutes in range(30):
        made(history, f"number {minutes}", minutes)
    history.close()
    file = history.outputs / NAME
    data = file.read_bytes()
    broken = {
        "overwritten": data[:4096] + random.Random(0).randbytes(len(data) - 4096),
        "half": data[: len(data) // 2],
        "empty head": bytes(200) + data[200:],
        "text": b"this is no database, however long one looks at it " * 200,
    }[damage]
    file.write_bytes(broken)
    again = opened()
    again.start()
    wait_for(lambda: not again.reading.busy and count(again) == 30)
    assert len(again.notices) == 1 and "could not be read" in again.notices[0]
    (aside,) = history.outputs.glob("history-damaged-*.sqlite3")
    assert aside.read_bytes()[-1000:] == broken[-1000:] and aside.name in again.notices[0]


@pytest.mark.parametrize("version", [WITH_SECRETS, VERSION])
def test_favourites_and_owners_are_rescued_from_what_can_still_be_read(opened, version):
    history = opened(private=True)
    for minutes in range(200):
        made(history, f"number {minutes}", minutes, save_metadata=minutes != 3)
    keys = [picture.key for picture in history.search("number", ME, most=200).pictures]
    history.mark(keys, ME, favourite=True)
    history.close()
    file = history.outputs / NAME
    with sqlite3.connect(file) as connection:  # break the index of words, which the pictures do not need
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'words_fts5_data'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if version == WITH_SECRETS:
            connection.execute("UPDATE pictures SET owner = ?", [ME])
            connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    data = bytearray(file.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    file.write_bytes(data)
    again = opened(private=True)
    again.start()
    wait_for(lambda: again.notices and not again.reading.busy and count(again) == 200)
    assert len(prompts(again, "fav", most=1000)) == 200
    assert prompts(again, "number 3") != [] and "number 3" in prompts(again, most=1000)  # its file says nothing


def test_a_database_of_a_newer_program_is_kept_and_not_used(opened):
    history = opened()
    made(history, "a fox")
    history.close()
    with sqlite3.connect(history.outputs / NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    again = opened()
    again.sync()
    assert prompts(again) == ["a fox"] and "version 99" in again.notices[0]
    assert list(history.outputs.glob("history-damaged-*"))


def test_what_happens_to_the_files_outside_is_noticed(opened):
    history = opened()
    kept, gone, renamed = (made(history, prompt, at) for at, prompt in enumerate(("kept", "gone", "renamed")))
    history.mark([picture.key for picture in history.search("renamed", ME).pictures], ME, favourite=True)
    gone.unlink()
    renamed.rename(history.outputs / "best.png")
    save(history, "put there", 9)
    foreign_png(kept, "painted over\nSteps: 20, Sampler: Euler, Seed: 5")
    history.sync()
    assert sorted(prompts(history)) == ["painted over", "put there", "renamed"]
    assert prompts(history, "fav") == ["renamed"]
    assert history.file(history.search("renamed", ME).pictures[0]).name == "best.png"


def test_a_file_whose_settings_were_stripped_keeps_them_in_the_history(opened):
    history = opened()
    file = made(history, "a fox")
    Image.fromarray(PIXELS).save(file)
    history.sync()
    (picture,) = history.search("fox", ME).pictures
    assert history.settings(picture)["prompt"] == "a fox"
    assert picture.bytes == file.stat().st_size


def test_nothing_is_read_twice_that_did_not_change(opened, monkeypatch):
    history = opened()
    made(history, "a fox")
    save(history, "a cat", 1)
    history.sync()
    monkeypatch.setattr("core.output.history_folders.read_picture", lambda *_: pytest.fail("read again"))
    history.sync()
    assert sorted(prompts(history)) == ["a cat", "a fox"]


def test_pictures_of_other_programs_are_found_in_their_place_and_never_touched(opened, tmp_path):
    others = tmp_path / "other program"
    text = (
        "a castle\nNegative prompt: fog\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64, Model: dreamy"
    )
    file = foreign_png(others / "2026" / "2026-10-05_08-30-00_1234.png", text)
    data, about = file.read_bytes(), file.stat()
    history = opened(others)
    made(history, "a fox")
    history.sync()
    (picture,) = history.search("castle source:a1111 model:dreamy negative:fog date:2026-10-05 seed:5", ME).pictures
    assert history.settings(picture)["base_model"] == "dreamy"  # to be looked for among the models that are here
    assert picture.foreign and history.file(picture) == file and history.settings(picture)["steps"] == 20
    assert history.mark([picture.key], ME, favourite=True) and prompts(history, "fav") == ["a castle"]
    done, remarks = history.trash([picture.key], ME)
    assert done == [] and "another program" in remarks[0]
    assert file.read_bytes() == data and file.stat().st_mtime_ns == about.st_mtime_ns
    assert sorted(path.name for path in others.rglob("*")) == ["2026", file.name]


@pytest.mark.parametrize(
    "texts",
    [
        chunk(b"tEXt", b"parameters\0" + "猫 a cat\nSteps: 3, Seed: 4, Sampler: Euler".encode()),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b" " * 2_000_000))
        + chunk(b"iTXt", b"parameters\0\0\0\0\0" + "猫 a cat\nSteps: 3, Seed: 4, Sampler: Euler".encode()),
    ],
    ids=["UTF-8 where Latin-1 should be", "beside a long packed text"],
)
@pytest.mark.parametrize("behind", [False, True])
def test_the_history_reads_a_picture_as_it_is_read_when_it_is_dropped(opened, tmp_path, texts, behind):
    plain = png({})
    at = len(plain) - 12 if behind else plain.index(b"IDAT") - 4
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "cat.png").write_bytes(plain[:at] + texts + plain[at:])
    history = opened(tmp_path / "others")
    history.sync()
    (picture,) = history.search("猫", ME).pictures
    assert picture.prompt == "猫 a cat" and history.settings(picture)["seed"] == 4
    assert history.thumbnail(picture)


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_a_disk_that_is_not_there_takes_nothing_out_of_the_history(opened, tmp_path, left):
    others = tmp_path / "disk"
    foreign_png(others / "a.png", CASTLE)
    history = opened(others)
    history.sync()
    history.mark([picture.key for picture in history.search("castle", ME).pictures], ME, favourite=True)
    others.rename(tmp_path / "unplugged")
    if left != "nothing":
        others.mkdir()
    history.sync()
    assert prompts(history, "fav") == ["a castle"]


def test_a_folder_that_is_not_asked_for_any_more_leaves_the_history_and_its_pictures_stay(opened, tmp_path):
    file = foreign_png(tmp_path / "disk" / "a.png", CASTLE)
    history = opened(tmp_path / "disk")
    history.sync()
    history.close()
    again = opened()
    again.sync()
    assert prompts(again) == [] and file.is_file()


@pytest.mark.parametrize("trouble", [PermissionError, OSError])
def test_a_folder_that_cannot_be_read_for_a_moment_takes_nothing_out_of_the_history(opened, monkeypatch, trouble):
    history = opened(private=True)
    file = made(history, "a fox")
    listed, asked = os.scandir, Path.stat

    def scandir(folder):
        if Path(folder) == file.parent:
            raise trouble
        return listed(folder)

    def stat(path, **options):
        if path.parent == file.parent:
            raise trouble
        return asked(path, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    history.sync()
    monkeypatch.setattr(Path, "stat", stat)
    history.sync()
    monkeypatch.undo()
    assert prompts(history) == ["a fox"]


def test_a_file_that_vanishes_while_its_folder_is_read_takes_no_other_with_it(opened, monkeypatch):
    history = opened(private=True)
    files = [made(history, prompt, minutes) for minutes, prompt in enumerate(("first", "second", "third"))]
    history.mark([picture.key for picture in history.search("", ME).pictures], ME, favourite=True)
    listed = os.scandir

    @contextmanager
    def scandir(folder):
        with listed(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if found[0].path == str(files[0]):
            files[0].unlink(missing_ok=True)
        yield iter(found)

    monkeypatch.setattr(os, "scandir", scandir)
    history.sync()
    monkeypatch.undo()
    history.sync()
    assert prompts(history, "fav") == ["third", "second"]


def test_the_styles_of_a_picture_that_does_not_name_them_are_found_by_their_texts(opened, tmp_path):
    disk = tmp_path / "disk"
    foreign_png(disk / "a.png", FOOOCUS_TEXT)
    still = Style("Still", "cinematic still {prompt} . emotional, harmonious", "anime, cartoon")
    history = opened(disk, styles=lambda: [still, Style("Enhance", "", "low quality, text")])
    history.sync()
    assert prompts(history, "style:still") == ["a fox"] and prompts(history, "style:enhance") == []
    (picture,) = history.search("", ME).pictures
    assert history.settings(picture)["styles"] == ["Still"]


def test_a_file_that_is_back_before_it_would_be_forgotten_is_kept(opened, monkeypatch):
    history = opened()
    file = made(history, "a fox")
    history.mark([picture.key for picture in history.search("fox", ME).pictures], ME, favourite=True)
    away = file.rename(history.outputs.parent / "away.png")
    save(history, "a cat", 1)

    def read(*about):
        away.replace(file)
        return read_picture(*about)

    monkeypatch.setattr("core.output.history_folders.read_picture", read)
    history.sync()
    assert prompts(history, "fav") == ["a fox"] and prompts(history, "cat") == ["a cat"]


def test_a_picture_renamed_in_its_case_alone_is_one_picture_where_case_does_not_count(opened, monkeypatch):
    history = opened()
    file = made(history, "a fox")
    history.mark([picture.key for picture in history.search("fox", ME).pictures], ME, favourite=True)
    file.rename(file.with_suffix(".PNG"))
    monkeypatch.setattr(
        Folders, "_is_gone", lambda *_: False
    )  # there is still a file of the old name, says such a system
    history.sync()
    assert prompts(history) == prompts(history, "fav") == ["a fox"]
    assert history.search("", ME).pictures[0].path.endswith(".PNG")


@pytest.mark.parametrize("beside", [True, False], ids=["beside others", "alone"])
def test_a_folder_that_becomes_one_of_its_own_keeps_its_favourites(opened, tmp_path, beside):
    disk = tmp_path / "disk"
    foreign_png(disk / "mine" / "a.png", CASTLE)
    if beside:
        foreign_png(disk / "b.png", CASTLE.replace("castle", "boat"))
    history = opened(disk)
    history.sync()
    history.mark([picture.key for picture in history.search("castle", ME).pictures], ME, favourite=True)
    history.close()
    again = opened(disk, disk / "mine")
    again.sync()
    assert prompts(again, "castle") == prompts(again, "fav") == ["a castle"]
    assert again.search("castle", ME).pictures[0].folder == str(disk / "mine")


def test_a_folder_inside_another_one_counts_once(opened, tmp_path):
    history = opened(tmp_path, tmp_path / "outputs" / "mine")
    made(history, "a fox")
    foreign_png(tmp_path / "outputs" / "mine" / "a.png", "a castle\nSteps: 20, Sampler: Euler, Seed: 5")
    history.sync()
    assert sorted(prompts(history)) == ["a castle", "a fox"]


def test_hidden_files_links_and_what_is_no_picture_stay_out(opened, tmp_path):
    history = opened()
    file = made(history, "a fox")
    (history.outputs / "text.png").write_text("no picture")
    (history.outputs / "cut.png").write_bytes(file.read_bytes()[:20])
    foreign_png(history.outputs / ".hidden" / "a.png", "hidden\nSteps: 20, Sampler: Euler, Seed: 5")
    secret = foreign_png(tmp_path / "secret.png", "secret\nSteps: 20, Sampler: Euler, Seed: 5")
    (history.outputs / "link.png").symlink_to(secret)
    (history.outputs / "loop").symlink_to(history.outputs)
    history.sync()
    assert prompts(history) == ["a fox"]


def test_hostile_metadata_becomes_text_or_nothing(opened):
    history = opened()
    origin = {"fingerprint": "'; DROP TABLE pictures; --", "kind": ["x"]}
    settings = {
        "prompt": "<script>\0\ud800'",
        "seed": 10**40,
        "styles": "x",
        "loras": [{"name": "a" * 400}],
        "steps": {},
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("easel", json.dumps({"settings": settings, "origin": origin}))
    history.outputs.mkdir(exist_ok=True)
    Image.fromarray(PIXELS).save(history.outputs / "a.png", pnginfo=info)
    history.sync()
    (picture,) = history.search("script", ME).pictures
    assert picture.seed is None and picture.parent == "" and "\ud800" not in picture.prompt


def test_a_file_dated_at_the_end_of_time_has_a_place(opened):
    history = opened()
    file, _ = save(history, "a fox")
    odd = file.rename(history.outputs / "odd.png")
    for seconds in (2**33, 0):
        os.utime(odd, (seconds, seconds))
        history.sync()
        assert prompts(history) == ["a fox"]
        assert history.search("", ME).pictures[0].created.year >= 1970


def test_whoever_asks_for_a_look_while_one_is_under_way_gets_one_more_and_no_thread(opened, monkeypatch):
    history = opened()
    looks, go_on = threading.Semaphore(0), threading.Semaphore(0)
    count = 0

    def sync():
        nonlocal count
        count += 1
        looks.release()
        go_on.acquire()

    monkeypatch.setattr(history, "sync", sync)
    for _ in range(20):
        history.start()
    assert looks.acquire(timeout=5)
    for _ in range(20):
        history.start()
    assert sum(thread.name == "history" for thread in threading.enumerate()) == 1
    go_on.release()
    assert looks.acquire(timeout=5)
    go_on.release()
    history._thread.join(5)
    assert count == 2 and not history._thread.is_alive()
    history.start()
    assert looks.acquire(timeout=5)
    history.start()
    go_on.release(2)
    history.close()
    assert not any(thread.name == "history" for thread in threading.enumerate())


def test_closing_ends_a_reading_that_is_under_way(opened):
    history = opened()
    for minutes in range(60):
        save(history, f"number {minutes}", minutes)
    history.start()
    history.close()
    assert not any(thread.name == "history" for thread in threading.enumerate())


def count(history):
    try:
        return history.search("", ME).total
    except Exception:
        return -1


def wait_for(condition, seconds=20.0):
    done = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        done.wait(0.05)
    pytest.fail("It did not come about in time.")
