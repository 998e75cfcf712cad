"""The page of a day: whole in itself, and nothing but text in it whatever the pictures say of themselves."""

from base64 import b64decode
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest

from core.output.day_page import day_page
from core.output.history_rows import NAMES, Picture

TYPES = {
    "id": 7_354_000_000_000_000,
    "seed": 7,
    "width": 64,
    "height": 32,
    "favourite": False,
    "modified": 0,
    "bytes": 1,
}
PICTURE = Picture(**{name: TYPES.get(name, "") for name in NAMES})
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)> \u202e & </title>'


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def page(*pictures, settings=None, thumbnail=b"\x01\x02"):
    made = day_page(date(2026, 11, 23), pictures, lambda _: settings or {}, lambda _: thumbnail)
    return "".join(made)


def test_it_needs_no_other_file_and_runs_nothing():
    read = Page(page(PICTURE, PICTURE))
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "object", "a", "form", "base"})
    sources = [attrs["src"] for tag, attrs in read.tags if "src" in attrs]
    assert len(sources) == 2 and all(source.startswith("data:image/webp;base64,") for source in sources)
    assert b64decode(sources[0].partition(",")[2]) == b"\x01\x02"
    (policy,) = [attrs["content"] for tag, attrs in read.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:")


@pytest.mark.parametrize("name", ["prompt", "model", "path"])
def test_whatever_a_picture_says_is_only_text(name):
    text = page(replace(PICTURE, **{name: HOSTILE}), settings={HOSTILE: HOSTILE, "loras": [{"name": HOSTILE}]})
    read = Page(text)
    plain = {tag for tag, _ in Page(page(PICTURE, settings={"steps": 1})).tags}
    assert {tag for tag, _ in read.tags} == plain
    assert not any(attribute.startswith("on") for _, attrs in read.tags for attribute in attrs)
    assert "<script>alert(1)</script>" in read.text and "\u202e" not in text


def test_prompt_time_size_and_settings_are_told():
    picture = replace(PICTURE, prompt="a fox", path="2026-11-23/12-00-00_7.png", model="easel.safetensors")
    text = Page(page(picture, settings={"steps": 30, "styles": [], "image_number": 1, "prompt": "a fox"})).text
    for words in ("1 picture", "a fox", "64 × 32", "12-00-00_7.png", "easel.safetensors", "steps", "30"):
        assert words in text
    assert "styles" not in text and "image_number" not in text


def test_a_picture_that_is_gone_has_a_line_in_its_place():
    assert "The file is gone" in page(PICTURE, thumbnail=None)
