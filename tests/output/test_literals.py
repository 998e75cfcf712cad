"""Values as Python and JSON write them, read without running them."""

import json

import pytest

from core.errors import BadSetting
from core.output.literals import DEEPEST, LONGEST, literal


@pytest.mark.parametrize(
    "value",
    [
        ["a", "it's", 'say "b"', "\\", "\n", "日"],
        [[True, "x.safetensors", 0.5], [False, "None", -1]],
        {"a": 1, "b": [None, 1.5e-3]},
        [],
        {},
        "text",
        7,
    ],
    ids=repr,
)
def test_what_python_or_json_writes_is_read_back(value):
    assert literal(repr(value)) == literal(json.dumps(value)) == literal(f" {value!r} ") == value


def test_a_tuple_is_a_list_and_a_comma_may_stand_last():
    assert literal("('foo', 1)") == ["foo", 1]
    assert literal("['a', 'b',]") == ["a", "b"] and literal("{'a': 1,}") == {"a": 1}


@pytest.mark.parametrize(
    "text",
    ["", "word", "[a]", "['a' 'b']", "['a',,]", "[,]", "['a'", "['a')", "'a", "[1] 2", "{'a'}", "{'a': }", ":",
     "__import__('os')", "[__import__('os')]", "['a'.upper()]", "[1 + 1]", "f'{x}'", "[" * 10**4, "'" * 10**4,
     "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "['" + "a" * LONGEST + "']"],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(BadSetting, match="is no list"):
        literal(text)
