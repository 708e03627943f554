"""Choose the executor a configuration names; Ray starts at the first job, so that a finished run never starts it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from jobs.config import RunConfig
from jobs.serial_executor import run_serial
from jobs.work import Done, Job, Task


class Executor(ExitStack):
    """Runs jobs as `config` says; a context manager that ends what it started."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self._pool: Any = None

    def run(self, task: Task, jobs: Sequence[Job], done: Done) -> None:
        """Run every job and hand each result to `done`; workers stay for the next call with the same task.

        Raises:
            GazetteerError: from a worker or from `done`; InputError when Ray cannot be used.
        """
        if self.config.executor == "serial" or not jobs:
            run_serial(task, jobs, done)
            return
        from jobs.ray_executor import ray_pool, run_ray

        if self._pool is None:
            self._pool = self.enter_context(ray_pool(self.config.workers, self.config.threads, self.config.ray_address))
        run_ray(task, jobs, done, self._pool)
