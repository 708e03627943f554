"""The Ray that a run uses: a private one on this machine, a cluster that was named, or the caller's own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from gazetteer.data.core.errors import GazetteerError, InputError, first_line
from gazetteer.data.core.threads import thread_environment
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.security import secure_ray
from gazetteer.jobs.executors.ray.watch import ClusterWatch, LastWords, ProcessWatch, say

log = logging.getLogger(__name__)

_INNER = "r"
LONGEST = 40
"""Characters of a folder in which the sockets of a private Ray still have names that the kernel takes (107)."""


@dataclass(frozen=True)
class Session:
    """Ray, ready to be used.

    Attributes:
        ray: the module.
        check: raises GazetteerError when this Ray was lost.
        environment: variables that every actor has to be given, because the session was not started for them.
        started: whether it was started or joined here, and ends here.
    """

    ray: Any
    check: Callable[[], None] = lambda: None
    environment: Mapping[str, str] = field(default_factory=dict)
    started: bool = True

    @property
    def lost(self) -> bool:
        """Whether asking this Ray for anything would wait in vain."""
        try:
            self.check()
        except GazetteerError:
            return True
        return False


@contextmanager
def ray_session(
    pools: Sequence[PoolConfig], threads: int, address: str = "", last_words: LastWords = say
) -> Iterator[Session]:
    """Ray for these pools: private to this process unless `address` names a cluster.

    Where the caller has initialised Ray already, that session is used, and left as it was. Otherwise token
    authentication is on, telemetry off, and a stray RAY_ADDRESS is not followed.

    Args:
        last_words: see `gazetteer.jobs.executors.ray.watch.Watch`.

    Raises:
        InputError: the cluster is not named, cannot be reached or lacks a token; or the caller's session is another.
    """
    threads_of = thread_environment(threads)
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        _require_same(loaded, address)
        yield Session(loaded, environment=threads_of, started=False)
        return
    address = secure_ray(address)
    import ray

    if address:
        _begin(ray, address, {"address": address, "runtime_env": {"env_vars": threads_of}})
        watch = ClusterWatch(str(ray.get_runtime_context().gcs_address), last_words)
        try:
            with _silenced():
                yield Session(ray, watch.check)
        finally:
            ray.shutdown()
            watch.close()
        return
    with _private(ray, pools, threads_of, last_words) as watch_over_it:
        yield Session(ray, watch_over_it.check)


@contextmanager
def _private(
    ray: Any, pools: Sequence[PoolConfig], environment: Mapping[str, str], last_words: LastWords
) -> Iterator[ProcessWatch]:
    """A Ray of this process's own, in a folder that nobody else can enter; nothing of it stays."""
    folder = _folder()
    options = {"address": "local", **_here(pools), "include_dashboard": False, "_temp_dir": f"{folder}/{_INNER}"}
    # Inherited, for a runtime_env of its own would cost every worker the process that Ray has waiting for it.
    with _environment(environment):
        _begin(ray, "", options)
    watch = ProcessWatch(_processes(), folder, last_words)
    try:
        with _silenced():
            yield watch
    finally:
        ray.shutdown()
        watch.close()


def _require_same(ray: Any, address: str) -> None:
    """InputError unless the session that the caller has initialised is the one at `address`, or none is asked for."""
    from ray.util.client import ray as client

    if client.is_connected():
        raise InputError(
            "This process is connected to a cluster by Ray Client (ray://), through which a run cannot be driven; call "
            "ray.shutdown() first and set ray_address, or submit the run (gazetteer submit)."
        )
    here = str(ray.get_runtime_context().gcs_address)
    if address and address not in (here, "job"):
        raise InputError(
            f"This process has initialised Ray at {here} already, and ray_address is {address}; call ray.shutdown() "
            "first, or leave ray_address empty to use that session."
        )


def _begin(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Start or join Ray; on a machine too busy to start it in the time Ray allows, once more.

    Ray takes over SIGTERM, in Python with an exit code of its own, and below it with a dump of the process: the
    handler of before is put back.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        for tries_left in (1, 0):
            try:
                ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
                return
            except Exception as error:  # Ray raises bare ones here
                reason = first_line(error)
                ray.shutdown()
                if address or not tries_left or "timed out" not in reason:
                    busy = "" if address or "timed out" not in reason else (
                        " The machine may be too busy: give the same command again, or do without Ray (--set "
                        "executor=serial)."
                    )  # fmt: skip
                    raise InputError(f"Ray at {address or 'this machine'} cannot be used: {reason}{busy}") from error
                log.warning("Ray did not start (%s); trying once more.", reason)
    except SystemExit:  # SIGTERM, as Ray takes it
        ray.shutdown()
        if callable(handler):
            handler(signal.SIGTERM, None)
        raise
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what Ray has to say about its nodes off standard output: what matters of it arrives as an error."""
    from ray._private import worker

    printed, private = worker.print_to_stdstream, cast(Any, worker)
    private.print_to_stdstream = lambda data, **_: log.debug("Ray says: %s", data.get("lines"))
    try:
        yield
    finally:
        private.print_to_stdstream = printed


def _processes() -> dict[str, int]:
    """Ray's own processes that this one has started, by name."""
    from ray._private import worker

    node: Any = worker._global_node
    processes = node.all_processes
    wanted = {"raylet": "raylet", "gcs_server": "control store (GCS)"}
    return {said: processes[name][0].process.pid for name, said in wanted.items() if processes.get(name)}


def _folder() -> str:
    """A new folder that this user alone may enter; Ray, which opens its own to everyone, gets one inside."""
    for base in (os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "/tmp"):
        if len(base) + len(f"/gz-12345678/{_INNER}") <= LONGEST:
            return tempfile.mkdtemp(prefix="gz-", dir=base)
    raise InputError(f"Ray needs a folder with a short name for its sockets; set RAY_TMPDIR to one, not {base}.")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _here(pools: Sequence[PoolConfig]) -> dict[str, Any]:
    """What a private Ray has to offer: CPUs and custom resources only gate here, so there are as many as asked for."""
    cpus = sum(pool.cpus * max(1, pool.workers) for pool in pools)
    names = {name for pool in pools for name in pool.resources}
    custom = {name: sum(pool.resources.get(name, 0.0) * max(1, pool.workers) for pool in pools) for name in names}
    return {"num_cpus": max(int(-(-cpus // 1)), os.cpu_count() or 1), "resources": custom}
