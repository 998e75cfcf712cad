"""Styles and prompts over HTTP: the library for the Styles tab, completions, and what a prompt becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from core.errors import BadMetadata, UserError
from core.events import Saved
from core.output.metadata import read_settings
from core.performance import effective
from core.prompt.continuation import continues
from core.prompt.plan import explain, seed_of
from core.prompt.resolve import Resolved
from core.prompt.resources import Names, PromptResources
from core.prompt.styles import StyleLibrary, Styles
from core.prompt.suggestions import REACH, suggestions
from core.settings import Settings
from core.task import AsyncTask
from core.text.foretold import Foreteller
from webui.app import App
from webui.controls import asked_model, settings_from
from webui.generate import defaults_or_problem
from webui.json_requests import BadRequest, refused, sent_object
from webui.render import pictures
from webui.visitors import NO_COOKIE, owner_of

LARGEST_REQUEST = 2**18  # bytes; two prompts of 20,000 characters fit in any script
MOST_SUGGESTIONS = 30
NAMES_AGE = 3.0  # seconds; who types a name asks for each letter, and the folders need not be walked for each
YEAR = 365 * 24 * 3600  # seconds
ASSETS = Path(__file__).with_name("assets")
FRESH = {"Cache-Control": "no-store"}

# What the panel needs to know of the controls; a half-typed width is no matter for the prompt.
OF_THE_PROMPT = (
    "prompt", "negative_prompt", "styles", "loras", "performance", "image_number", "seed", "seed_increment",
    "read_wildcards_in_order", "prompt_syntax", "prompt_expansion", "expander", "text_encoder_l", "text_encoder_g",
)  # fmt: skip

Foretell = Callable[[Settings, Resolved, int], str | None]


def prompt_routes(app: App, assets: Path = ASSETS) -> list[Route]:
    """All routes of the Styles tab and of the helpers of the prompt; `assets` has the sample pictures, if they are made."""
    recent, ours = RecentNames(app.resources), StyleLibrary()
    foretell = Foreteller(app.shelf.catalog) if app.shelf else None

    def styles(request: Request) -> Response:
        found = app.resources.styles.read()
        answer = {
            "styles": [
                {"name": one.name, "group": one.group, "prompt": one.prompt, "negative": one.negative_prompt}
                for one in found
            ],
            "aliases": {old: found.by_key[key].name for old, key in found.aliases.items() if key in found.by_key},
            "problems": [*map(app.shown, found.problems)],
            "samples": sample_sheet(assets, without=redefined(found, ours.read())),
        }
        return JSONResponse(answer, headers=FRESH)

    def samples(request: Request) -> Response:
        if not (assets / "styles.webp").is_file():
            return PlainTextResponse("There are no sample pictures.", status_code=404)
        forever = {"Cache-Control": f"public, max-age={YEAR}, immutable", "X-Content-Type-Options": "nosniff"}
        return FileResponse(assets / "styles.webp", media_type="image/webp", headers=forever)

    def told(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"notices": [*map(app.shown, found["notices"])]}

    def made(request: Request) -> Response:
        owner, index = owner_of(request.headers.get("cookie")), request.path_params["index"]
        task = app.worker.find(request.path_params["task"], owner) if owner else None
        saved = pictures(task) if task else []
        if task is None or index >= len(saved):
            return refused("There is no such picture.", 404)
        try:
            own = _own_settings(Path(saved[index].path))
            settings, index = (own, 0) if own else _asked(task, saved[index])
            return JSONResponse(told(explained(settings, index, app.resources)), headers=FRESH)
        except UserError as error:
            return JSONResponse({"problem": app.told(error)}, headers=FRESH)

    def complete(sent: dict[str, Any]) -> Mapping[str, Any]:
        head, tail = sent.get("head"), sent.get("tail")
        if not isinstance(head, str) or not isinstance(tail, str):
            raise BadRequest('"head" and "tail" must be the texts before and after the caret.')
        return {"found": completions(head[-REACH:], tail[:REACH], recent.names())}

    def becomes(sent: dict[str, Any]) -> Mapping[str, Any]:
        values, index, draw = sent.get("settings"), sent.get("index"), sent.get("draw")
        if not isinstance(values, dict) or not isinstance(index, int) or not isinstance(draw, int) or index < 0:
            raise BadRequest('"settings" must be the values by name, "index" and "draw" whole numbers.')
        given = {name: values[name] for name in OF_THE_PROMPT if name in values}
        chance = values.get("any_seed") is True or "seed" not in values
        if chance:  # the seed is not drawn yet; any one shows what may come
            given["seed"] = str(draw)
        try:
            recommended, _ = defaults_or_problem(app, asked_model(values))
            settings = settings_from(given, recommended, any_seed=False)
            index = min(index, settings.image_number - 1)
            return told(explained(settings, index, app.resources, foretell)) | {"chance": chance}
        except UserError as error:
            return {"problem": app.told(error)}

    return [
        Route("/easel/styles", _known(styles)),
        Route("/easel/styles/samples.webp", samples),
        Route("/easel/prompt/made/{task}/{index:int}", _known(made)),
        Route("/easel/prompt/complete", _answering(complete), methods=["POST"]),
        Route("/easel/prompt/becomes", _answering(becomes), methods=["POST"]),
    ]


def explained(
    settings: Settings, index: int, resources: PromptResources, foretell: Foretell | None = None
) -> dict[str, Any]:
    """What the prompts of picture `index` become, as plain data. Raises BadSetting as `explain`.

    `continued` is the text that the expansion model makes of the main one: as it is given with the settings, else as
    `foretell` draws it, which `foretold` says; None if it is not known.
    """
    settings = effective(settings)
    found, seed = explain(settings, resources, index), seed_of(settings, index)
    own = asdict(found)
    given = found.expansion and continues(settings.prompt_expansion, found.main)
    continued = settings.prompt_expansion if given else None
    if foretell and found.expansion and not given:
        continued = foretell(settings, found, seed)
    kept = ("positive", "styles", "expansion", "choices", "combinations", "notices")
    return {name: own[name] for name in kept} | {
        "negative": [text for text in own["negative"] if text["text"]],
        "continued": continued,
        "foretold": continued is not None and not given,
        "loras": [{"name": lora.name, "weight": lora.weight} for lora in found.loras],
        "index": index,
        "images": settings.image_number,
        "seed": str(seed),  # as text: it has more digits than a browser's numbers
    }


def completions(head: str, tail: str, names: Names) -> list[dict[str, Any]]:
    """What may complete the end of `head`: the text to `insert` in place of the last `before` and next `after` units.

    They are UTF-16 units, as a browser counts.
    """
    text, caret = head + tail, len(head)
    return [
        {
            "label": one.label,
            "kind": one.kind,
            "insert": one.insert,
            "before": _units(text[one.start : caret]),
            "after": _units(text[caret : one.end]),
        }
        for one in suggestions(text, caret, names, MOST_SUGGESTIONS)
        if one.insert != text[one.start : one.end]
    ]


def redefined(styles: Styles, ours: Styles) -> set[str]:
    """The names of those of our styles in whose place the user's files have others."""
    return {
        style.name
        for key, style in ours.by_key.items()
        if (other := styles.by_key.get(key))
        and (other.prompt, other.negative_prompt) != (style.prompt, style.negative_prompt)
    }


