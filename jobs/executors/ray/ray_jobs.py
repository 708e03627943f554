"""Ray Jobs: start a command on a standing cluster, find the jobs of a run, follow one to its end."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError, LockedError, first_line
from gazetteer.jobs.executors.ray.security import require_token

_PATIENCE = 20
"""Lost connections in a row, two seconds apart, after which following a job is given up."""


class RayJobs:
    """The jobs of a cluster.

    Args:
        address: of its dashboard, ``http://host:8265``.

    Raises:
        InputError: no cluster there, or a token that is missing or refused; so does every method.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with _explained(address):
            self._client = _client(address)

    def numbered(self, prefix: str) -> dict[int, Any]:
        """The jobs whose ids are `prefix` and a number, by that number."""
        with _explained(self.address):
            ids = [(str(job.submission_id or ""), job) for job in self._client.list_jobs()]
        matches = ((re.fullmatch(re.escape(prefix) + r"(\d+)", job_id), job) for job_id, job in ids)
        return {int(match[1]): job for match, job in matches if match}

    def start(self, entrypoint: str, submission: str, metadata: dict[str, str]) -> None:
        """Start a command under the id `submission`; LockedError when that is taken."""
        with _explained(self.address):
            try:
                # No runtime_env: it is shown in the dashboard, and what the command needs is installed on the nodes.
                self._client.submit_job(entrypoint=entrypoint, submission_id=submission, metadata=metadata)
            except RuntimeError as error:
                if "already" in str(error):
                    raise LockedError(
                        f"The job {submission} was submitted by another process just now; try again."
                    ) from error
                raise

    def follow(self, submission: str) -> int:
        """Print a job's log until it ends; returns the exit code of its command.

        Raises:
            GazetteerError: the job was stopped or lost, or the cluster cannot be reached any more.
        """
        try:
            asyncio.run(_print_log(self._client, submission))
            with _explained(self.address):
                job = self._client.get_job_info(submission)
        except KeyboardInterrupt:
            print(f"The job {submission} goes on; the same command with --attach follows it again.", file=sys.stderr)
            raise
        status = str(getattr(job.status, "value", job.status))
        if status == "SUCCEEDED":
            return 0
        if status == "FAILED" and job.driver_exit_code is not None and job.driver_exit_code > 0:
            return int(job.driver_exit_code)
        reason = (str(job.message or "").strip().splitlines() or ["no reason given"])[0]
        raise GazetteerError(f"The job {submission} ended as {status} ({reason}); submit again: the run resumes.")


def _client(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    require_token()
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError('Ray Jobs need more of Ray: pip install "gazetteer[cluster]".') from error
    return JobSubmissionClient(address)


async def _print_log(client: Any, submission: str) -> None:
    """Print what the job prints until it ends; a broken connection is made again and goes on where it broke."""
    import aiohttp

    printed = lost = 0
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(submission):
                fresh = text[max(printed - seen, 0) :]
                seen += len(text)
                printed, lost = max(printed, seen), 0
                print(fresh, end="", flush=True)
            if client.get_job_status(submission).is_terminal():
                return
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            lost += 1
            if lost > _PATIENCE:
                raise GazetteerError(
                    f"The job {submission} cannot be followed any more ({error}); it may go on. --attach tries again."
                ) from error
        await asyncio.sleep(2)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one sentence."""
    try:
        yield
    except GazetteerError:
        raise
    except (ConnectionError, OSError) as error:
        raise InputError(f"There is no Ray dashboard at {address} ({first_line(error)}).") from error
    except Exception as error:  # Ray raises RuntimeError for every answer it does not like
        text = str(error)
        if any(sign in text for sign in ("401", "403", "uthenticat", "nauthorized")):
            raise InputError(f"The cluster at {address} refused the token ({first_line(error)}).") from error
        raise GazetteerError(f"The cluster at {address} answered: {first_line(error)}") from error
