"""Choose the executor a configuration names; Ray starts at the first job, so that a finished run never starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.serial import Here, run_serial
from gazetteer.jobs.executors.task import Companion, Done, Job, Task, Worker


class Executor(ExitStack):
    """Runs jobs as `config` says; a context manager that ends what it started.

    Args:
        last_words: told why, when this process has lost its Ray and cannot but end on the spot.
        beside: what companions take, whose room is kept from the workers.
    """

    def __init__(
        self,
        config: RunConfig,
        last_words: Callable[[str], None] | None = None,
        beside: PoolConfig | None = None,
    ) -> None:
        super().__init__()
        self.config, self._last_words, self._beside = config, last_words, beside
        self._pools: Any = None
        self._local: tuple[Task, Worker] | None = None

    def run(self, task: Task, jobs: Sequence[Job], done: Done) -> None:
        """Run every job and hand each result to `done`; workers stay for the next call with the same task.

        Raises:
            GazetteerError: from a worker or from `done`; InputError when Ray cannot be used.
        """
        self._run(task, jobs, done, later=False)

    def run_alone(self, task: Task, jobs: Sequence[Job], done: Done) -> None:
        """The same of a task that brings its workers: where the run's own were not needed before, they need no room."""
        self._run(task, jobs, done, later=task.pool is not None)

    def _run(self, task: Task, jobs: Sequence[Job], done: Done, later: bool) -> None:
        if not jobs:
            return
        if self.config.executor == "serial":
            if self._local is None or self._local[0] is not task:
                self._local = task, task.worker()
            worker = self._local[1]
            run_serial(replace(task, build=lambda *_: worker), jobs, done)
            return
        from gazetteer.jobs.executors.ray.executor import run_ray

        run_ray(task, jobs, done, self._ray(later))

    @contextmanager
    def companions(self, builds: Sequence[Callable[[], Any]]) -> Iterator[Sequence[Companion]]:
        """What each of `builds` makes, in a process of its own under Ray; they end with the context.

        Raises:
            GazetteerError: from one of `builds`; InputError when there is no room for them.
        """
        if self.config.executor == "serial":
            yield [Here(build()) for build in builds]
            return
        from gazetteer.jobs.executors.ray.companions import ray_companions

        with ray_companions(self._ray(), builds) as made:
            yield made

    def _ray(self, later: bool = False) -> Any:
        """The pools on Ray, which starts now if it has not; `later`: the run's own need no room yet."""
        from gazetteer.jobs.executors.ray.executor import ray_pools
        from gazetteer.jobs.executors.ray.watch import say

        if self._pools is None:
            config = self.config
            words = self._last_words or say
            wanted = (*config.all_pools, *([self._beside] if self._beside else []))
            pools = ray_pools(wanted, config.threads, config.ray_address, config.limits, words, later)
            self._pools = self.enter_context(pools)
        return self._pools
