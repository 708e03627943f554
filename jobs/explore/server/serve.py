"""Serve the page on the loopback address until somebody stops it."""

from __future__ import annotations

import secrets
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import open_finished

if TYPE_CHECKING:
    from gazetteer.jobs.explore.shelf import Shelf
    from gazetteer.jobs.explore.world import World

HOST = "127.0.0.1"
PORT = 8642
GRACE = 3
"""Seconds that answers under way have left when the server stops."""


@dataclass(frozen=True)
class Address:
    """Where the page is, with the token that opens it."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """To open."""
        return f"http://{HOST}:{self.port}/?token={self.token}"


def explore(
    run: str,
    config: str | None = None,
    overrides: Sequence[str] = (),
    *,
    port: int | None = None,
    browser: bool = True,
    ready: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve a finished run until SIGINT or SIGTERM; the signal's exception then goes on to the caller.

    Args:
        config, overrides: as ``--config`` and ``--set``; what they leave open is as the run was made.
        port: to listen on; None: 8642, or any free one where that is taken; 0: any free one.
        browser: open the page.
        ready: called with the address once it listens.

    Raises:
        InputError: not a finished run, another model than the run's, a port that is taken, or the packages of the
            extra ``explore`` are not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"gazetteer explore needs starlette and uvicorn ({error.name} is missing); pip install 'gazetteer[explore]'"
        ) from error
    from gazetteer.jobs.explore.settings import config_of, overrides_of, own_file
    from gazetteer.jobs.explore.shelf import Shelf, atlas_of
    from gazetteer.jobs.explore.world import Recipe, World

    folder = open_finished(run)
    config = config or own_file(folder, overrides)
    with listening(port) as listener, tempfile.TemporaryDirectory(prefix="gazetteer-explore-") as scratch:
        recipe = Recipe(run, config, tuple(overrides_of(folder, config, overrides)))
        settings = config_of(folder, config, overrides)
        world = World(settings, folder, recipe)
        shelf = Shelf(partial(atlas_of, folder, Path(scratch), settings.saes, settings.sae_check.signal))
        try:
            world.load()
            shelf.load()
            _serve(listener, world, shelf, browser, ready)
        finally:
            world.close()
            shelf.close()


def _serve(
    listener: socket.socket, world: World, shelf: Shelf, browser: bool, ready: Callable[[Address], None]
) -> None:
    import uvicorn

    from gazetteer.jobs.explore.server.app import application

    address = Address(listener.getsockname()[1], secrets.token_urlsafe(24))
    app = application(world, shelf, address.token, address.port)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off",
        timeout_graceful_shutdown=GRACE, ws="none",
    )  # fmt: skip
    listener.listen(128)  # who opens the page now waits until the server answers
    ready(address)
    if browser:
        webbrowser.open(address.url)
    uvicorn.Server(config).run(sockets=[listener])


def listening(port: int | None) -> socket.socket:
    """A socket bound to a port of the loopback address.

    Raises:
        InputError: no such port, or it is taken.
    """
    if port is not None and not 0 <= port <= 65535:
        raise InputError(f"--port is 0 to 65535, not {port}.")
    for wanted in (PORT, 0) if port is None else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            return listener
        except OSError as error:
            listener.close()
            problem = error
    raise InputError(f"Port {port} cannot be used ({problem.strerror}); leave --port out, and a free one is taken.")
