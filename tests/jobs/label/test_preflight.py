"""Too little space for what is still to come is said before it is begun."""

from __future__ import annotations

from pathlib import Path

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.label.preflight import space_problem
from tests.support.runs.runs import PROVENANCE, parts


def test_the_space_the_rest_will_take_is_measured_on_what_is_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert space_problem(run, [], 10**15) is None, "nothing is known before the first shard"
    run.commit_shard("s0", parts(0), {"images": 1}, PROVENANCE)
    commits = run.committed().values()
    assert space_problem(run, commits, 1) is None
    free, each = run.free_bytes(), sum(part["bytes"] for commit in commits for part in commit.tables.values())
    assert free is not None
    problem = space_problem(run, commits, 2 * free // each)
    assert problem is not None
    assert f"{tmp_path} has" in problem
    assert problem.endswith("run the same command again: it resumes.")


def test_behind_a_url_nobody_knows() -> None:
    run = RunFolder("memory://space")
    run.commit_shard("s0", parts(0), {"images": 1}, PROVENANCE)
    assert space_problem(run, run.committed().values(), 10**15) is None
