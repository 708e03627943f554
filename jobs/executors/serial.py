"""Do jobs one after another in this process: no start-up, easy to debug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gazetteer.jobs.executors.stop import check_stop
from gazetteer.jobs.executors.task import Done, Job, Task


class Here:
    """A `Companion` in this process: a call is over when it has been sent."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def send(self, method: str, *given: Any) -> Callable[[], Any]:
        """As `Companion.send`; what the call raises is raised here."""
        check_stop()
        result = getattr(self.inside, method)(*given)
        return lambda: result


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
