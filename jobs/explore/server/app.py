"""The web application: pages and API behind one door."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Scope

from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.explore.server.api import Api
from gazetteer.jobs.explore.server.door import Door
from gazetteer.jobs.explore.server.pages import page_routes, refusal
from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.jobs.explore.shelf import Shelf
from gazetteer.jobs.explore.world import World

SENTENCES = {404: "There is nothing at this address.", 405: "This address is asked in another way (GET or POST)."}


def application(world: World, shelf: Shelf, token: str, port: int) -> ASGIApp:
    """Everything that is served."""
    routes = [*Api(world).routes(), *page_routes(shelf)]

    async def problem(request: Request, error: Any) -> Response:
        return answer(request.scope, Refused(error.status_code, SENTENCES.get(error.status_code, error.detail)))

    async def failed(request: Request, error: Any) -> Response:
        status = error.status if isinstance(error, Refused) else 500
        return answer(request.scope, Refused(status, str(error)))

    handlers: dict[Any, Any] = {HTTPException: problem, Refused: failed, GazetteerError: failed}
    return Door(Starlette(routes=routes, exception_handlers=handlers), token, port, answer)


def answer(scope: Scope, refused: Refused) -> Response:
    """A refusal as scripts or people read it."""
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": str(refused)}, refused.status)
    return refusal(refused)
