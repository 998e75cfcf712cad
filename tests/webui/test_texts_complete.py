"""Every sentence that can reach a visitor of the page has its translation: found in the code itself, not listed by hand."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from html import unescape
from pathlib import Path

import pytest

from core.settings import Settings
from webui.controls import label_of
from webui.texts import own_keys

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("core", "webui") for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = sorted(path.name for path in (ROOT / "webui" / "assets").glob("*.js"))

# What these say is read in a terminal, before there is a page or in place of it.
OF_THE_COMMAND_LINE = {
    f"core/{name}.py"
    for name in (
        "access", "arguments", "bootstrap", "cli", "cli_convert", "cli_download", "doctor", "other_programs",
        "pip", "port", "torch_build", "weights/convert",
    )
}  # fmt: skip
# Pages and files of their own, or answers to requests that the page never makes.
NOT_IN_THE_PAGE = {
    "core/output/day_page.py", "core/models/preview.py", "webui/guard.py",
    "webui/json_requests.py", "webui/visitors.py",
}  # fmt: skip
# Their words are names in the files of other programs, or of files for reading; they say only what they raise and reject.
ONLY_RAISED = ("core/config_keys.py", "core/output/a1111", "core/output/embedded.py", "core/output/foreign/", "core/output/log.py",
    "core/output/resolve.py",
)  # fmt: skip
# Their ValueErrors become a part of a sentence; everywhere else they are for who calls.
VALUE_ERRORS_TOLD = {
    "core/presets.py", "core/reference_keys.py", "core/prompt/style_files.py", "core/prompt/wildcards.py", "webui/texts.py",
}  # fmt: skip
NOT_SAID = {  # module -> what there looks like a sentence and is none, or is never shown
    "core/axes.py": ("true, false",),
    "core/config.py": (  # the file's comment, and what ends the start
        "Choices of this installation",
        "{} in {}",
        "{}: there is no {}. {}",
        "The names are:",
        "That is a name of config.txt",
        "lora_min_weight is",
        "{}{} opens the page to others",
    ),
    "core/config_keys.py": (  # keys of config.json alone, a wrong value of which ends the start
        "{} is {}; it must be a line of text",
        "{} is {}; it must be an address",
        "{} is {}; it must be auto, or",
        "{} names {}",
    ),
    "core/output/a1111_keys.py": ("Lora hashes", "TI hashes"),  # keys of that form
    "core/output/history_words.py": ("({}) NOT",),
    "core/performance.py": (  # descriptions for the documentation
        "Every setting is yours",
        "60 steps",
        "30 steps",
        "8 steps",
        "4 steps",
    ),
    "core/queue_store.py": (
        "it is of",
        "keep the order",
        "{} other processes",
        "id, owner",
        "mark a",
        "keep a",
        "find the",
        "forget",
    ),  # logs
    "core/settings.py": ("{} has {}; it must be FILE",),  # of --loras
    "core/stages.py": ("outer blocks",),  # the name of a way
    "core/weights/distilled.py": ("SDXL Turbo",),
    "core/device.py": (  # the words of `describe`, which the command line shows
        "CPU with {} threads",
        "Apple GPU",
        "CUDA {}",
        "torch {} ({})",
        ", weights stored in {}",
        "{} on {}",
        "as stored",
        "titan x",
        ", linear layers",
        "compute capability {}.{}",
    ),
    "core/pipeline.py": ("merge on the CPU", "decode rows", "decode tiles", "decode on the CPU"),  # names of ways
    "core/text/encode.py": ("encode singly",),
    "core/presets.py": (
        "a line for the person who chooses",
        "of the program that wrote it",
        "older checkpoints that do",
    ),
    "core/prompt/styles.py": ("Fooocus V2", "Random Style"),
    "core/reference_keys.py": (
        "Default (model)",
        "downloads, {}",
        "width, height",
        "refiner_switch says",  # docs/configuration.md
        "Easel has no such feature yet",
        "the page always shows it",
        "Easel keeps no pictures in a temporary folder",
        "pictures carry their settings in our form",
    ),
    "core/sheet.py": ("Hiragino Sans GB.ttc",),
    "core/worker.py": ("can't allocate memory",),
    "core/errors.py": ("can't allocate memory", "not enough memory", "out of memory"),  # what torch says
    "core/weights/needs.py": (
        "Easel knows no file",
        "Near it:",
        "Of Fooocus's GPT-2",
        "`python launch.py download --list`",
    ),  # `download`
    "core/weights/download.py": (  # how a download stands; the page shows bytes
        "Already there",
        "Another program is fetching",
        "Came damaged",
        "Trying again",
    ),
    "core/weights/embeddings.py": ("Stable Diffusion 1.5", "Stable Diffusion 2"),
    "core/weights/info.py": ("{} or {}",),  # a list
    "core/weights/lora_info.py": ("Stable Diffusion",),
    "core/weights/sources.py": "*",  # descriptions that `download --list` shows; what is raised counts
    "webui/download_routes.py": ('"names" must',),  # the page sends what is right
    "webui/render.py": ("a red apple", "a fox on", "a slice of", "a sun with", "a rocket on"),  # prompts
    "webui/history_routes.py": ('"on" must', '"keys" must'),  # the page sends what is right
    "webui/prompt_routes.py": ("There are no sample pictures", '"head" and', '"settings" must'),
    "webui/task_list.py": ("excerpt none",),  # a class
    "webui/texts.py": ("There is no such language",),  # the page asks for those of its menu
    "webui/theme.py": ("Segoe UI",),
}
LOGS = {"debug", "info", "warning", "error", "exception"}
# SQL, headers of answers, patterns
CODE = re.compile(
    r"owner = |.*\b[A-Z]{4,} [A-Za-z({*=?]|.*(?:WHERE|NOT|LIKE|TEXT) |.*(?:; charset|; filename|max-age)=|.*\\d"
)
IN_SCRIPTS = {
    "Escape", "Home", "End", "Files", "Random Style", "Fooocus V2", "Ctrl Enter", "Ctrl Z", "· {} · seed {}", "{} fav",
    "(prefers-color-scheme: dark)", "(prefers-reduced-motion: reduce)", "button, input",
    "*, ::before, ::after { animation: none !important; transition: none !important; }", "?", ":",
}  # fmt: skip
#  # names of keys, types, styles


def template(node: ast.AST) -> str:
    """A text with {} for what is filled in; "" for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return ""


