"""Do jobs on Ray Core actors, pulled by the driver: a dead worker is replaced, its items tried again.

An item that keeps killing its worker is found by halving and recorded as failed; the rest of its job is kept.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from data.errors import GazetteerError, InputError
from jobs.ray_security import secure_ray
from jobs.work import Done, Job, Task, Worker

ATTEMPTS = 2
"""How often the same items may take a worker down before they are halved."""

FRUITLESS = 4
"""Worker deaths per worker without any finished piece in between after which the run gives up."""


@dataclass(frozen=True)
class _Piece:
    """Some consecutive items of a job, [start, stop), and how often they were tried."""

    job: Job
    start: int
    stop: int
    attempts: int = 0


@contextmanager
def ray_pool(workers: int, threads: int, address: str = "") -> Iterator[Pool]:
    """A pool of workers on Ray: private to this process unless `address` names a cluster.

    Token authentication is on and telemetry off; a stray RAY_ADDRESS is not followed.

    Raises:
        InputError: the cluster is not named, cannot be reached or has fewer CPUs than workers, or lacks a token.
    """
    address = secure_ray(address)
    import ray

    options: dict[str, Any] = {"address": address} if address else {
        "address": "local", "num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False,
    }  # fmt: skip
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {"env_vars": limits if threads else {}}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
    try:
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < workers:
            raise InputError(f"workers={workers} need {workers} CPUs, but the cluster at {address} has {there}.")
        yield Pool(ray, workers)
    finally:
        ray.shutdown()


class Pool:
    """Up to `workers` actors that outlive one call of `run_ray`, so that models are loaded once per run."""

    def __init__(self, ray: Any, workers: int) -> None:
        self.ray, self.workers = ray, workers
        self._actor_class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._task: Task | None = None
        self._shared_task: Any = None
        self._idle: list[Any] = []

    def serve(self, task: Task) -> None:
        """Use `task` from now on; workers of another task end."""
        if task is not self._task:
            for actor in self._idle:
                self.ray.kill(actor)
            self._idle, self._task, self._shared_task = [], task, self.ray.put(task)

    def take(self) -> Any:
        """An idle worker, or a new one."""
        return self._idle.pop() if self._idle else self._actor_class.remote(self._shared_task)

    def give_back(self, actor: Any) -> None:
        """Keep a worker for the next piece."""
        self._idle.append(actor)


def run_ray(task: Task, jobs: Sequence[Job], done: Done, pool: Pool) -> None:
    """Run every job on the pool's workers and hand each result to `done` in the order they finish.

    At most one piece per worker is in flight, so memory is bounded by workers, not by jobs.

    Raises:
        GazetteerError: from a worker or from `done`, or when workers die without ever finishing anything.
    """
    pool.serve(task)
    _Driver(task, jobs, done, pool).run()


class _Driver:
    def __init__(self, task: Task, jobs: Sequence[Job], done: Done, pool: Pool) -> None:
        self.task, self.done, self.pool, self.ray = task, done, pool, pool.ray
        self.todo = deque(_Piece(job, 0, len(job.items)) for job in jobs)
        self.parts: dict[str, dict[int, tuple[int, Any]]] = {}
        self.running: dict[Any, tuple[Any, _Piece]] = {}
        self.allowed_deaths = self.deaths_left = FRUITLESS * pool.workers

    def run(self) -> None:
        while self.todo or self.running:
            while self.todo and len(self.running) < self.pool.workers:
                self._submit(self.pool.take(), self.todo.popleft())
            ready, _ = self.ray.wait(list(self.running), num_returns=1)
            actor, piece = self.running.pop(ready[0])
            outcome = self._outcome(ready[0])
            if isinstance(outcome, Exception):
                self.ray.kill(actor)
                self._retry(piece, outcome)
                continue
            # The worker gets its next piece before this one is recorded, so that it never waits for the disk.
            if self.todo:
                self._submit(actor, self.todo.popleft())
            else:
                self.pool.give_back(actor)
            self.deaths_left = self.allowed_deaths
            self._keep(piece, outcome)

    def _submit(self, actor: Any, piece: _Piece) -> None:
        self.running[actor.run.remote(piece.job.items[piece.start : piece.stop])] = (actor, piece)

    def _outcome(self, reference: Any) -> Any:
        """The result, or the exception of a worker that died or broke; errors of the run itself are raised."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GazetteerError):
                raise error.cause from error
            return error
        except self.ray.exceptions.RayError as error:
            return error

    def _retry(self, piece: _Piece, error: Exception) -> None:
        self.deaths_left -= 1
        reason = _reason(error)
        if self.deaths_left <= 0:
            raise GazetteerError(f"Workers keep dying without finishing anything; the last one: {reason}")
        if piece.attempts + 1 < ATTEMPTS:
            self.todo.appendleft(replace(piece, attempts=piece.attempts + 1))
        elif piece.stop - piece.start > 1:
            middle = (piece.start + piece.stop) // 2
            self.todo.appendleft(_Piece(piece.job, middle, piece.stop))
            self.todo.appendleft(_Piece(piece.job, piece.start, middle))
        else:
            self._keep(piece, self.task.lost(piece.job.items[piece.start], reason, piece.attempts + 1))

    def _keep(self, piece: _Piece, result: Any) -> None:
        parts = self.parts.setdefault(piece.job.id, {})
        parts[piece.start] = (piece.stop, result)
        if sum(stop - start for start, (stop, _) in parts.items()) == len(piece.job.items):
            results = [parts[start][1] for start in sorted(parts)]
            del self.parts[piece.job.id]
            self.done(piece.job, results[0] if len(results) == 1 else self.task.join(results))


class _Actor:
    """Builds its worker at the first call, so that what is wrong with a model arrives as that call's error."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.worker: Worker | None = None

    def run(self, items: Sequence[Any]) -> Any:
        if self.worker is None:
            self.worker = self.task.build()
        return self.worker.run(items)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    text = (str(cause).strip().splitlines() or [""])[0]
    return f"{type(cause).__name__}: {text}"
