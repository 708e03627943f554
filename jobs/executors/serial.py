"""Do jobs one after another in this process: no start-up, easy to debug."""

from __future__ import annotations

from collections.abc import Sequence

from gazetteer.jobs.executors.stop import check_stop
from gazetteer.jobs.executors.task import Done, Job, Task


def run_serial(task: Task, jobs: Sequence[Job], done: Done) -> None:
    """Run every job and hand its result to `done`; starts no worker when there are no jobs.

    Raises:
        GazetteerError: from the worker or from `done`.
    """
    if not jobs:
        return
    worker = task.worker()
    for job in jobs:
        check_stop()
        done(job, task.sealed(job.id, worker.run(job.items)))
