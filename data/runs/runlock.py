"""One process at a time drives a run: a kernel lock on local folders, a renewed lease behind URLs.

Either only prevents wasted work. That two drivers cannot spoil a run follows from data/runs/commits.py.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import LockedError
from gazetteer.data.runs.files import Files, LocalFiles, make_folder, write_errors
from gazetteer.data.runs.lock import hold

LEASE_SECONDS = 120.0
log = logging.getLogger(__name__)

_LOCK = "_meta/lock"


@contextmanager
def run_lock(files: Files) -> Iterator[None]:
    """Hold the run of `files`; LockedError, naming the holder, when another process does."""
    with _local_lock(files) if isinstance(files, LocalFiles) else _lease(files):
        yield


@contextmanager
def _local_lock(files: LocalFiles) -> Iterator[None]:
    path = Path(files.root) / _LOCK
    with write_errors(str(path)):
        make_folder(path.parent)
        try:
            lock = hold(path, wait=False)
        except BlockingIOError:
            raise _locked(files, path.read_text(errors="replace").strip()) from None
    try:
        # Who holds it, for the sentence the next one gets; the lock itself is the kernel's.
        os.ftruncate(lock.descriptor, 0)
        os.write(lock.descriptor, _me().encode())
        yield
    finally:
        lock.release()


@contextmanager
def _lease(files: Files) -> Iterator[None]:
    """A small object with a time stamp that its holder keeps renewing; a stale one may be taken over."""
    token = uuid.uuid4().hex

    def content() -> bytes:
        return json.dumps({"holder": _me(), "token": token, "renewed": time.time()}).encode()

    if not files.create(_LOCK, content()):
        there = _read_lease(files)
        # Ours when the storage took it, lost its answer, and was asked again. A stamp from far in the future is
        # that of a holder whose clock jumped: as stale as an old one, or nobody could ever go on.
        ours, age = there.get("token") == token, time.time() - float(there.get("renewed", 0.0))
        if not ours and abs(age) < LEASE_SECONDS:
            raise _locked(files, str(there.get("holder", "")))
        files.replace(_LOCK, content())
        if _read_lease(files).get("token") != token:  # two took over the same stale lease: the last stays
            raise _locked(files, "which was quicker")
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(LEASE_SECONDS / 4):
            try:
                files.replace(_LOCK, content())
            except Exception as error:  # a storage hiccup: the lease outlives three missed renewals
                log.warning("The lease of the run could not be renewed (%s); trying again.", error)

    thread = threading.Thread(target=renew, name="run lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if _read_lease(files).get("token") == token:
            files.remove(_LOCK)


def _read_lease(files: Files) -> dict[str, Any]:
    try:
        return dict(json.loads(files.read(_LOCK)))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _me() -> str:
    return f"id {os.getpid()} on {socket.gethostname()}"


def _locked(files: Files, holder: str) -> LockedError:
    return LockedError(f"Another process{f' ({holder})' if holder else ''} holds {files.root}; try again later.")
