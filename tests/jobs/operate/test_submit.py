"""`gazetteer submit` against a real Ray head with token authentication: its log, its exit codes, and who is let in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gazetteer.jobs.operate.status import status
from tests.support.servers.ray_head import RayHead, answer, ray_head
from tests.support.system.running import ONE_SITE, ROOT, SMALL

pytestmark = pytest.mark.alone

TINY = [*SMALL, *ONE_SITE, "generation.steps=2", "images=2", "coverage.first=1.0", "workers=1", "labels.min_images=1"]


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as head:
        yield head


def submit(head: RayHead, *words: str, token: Path | None = None, **environment: str) -> Any:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"RAY_AUTH_TOKEN_PATH": str(token or head.token), **environment}
    command = [sys.executable, "-m", "gazetteer", "submit", "--address", head.dashboard, *words]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False, timeout=500)


def client(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> Any:
    from ray.job_submission import JobSubmissionClient

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return JobSubmissionClient(head.dashboard, headers={"Authorization": f"Bearer {head.token.read_text()}"})


def test_without_the_token_nothing_is_let_in(head: RayHead, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    body = json.dumps({"entrypoint": f"touch {marker}"}).encode()
    assert answer(head.dashboard + "/api/jobs/", None, body) == 401
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    assert answer(head.dashboard + "/api/jobs/", wrong, body) in (401, 403)
    refused = submit(head, "--", "label", "--out", str(tmp_path / "run"), token=wrong)
    assert refused.returncode == 2, refused.stderr
    assert "refused the token" in refused.stderr
    missing = submit(head, "--", "label", "--out", str(tmp_path / "run"), token=tmp_path / "none")
    assert missing.returncode == 2
    assert "no token" in missing.stderr
    assert not marker.exists()


def test_a_run_is_made_on_the_cluster_and_its_log_followed(
    head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    done = submit(head, "--", "label", "--out", str(run), "--log", "-", "--set", *TINY)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 pictures" in done.stdout
    logged = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"time"')]
    said = [line["message"] for line in logged]
    assert (said[0], said[-1]) == ("run started", "run complete")
    assert status(run)["state"] == "complete"
    (job,) = [job for job in client(head, monkeypatch).list_jobs() if job.metadata and job.metadata["run"] == str(run)]
    assert job.submission_id.startswith("run-")
    assert job.submission_id.endswith("-1")
    assert head.token.read_text() not in str(job.model_dump() if hasattr(job, "model_dump") else job.dict())


def test_the_exit_code_is_the_commands_own(head: RayHead, tmp_path: Path) -> None:
    done = submit(head, "--", "label", "--out", str(tmp_path / "bad"), "--set", "images=0")
    assert done.returncode == 2
    assert "images must be at least 1" in done.stdout


def without_token() -> dict[str, str]:
    """The environment without another cluster's token, which a test of this process may have left and which wins."""
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}


