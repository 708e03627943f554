"""Run a gazetteer command on a standing Ray cluster through Ray Jobs: follow its log, return its own exit code."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError, LockedError
from gazetteer.jobs.executors.ray.ray_jobs import RayJobs
from gazetteer.jobs.executors.ray.security import JOB

PROGRAM = "gazetteer"
VERBS = ("label", "nightly", "sae")
_SECRETS = (
    re.compile(r"://[^/@\s]*:[^/@\s]*@"),  # s3://KEY:SECRET@bucket
    # ?X-Amz-Signature=…, &sig=…, {"secret": "…"}, aws_secret_access_key=…
    re.compile(
        r"(secret|passw(or)?d|credential|signature|(^|[^a-z])(sig|token|pwd)|access[-_]?key|api[-_]?key|"
        r"account[-_]?key|private[-_]?key|(auth|access|session|security|bearer|sas|hf)[-_]?token)[\w-]*"
        r"[\"']?\s*[=:]\s*[\"']?[^\s\"'=:]",
        re.IGNORECASE,
    ),
    re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|-----BEGIN "),
)
"""What credentials look like: in addresses, in queries and JSON, by themselves."""


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
    jobs, prefix = RayJobs(address), _prefix(out)
    numbered = jobs.numbered(prefix)
    current = next((job for job in numbered.values() if not job.status.is_terminal()), None)
    if current is None:
        submission = f"{prefix}{max(numbered, default=0) + 1}"
        jobs.start(entrypoint(command), submission, {"run": out})
    else:
        submission = str(current.submission_id)
        if not attach:
            raise LockedError(f"The job {submission} is already at work on {out}; --attach follows it.")
    print(f"job {submission} on {address}", file=sys.stderr, flush=True)
    return jobs.follow(submission) if follow else 0


_FIND = """
python=$1; shift
for found in "$(command -v gazetteer)" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/gazetteer}" \\
  "${CONDA_PREFIX:+$CONDA_PREFIX/bin/gazetteer}"
do
  if [ -x "$found" ]; then exec "$found" "$@"; fi
done
if [ -x "$python" ] && "$python" -c "import gazetteer" 2> /dev/null; then
  echo "gazetteer is not on the PATH of the head; running $python -m gazetteer" >&2
  exec "$python" -m gazetteer "$@"
fi
echo "gazetteer: the head of the cluster has no gazetteer on its PATH ($PATH) and none at $python; install it there, or\
 start ray from the environment that has it." >&2
exit 127
"""
"""Ray gives a job the PATH of `ray start`, which knows no environment when that was called by its whole path."""


def entrypoint(command: Sequence[str], python: str = sys.executable) -> str:
    """The job's command line: what was asked for, on the cluster that runs it.

    Where the head's PATH and environment lack ``gazetteer``, the interpreter that submits is looked for there.
    """
    words = [*command, "--set", "executor=ray", f"ray_address={JOB}"]
    return shlex.join(["sh", "-c", _FIND, PROGRAM, python, *words])


def _check(command: Sequence[str], address: str) -> None:
    if not command or command[0] not in VERBS:
        raise InputError(f"Only {', '.join(VERBS)} can be submitted, not {command[0] if command else 'nothing'}.")
    if command[0] == "sae" and command[1:2] not in (["train"], ["threshold"]):
        raise InputError("Of sae, train and threshold can be submitted: the others sample nothing and run here.")
    for word in map(unquote, command):
        if any(sign.search(word) for sign in _SECRETS):
            raise InputError(
                "A word of the command looks like a credential and would be shown in the cluster's dashboard: "
                f"{_shown(word)}; give the nodes a role or a secret instead."
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


def _shown(word: str) -> str:
    """The beginning of a word, up to where what must not be shown may begin."""
    return f"{re.split(r'[=:?]', word, maxsplit=1)[0][:40]}…"


def _prefix(out: str) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", out.rstrip("/").rpartition("/")[2]).strip("-")[:40] or "run"
    return f"{name}-{digest_json(out.rstrip('/'))[:8]}-"
