"""The pages: the studio, and the atlas's own with notes and a way into the studio on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.experiments.decoders import decoders_of
from gazetteer.jobs.explore.refused import Refused
from gazetteer.labeling.atlas.pages import PAGES
from gazetteer.labeling.atlas.pages import STATIC as ATLAS
from gazetteer.labeling.atlas.write import run_digest, write_atlas

STATIC = resources.files("gazetteer.jobs.explore.static")
ON_ATLAS = ("asking", "live")
"""Scripts that the atlas's pages carry when they are served."""
KINDS = {".js": "text/javascript", ".css": "text/css"}


def atlas_of(run: RunFolder, scratch: Path, saes: str | Mapping[str, str], signal: str) -> Path:
    """The run's own atlas where it is of this run as it stands; otherwise a new one in `scratch`."""
    own = Path(run.path) / "atlas"
    if "://" not in run.path and _fits(own, run_digest(run)):
        return own
    return write_atlas(run, scratch / "atlas", decoder_of=decoders_of(run, saes, signal)).index.parent


def _fits(atlas: Path, digest: str) -> bool:
    try:
        text = (atlas / "data" / "atlas.js").read_text(encoding="ascii")
        found = json.loads(text.removeprefix('Atlas.put("atlas",').removesuffix(");\n"))
        return bool(found.get("run") == digest)
    except (OSError, ValueError, AttributeError):
        return False


def page_routes(atlas: Path) -> list[BaseRoute]:
    """The pages, their assets, and the folders of the atlas that hold data and pictures."""
    folders = [name for name in ("data", "images", "sheets") if (atlas / name).is_dir()]
    pages = {page.name: page.html(ON_ATLAS, live=True) for page in PAGES}
    routes: list[BaseRoute] = [
        Route("/", _studio),
        Route("/studio.html", _studio),
        *(Route(f"/{name}.html", _page(html)) for name, html in pages.items()),
        Route("/assets/{name}", _asset),
    ]
    return [*routes, *(Mount(f"/{name}", StaticFiles(directory=atlas / name)) for name in folders)]


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
