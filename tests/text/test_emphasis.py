"""Weight syntax: the specified examples, a letter-by-letter reading of the rules as oracle, and hostile input."""

import random
from contextlib import suppress

import pytest

from core.text.emphasis import LARGEST, parse_weights


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("((b))", [("b", 1.21)]),
        ("(b:1.5)", [("b", 1.5)]),
        ("(b:-1)", [("b", -1.0)]),
        ("(a (b:0.5) c:1.2)", [("a ", 1.2), ("b", 0.5), (" c", 1.2)]),
        ("(embedding:x)", [("embedding:x", 1.1)]),
        ("(embedding:x:1.1)", [("embedding:x", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("(b:)", [("b:", 1.1)]),
        ("(b:nan)", [("b:nan", 1.1)]),
        ("(b:inf)", [("b:inf", 1.1)]),
        (r"\(a\) (b)", [("(a) ", 1.0), ("b", 1.1)]),
        (r"(a\):1.3)", [("a)", 1.3)]),
        (r"(a\)", [("(a)", 1.0)]),
        ("[b]", [("[b]", 1.0)]),
        ("()", []),
        # unbalanced: an unclosed group is plain, unless it ends with a parenthesis
        ("x (a", [("x ", 1.0), ("(a", 1.0)]),
        ("(a (b)", [("a ", 1.1), ("(b", 1.1)]),
        ("(a (b:1.5)", [("a ", 1.5), ("(b", 1.5)]),
        # a surplus closing parenthesis is text, and so is the next opening one
        ("a) (b) (c)", [("a) (b) (c)", 1.0)]),
        ("a) ((b) c)", [("a) (", 1.0), ("b", 1.1), (" c)", 1.0)]),
    ],
)
def test_weights(text, pieces):
    found = parse_weights(text)
    assert [piece.text for piece in found] == [piece for piece, _ in pieces]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in pieces])


def by_the_letter(text, weight=1.0):
    """The rules as they are written, letter by letter and recursive; escapes are single private letters in here."""
    items, item, depth = [], "", 0
    for letter in text:
        if letter == "(":
            if depth == 0:
                items, item = [*items, item], ""
            item, depth = item + letter, depth + 1
        elif letter == ")":
            item, depth = item + letter, depth - 1
            if depth == 0:
                items, item = [*items, item], ""
        else:
            item += letter
    for part in filter(None, [*items, item]):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            yield part.replace("\ue000", "(").replace("\ue001", ")"), weight
            continue
        content, own = part[1:-1], weight * 1.1
        head, _, number = content.rpartition(":")
        if head:
            with suppress(ValueError):
                content, own = head, float(number)
        yield from by_the_letter(content, own)


def test_random_text_is_read_as_the_rules_say_letter_by_letter():
    chance = random.Random(1)
    for _ in range(20_000):
        parts = chance.choices(
            ["(", ")", "(", ")", ":", "a", "b ", "1.5", ":0.7", ":2)", "\\(", "\\)", "\\"], k=chance.randrange(14)
        )
        text = "".join(parts)
        protected = text.replace("\\)", "\ue001").replace("\\(", "\ue000")
        wanted = list(by_the_letter(protected))
        found = parse_weights(text)
        assert [piece.text for piece in found] == [piece for piece, _ in wanted], repr(text)
        assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in wanted]), repr(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "a" + ")" * 10_000,
        "(" * 20_000,
        ")" * 20_000,
        "()" * 10_000,
        "(a" * 5_000 + ")" * 10_000,
        "(a:1" * 4_000 + ")" * 4_000,
        "(a:" * 4_000 + "1)" * 4_000,
        "(" * 9_000 + ":" + "1" * 2_000 + ")" * 9_000,
        "(a)" * 6_000,
        ":)(" * 6_000,
        "\\(" * 10_000,
    ],
)
@pytest.mark.timeout(60)  # milliseconds, unless the work grows with the square of the length
def test_hostile_text_does_not_hang_and_has_bounded_weights(text):
    found = parse_weights(text)
    assert all(abs(piece.weight) <= LARGEST for piece in found)
