"""One process at a time drives a run: a kernel lock on local folders, a renewed lease behind URLs and without locks.

Where names can be created only once, either only prevents wasted work: that two drivers cannot spoil a run follows from
data/runs/shards/commits.py. Where they cannot, the lease is what keeps two drivers apart; a driver that lost it stops.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import GazetteerError, LockedError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.local import LocalFiles, make_folder
from gazetteer.data.storage.lock import NoLocksError, hold

LEASE_SECONDS = 120.0
SETTLE_SECONDS = 1.0
"""How long a lease that was written over another's is left alone before it is read back."""
log = logging.getLogger(__name__)

_LOCK = "_meta/lock"
StillMine = Callable[[], None]
"""Raises LockedError when the run is not this process's any more."""


@contextmanager
def run_lock(files: Files) -> Iterator[StillMine]:
    """Hold the run of `files`; LockedError, naming the holder, when another process does."""
    if isinstance(files, LocalFiles) and (descriptor := _local_lock(files)) is not None:
        try:
            yield lambda: None
        finally:
            os.close(descriptor)
        return
    lease = _Lease(files)
    lease.take()
    try:
        yield lease.check
    finally:
        lease.release()


def _local_lock(files: LocalFiles) -> int | None:
    """The descriptor that holds the kernel's lock; None where the file system has no locks."""
    path = Path(files.root) / _LOCK
    with write_errors(str(path), resumes=True):
        if path.parent.is_symlink():
            raise OSError(0, "its folder is a link; a run is written in its own folders only")
        make_folder(path.parent)
        try:
            descriptor = hold(path, wait=False).descriptor
        except BlockingIOError:
            raise _locked(files, path.read_text(errors="replace").strip()) from None
        except NoLocksError:
            log.warning(
                "The file system of %s has no file locks; a lease of %d seconds stands in for the lock.",
                files.root, LEASE_SECONDS,
            )  # fmt: skip
            return None
        try:
            # Who holds it, for the sentence the next one gets; the lock itself is the kernel's.
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _me().encode())
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class _Lease:
    """A small file with a time stamp that its holder keeps renewing; a stale one may be taken over."""

    def __init__(self, files: Files) -> None:
        self._files, self._token = files, uuid.uuid4().hex
        self._renewed, self._lost = time.time(), ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run lease", daemon=True)

    def take(self) -> None:
        """Become the holder, and stay it until `release`; LockedError when another process is."""
        if not self._files.create(_LOCK, self._content()):
            lease = self._read()
            # Ours when the storage took it, lost its answer, and was asked again.
            if lease.get("token") != self._token and _alive(lease):
                raise _locked(self._files, str(lease.get("holder", "")))
            self._files.replace(_LOCK, self._content())
            self._settle()
        elif getattr(self._files, "creates_once", True) is False:
            self._settle()
        self._renewed = time.time()
        self._thread.start()

    def check(self) -> None:
        """LockedError when another process took the lease over, as it may after a long silence of this one."""
        if not self._lost and abs(time.time() - self._renewed) > LEASE_SECONDS / 2:
            self._renew()
        if self._lost:
            raise LockedError(
                f"{self._files.root} was taken over by another process ({self._lost}) while this one was not heard of; "
                "this one stops, and nothing is lost."
            )

    def release(self) -> None:
        """Stop renewing and let go; what goes wrong here never hides what ended the run."""
        self._stop.set()
        self._thread.join()
        try:
            if self._read().get("token") == self._token:
                self._files.remove(_LOCK)
        except GazetteerError as error:
            log.warning("The lease of the run could not be removed (%s); it ends by itself.", error)

    def _settle(self) -> None:
        """Two may take over the same stale lease, or create it where names are not created once: the last stays."""
        time.sleep(SETTLE_SECONDS)
        lease = self._read()
        if lease.get("token") != self._token:
            raise _locked(self._files, str(lease.get("holder", "which was quicker")))

    def _keep(self) -> None:
        while not self._lost and not self._stop.wait(LEASE_SECONDS / 4):
            try:
                self._renew()
            except Exception as error:  # a storage hiccup: the lease outlives three missed renewals
                log.warning("The lease of the run could not be renewed (%s); trying again.", error)

    def _renew(self) -> None:
        lease = self._read()
        if lease.get("token", self._token) != self._token:
            self._lost = str(lease.get("holder", "unknown"))
            return
        self._files.replace(_LOCK, self._content())
        self._renewed = time.time()

    def _content(self) -> bytes:
        holder = {"holder": _me(), "pid": os.getpid(), "machine": machine()}
        return json.dumps({**holder, "token": self._token, "renewed": time.time()}).encode()

    def _read(self) -> dict[str, Any]:
        try:
            return json_object(self._files.read(_LOCK))
        except (FileNotFoundError, ValueError):
            return {}


def _alive(lease: dict[str, Any]) -> bool:
    """Whether a lease's holder may still be at work."""
    try:
        age = time.time() - float(lease.get("renewed", 0.0))
    except (TypeError, ValueError, OverflowError):
        return False
    # A stamp from far in the future is that of a holder whose clock jumped: as stale as an old one, or nobody could
    # ever go on.
    return abs(age) < LEASE_SECONDS and not dead_here(lease.get("machine"), lease.get("pid"))


def dead_here(where: Any, process: Any) -> bool:
    """Whether a process was one of this very machine, start and process table that is no more.

    where: what `machine` gave it.
    """
    if not where or where != machine() or type(process) is not int or process < 1:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def machine() -> str:
    """This start of this machine and this table of processes (containers have their own); empty where unknown."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _me() -> str:
    return f"id {os.getpid()} on {socket.gethostname()}"


def _locked(files: Files, holder: str) -> LockedError:
    return LockedError(f"Another process{f' ({holder})' if holder else ''} holds {files.root}; try again later.")
