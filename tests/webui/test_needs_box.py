"""The box of missing model files: what each is, how large, under which licence; and a button."""

import json
import re
from dataclasses import replace
from html import unescape

from core.weights.needs import Need
from webui.needs_box import needs_box

THERE = Need(name="there.safetensors", kind="loras", url="https://huggingface.co/a", present=True)
MISSING = Need(
    name="x.safetensors", kind="loras", url="https://huggingface.co/x", bytes=394_000_000, licence="CC BY-NC 4.0"
)
UNKNOWN = Need(name="<u>.safetensors", kind="loras", url="https://huggingface.co/u")
NOWHERE = Need(name="own.safetensors", kind="loras")


def asked(box):
    [sent] = re.findall('data-fetch="(.*?)"', box)
    return json.loads(unescape(sent))


def test_it_says_name_size_and_licence_of_what_is_missing():
    box = needs_box([THERE, MISSING, NOWHERE], allowed=True)
    assert (
        'x.safetensors <span>394 MB</span> <span class="notranslate">huggingface.co</span> '
        "<span>Licence: CC BY-NC 4.0</span>" in box
    )
    assert "there.safetensors" not in box and "own.safetensors" not in box
    assert asked(box) == {"names": ["x.safetensors"]}


def test_a_size_that_nobody_knows_is_not_0_bytes():
    box = needs_box([UNKNOWN], allowed=True)
    assert "0 bytes" not in box and box.count("size unknown") == 2 and "<u>" not in box
    assert "more than 394 MB" in needs_box([UNKNOWN, MISSING], allowed=True)


def test_the_size_is_asked_for_before_anything_is_downloaded():
    before = needs_box([UNKNOWN, MISSING], allowed=True)
    assert "data-ask>Ask how large it is</button>" in before and ">Download<" not in before
    for needs in ([UNKNOWN, MISSING], [replace(UNKNOWN, bytes=5), MISSING]):
        box = needs_box(needs, allowed=True, asked=True)
        assert ">Download</button>" in box and "data-ask" not in box and asked(box) == asked(before)
    assert "its host does not tell the size" in needs_box([UNKNOWN], allowed=True, asked=True)
    assert "its host does not" not in needs_box([MISSING], allowed=True, asked=True)


def test_a_presets_files_are_asked_for_by_its_name():
    assert asked(needs_box([MISSING], allowed=True, preset='my "own"')) == {"preset": 'my "own"'}


def test_there_is_no_button_when_nothing_can_be_fetched():
    """What is damaged is told; where nobody knows its address, a press could do nothing for it."""
    damaged = replace(NOWHERE, damage="It is cut off. Move it away.")
    for preset in ("", "mine"):
        box = needs_box([damaged, NOWHERE], allowed=True, preset=preset)
        assert "own.safetensors<p>It is cut off. Move it away.</p>" in box and "<button" not in box
        assert "<button" in needs_box([damaged, MISSING], allowed=True, preset=preset)
        assert "<button" in needs_box([replace(damaged, url="https://huggingface.co/own")], allowed=True, preset=preset)


def test_there_is_no_box_without_need_or_leave():
    assert needs_box([THERE, NOWHERE], allowed=True) == "" == needs_box([MISSING], allowed=False)
