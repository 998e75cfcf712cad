"""The day's log: nothing in it runs but its own script, entries are added at its end, and a reader finds them."""

import base64
import hashlib
import multiprocessing
import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest

from core.errors import OutputError
from core.output import log as log_module
from core.output.log import append_log
from core.output.metadata import read_settings_text
from core.output.record import Record
from core.settings import Settings

RECORD = Record(
    Settings(prompt="a red apple", seed=7, base_model="m.safetensors"),
    "ab" * 32,
    created=datetime(2026, 11, 23, 18, 30, 5, tzinfo=timezone.utc),
)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"><svg onload='alert(1)'>",
    "' onclick='alert(1)",
    "</dd></dl></article></main><h1>",
    "<!-- ",
    "<![CDATA[",
    "&lt;b&gt; &amp; &#60;",
    "\u202eevil\u2066 \x00\x1b\x85",
    "<style>*{display:none}",
    "javascript:alert(1)",
    "{{7*7}} ${alert(1)}",
)


class Page(HTMLParser):
    """All tags with their attributes, and the text of each description."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.values, self.open = [], {}, None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open == "dt":
            self.key = data
        elif self.open == "dd":
            self.values.setdefault(self.key, []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_with(folder, *records):
    for number, record in enumerate(records):
        log = append_log(folder / f"18-30-05_{number}.png", record)
    return Page(log.read_text("utf-8"))


def test_an_entry_shows_the_picture_its_settings_and_a_button_that_gives_them_back(tmp_path):
    record = replace(RECORD, settings=replace(RECORD.settings, prompt='a red apple\nin "paint" & 日本', seed=2**62 + 1))
    page = page_with(tmp_path, record)
    assert page.values["prompt"] == ['a red apple\nin "paint" & 日本']
    assert page.values["seed"] == [str(2**62 + 1)]
    assert page.values["base_model_sha256"] == ["ab" * 5]
    (image,) = page.all("img")
    assert image["src"] == "18-30-05_0.png"
    assert page.all("a") == [{"href": "18-30-05_0.png"}]
    (button,) = page.all("button")
    assert read_settings_text(button["data-settings"]).settings == record.settings.to_dict()


@pytest.mark.parametrize("prompt", HOSTILE)
def test_hostile_texts_appear_only_escaped(tmp_path, prompt):
    """D5: nothing that a picture says is markup in the day's log."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    harmless = page_with(tmp_path / "a", RECORD)
    settings = replace(RECORD.settings, prompt=prompt, negative_prompt=prompt, base_model=prompt)
    page = page_with(tmp_path / "b", Record(settings, prompt, version=prompt, created=RECORD.created))
    wanted = [(tag, sorted(attributes)) for tag, attributes in harmless.tags]
    extra = [
        ("div", ["class"]),
        ("dt", []),
        ("dd", []),
    ]  # the row of the negative prompt, which the harmless one does not have
    assert sorted((tag, sorted(attributes)) for tag, attributes in page.tags) == sorted(wanted + extra)
    entry = (tmp_path / "b" / "log.html").read_text("utf-8").split("<main>")[1]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", entry)
    (button,) = page.all("button")
    assert read_settings_text(button["data-settings"]).settings["prompt"] == prompt


def test_the_pages_policy_allows_its_own_style_and_script_and_nothing_else(tmp_path):
    page_with(tmp_path, RECORD)
    html = (tmp_path / "log.html").read_text("utf-8")
    policy = next(meta["content"] for meta in Page(html).all("meta") if "http-equiv" in meta)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    assert not re.search(r"\son\w+=", html.split("<body>")[1])


def test_an_entry_is_added_at_the_end_and_what_was_there_stays_as_it_is(tmp_path):
    before = b""
    for seed in range(5):
        log = append_log(tmp_path / f"{seed}.png", replace(RECORD, settings=replace(RECORD.settings, seed=seed)))
        after = log.read_bytes()
        assert after.startswith(before)
        before = after
    assert Page(before.decode()).values["seed"] == ["0", "1", "2", "3", "4"]
    assert before.count(b"<!doctype html>") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.html"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the bytes that a process reads and writes")
def test_adding_to_a_long_log_moves_no_more_bytes_than_the_entry(tmp_path):
    """D54: the log is neither written anew nor kept in memory."""
    log = append_log(tmp_path / "1.png", RECORD)
    with log.open("ab") as file:
        file.write(b"<article></article>\n" * 100_000)  # 2 MB
    before = psutil.Process().io_counters()
    append_log(tmp_path / "2.png", RECORD)
    after = psutil.Process().io_counters()
    moved = after.read_chars + after.write_chars - before.read_chars - before.write_chars
    assert 0 < moved < 200_000


def _append_many(folder, number):
    settings = replace(RECORD.settings, prompt=f"{number} " * 3000, seed=number)
    for _ in range(40):
        append_log(Path(folder) / f"{number}.png", replace(RECORD, settings=settings))


def test_entries_of_two_processes_do_not_mix(tmp_path):
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_append_many, args=(str(tmp_path), number)) for number in (1, 2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    html = (tmp_path / "log.html").read_text("utf-8")
    assert html.count("<!doctype html>") == 1
    entries = html.split("<article>\n")[1:]
    assert len(entries) == 80
    for entry in entries:
        number = re.search(r'href="(\d)\.png"', entry)[1]
        assert entry.count(f"{number} ") >= 3000
        assert entry.endswith("</article>\n")
        assert f"<dd>{number}</dd>" in entry


def test_a_name_that_is_odd_in_a_link_is_quoted(tmp_path):
    log = append_log(tmp_path / "a b#1%.png", RECORD)
    assert Page(log.read_text("utf-8")).all("a") == [{"href": "a%20b%231%25.png"}]


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        append_log(tmp_path / "missing folder" / "1.png", RECORD)


def test_a_write_that_took_only_a_part_is_gone_on_with(tmp_path, monkeypatch):
    append_log(tmp_path / "1.png", RECORD)
    before = (tmp_path / "log.html").read_bytes()
    write = log_module.os.write
    monkeypatch.setattr(log_module.os, "write", lambda file, data: write(file, bytes(data[:1000])))
    append_log(tmp_path / "1.png", RECORD)
    entry = (tmp_path / "log.html").read_bytes()[len(before) :]
    assert entry.startswith(b"<article>") and entry.endswith(b"</article>\n")