def walk(node: ast.AST, parents: tuple[ast.AST, ...] = ()) -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    """All texts below `node` as templates, with what they stand in; no docstrings, and no pieces of a text."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    text = template(node)
    if text:
        yield text, parents
    for child in ast.iter_child_nodes(node):
        inner = text and not isinstance(child, ast.FormattedValue)
        if not inner:
            yield from walk(child, (*parents, node))


def called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def told(module: str) -> set[str]:
    """The texts of several words in `module` that a visitor may get to see."""
    found = set()
    for text, parents in walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        calls = [called(parent) for parent in parents if isinstance(parent, ast.Call)]
        raised = [called(parent.exc) for parent in parents if isinstance(parent, ast.Raise) and parent.exc]
        in_log = any(
            isinstance(parent, ast.Call) and getattr(getattr(parent.func, "value", None), "id", "") == "log"
            for parent in parents
        )
        if in_log or (raised == ["ValueError"] and module not in VALUE_ERRORS_TOLD):
            continue
        said_so = bool(raised) or "reject" in calls[-1:]
        if module.startswith(ONLY_RAISED) and not said_so:
            continue
        if NOT_SAID.get(module) == "*" and (calls or raised) and not text.endswith("."):
            continue
        if calls[-1:] == ["counted"]:
            text = f"{{}} {text}"
        found |= set(shown(text))
    return {text for text in found if not text.startswith(tuple(NOT_SAID.get(module, ())))}


def shown(text: str) -> list[str]:
    """`text`, or what stands between and in its tags, as far as it has words."""
    if re.search(r"</?[a-z]+[ >]", text) and not text.startswith("{} is no tag"):
        attributes = re.findall(r'(?:placeholder|title|aria-label|alt)="([^"]*)"', text)
        pieces = [*attributes, *(re.split(r"<[^>]*>?", text) if "</style>" not in text else ())]
    else:
        pieces = [text]
    plain = (" ".join(unescape(piece).split()) for piece in pieces)
    return [
        piece
        for piece in plain
        if re.search(r"[A-Za-z]{2,}[,:;.]? [A-Za-z{(]|\} [a-z]{2,}", piece) and not CODE.match(piece)
    ]


class Known:
    """Which texts the page can translate, found as `assets/texts.js` finds them."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.exact = set(keys)
        patterns = (re.escape(key).replace(r"\{\}", "[^A-Za-z]+") for key in keys if "{}" in key)
        self.pattern = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))

    def __call__(self, text: str) -> bool:
        if text in self.exact or text[:1].upper() + text[1:] in self.exact or self.pattern.fullmatch(text):
            return True
        shorter = re.sub(r"(?<=[.!?])\s*\{\}$|^\{\}\s+(?=[A-Z][a-z]+ [a-z])", "", text)  # a sentence of its own there
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", shorter)
        return (shorter, *sentences[1:]) != (text,) and all(self(sentence) for sentence in sentences)


