"""The plan of the house: which way imports run, and what must never stand in the code."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [
    ROOT / "launch.py",
    *(p for top in ("core", "webui", "tools", "benchmarks") for p in (ROOT / top).rglob("*.py")),
]
OPENS_PICKLES = "core/weights/convert.py"
TORCH_SIDE = {"torch", "transformers", "safetensors", "diffusers"}


@cache
def trees():
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in CODE]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_core_knows_no_page_and_the_page_knows_no_torch():
    for name, tree in trees():
        tops = {module.split(".")[0] for module in imported(tree)}
        if name.startswith("core/"):
            assert not tops & {"gradio", "webui", "launch"}, name
        if name.startswith("webui/"):
            assert not tops & {*TORCH_SIDE, "launch"}, name


def loaded_by(statement):
    code = f"import sys, json; {statement}; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 1, f"importing printed something: {run.stdout}"
    return set(json.loads(lines[0]))


def test_the_page_imports_without_torch():
    assert not loaded_by("import webui.page") & TORCH_SIDE


def test_what_the_page_uses_of_core_imports_without_torch():
    modules = "core.settings, core.events, core.task, core.worker, core.handler, core.presets, core.config, core.weights.files"
    loaded = loaded_by(f"import {modules}, core.output.metadata, core.prompt.plan")
    assert not loaded & {*TORCH_SIDE, "gradio"}


def test_the_engine_imports_without_gradio():
    assert not loaded_by("import core.pipeline") & {"gradio", "transformers", "diffusers"}


def test_importing_launch_does_nothing():
    assert not loaded_by("import launch") & {*TORCH_SIDE, "gradio", "core.pipeline"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            owner = getattr(getattr(function, "value", None), "id", "")
            yield owner, getattr(function, "id", None) or getattr(function, "attr", ""), node


@pytest.mark.parametrize("forbidden", ["eval", "exec", "compile", "__import__"])
def test_no_text_is_ever_run_as_code(forbidden):
    called = {
        (name, getattr(node.func, "id", ""))
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    assert not [name for name, function in called if function == forbidden]


def test_nothing_is_unpickled_and_no_shell_is_opened():
    for name, tree in trees():
        tops = set(imported(tree))
        if name == OPENS_PICKLES:  # by torch's unpickler for weights; of pickle it knows the error
            names = [
                alias.name for node in ast.walk(tree) if getattr(node, "module", "") == "pickle" for alias in node.names
            ]
            assert names == ["UnpicklingError"]
            tops.remove("pickle")
        assert not tops & {"pickle", "dill", "marshal", "shelve", "cloudpickle"}, name
        for owner, called, node in calls(tree):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert (owner, called) not in {("yaml", "load"), ("os", "system"), ("os", "popen")}, name
            assert keywords.get("shell") is not True, name
            assert keywords.get("verify") is not False, name
            if (owner, called) == ("torch", "load"):
                assert keywords.get("weights_only") is True and name == OPENS_PICKLES, name


def test_there_are_no_mutable_globals_declared():
    assert not [name for name, tree in trees() if any(isinstance(node, ast.Global) for node in ast.walk(tree))]


def arrows():
    """The block of docs/architecture.md: room -> the rooms of core that it may import."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```\n(webui +->.*?)^```", text, re.MULTILINE | re.DOTALL)
    for room, behind in re.findall(r"(\w+) +->(.*?)(?=^\w|\Z)", block, re.MULTILINE | re.DOTALL):
        yield room, tuple(re.findall(r"[\w.]+", behind.replace("for its type", "")))


def modules_of(room):
    """Name and tree of each of our modules in the page, or in a folder or file of core."""
    place = "webui/" if room == "webui" else f"core/{room}/"
    return [(name, tree) for name, tree in trees() if name.startswith(place) or name == f"core/{room}.py"]


@pytest.mark.parametrize(("room", "allowed"), list(arrows()))
def test_imports_run_along_the_arrows_that_the_architecture_draws(room, allowed):
    known = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in CODE}
    assert modules_of(room)
    for name, tree in modules_of(room):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("core"):
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = (whole if whole in known else node.module).removeprefix("core.")
                ours = f"{target}.".startswith(f"{room}.")
                assert ours or any(f"{target}.".startswith(f"{way}.") for way in allowed), f"{name} imports {target}"


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "deque", "defaultdict", "OrderedDict", "Counter", "bytearray"}
CHANGING = {
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "insert",
    "intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update",
}  # fmt: skip


def is_mutable(value):
    """Whether a module that assigns `value` to a name holds something that can be changed in place."""
    called = getattr(value, "func", None)
    return isinstance(value, MUTABLE) or getattr(called, "id", getattr(called, "attr", "")) in MAKERS


def module_names(tree):
    """Names of a module that stand for something mutable, or for something imported."""
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


def imported_names(tree):
    """The names among them that are imported and no constant: modules and functions."""
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}
    return {name for name in names if not name.isupper()}


