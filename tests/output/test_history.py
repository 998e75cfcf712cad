"""The history: pictures are entered, found, marked, thrown away and put back; everybody sees what is theirs."""

import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pytest

from core.errors import HistoryError
from core.output.fingerprint import fingerprint
from core.output.history import PAGE, History
from core.output.history_database import WORDS_VERSION
from core.output.history_words import COLUMNS
from core.output.record import Origin, Record
from core.output.save import save_and_log, save_picture
from core.owner import owner_mark
from core.settings import Lora, Settings

NOON = datetime(2026, 11, 23, 12, 0, 0).astimezone()
ME, YOU = "m" * 43, "y" * 43
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(params=[None, False], ids=["fts5", "without fts5"])
def history(tmp_path, request):
    history = History(tmp_path, fts5=request.param)
    yield history
    history.close()


@pytest.fixture
def private(tmp_path):
    history = History(tmp_path, private=True)
    yield history
    history.close()


def made(history, prompt, owner=ME, days_ago=0, origin=None, **settings):
    """Save a picture of that prompt and enter it; its file."""
    settings = Settings(prompt=prompt, width=64, height=64, **settings)
    record = Record(settings, created=NOON - timedelta(days=days_ago), origin=origin)
    file = save_picture(PIXELS, record, history.outputs).path
    history.add(file, record, owner)
    return file


def prompts(history, text="", visitor=ME, **options):
    return [picture.prompt for picture in history.search(text, visitor, **options).pictures]


def key_of(history, prompt, visitor=ME, **options):
    (picture,) = history.search(f'"{prompt}"', visitor, **options).pictures
    return picture.key


def test_a_picture_is_found_by_what_it_was_made_with(history):
    made(
        history, "a red fox on snow", seed=2**62, base_model="sub/easel-emoji.safetensors", styles=("Oil Paint",),
        loras=(Lora("hat.safetensors", 0.5), Lora("off.safetensors", enabled=False)), negative_prompt="blurry",
    )  # fmt: skip
    made(history, "ein Füchslein, 红色的狐狸", days_ago=40)
    for text in (
        "fox",
        "FO",
        "red fox",
        '"fox on"',
        "model:easel",
        "emoji",
        "style:oil",
        "oil",
        "lora:hat",
        "negative:blur",
    ):
        assert prompts(history, text) == ["a red fox on snow"], text
    for text in ("fuchs", "狐狸", "date:2026-10", "-fox", "-model:easel"):
        assert prompts(history, text) == ["ein Füchslein, 红色的狐狸"], text
    for text in ("dog", "blurry", "lora:off", '"on fox"', "date:2025", "style:fox", "fav", "seed:1", "o* OR", "NOT"):
        assert prompts(history, text) == [], text
    assert prompts(history, f"seed:{2**62}") == ["a red fox on snow"]
    assert prompts(history, "size:64x64 source:easel") == ["a red fox on snow", "ein Füchslein, 红色的狐狸"]


def test_symbols_and_emoji_are_found(history):
    made(history, "a \U0001f98a and a \u2615")
    made(history, "I \u2764\ufe0f snow", days_ago=1)
    made(history, "\U0001f1e9\U0001f1ea flags", days_ago=2)
    for text in ("\U0001f98a", "prompt:\u2615", '"a \u2615"', "\U0001f98a \u2615"):
        assert prompts(history, text) == ["a \U0001f98a and a \u2615"], text
    for text in ("\u2764", "\u2764\ufe0f", "-\u2615 -\U0001f1e9"):
        assert prompts(history, text) == ["I \u2764\ufe0f snow"], text
    assert prompts(history, "\U0001f1e9\U0001f1ea") == ["\U0001f1e9\U0001f1ea flags"]
    assert prompts(history, "\U0001f1ea\U0001f1e9") == [] and prompts(history, "model:\U0001f98a") == []


def test_an_index_of_an_older_program_is_made_anew(history):
    made(history, "a \u2615")
    history.mark([key_of(history, "a")], ME, favourite=True)
    words = history._store.words
    history.close()
    with closing(sqlite3.connect(history.outputs / "history.sqlite3")) as old, old:
        rows = old.execute(f"SELECT rowid, * FROM {words}").fetchall()
        old.execute(f"DROP TABLE {words}")
        names = ", ".join(COLUMNS)
        table = "VIRTUAL TABLE words_fts5 USING fts5" if words == "words_fts5" else "TABLE words_plain"
        old.execute(f"CREATE {table} ({names}{', prefix=' + repr('1 2 3') if words == 'words_fts5' else ''})")
        for row, *texts in rows:  # as it wrote them
            texts = [text.replace("\u2615 ", "") for text in texts]
            old.execute(
                f"INSERT INTO {words} (rowid, {names}) VALUES (?, {', '.join('?' * len(texts))})", [row, *texts]
            )
        old.execute("UPDATE about SET value = ? WHERE name = 'words'", [words])
    assert prompts(history, "\u2615 fav") == ["a \u2615"]
    history.close()
    with closing(sqlite3.connect(history.outputs / "history.sqlite3")) as now:
        assert now.execute("SELECT value FROM about WHERE name = 'words'").fetchone() == (f"{words} {WORDS_VERSION}",)