KNOWN = Known(own_keys())


@pytest.mark.parametrize("module", [name for name in MODULES if name not in OF_THE_COMMAND_LINE | NOT_IN_THE_PAGE])
def test_what_a_module_says_is_translated(module):
    assert {text for text in told(module) if not KNOWN(text)} == set()


def test_the_walk_finds_what_is_said():
    """Errors, warnings, nested parts and texts in HTML."""
    assert "{} is no embedding: it has {} tensors, and none under a known name." in told("core/weights/embeddings.py")
    assert "its header is not JSON" in told("core/weights/header.py")
    assert any(text.startswith("Memory ran short: the picture is made again") for text in told("core/pipeline.py"))
    assert "it has no name of at most 200 letters" in told("core/prompt/style_files.py")
    assert "Skip to the prompt" in told("webui/page.py")
    assert not KNOWN("A sentence that nobody has translated.")


def test_the_exceptions_are_of_modules_that_there_are():
    assert {*OF_THE_COMMAND_LINE, *NOT_IN_THE_PAGE, *VALUE_ERRORS_TOLD, *NOT_SAID} <= set(MODULES)


COMMENT_OR_TEXT = re.compile(
    r"""(?P<comment>(?<![:"'\\])//[^\n]*|/\*.*?\*/)|(?P<quote>["'])(?P<text>(?:(?!(?P=quote))[^\\\n]|\\.)*)(?P=quote)|`(?P<filled>(?:[^`\\]|\\.)*)`""",
    re.DOTALL,
)


def in_script(name: str) -> set[str]:
    """The texts of a script that look like words for people."""
    source, found = (ROOT / "webui" / "assets" / name).read_text(encoding="utf-8"), set()
    for match in COMMENT_OR_TEXT.finditer(source):
        text = match["text"] or match["filled"] or ""
        text = re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", "{}", text).replace("\\", "")
        text = re.sub(r"\{\w+\}", "{}", " ".join(text.split()))
        words = re.fullmatch(r"[A-Z][a-z]+", text) or re.search(
            r"[A-Za-z]{2,}[,:;.]? [A-Za-z{(]|[.:?!]$|\} [a-z]{2,}", text
        )
        no_code = not re.search(r"[#\[\]=<>$_]|\.[a-z]|^[a-z -]+$|[a-z]\.$|^use strict$", text.rstrip(".:?! "))
        if words and no_code and text not in IN_SCRIPTS and not re.fullmatch(r"(?:[a-z-]+ )+[a-z-]+", text):
            found.add(text)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_says_is_translated(name):
    assert {text for text in in_script(name) if not KNOWN(text)} == set()


def test_texts_of_scripts_are_found():
    assert "No picture fits this search." in in_script("history.js")
    assert "Made for {}: it will not fit an SDXL model." in in_script("loras.js")


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.json")), ids=lambda path: path.stem)
def test_what_a_preset_says_of_itself_is_translated(preset):
    description = json.loads(preset.read_text(encoding="utf-8"))["description"]
    assert description in KNOWN.exact


def test_every_setting_has_a_name_in_the_other_languages():
    """A comparison of presets names whatever differs."""
    names = {label_of(each.name) for each in fields(Settings)}
    assert {name for name in names if not KNOWN(name)} == set()


def test_every_term_that_the_history_shows_is_translated():
    """The settings by their names; what kept ones are called, besides them, is in the script."""
    script = (ROOT / "webui" / "assets" / "history.js").read_text(encoding="utf-8")
    [left_out] = re.findall(r"for \(const name of (\[.*\])\) delete written", script)
    [added] = re.findall(r"const written = \{(.*)\};", script)
    [spelt] = re.findall(r"const SPELT = \{(.*)\};", script)
    names = {each.name for each in fields(Settings)} - set(json.loads(left_out)) | set(re.findall(r"(\w+):", added))
    by_name = dict(re.findall(r'(\w+): "(.*?)"', spelt))
    terms = {by_name.get(name, name.replace("_", " ")) for name in names}
    assert {"refiner model", "FreeU", "size"} <= terms
    assert {term for term in terms if not KNOWN(term)} == set()


def test_what_a_script_asks_in_a_box_of_the_browser_is_put_into_the_chosen_language():
    """The browser's own boxes are no part of the page: nothing translates them afterwards."""
    asked = {
        name: re.findall(
            r"window\.(?:confirm|alert|prompt)\(([^\n]*)", (ROOT / "webui" / "assets" / name).read_text("utf-8")
        )
        for name in SCRIPTS
    }
    assert asked["queue.js"]
    assert [words for all_of in asked.values() for words in all_of if "say(" not in words] == []
