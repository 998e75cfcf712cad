"""What the LoRA rows of the page ask for: which files there are, and what each says about itself."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.weights.lora_info import FAMILIES
from webui.app import App
from webui.json_requests import refused
from webui.visitors import NO_COOKIE, owner_of

MOST_TAGS = 12


def lora_routes(app: App) -> list[Route]:
    """`GET /easel/loras`: the names; `GET /easel/lora?name=...`: one file's facts, or what is wrong with it."""

    def listed(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        return JSONResponse([*app.files("loras")], headers={"Cache-Control": "no-store"})

    def one(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        try:
            found = app.lora_info(request.query_params.get("name", ""))
        except UserError as error:
            return JSONResponse({"problem": app.told(error)})
        facts = {
            "title": found.title,
            "family": FAMILIES[found.family],
            "fits": found.fits_sdxl,
            "refines": found.fits_refiner,
            "rank": found.rank,
            "words": list(found.trigger_words),
            "tags": [tag for tag, _ in found.tags[:MOST_TAGS]],
        }
        return JSONResponse(facts, headers={"Cache-Control": "no-store"})

    return [Route("/easel/loras", listed), Route("/easel/lora", one)]
