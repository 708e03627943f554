"""The atlas that the pages read: the run's own where it fits, otherwise one that is written while the server runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from gazetteer.data.core.files.regular import local_path
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.experiments.decoders import decoders_of
from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.labeling.atlas.write import Progress, run_digest, write_atlas

PATIENCE = 30
"""Seconds that what runs beside the server, loading and writing, has left when it stops."""


class Shelf:
    """A folder that a thread makes; who asks for what is in it waits until it is there."""

    def __init__(self, make: Callable[[Progress], Path]) -> None:
        """`make` is given what it has to call now and then; that ends it when the server stops."""
        self._make = make
        self._thread = threading.Thread(target=self._load, name="atlas", daemon=True)
        self._ready = threading.Event()
        self._folder: Path | None = None
        self._problem: Exception | None = None
        self._closed = False

    def load(self) -> None:
        """Begin."""
        self._thread.start()

    def _load(self) -> None:
        try:
            self._folder = self._make(self._go_on)
        except Exception as error:
            self._problem = error
        self._ready.set()

    def _go_on(self, stage: str, done: int, total: int) -> None:
        if self._closed:
            raise Refused(503, "The server is stopping.")

    def close(self) -> None:
        """Nobody waits any longer, and nothing more is written."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def folder(self) -> Path:
        """The folder, once it is there; raises what making it raised."""
        while not self._ready.wait(0.2):
            if self._closed:
                raise Refused(503, "The server is stopping.")
        if self._problem is not None:
            raise self._problem
        assert self._folder is not None
        return self._folder


class ShelfFiles:
    """Serves a sub-folder of a shelf, as an ASGI application."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self._shelf, self._name = shelf, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette's own static files, once the folder is there."""
        folder = await asyncio.to_thread(self._shelf.folder)
        await StaticFiles(directory=folder / self._name, check_dir=False)(scope, receive, send)


def atlas_of(run: RunFolder, scratch: Path, saes: str | Mapping[str, str], signal: str, progress: Progress) -> Path:
    """The run's own atlas where it is of this run as it stands; otherwise a new one in `scratch`."""
    folder = local_path(run.path)
    if folder is not None and _fits(folder / "atlas", run_digest(run)):
        return folder / "atlas"
    return write_atlas(
        run, scratch / "atlas", progress=progress, decoder_of=decoders_of(run, saes, signal)
    ).index.parent


def _fits(atlas: Path, digest: str) -> bool:
    try:
        text = (atlas / "data" / "atlas.js").read_text(encoding="ascii")
        return json_object(text.removeprefix('Atlas.put("atlas",').removesuffix(");\n")).get("run") == digest
    except (OSError, ValueError):
        return False
