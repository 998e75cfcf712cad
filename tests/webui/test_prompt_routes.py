"""Styles, completions and what a prompt becomes, over HTTP."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from core.axes import Axis, Grid
from core.errors import BadModelFile
from core.events import Saved
from core.output.record import Record
from core.output.save import encode_picture
from core.private_paths import without
from core.prompt.resources import Names, PromptResources
from core.prompt.styles import StyleLibrary
from core.prompt.wildcards import Wildcards
from core.settings import Lora, Settings
from core.task import AsyncTask
from core.weights.files import Catalog
from webui.app import App
from webui.prompt_routes import LARGEST_REQUEST, completions, explained, prompt_routes, sample_sheet
from webui.visitors import COOKIE, LOOPBACK, Visitors

ASSETS = Path(__file__).parents[2] / "webui" / "assets"
CHECKPOINTS = Path(__file__).parents[2] / "models" / "checkpoints"
ME, YOU = "o" * 43, "y" * 43
INK = {"name": "Ink", "prompt": "ink drawing of {prompt}", "negative_prompt": "photo"}


class Finished:
    """Stands in for the worker: it only has tasks to find."""

    def __init__(self, *tasks):
        self.all = {task.id: task for task in tasks}

    def find(self, task_id, owner):
        task = self.all.get(task_id)
        return task if task and task.owner == owner else None


@pytest.fixture
def library(tmp_path):
    """Folders with one file of styles and one of wildcards, and what prompts may name in them."""
    for name, text in (("styles/mine.json", json.dumps([INK])), ("wildcards/metal.txt", "gold\n"), ("assets/x", "")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return PromptResources(
        styles=StyleLibrary([tmp_path / "styles"], own=None),
        wildcards=Wildcards([tmp_path / "wildcards"], own=None),
        loras=lambda: ["looks/film.safetensors"],
        embeddings=lambda: ["hands.safetensors"],
    )


def client_of(resources, assets, *tasks, owner=ME, shelf=None, shown=str, defaults=lambda name: Settings()):
    app = App(
        worker=Finished(*tasks),
        models=list,
        native_size=lambda name: (256, 256),
        defaults=defaults,
        lora_info=None,
        resources=resources,
        shelf=shelf,
        shown=shown,
    )
    server = Starlette(routes=prompt_routes(app, assets), middleware=[Middleware(Visitors, hosts=LOOPBACK)])
    return TestClient(server, base_url="http://127.0.0.1:7865", cookies={COOKIE: owner} if owner else {})


@pytest.fixture
def client(library, tmp_path):
    return client_of(library, tmp_path / "assets")


def becomes(client, index=0, draw=1, **settings):
    answer = client.post("/easel/prompt/becomes", json={"settings": settings, "index": index, "draw": draw})
    assert answer.status_code == 200
    return answer.json()


def texts(side):
    return [(one["source"], " ".join(one["text"].split())) for one in side]


def test_the_library_is_told_with_what_is_wrong_in_it_and_read_again_when_files_change(client, tmp_path):
    told = client.get("/easel/styles").json()
    assert told["styles"] == [
        {"name": "Ink", "group": "Mine", "prompt": "ink drawing of {prompt}", "negative": "photo"}
    ]
    assert (told["problems"], told["samples"]) == ([], None)
    (tmp_path / "styles" / "broken.json").write_text("[")
    (tmp_path / "styles" / "more.csv").write_text("name,prompt,negative_prompt\nWool,woolen {prompt},\n")
    told = client.get("/easel/styles").json()
    assert [style["name"] for style in told["styles"]] == ["Ink", "Wool"]
    assert len(told["problems"]) == 1 and "broken.json" in told["problems"][0]


def test_visitors_read_what_is_wrong_without_the_folders_of_the_machine(library, tmp_path):
    def no_word(name):
        raise BadModelFile(f"{tmp_path}/x.safetensors is damaged.")

    (tmp_path / "styles" / "broken.json").write_text("[")
    client = client_of(library, tmp_path, shown=without({tmp_path: "…"}), defaults=no_word)
    (problem,) = client.get("/easel/styles").json()["problems"]
    assert str(tmp_path) not in problem and "…/styles/broken.json" in problem.replace("\\", "/")
    told = client_of(library, tmp_path, shown=lambda text: f"<{text}>")
    assert becomes(told, prompt="__nothing__")["notices"][0].startswith("<There is no wildcard")
    assert becomes(told, seed="x")["problem"].startswith("<")


def test_names_of_the_reference_lead_to_our_styles_that_are_there(tmp_path):
    told = client_of(PromptResources(), tmp_path).get("/easel/styles").json()
    names = {style["name"] for style in told["styles"]}
    assert len(names) >= 150 and told["aliases"] and set(told["aliases"].values()) <= names


def test_every_style_of_ours_has_a_sample_picture_that_ships():
    told = sample_sheet(ASSETS)
    assert told is not None
    assert set(told["cells"]) == {style.name for style in StyleLibrary().read()}
    with Image.open(ASSETS / "styles.webp") as sheet:
        cell = sheet.width // told["columns"]
        assert (sheet.height, cell) == (told["rows"] * cell, 96)


def test_a_style_of_the_users_in_the_place_of_ours_has_no_sample_of_ours(tmp_path):
    (tmp_path / "styles").mkdir()
    own = [{"name": "line-art", "prompt": "{prompt} in my own way"}]
    (tmp_path / "styles" / "own.json").write_text(json.dumps(own))
    cells = client_of(PromptResources(styles=StyleLibrary([tmp_path / "styles"])), ASSETS).get("/easel/styles").json()
    assert "Line Art" not in cells["samples"]["cells"] and "Low Poly" in cells["samples"]["cells"]


def test_sample_pictures_are_kept_for_good_under_an_address_that_changes_with_them(client, tmp_path):
    assert client.get("/easel/styles/samples.webp").status_code == 404
    sheet, index = tmp_path / "assets" / "styles.webp", tmp_path / "assets" / "styles.json"
    Image.new("RGB", (192, 192)).save(sheet)
    index.write_text(json.dumps({"cell": 96, "columns": 2, "names": ["Ink", "Wool", "Chalk"]}))
    told = client.get("/easel/styles").json()["samples"]
    assert (told["columns"], told["rows"], told["cells"]) == (2, 2, {"Ink": 0, "Wool": 1, "Chalk": 2})
    answer = client.get("/" + told["url"])
    assert answer.content == sheet.read_bytes() and "immutable" in answer.headers["cache-control"]
    os.utime(sheet, ns=(1, 1))
    assert client.get("/easel/styles").json()["samples"]["url"] != told["url"]


@pytest.mark.parametrize(
    "index", ["", "{", "[]", '{"columns": 2}', '{"names": [], "columns": 2}', '{"names": ["a"], "columns": 0}']
)
def test_a_damaged_list_of_samples_only_means_that_there_are_none(client, tmp_path, index):
    Image.new("RGB", (96, 96)).save(tmp_path / "assets" / "styles.webp")
    (tmp_path / "assets" / "styles.json").write_text(index)
    assert client.get("/easel/styles").json()["samples"] is None


def test_a_prompt_becomes_the_texts_that_are_encoded(client):
    told = becomes(
        client, prompt="a __metal__ fox <lora:film:0.5>\nsnow", negative_prompt="rain", styles='["Ink"]', seed="7"
    )
    assert texts(told["positive"]) == [("Ink", "ink drawing of a gold fox"), ("line 2", "snow")]
    assert texts(told["negative"]) == [("Ink", "photo"), ("prompt", "rain")]
    assert told["choices"] == [{"written": "__metal__", "became": "gold"}]
    assert told["loras"] == [{"name": "looks/film.safetensors", "weight": 0.5}]
    assert (told["expansion"], told["chance"], told["seed"]) == (False, False, "7")
    assert becomes(client, prompt="a fox")["negative"] == []  # an empty text is encoded, but says nothing
    assert becomes(client, prompt="a fox", styles='["Fooocus V2"]')["expansion"]


def test_the_text_that_continues_the_prompt_is_told_as_it_is_given(client):
    asked = {"prompt": "a fox", "styles": '["Fooocus V2"]'}
    told = becomes(client, **asked, prompt_expansion="a fox, soft light")
    assert (told["expansion"], told["continued"], told["foretold"]) == (True, "a fox, soft light", False)
    for given in ({}, {"prompt_expansion": "a wolf, soft light"}):  # of another prompt: drawn anew
        told = becomes(client, **asked, **given)
        assert (told["expansion"], told["continued"], told["foretold"]) == (True, None, False)
    assert becomes(client, prompt="a fox", prompt_expansion="a fox, soft light")["continued"] is None


def test_what_the_phrases_will_add_is_told_before_for_that_seed(library, tmp_path):
    client = client_of(library, tmp_path, shelf=SimpleNamespace(catalog=Catalog([CHECKPOINTS])))
    asked = {"prompt": "a __metal__ fox", "styles": '["Fooocus V2", "Ink"]', "image_number": 2, "seed": "7"}
    first, second = (becomes(client, index, **asked) for index in (0, 1))
    assert first["foretold"] and first["continued"].startswith("a gold fox, ")
    assert first["continued"] == becomes(client, **asked)["continued"] != second["continued"]
    assert becomes(client, **asked, expander="gpt2")["continued"] is None


def test_each_picture_of_a_request_can_be_looked_at(client):
    asked = {"prompt": "a [[red,green]] fox", "image_number": 3, "seed": str(2**63 - 2)}
    told = [becomes(client, index, **asked) for index in (0, 1, 2, 9)]
    assert [texts(one["positive"])[0][1] for one in told] == ["a red fox", "a green fox", "a red fox", "a red fox"]
    assert [one["seed"] for one in told] == [str(2**63 - 2), str(2**63 - 1), "0", "0"]
    assert {one["combinations"] for one in told} == {2} and told[3]["index"] == 2


def test_a_seed_that_is_yet_to_be_drawn_is_told_as_chance(client):
    told = becomes(client, draw=5, prompt="a fox", any_seed=True, seed="nonsense")
    assert told["chance"] and told["seed"] == "5"


def test_what_is_beyond_bounds_is_told_in_a_sentence(client, tmp_path):
    (tmp_path / "wildcards" / "loop.txt").write_text("__loop__\n")
    assert "__loop__" in becomes(client, prompt="__loop__")["problem"]
    assert "prompt" in becomes(client, prompt="a" * 20_001)["problem"]
    assert "seed" in becomes(client, seed="9" * 5000)["problem"]
    assert "styles" in becomes(client, styles="[" * 50_000)["problem"]


def test_settings_that_do_not_touch_the_prompt_are_not_looked_at(client):
    assert becomes(client, prompt="a fox", width=None, steps="many")["positive"][0]["text"] == "a fox"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"settings": 1, "index": 0, "draw": 1}', b'{"settings": {}, "index": -1, "draw": 1}',
     b'{"settings": {}, "index": "0", "draw": 1}', b"[" * 50_000, b" " * (LARGEST_REQUEST + 1)],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(client, body):
    answer = client.post("/easel/prompt/becomes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]


def test_half_a_character_is_told_and_breaks_nothing(client):
    body = rb'{"settings": {"prompt": "\ud83d __nothing__"}, "index": 0, "draw": 1}'
    answer = client.post("/easel/prompt/becomes", content=body, headers={"Content-Type": "application/json"})
    assert "character 1" in answer.json()["problem"]
    body = rb'{"head": "\ud83d __me", "tail": "\ud83d"}'
    answer = client.post("/easel/prompt/complete", content=body, headers={"Content-Type": "application/json"})
    assert [one["label"] for one in answer.json()["found"]] == ["metal"]


def test_only_a_visitor_with_a_cookie_and_only_json_is_answered(library, tmp_path, client):
    stranger = client_of(library, tmp_path, owner=None)
    asked = {"settings": {}, "index": 0, "draw": 1}
    assert stranger.post("/easel/prompt/becomes", json=asked).status_code == 403
    assert stranger.get("/easel/styles").status_code == 403
    assert client.post("/easel/prompt/becomes", content=json.dumps(asked)).status_code == 400
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/easel/prompt/becomes", json=asked, headers=foreign).status_code == 403


def test_what_was_begun_is_completed_by_the_names_that_are_there(client):
    def complete(head, tail=""):
        return client.post("/easel/prompt/complete", json={"head": head, "tail": tail}).json()["found"]

    assert complete("a __me") == [
        {"label": "metal", "kind": "wildcard", "insert": "__metal__", "before": 4, "after": 0}
    ]
    assert [one["insert"] for one in complete("<lora:fi")] == ["<lora:film:1>"]
    assert [one["insert"] for one in complete("(embedding:h")] == ["(embedding:hands:1)"]
    assert [one["label"] for one in complete("<style:", ">")] == ["Fooocus V2", "Random Style", "Ink"]
    assert complete("a fox") == []
    assert client.post("/easel/prompt/complete", json={"head": 1, "tail": ""}).status_code == 400


def test_places_are_counted_as_a_browser_counts_them():
    """A character beyond the first 65 536 is two units of UTF-16."""
    names = Names(wildcards=("den",), loras=("🦊fur.pt",))
    [one] = completions("🦊🦊 __d", "ust__ 🦊", names)
    assert (one["insert"], one["before"], one["after"]) == ("__den__", 3, 5)
    [one] = completions("🦊 <lora:🦊", "f:0.5> 🦊", names)
    assert (one["insert"], one["before"], one["after"]) == ("<lora:🦊fur:0.5>", 8, 6)


def test_what_stands_there_already_is_not_offered():
    assert completions("embedding:hands", "", Names(embeddings=("hands.pt",))) == []


def picture_of(task, path, record=None, **saved):
    path.write_bytes(encode_picture(np.zeros((64, 64, 3), np.uint8), record)[0] if record else b"no settings")
    task.publish(Saved(path=str(path), seed=3, width=64, height=64, **saved))


def test_a_finished_picture_tells_the_prompt_it_was_made_from(library, tmp_path):
    task = AsyncTask(Settings(prompt="a __metal__ [[red,green]] fox", styles=("Random Style",), seed=3), ME)
    made = Settings(prompt="a silver red fox", styles=("Ink",), seed=3, loras=(Lora("looks/film.safetensors", 0.5),))
    picture_of(task, tmp_path / "made.png", Record(made))
    client = client_of(library, tmp_path, task)
    told = client.get(f"/easel/prompt/made/{task.id}/0").json()
    assert texts(told["positive"]) == [("Ink", "ink drawing of a silver red fox")]
    assert told["seed"] == "3" and told["loras"][0]["weight"] == 0.5


def test_without_its_settings_in_the_file_the_request_tells(library, tmp_path):
    task = AsyncTask(Settings(prompt="a [[red,green]] fox", image_number=2, save_metadata=False), ME)
    for index in range(2):
        picture_of(task, tmp_path / f"{index}.png", index=index)
    told = client_of(library, tmp_path, task).get(f"/easel/prompt/made/{task.id}/1").json()
    assert texts(told["positive"]) == [("prompt", "a green fox")]


def test_a_finished_picture_tells_the_text_that_continued_its_prompt(library, tmp_path):
    settings = Settings(prompt="a fox", styles=("Fooocus V2",), prompt_expansion="a fox, soft light", seed=3)
    task = AsyncTask(Settings(prompt="a fox", styles=("Fooocus V2",), seed=3), ME)
    picture_of(task, tmp_path / "made.png", Record(settings))
    picture_of(task, tmp_path / "bare.png")
    client = client_of(library, tmp_path, task, shelf=SimpleNamespace(catalog=Catalog([CHECKPOINTS])))
    told = [client.get(f"/easel/prompt/made/{task.id}/{n}").json() for n in (0, 1)]
    assert [(one["expansion"], one["continued"]) for one in told] == [(True, "a fox, soft light"), (True, None)]


def test_after_a_skip_the_request_tells_of_the_picture_that_was_made(library, tmp_path):
    """The first of three was skipped: the only file on disk is the second one's."""
    task = AsyncTask(Settings(prompt="a [[red,green,blue]] fox", image_number=3, seed=3), ME)
    picture_of(task, tmp_path / "made.png", index=1)
    told = client_of(library, tmp_path, task).get(f"/easel/prompt/made/{task.id}/0").json()
    assert texts(told["positive"]) == [("prompt", "a green fox")] and told["seed"] == "4"