def test_what_was_made_in_a_span_of_dates_is_left_out(history):
    for days_ago in (0, 1, 30, 400):
        made(history, f"{days_ago} days ago", days_ago=days_ago)
    assert prompts(history, "-date:2026-11") == ["30 days ago", "400 days ago"]
    assert prompts(history, "-2026-11-22 date:2026") == ["0 days ago", "30 days ago"]
    assert prompts(history, "-date:2026-10.. -ago") == []
    assert prompts(history, "-date:2026-10..") == ["400 days ago"]
    assert prompts(history, "-date:..2026-10 -date:2026-11-22") == ["0 days ago"]
    assert history.search("-date:2026-11", ME, most=1).total == 2


def test_at_the_end_of_all_dates_nothing_was_made(history):
    made(history, "a fox")
    for text in ("date:9999-12-31", "9999-12-31", "date:9999-12-31..", "date:9999"):
        assert prompts(history, text) == []
    assert history.day(date.max, ME) == history.day(date.min, ME) == []
    assert prompts(history, "date:..9999-12-31") == ["a fox"]


def test_what_is_typed_can_break_nothing(history):
    made(history, "a fox")
    for text in (
        "'",
        '"',
        "a' OR '1'='1",
        'fox" *',
        "fox)",
        "%",
        "_",
        "NEAR(fox",
        "^fox",
        "{prompt}:fox",
        "\0",
        "\ud800",
        "x" * 9000,
        "date:9999-12-31",
        "-date:0001..9999-12-31",
        "-date:2026 " * 90,
        "-2026-1 " * 125,
    ):
        history.search(text, ME)
    assert prompts(history, "fo_") == ["a fox"] and prompts(history, "f%x") == []


def test_settings_come_back_exactly(history):
    made(history, "a fox", seed=2**63 - 1, loras=(Lora("hat.safetensors", 0.5),), styles=("Oil",))
    (picture,) = history.search("", ME).pictures
    settings = Settings.from_dict(history.settings(picture))
    assert (settings.seed, settings.loras[0].weight, settings.styles) == (2**63 - 1, 0.5, ("Oil",))
    assert (picture.seed, picture.width, picture.created) == (2**63 - 1, 64, NOON)


def test_pages_follow_each_other_without_gap_or_repetition_though_new_ones_arrive(history):
    total = 2 * PAGE + 5
    for number in range(total):
        made(history, f"number {number}", seed=number)  # all of the same second
    first = history.search("number", ME)
    made(history, "number new", days_ago=-1)
    second = history.search("number", ME, before=first.before)
    third = history.search("number", ME, before=second.before)
    seen = [picture.prompt for page in (first, second, third) for picture in page.pictures]
    assert seen == [f"number {number}" for number in reversed(range(total))]
    assert (first.total, second.total, third.before) == (total, None, None)


def test_favourites_are_kept_and_found(history):
    made(history, "a fox")
    made(history, "a cat")
    key = key_of(history, "fox")
    assert history.mark([key, "nothing"], ME, favourite=True) == [key]
    assert prompts(history, "fav") == ["a fox"] and prompts(history, "-fav") == ["a cat"]
    history.mark([key], ME, favourite=False)
    assert prompts(history, "fav") == []


def test_lineage_leads_back_to_the_first_picture_and_on_to_what_was_made(history):
    first = made(history, "a fox")
    second = made(history, "a larger fox", origin=Origin(fingerprint(first), "upscaled"))
    made(history, "another fox", origin=Origin(fingerprint(second), "varied"))
    line = history.lineage(history.picture(key_of(history, "another fox"), ME), ME)
    assert [picture.prompt for picture in line.ancestors] == ["a fox", "a larger fox"]
    line = history.lineage(history.picture(key_of(history, "a larger fox"), ME), ME)
    assert [(picture.prompt, picture.kind) for picture in line.children] == [("another fox", "varied")]
    assert prompts(history, "kind:upscaled") == ["a larger fox"]


def test_a_picture_that_claims_to_be_its_own_ancestor_is_no_trap(history):
    file = made(history, "a fox")
    record = Record(Settings(prompt="a fox"), origin=Origin(fingerprint(file), "varied"))
    history.add(file, record, ME)
    line = history.lineage(history.picture(key_of(history, "fox"), ME), ME)
    assert line.ancestors == ()


