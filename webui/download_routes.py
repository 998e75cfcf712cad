"""Downloads over HTTP: the page asks how one stands and what a choice lacks, starts one after the user's word, stops it."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.presets_shelf import Shelf
from core.weights.fetching import Downloads
from core.weights.needs import Need, named, needed, needed_by_refiner
from webui.json_requests import BadRequest, refused, sent_object
from webui.needs_box import needs_box
from webui.visitors import NO_COOKIE, owner_of

LARGEST_REQUEST = 1000  # bytes
NO_STORE = {"Cache-Control": "no-store"}


def download_routes(downloads: Downloads, shelf: Shelf, *, allowed: bool) -> list[Route]:
    """`GET /easel/downloads`; `POST /easel/downloads` with {"preset": name} or {"names": [...]} starts, with {} stops.

    `names` are files of the table in `core.weights.sources`: nothing else is fetched, and only from the address there.
    `POST /easel/sizes` with the same, but {}, asks the servers how large the files are and answers with their box.
    `GET /easel/needs?performance=...&refiner_model=...` answers with a box (HTML, perhaps "") for each of the two.
    `allowed` is False where the page is open to others: what fills the disk is for the one who sits at it.
    """

    def state() -> dict[str, Any]:
        now = downloads.state
        transfer = now.transfer
        told = {"busy": now.busy, "done": now.done, "problem": now.problem}
        if transfer:
            told |= {
                "name": transfer.name, "file": transfer.file, "files": transfer.files, "text": transfer.remark,
                "share": transfer.share, "bytes": transfer.all_done, "total": transfer.all_total, "speed": transfer.speed,
                "came": now.came,
            }  # fmt: skip
        if now.stopping:
            told["text"] = "Stopping"
        return told

    def ask(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        return JSONResponse(state(), headers=NO_STORE)

    def lacking(request: Request) -> Response:
        if owner_of(request.headers.get("cookie")) is None:
            return refused(NO_COOKIE, 403)
        chosen, catalog = request.query_params, shelf.catalog
        needs = {
            "performance": needed({"performance": chosen.get("performance", "")}, catalog),
            "refiner_model": needed_by_refiner(chosen.get("refiner_model", ""), catalog),
        }
        boxes = {control: needs_box(files, allowed=allowed) for control, files in needs.items()}
        return JSONResponse(boxes, headers=NO_STORE)

    def wanted_files(sent: dict[str, Any]) -> list[Need]:
        if "preset" in sent:
            return list(shelf.choice(str(sent["preset"])).missing)
        names = sent.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BadRequest('"names" must be a list of names of files.')
        return named(names, shelf.catalog)

    def may_not(request: Request) -> Response | None:
        if owner_of(request.headers.get("cookie")) is None or not allowed:
            return refused("Only the one who runs Easel downloads files, at that computer.", 403)
        return None

    def box_with_sizes(sent: dict[str, Any]) -> dict[str, str]:
        needs = downloads.with_sizes(wanted_files(sent))
        return {"box": needs_box(needs, allowed=allowed, preset=str(sent.get("preset", "")), asked=True)}

    async def tell_sizes(request: Request) -> Response:
        if refusal := may_not(request):
            return refusal
        try:
            sent = await sent_object(request, LARGEST_REQUEST)
            return JSONResponse(await run_in_threadpool(box_with_sizes, sent))
        except BadRequest as problem:
            return refused(str(problem), 400)
        except UserError as error:
            return JSONResponse({"problem": str(error)})

    async def change(request: Request) -> Response:
        if refusal := may_not(request):
            return refusal
        try:
            sent = await sent_object(request, LARGEST_REQUEST)
            if sent.keys() & {"preset", "names"}:
                downloads.start(wanted_files(sent))
            else:
                downloads.stop()
        except BadRequest as problem:
            return refused(str(problem), 400)
        except UserError as error:
            return JSONResponse({**state(), "problem": str(error)})
        return JSONResponse(state())

    return [
        Route("/easel/downloads", ask),
        Route("/easel/downloads", change, methods=["POST"]),
        Route("/easel/sizes", tell_sizes, methods=["POST"]),
        Route("/easel/needs", lacking),
    ]