def sample_sheet(assets: Path, without: Collection[str] = ()) -> dict[str, Any] | None:
    """Where the sample pictures are and which cell is whose, as `tools/style_samples.py` made them; None without them.

    Styles called as in `without` have none.
    """
    picture, index = assets / "styles.webp", assets / "styles.json"
    try:
        status = picture.stat()
        told = json.loads(index.read_text(encoding="utf-8"))
        names, columns = list(map(str, told["names"])), int(told["columns"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not names or columns < 1:
        return None
    columns = min(columns, len(names))
    return {
        "url": f"easel/styles/samples.webp?v={status.st_mtime_ns:x}-{status.st_size:x}",
        "columns": columns,
        "rows": -(-len(names) // columns),
        "cells": {name: number for number, name in enumerate(names) if name not in without},
    }


@dataclass
class RecentNames:
    """The names that may complete a prompt, looked up again when they are older than NAMES_AGE."""

    resources: PromptResources
    _read: tuple[float, Names] | None = None

    def names(self) -> Names:
        """The names as they were at most NAMES_AGE seconds ago."""
        now, read = time.monotonic(), self._read
        if read is None or now - read[0] > NAMES_AGE:
            read = self._read = now, self.resources.names()
        return read[1]


def _asked(task: AsyncTask, picture: Saved) -> tuple[Settings, int]:
    """The request that `picture` of `task` answers, and which of the request's pictures it is."""
    if picture.sheet:
        return task.settings, 0
    return task.request(picture.index), 0 if task.cells else picture.index


def _own_settings(file: Path) -> Settings | None:
    """The settings inside the picture, its prompts as chance has settled them; None if it carries none."""
    try:
        found = read_settings(file)
        return Settings.from_dict(found.settings) if found.source == "easel" else None
    except (BadMetadata, OSError):
        return None


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _known(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return answer(request) if owner_of(request.headers.get("cookie")) else refused(NO_COOKIE, 403)

    return endpoint


def _answering(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        try:
            sent = await sent_object(request, LARGEST_REQUEST)
            # In ASCII: half a character, as a cut text has it, cannot be written in UTF-8.
            text = json.dumps(await run_in_threadpool(answer, sent))
            return Response(text, media_type="application/json", headers=FRESH)
        except BadRequest as problem:
            return refused(str(problem), 400)

    return endpoint
