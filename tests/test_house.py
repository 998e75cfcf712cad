"""The plan of the house: which way imports run, and what must never stand in the code."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [
    ROOT / "launch.py",
    *(p for top in ("core", "webui", "tools", "benchmarks") for p in (ROOT / top).rglob("*.py")),
]
TORCH_SIDE = {"torch", "transformers", "safetensors", "diffusers"}


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
        assert not tops & {"pickle", "dill", "marshal", "shelve", "cloudpickle"}, name
        for owner, called, node in calls(tree):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert (owner, called) not in {("yaml", "load"), ("os", "system"), ("os", "popen")}, name
            assert keywords.get("shell") is not True, name
            assert keywords.get("verify") is not False, name
            if (owner, called) == ("torch", "load"):
                assert keywords.get("weights_only") is True and not name.startswith("core/"), name


def test_there_are_no_mutable_globals_declared():
    assert not [name for name, tree in trees() if any(isinstance(node, ast.Global) for node in ast.walk(tree))]


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
