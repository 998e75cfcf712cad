"""Finished pictures over HTTP: the file as it is on disk, and only to the browser that asked for it to be made."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from core.errors import BadMetadata
from core.output.metadata import stripped
from webui.app import TaskQueue
from webui.render import pictures
from webui.visitors import owner_of

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def picture_route(worker: TaskQueue) -> Route:
    """`GET /easel/pictures/TASK/INDEX`: 404 for a task of somebody else, as for one that never was.

    With `?plain=1` the same pixels without any metadata, to be shared.
    """

    def picture(request: Request) -> Response:
        owner = owner_of(request.headers.get("cookie"))
        task = worker.find(request.path_params["task"], owner) if owner else None
        saved = pictures(task) if task else []
        index = request.path_params["index"]
        path = Path(saved[index].path) if index < len(saved) else None
        none = PlainTextResponse("There is no such picture.", status_code=404)
        if path is None or path.suffix not in TYPES or not path.is_file():
            return none
        if request.query_params.get("plain") == "1":
            name = f'attachment; filename="{path.name}"'
            try:
                return Response(stripped(path), media_type=TYPES[path.suffix], headers={"Content-Disposition": name})
            except BadMetadata:  # damaged
                return none
        return FileResponse(
            path,
            media_type=TYPES[path.suffix],
            filename=path.name,
            content_disposition_type="inline",
            headers={"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"},
        )

    return Route("/easel/pictures/{task}/{index:int}", picture)