def test_a_picture_of_a_grid_tells_its_own_cell_and_the_sheet_the_request(library, tmp_path):
    grid = Grid(Axis("prompt", ("fox", "bear")))
    task = AsyncTask(Settings(prompt="a fox", seed=3), ME, grid=grid)
    for index in range(2):
        picture_of(task, tmp_path / f"{index}.png", index=index)
    picture_of(task, tmp_path / "sheet.png", sheet=True)
    client = client_of(library, tmp_path, task)
    told = [client.get(f"/easel/prompt/made/{task.id}/{n}").json() for n in range(3)]
    assert [one["positive"][0]["text"] for one in told] == ["a fox", "a bear", "a fox"]
    assert {one["seed"] for one in told} == {"3"}


def test_a_picture_of_somebody_else_is_as_one_that_never_was(library, tmp_path):
    task = AsyncTask(Settings(prompt="my secret"), ME)
    picture_of(task, tmp_path / "made.png", Record(task.settings))
    assert client_of(library, tmp_path, task, owner=YOU).get(f"/easel/prompt/made/{task.id}/0").status_code == 404
    assert client_of(library, tmp_path, task).get(f"/easel/prompt/made/{task.id}/1").status_code == 404


def test_a_fast_mode_brings_its_own_lora_so_a_tag_of_it_is_told_to_do_nothing():
    """As the engine reads it: the panel and the picture rest on the same settings."""
    resources = PromptResources(loras=lambda: ["sdxl_lightning_4step_lora.safetensors"])
    settings = Settings(prompt="a fox <lora:sdxl_lightning_4step_lora:1>", performance="lightning")
    told = explained(settings, 0, resources)
    assert told["loras"] == [] and any("does nothing" in notice for notice in told["notices"])