def test_deleting_moves_the_file_to_the_trash_and_undo_brings_it_back(history):
    file = made(history, "a fox")
    data, key = file.read_bytes(), key_of(history, "fox")
    assert history.trash([key], ME) == ([key], [])
    assert not file.exists() and prompts(history) == []
    assert prompts(history, "fox", trash=True) == ["a fox"]
    assert (history.outputs / ".trash" / file.relative_to(history.outputs)).read_bytes() == data
    assert history.restore([key], ME) == ([key], [])
    assert file.read_bytes() == data and prompts(history) == ["a fox"]
    assert prompts(history, trash=True) == []


def test_nothing_is_overwritten_in_the_trash_or_on_the_way_back(history):
    first = made(history, "first")
    history.trash([key_of(history, "first")], ME)
    second = made(history, "second")
    assert second == first  # the same second and seed: the same name
    history.trash([key_of(history, "second")], ME)
    assert sorted(prompts(history, trash=True)) == ["first", "second"]
    third = made(history, "third")
    back = [key_of(history, prompt, trash=True) for prompt in ("first", "second")]
    assert history.restore(back, ME) == (back, [])
    assert sorted(prompts(history)) == ["first", "second", "third"]
    files = {p.prompt: history.file(p) for p in history.search("", ME).pictures}
    assert files["third"] == third and len(set(files.values())) == 3 and all(f.is_file() for f in files.values())


def test_emptying_the_trash_deletes_what_is_in_it_and_nothing_else(history):
    kept, gone = made(history, "kept"), made(history, "gone")
    stranger = history.outputs / ".trash" / "not a picture.txt"
    history.trash([key_of(history, "gone")], ME)
    stranger.write_text("of somebody else")
    history.thumbnail(history.search("kept", ME).pictures[0])
    assert history.empty_trash(ME) == 1
    assert kept.exists() and not gone.exists() and stranger.exists()
    assert not list((history.outputs / ".trash").rglob("*.png"))
    assert prompts(history, trash=True) == []


def test_a_file_that_is_gone_already_leaves_the_history_and_that_is_told(history):
    made(history, "a fox").unlink()
    done, remarks = history.trash([key_of(history, "fox")], ME)
    assert done == [] and "gone" in remarks[0]
    assert prompts(history) == []


def test_a_day_is_all_that_was_made_on_it_in_order(history):
    for days_ago, prompt in ((1, "yesterday"), (0, "first"), (0, "second"), (-1, "tomorrow")):
        made(history, prompt, days_ago=days_ago)
    assert [picture.prompt for picture in history.day(date(2026, 11, 23), ME)] == ["first", "second"]


def test_of_an_open_page_everybody_sees_and_touches_only_their_own(private):
    file = made(private, "mine", owner=ME)
    made(private, "yours", owner=YOU, origin=Origin(fingerprint(file), "varied"))
    made(private, "nobody's", owner="")
    assert (prompts(private, visitor=ME), prompts(private, visitor=YOU), prompts(private, visitor="")) == (
        ["mine"],
        ["yours"],
        [],
    )
    key = key_of(private, "mine")
    picture = private.picture(key, ME)
    assert private.picture(key, YOU) is None and private.picture(key, "") is None
    assert private.mark([key], YOU, favourite=True) == []
    assert private.trash([key], YOU) == ([], [])
    assert private.lineage(picture, ME).children == ()
    assert private.lineage(private.picture(key_of(private, "yours", YOU), YOU), YOU).ancestors == ()
    private.trash([key], ME)
    assert private.restore([key], YOU) == ([], []) and private.empty_trash(YOU) == 0
    assert prompts(private, visitor=ME, trash=True) == ["mine"]
    assert private.day(date(2026, 11, 23), YOU)[0].prompt == "yours"


def on_disk(history):
    """All bytes of the database, those of its log included."""
    return b"".join(file.read_bytes() for file in history.outputs.glob("history.sqlite3*"))


def test_the_secret_of_a_browser_is_not_written_to_the_disk(private):
    """With it in a cookie anybody who reads the file could take over the pictures and tasks of that browser."""
    made(private, "mine")
    private.trash([key_of(private, "mine", ME)], ME)
    assert prompts(private, trash=True) == ["mine"] and prompts(private, visitor=YOU, trash=True) == []
    assert ME.encode() not in on_disk(private)


