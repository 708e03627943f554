"""Whether the model hub answers at all, asked once in seconds, so that its client need not try for half a minute."""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urlsplit

PATIENCE = 5.0
"""Seconds for a name to be found and a connection to be made."""
_FRESH = 60.0  # seconds for which an answer is believed
_asked: dict[tuple[str, int], tuple[float, bool]] = {}


@contextmanager
def within_reach(path: str) -> Iterator[None]:
    """While open, what is named by a hub id comes from this machine's cache alone if the hub cannot be reached.

    What is not there then is refused at once (`gazetteer.data.inputs.model_files.why_not_loaded` has the sentence).

    Args:
        path: a hub id; nobody is asked for a file or folder.
    """
    from huggingface_hub import constants

    local = path[:1] in ("", ".", "/", "~") or os.path.exists(path)
    if local or constants.HF_HUB_OFFLINE or reachable():
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def reachable(patience: float = PATIENCE) -> bool:
    """Whether something listens where the hub, or the proxy on the way to it, is said to be."""
    from huggingface_hub import constants

    where = _gate(urlsplit(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT))
    when, known = _asked.get(where, (-_FRESH, False))
    if time.monotonic() - when >= _FRESH:
        known = _connects(where, patience)
        _asked[where] = time.monotonic(), known
    return known


def _gate(hub: SplitResult) -> tuple[str, int]:
    """Host and port of the first machine on the way."""
    host = hub.hostname or ""
    proxy = urllib.request.getproxies().get(hub.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        hub = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return hub.hostname or host, hub.port or (80 if hub.scheme == "http" else 443)


def _connects(where: tuple[str, int], patience: float) -> bool:
    """Whether a connection is made in time; the search for a name knows no limit of its own."""
    made: list[bool] = []

    def attempt() -> None:
        try:
            socket.create_connection(where, patience).close()
        except OSError:
            return
        made.append(True)

    thread = threading.Thread(target=attempt, name="hub", daemon=True)
    thread.start()
    thread.join(patience)
    return bool(made)
