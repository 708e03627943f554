"""Run a gazetteer command on a standing Ray cluster through Ray Jobs: follow its log, return its own exit code."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.jobs.executors.ray.security import JOB, require_token

PROGRAM = "gazetteer"
VERBS = ("label", "nightly", "sae")
_CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_PATIENCE = 20
"""Lost connections in a row, two seconds apart, after which following a job is given up."""


def submit(command: Sequence[str], out: str, address: str, *, attach: bool = False, follow: bool = True) -> int:
    """Start the command as a Ray job and, unless told otherwise, stay with it to its end.

    A job's id is its run's name, a digest and the number of the attempt, so that the jobs of a run are told apart
    from others', and a second submission meets the first.

    Args:
        command: the words after ``gazetteer``; paths and URLs in it are read on the cluster.
        out: the run that the command works on.
        address: of the cluster's dashboard, ``http://host:8265``.
        attach: follow the run's job if there is one already; otherwise that is a LockedError.
        follow: print the job's log until it ends; otherwise return 0 when it is submitted.

    Returns:
        the exit code of the command on the cluster.

    Raises:
        InputError: a command that cannot be submitted, no cluster there, or a token that is missing or refused.
        LockedError: a job of this run is still there.
        GazetteerError: the job was stopped or lost, or the cluster cannot be reached any more.
    """
    _check(command, address)
    with _told(address):
        client = _client(address)
        jobs = _jobs_of(client, prefix := _prefix(out))
        current = next((job for job in jobs.values() if not job.status.is_terminal()), None)
        if current is not None:
            submission = str(current.submission_id)
            if not attach:
                raise LockedError(f"The job {submission} is already at work on {out}; --attach follows it.")
        else:
            submission = _start(client, command, out, f"{prefix}{max(jobs, default=0) + 1}")
    print(f"job {submission} on {address}", file=sys.stderr, flush=True)
    return _followed(client, submission, address) if follow else 0


def entrypoint(command: Sequence[str]) -> str:
    """The job's command line: what was asked for, on the cluster that runs it."""
    return shlex.join([PROGRAM, *command, "--set", "executor=ray", f"ray_address={JOB}"])


def _check(command: Sequence[str], address: str) -> None:
    if not command or command[0] not in VERBS:
        raise InputError(f"Only {', '.join(VERBS)} can be submitted, not {command[0] if command else 'nothing'}.")
    for word in command:
        if _CREDENTIALS.search(word):
            raise InputError(
                "A URL with credentials would be shown in the cluster's dashboard; give the nodes a role or a secret."
            )
        if word.startswith(("ray_address=", "executor=")):
            raise InputError(f"{word.partition('=')[0]} is set by submit; leave it out.")
    host = urlsplit(address)
    if host.scheme not in ("http", "https") or not host.hostname:
        raise InputError(f"--address is the URL of the cluster's dashboard, like http://127.0.0.1:8265, not {address}.")
    if host.username or host.password:
        raise InputError("--address takes no credentials; the token is read from its private file.")
    if host.scheme == "http" and host.hostname not in ("127.0.0.1", "localhost", "::1"):
        print(
            f"gazetteer: the token travels to {host.hostname} unencrypted; "
            "outside a trusted network use an SSH tunnel or https.",
            file=sys.stderr,
        )


def _client(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    require_token()
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError('Ray Jobs need more of Ray: pip install "gazetteer[cluster]".') from error
    return JobSubmissionClient(address)


def _prefix(out: str) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", out.rstrip("/").rpartition("/")[2]).strip("-")[:40] or "run"
    return f"{name}-{digest_json(out.rstrip('/'))[:8]}-"


def _jobs_of(client: Any, prefix: str) -> dict[int, Any]:
    """The run's jobs on the cluster by the number of their attempt."""
    ids = ((str(job.submission_id or ""), job) for job in client.list_jobs())
    found = ((re.fullmatch(re.escape(prefix) + r"(\d+)", one), job) for one, job in ids)
    return {int(match[1]): job for match, job in found if match}


def _start(client: Any, command: Sequence[str], out: str, submission: str) -> str:
    try:
        # No runtime_env: it is shown in the dashboard, and what the command needs is installed on the nodes.
        return str(client.submit_job(entrypoint=entrypoint(command), submission_id=submission, metadata={"run": out}))
    except RuntimeError as error:
        if "already" in str(error):
            raise LockedError(f"The job {submission} was submitted by another process just now; try again.") from error
        raise


def _followed(client: Any, submission: str, address: str) -> int:
    try:
        asyncio.run(_print_log(client, submission))
        with _told(address):
            job = client.get_job_info(submission)
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
def _told(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one sentence."""
    try:
        yield
    except GazetteerError:
        raise
    except (ConnectionError, OSError) as error:
        raise InputError(f"There is no Ray dashboard at {address} ({_first(error)}).") from error
    except Exception as error:  # Ray raises RuntimeError for every answer it does not like
        text = str(error)
        if any(sign in text for sign in ("401", "403", "uthenticat", "nauthorized")):
            raise InputError(f"The cluster at {address} refused the token ({_first(error)}).") from error
        raise GazetteerError(f"The cluster at {address} answered: {_first(error)}") from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