@pytest.mark.parametrize("fts5", [None, False], ids=["fts5", "without fts5"])
def test_a_history_that_knew_the_secrets_keeps_its_owners_and_forgets_the_secrets(tmp_path, fts5):
    history = History(tmp_path, private=True, fts5=fts5)
    for owner in (ME, YOU, ""):
        made(history, f"of {owner[:1]}", owner)
    history.mark([key_of(history, "of m")], ME, favourite=True)
    history.close()
    with closing(sqlite3.connect(tmp_path / "history.sqlite3")) as old, old:
        for owner in (ME, YOU):
            old.execute("UPDATE pictures SET owner = ? WHERE owner = ?", [owner, owner_mark(owner)])
        old.execute("INSERT INTO rescued VALUES ('', 'a.png', ?, 1, '', '', '{}')", [YOU])
        old.execute("PRAGMA user_version = 1")
    assert ME.encode() in on_disk(history) and YOU.encode() in on_disk(history)
    history = History(tmp_path, private=True, fts5=fts5)
    assert prompts(history) == prompts(history, "fav") == ["of m"]
    assert prompts(history, visitor=YOU) == ["of y"] and prompts(history, visitor="") == []
    assert prompts(history, visitor=owner_mark(ME)) == []  # the mark opens nothing
    with closing(sqlite3.connect(tmp_path / "history.sqlite3")) as now:
        assert now.execute("SELECT owner FROM rescued").fetchall() == [(owner_mark(YOU),)]
    history.close()
    assert ME.encode() not in on_disk(history) and YOU.encode() not in on_disk(history)


def test_a_text_that_no_database_takes_is_an_error_of_the_history(history, tmp_path):
    record = Record(Settings(prompt="a fox", width=64, height=64), created=NOON)
    object.__setattr__(record.settings, "prompt", "a \ud800 fox")  # Settings refuse it
    with pytest.raises(HistoryError, match=r"cannot hold '\\ud800'"):
        history.add(save_picture(PIXELS, Record(Settings(width=64, height=64)), tmp_path).path, record)
    with pytest.raises(HistoryError, match=r"cannot hold '\\ud800'"):
        history.picture("\ud800", ME)
    made(history, "a fox")
    assert prompts(history) == ["a fox"]


def test_saving_enters_the_picture_and_a_history_that_fails_is_only_a_warning(history, tmp_path):
    record = Record(Settings(prompt="a fox", width=64, height=64), created=NOON)
    saved = save_and_log(PIXELS, record, history.outputs, history.add)
    assert saved.warnings == () and prompts(history) == ["a fox"]
    broken = History(tmp_path / "file" / "is no folder")
    (tmp_path / "file").write_text("in the way")
    saved = save_and_log(PIXELS, record, history.outputs, broken.add)
    assert saved.path.is_file() and len(saved.warnings) == 1 and "not in the history" in saved.warnings[0]


def test_a_database_that_cannot_be_written_is_an_error_with_advice(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(HistoryError, match="pictures themselves are safe"):
        History(file).search("", ME)


def test_many_threads_may_write_and_read_at_once(history):
    problems = []

    def work(number):
        try:
            for step in range(5):
                made(history, f"of {number}", seed=100 * number + step)
                history.search("of", ME)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and history.search("", ME).total == 20


def test_two_programs_may_use_the_same_outputs(history):
    other = History(history.outputs, fts5=None if history._store.words == "words_fts5" else False)
    made(history, "one")
    made(other, "two", seed=1)
    assert sorted(prompts(history)) == sorted(prompts(other)) == ["one", "two"]
    other.close()


def test_an_sqlite_with_and_one_without_full_text_search_understand_each_others_files(tmp_path):
    for number, fts5 in enumerate((None, False, None)):
        history = History(tmp_path, fts5=fts5)
        made(history, f"number {number}", seed=number)
        assert len(prompts(history, "number")) == number + 1
        history.close()


def test_thumbnails_are_small_made_once_and_without_settings(history):
    settings = Settings(prompt="a secret", width=640, height=320)
    record = Record(settings, created=NOON)
    file = save_picture(np.zeros((320, 640, 3), np.uint8), record, history.outputs).path
    history.add(file, record)
    (picture,) = history.search("", ME).pictures
    data = history.thumbnail(picture)
    from PIL import Image

    kept = list((history.outputs / ".thumbnails").rglob("*.webp"))
    with Image.open(kept[0]) as image:
        assert image.size == (256, 128) and image.format == "WEBP"
    assert b"secret" not in data and kept[0].read_bytes() == data
    file.unlink()
    assert history.thumbnail(picture) == data
    assert history.thumbnail(replace(picture, fingerprint="00" * 16)) is None


def test_a_folder_for_thumbnails_that_cannot_be_made_costs_only_the_keeping(history):
    (history.outputs / ".thumbnails").write_text("in the way")
    made(history, "a fox")
    assert history.thumbnail(history.search("", ME).pictures[0])


def test_fingerprints_tell_files_apart_by_length_beginning_and_end(tmp_path):
    data = os.urandom(300_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    assert fingerprint(file) == fingerprint(data)
    others = [data[:-1], data + b"x", b"x" + data[1:], data[:-1] + b"x"]
    assert len({fingerprint(data), *map(fingerprint, others)}) == 5