def test_a_second_submission_meets_the_first(head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gazetteer.jobs.operate.submit import _prefix

    words, jobs = ["label", "--out", str(tmp_path / "held")], client(head, monkeypatch)
    submission = jobs.submit_job(entrypoint="echo at work; sleep 600", submission_id=f"{_prefix(words[-1])}1")
    held = submit(head, "--", *words)
    assert held.returncode == 75, held.stderr
    assert submission in held.stderr
    kept = {**without_token(), "RAY_AUTH_TOKEN_PATH": str(head.token)}
    command = [sys.executable, "-m", "gazetteer", "submit", "--address", head.dashboard, "--attach", "--", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert "at work" in next(line for line in follower.stdout if "at work" in line)
        jobs.stop_job(submission)
        code, said = follower.wait(timeout=300), follower.stderr.read()
    assert code == 1
    assert "ended as STOPPED" in said
    next_one = submit(head, "--no-wait", "--", *words, "--set", "images=0")
    assert next_one.returncode == 0, "submitted, and not waited for"
    assert f"job {submission[:-1]}2" in next_one.stderr


@pytest.mark.parametrize(
    ("words", "address", "reason"),
    [
        (["status", "/run"], "http://127.0.0.1:9", "Only label, nightly, sae"),
        (["label", "--out", "s3://key:hush@bucket/run"], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--out", "s3://bucket/run?X-Amz-Signature=hush"], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--out", "az://run?sv=1&sig=hush"], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--out", "az://run%3Fsig%3Dhush"], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--set", '{"secret": "hush"}'], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--set", "x={aws_secret_access_key: hush}"], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--set", "x=hf_" + "a" * 30], "http://127.0.0.1:9", "looks like a credential"),
        (["label", "--out", "/run", "--set", "ray_address=other:6379"], "http://127.0.0.1:9", "is set by submit"),
        (["label", "--out", "/run"], "127.0.0.1:8265", "URL of the cluster's dashboard"),
        (["label", "--out", "/run"], "http://me:secret@127.0.0.1:8265", "no credentials"),
        (["label", "--out", "/run"], "http://127.0.0.1:9", "no Ray dashboard at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_submitted(monkeypatch: pytest.MonkeyPatch, words: list[str], address: str, reason: str) -> None:
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.operate.submit import submit as submitted

    for name, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", "t"), ("RAY_USAGE_STATS_ENABLED", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=reason) as refused:
        submitted(words, "/run", address)
    assert "hush" not in str(refused.value)


def test_what_only_sounds_like_a_secret_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.operate.submit import submit as submitted

    for name, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", "t"), ("RAY_USAGE_STATS_ENABLED", "0")):
        monkeypatch.setenv(name, value)
    words = ["label", "--out", "s3://secrets/tokens/run", "--set", "vocabulary.concepts=[key, signature, token ring]"]
    with pytest.raises(InputError, match="no Ray dashboard"):
        submitted(words, "/run", "http://127.0.0.1:9")


METRICS = """
import sys, ray
from gazetteer.jobs.executors.ray.metrics import RunMetrics
metrics = RunMetrics("my-run")
metrics.shard({"images": 9}, {}, None)
ray.init(address=sys.argv[1], log_to_driver=False)
metrics.shard({"images": 3, "segments": 7, "failures": 1}, {"generate": 1.5}, 12.0)
metrics.shard({"images": 2, "segments": 0, "failures": 0}, {"generate": 0.5}, 6.0)
print("counted", flush=True)
sys.stdin.readline()
"""


def test_prometheus_reads_a_runs_numbers_from_the_exporter(head: RayHead) -> None:
    import re
    import urllib.request

    wanted = {"images_total": 5, "segments_total": 7, "failures_total": 1, "shards_total": 2, "seconds_left": 6}
    environment = {**without_token(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)}
    environment["RAY_metrics_report_interval_ms"] = "1000"
    with subprocess.Popen(
        [sys.executable, "-c", METRICS, head.gcs],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        assert driver.stdout is not None
        assert driver.stdout.readline() == "counted\n"
        found: dict[str, float] = {}
        for _ in range(240):
            with urllib.request.urlopen(head.metrics, timeout=30) as page:
                text = page.read().decode()
            lines = re.findall(r"^ray_gazetteer_(\w+)\{([^}]*)\} (\S+)$", text, re.M)
            found = {name: float(value) for name, tags, value in lines if 'run="my-run"' in tags}
            if found.items() >= wanted.items():
                break
            time.sleep(0.5)
        driver.communicate("\n")
    assert found.items() >= wanted.items()
    assert found["stage_seconds_total"] == 2.0


GROWING = """
import sys
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work

later = PoolConfig(("first",), 1, resources={"later": 1})
task = Task(toy_work.Squarer, toy_work.join, toy_work.lost)
with ray_pools([later], 1, sys.argv[1], LimitConfig(wait_seconds=240)) as pools:
    run_ray(task, [Job("a", (3, 4))], lambda _, result: print(result, flush=True), pools)
"""


def test_the_clusters_autoscaler_is_asked_for_the_node_that_is_missing(head: RayHead) -> None:
    """Ray's own autoscaler, whose nodes are further raylets on this machine: none has the resource until asked."""
    environment = {**without_token(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)}
    done = subprocess.run(
        [sys.executable, "-c", GROWING, head.gcs],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[(3, 9), (4, 16)]"
