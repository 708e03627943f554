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
        self._ray: Any = None

    def run(self, task: Task, jobs: Sequence[Job], done: Done) -> None:
        """Run every job and hand each result to `done`.

        Raises:
            GazetteerError: from a worker or from `done`; InputError when Ray cannot be used.
        """
        if self.config.executor == "serial" or not jobs:
            run_serial(task, jobs, done)
            return
        from jobs.ray_executor import ray_session, run_ray

        if self._ray is None:
            session = ray_session(self.config.workers, self.config.threads, self.config.ray_address)
            self._ray = self.enter_context(session)
        run_ray(task, jobs, done, ray=self._ray, workers=self.config.workers)
