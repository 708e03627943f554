"""What the page's scripts ask: JSON in, JSON out; everything slow runs in a thread and takes its turn."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import IMAGE
from gazetteer.data.inputs.edits import Edit
from gazetteer.diffusion.edit_sampler import Start
from gazetteer.jobs.experiments.draw import png_with
from gazetteer.jobs.explore.layouts import layout_event
from gazetteer.jobs.explore.places import features_at
from gazetteer.jobs.explore.recipe import as_command, as_python, as_yaml, record
from gazetteer.jobs.explore.server.asked import asked, check_features, edits_of, note_of, place_of, start_of
from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.jobs.explore.world import Recipe, World
from gazetteer.labeling.layout.model import LayoutPrediction

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def sentence(error: Exception) -> JSONResponse:
    """The answer to what went wrong: one sentence, and whose fault it was."""
    if isinstance(error, Refused):
        return JSONResponse({"error": str(error)}, error.status)
    if isinstance(error, InputError):
        return JSONResponse({"error": str(error)}, 400)
    if isinstance(error, GazetteerError):
        return JSONResponse({"error": str(error)}, 500)
    log.error("unforeseen", exc_info=error)
    return JSONResponse({"error": f"Something failed that was not foreseen ({type(error).__name__})."}, 500)


def answered(handler: Handler) -> Handler:
    """The handler, whose errors become sentences."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return sentence(error)

    return handle


class Api:
    """The handlers, over one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """All below ``/api``."""
        posts = {"draw": self.draw, "edit": self.edit, "place": self.place, "note": self.note}
        gets = {"world": self.world, "notes": self.notes, "layout": self.layout}
        return [
            *(Route(f"/api/{name}", answered(handler), methods=["POST"]) for name, handler in posts.items()),
            *(Route(f"/api/{name}", answered(handler), methods=["GET"]) for name, handler in gets.items()),
        ]

    async def world(self, request: Request) -> Response:
        """What there is to draw with."""
        return JSONResponse(await asyncio.to_thread(self._world.about))

    async def layout(self, request: Request) -> Response:
        """Answered once layouts can be predicted, or why they cannot be."""
        studio = await asyncio.to_thread(self._world.studio)
        await asyncio.to_thread(studio.wait_for_layout)
        return JSONResponse({"problem": studio.layout_problem})

    async def notes(self, request: Request) -> Response:
        """All notes and stars."""
        return JSONResponse(self._world.notes.all())

    async def note(self, request: Request) -> Response:
        """Keep one."""
        body = await asked(request, "site", "feature", "star", "text")
        features = {site.slug: known.names for site, known in self._world.known.items()}
        await asyncio.to_thread(self._world.notes.put, *note_of(body, features))
        return JSONResponse(self._world.notes.all())

    async def place(self, request: Request) -> Response:
        """Which features fire at a place of a picture."""
        body = await asked(request, "prompt", "seed", "x", "y")
        start, place = start_of(body), place_of(body)
        studio = await asyncio.to_thread(self._world.studio)
        drawn = await asyncio.to_thread(studio.draw, start)
        worded = sorted(site.slug for site in drawn.codes if site.stream != IMAGE)
        return JSONResponse({"sites": features_at(drawn.codes, self._world.known, *place), "left_out": worded})

    async def draw(self, request: Request) -> Response:
        """A picture, line by line of JSON: each step with its layout, at last the picture."""
        start = start_of(await asked(request, "prompt", "seed"))
        return StreamingResponse(self._drawing(start), media_type="application/x-ndjson")

    async def _drawing(self, start: Start) -> AsyncIterator[bytes]:
        lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(line: dict[str, Any] | None) -> None:
            with contextlib.suppress(RuntimeError):  # nobody listens any more: the loop is closed
                loop.call_soon_threadsafe(lines.put_nowait, line)

        def work() -> None:
            try:
                for line in _draw_lines(self._world, start, say):
                    say(line)
            except Exception as error:
                say({"kind": "error", "error": json.loads(bytes(sentence(error).body))["error"]})
            finally:
                say(None)

        task = loop.run_in_executor(None, work)
        while (line := await lines.get()) is not None:
            yield json.dumps(line).encode() + b"\n"
        await task

    async def edit(self, request: Request) -> Response:
        """The picture with edits, what they did, and how to do the same elsewhere."""
        body = await asked(request, "prompt", "seed", "edits")
        start, edits = start_of(body), edits_of(body)
        return JSONResponse(await asyncio.to_thread(_edited, self._world, start, edits))


def _draw_lines(world: World, start: Start, say: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    studio = world.studio()

    def on_step(step: int, steps: int, layout: LayoutPrediction | None) -> None:
        event = {"kind": "step", "step": step, "steps": steps}
        say(event if layout is None else {**event, **layout_event(layout, start.prompt, world.inks, world.synonyms)})

    fitted = studio.fitted
    drawn = studio.draw(start, on_step)
    height, width = drawn.image.shape[:2]
    picture = png_with(drawn.image, record((), start.prompt, start.seed))
    return [{
        "kind": "picture", "png": _text(picture), "height": height, "width": width,
        "seconds": round(drawn.seconds, 2), "tokens_cut": drawn.tokens_cut, "layout_problem": studio.layout_problem,
        "layout_follows": not drawn.layouts and not (fitted and studio.layout_problem),
    }]  # fmt: skip


def _edited(world: World, start: Start, edits: Sequence[Edit]) -> dict[str, Any]:
    studio = world.studio()
    check_features(list(edits), {site: sae.config.n for site, sae in studio.saes.items()})
    resolved = [studio.resolver.resolve(edit) for edit in edits]
    made = studio.redraw(start, resolved)
    plain = studio.draw(start).image
    recipe: Recipe = world.recipe
    return {
        "png": _text(png_with(made.image, record(edits, start.prompt, start.seed))),
        "change": round(float(np.abs(plain.astype(int) - made.image.astype(int)).mean() / 255), 4),
        "seconds": round(made.seconds, 2), "step": made.step, "steps": studio.steps,
        "said": world.doubts(edits, resolved),
        "yaml": as_yaml(edits) if edits else "",
        "command": as_command(recipe.run, edits, start.prompt, start.seed, recipe.options),
        "python": as_python(recipe.run, edits, start.prompt, start.seed, recipe.config, recipe.overrides),
    }  # fmt: skip


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
