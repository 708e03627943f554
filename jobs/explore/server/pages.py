"""The pages: the studio, and the atlas's own with notes and a way into the studio on them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.jobs.explore.shelf import Shelf, ShelfFiles
from gazetteer.labeling.atlas.pages import PAGES
from gazetteer.labeling.atlas.pages import STATIC as ATLAS

STATIC = resources.files("gazetteer.jobs.explore.static")
ON_ATLAS = ("asking", "live")
"""Scripts that the atlas's pages carry when they are served."""
KINDS = {".js": "text/javascript", ".css": "text/css"}


def page_routes(shelf: Shelf) -> list[BaseRoute]:
    """The pages, their assets, and the folders of the atlas that hold data and pictures."""
    pages = {page.name: page.html(ON_ATLAS, live=True) for page in PAGES}
    routes: list[BaseRoute] = [
        Route("/", _studio),
        Route("/studio.html", _studio),
        *(Route(f"/{name}.html", _page(html)) for name, html in pages.items()),
        Route("/assets/{name}", _asset),
    ]
    return [*routes, *(Mount(f"/{name}", ShelfFiles(shelf, name)) for name in ("data", "images", "sheets"))]


def _page(html: str):  # type: ignore[no-untyped-def]
    async def show(request: Request) -> Response:
        return HTMLResponse(html)

    return show


async def _studio(request: Request) -> Response:
    return HTMLResponse((STATIC / "studio.html").read_text(encoding="utf-8"))


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    kind = KINDS.get(Path(name).suffix)
    for folder in (STATIC, ATLAS, ATLAS / "pages"):
        if kind and "/" not in name and (folder / name).is_file():
            return Response((folder / name).read_bytes(), media_type=kind)
    raise HTTPException(404)


def refusal(refused: Refused) -> Response:
    """What a person sees who was not let in, or asked for what is not there."""
    text = str(refused).replace("&", "&amp;").replace("<", "&lt;")
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Gazetteer</title><p>{text}</p>', refused.status
    )
