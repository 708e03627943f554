"""Choose the executor a configuration names; Ray starts at the first job, so that a finished run never starts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.executors.task import Done, Job, Task, Worker


class Executor(ExitStack):
    """Runs jobs as `config` says; a context manager that ends what it started.

    Args:
        last_words: told why, when this process has lost its Ray and cannot but end on the spot.
    """

    def __init__(self, config: RunConfig, last_words: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.config, self._last_words = config, last_words
        self._pools: Any = None
        self._local: tuple[Task, Worker] | None = None

    def run(self, task: Task, jobs: Sequence[Job], done: Done) -> None:
        """Run every job and hand each result to `done`; workers stay for the next call with the same task.

        Raises:
            GazetteerError: from a worker or from `done`; InputError when Ray cannot be used.
        """
        if not jobs:
            return
        if self.config.executor == "serial":
            if self._local is None or self._local[0] is not task:
                self._local = task, task.worker()
            worker = self._local[1]
            run_serial(replace(task, build=lambda *_: worker), jobs, done)
            return
        from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
        from gazetteer.jobs.executors.ray.watch import say

        if self._pools is None:
            config = self.config
            words = self._last_words or say
            pools = ray_pools(config.all_pools, config.threads, config.ray_address, config.limits, words)
            self._pools = self.enter_context(pools)
        run_ray(task, jobs, done, self._pools)