def own_names(function):
    """What a function or lambda binds itself, so that it hides a name of the module."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    arguments += [argument for argument in (function.args.vararg, function.args.kwarg) if argument]
    bound = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return bound | {argument.arg for argument in arguments}


def changed_names(node, modules):
    """The names of what `node` changes in place: by a method, an index or an attribute.

    A method of one of `modules` is only a function of that name, such as gr.update.
    """
    thing = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
        thing = node.func.value
        if getattr(thing, "id", "") in modules:
            return
    elif isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        thing = node.value
    if isinstance(thing, ast.Name):
        yield thing.id


def changes_of_modules(tree):
    """Lines on which a function changes what a module holds, or an attribute of an imported thing."""
    modules = imported_names(tree)

    def lines(parent, names, inside):
        for node in ast.iter_child_nodes(parent):
            if inside and names & set(changed_names(node, modules)):
                yield node.lineno
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from lines(node, names - own_names(node), True)
            else:
                yield from lines(node, names, inside)

    yield from lines(tree, module_names(tree), False)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("KNOWN = {}\ndef f(x):\n    KNOWN[x] = 1", [3]),
        ("KNOWN: list[int] = []\ndef f():\n    KNOWN.append(1)", [3]),
        ("KNOWN = set()\nclass A:\n    def f(self):\n        KNOWN.add(1)", [4]),
        ("import torch\ndef f():\n    torch.load = None", [3]),
        ("KNOWN = {}\ndef f():\n    del KNOWN['a']", [3]),
        ("KNOWN = {}\ndef f(KNOWN):\n    KNOWN['a'] = 1", []),
        ("KNOWN = {}\nKNOWN['a'] = 1\ndef f():\n    return KNOWN['a']", []),
        ("def f():\n    known = []\n    known.append(1)", []),
        ("_known = []\ndef f():\n    _known.append(1)", [3]),
        ("from core.a import KNOWN\ndef f():\n    KNOWN.add(1)", [3]),
        ("import gradio as gr\ndef f():\n    return gr.update(value=1)", []),
    ],
)
def test_a_change_of_what_a_module_holds_is_seen(code, changes):
    assert list(changes_of_modules(ast.parse(code))) == changes


def test_nothing_that_a_module_holds_is_changed_and_no_other_module_is_patched():
    places = {f"{name}:{line}" for name, tree in trees() for line in changes_of_modules(tree)}
    assert places == set()


def test_nothing_in_the_engine_knows_the_model_that_comes_with_the_program():
    [file] = (ROOT / "models" / "checkpoints").glob("easel*.safetensors")
    for path in (ROOT / "core").rglob("*.py"):
        assert file.stem not in path.read_text(encoding="utf-8"), path
        assert 'load_preset("' not in path.read_text(encoding="utf-8"), path


def test_importing_opens_and_starts_nothing():
    """Q37: files, folders, databases, sockets, processes and threads; what Python itself opens to import is not ours."""
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in CODE
        if path.relative_to(ROOT).parts[0] in ("core", "webui", "launch.py")
    ]
    run = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT, str(ROOT), *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == ""


WATCHED_IMPORT = """
import importlib, sys

root, *modules = sys.argv[1:]
watched = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.system", "os.fork", "os.posix_spawn",
    "subprocess.Popen", "_thread.start_new_thread", "sqlite3.connect", "socket.connect", "socket.bind", "socket.getaddrinfo")

def look(event, args):
    frame = sys._getframe(1) if event in watched else None
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code.co_filename.startswith(root) and "site-packages" not in frame.f_code.co_filename:
            print(event, str(args)[:200], "in", frame.f_code.co_filename, frame.f_lineno)
            return
        frame = frame.f_back

sys.addaudithook(look)
for module in modules:
    importlib.import_module(module)
"""


def test_imports_between_our_modules_make_no_circle():
    names = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
        for path in CODE
    }
    graph = {}
    for module, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top_level = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        graph[module] = {name for name in imported(ast.Module(body=top_level, type_ignores=[])) if name in names} - {
            module
        }
    done, under_way = set(), []

    def visit(module):
        assert module not in under_way, " -> ".join([*under_way[under_way.index(module) :], module])
        if module not in done:
            under_way.append(module)
            for other in sorted(graph[module]):
                visit(other)
            under_way.pop()
            done.add(module)

    for module in graph:
        visit(module)


def test_the_page_tells_errors_as_visitors_may_read_them():
    """By `App.told`, for they may name folders of the machine. (Downloads are for the one who sits at it.)"""
    for name, tree in trees():
        if not name.startswith("webui/") or name == "webui/download_routes.py":
            continue
        for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name):
            if "BadRequest" not in ast.unparse(handler.type):
                words = "\n".join(map(ast.unparse, handler.body))
                assert f"str({handler.name})" not in words, f"{name}, line {handler.lineno}"
