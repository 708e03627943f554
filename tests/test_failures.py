"""A bad picture becomes a row that says why; its neighbours are kept; a retry does exactly what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.verify import verify
from tests.running import digests, label

pytestmark = pytest.mark.alone

PROMPTS = ["a boat on the sea", "a tree and a house", "the sun", "two trees", "a dog on sand", "sea and sky", "a road"]
SERIAL = {"raising": ("tag", "ValueError")}
RAY = {
    **SERIAL,
    "crashing": ("worker", "WorkerDied"),
    "hanging": ("worker", "TimeLimit"),
    "eating": ("tag", "MemoryError"),
}
FINAL = ("labels.parquet", "candidates.parquet", "features.parquet")
LIMITED = [
    "executor=ray", "limits.picture_seconds=8", "limits.attempts=1",
    "pools=[{stages: [generate, detect, segment, evidence], workers: 2, memory_gib: 1.5}]",
]  # fmt: skip


def settings(folder: Path, poisons: Iterable[str]) -> list[str]:
    prompts = folder / "prompts.txt"
    lines = [*PROMPTS, *(f"{poison} poison and a boat" for poison in poisons)]
    prompts.write_text("\n".join(lines) + "\n")
    return [
        f"prompts.path={prompts}", f"images={len(lines)}", "shard_size=2", "coverage.first=1.0", "heldout=0.0",
        "vocabulary.ask=both", "vocabulary.nouns=tests.toy_work:nouns", "max_failed_share=0.5", "generation.steps=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("executor", "poisons"), [(["executor=serial"], SERIAL), (LIMITED, RAY)], ids=["serial", "ray"]
)
def test_a_bad_picture_costs_one_picture_and_a_retry_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: list[str], poisons: dict[str, tuple[str, str]]
) -> None:
    """Items that raise, crash their process, hang or eat memory, each through a user's own noun finder."""
    run, common = tmp_path / "run", [*settings(tmp_path, poisons), *executor]
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "1")
    done = label(run, *common)
    assert done.returncode == 3, done.stderr
    prompts = {row["image_id"]: row["prompt"] for row in plan(run)}
    failures = {prompts[row["item"]].split()[0]: row for row in pq.read_table(run / "failures").to_pylist()}
    assert {poison: (row["stage"], row["error"]) for poison, row in failures.items()} == poisons
    assert all(row["message"] and row["attempts"] >= 1 for row in failures.values())
    images = pq.read_table(run / "images").to_pylist()
    assert {row["prompt"] for row in images} == set(PROMPTS)
    assert verify(run)["verdict"] == "sound"

    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    before = digests(run)
    assert label(run, *common).returncode == 3, "without --retry-failed nothing is tried again"
    assert digests(run) == before
    done = label(run, *common, "executor=serial", retry_failed=True)
    assert done.returncode == 0, done.stderr
    after = digests(run)
    assert {name: after[name] for name in before if name not in FINAL} == {
        name: digest for name, digest in before.items() if name not in FINAL
    }, "no picture but the failed ones was made again"
    (retry,) = {name for name in after if name.startswith("images/")} - before.keys()
    assert pq.read_table(run / retry).num_rows == len(poisons)
    whole = label(tmp_path / "whole", *common, "executor=serial")
    assert whole.returncode == 0, whole.stderr
    assert [after[name] for name in FINAL] == [digests(tmp_path / "whole")[name] for name in FINAL]


def plan(run: Path) -> list[dict[str, str]]:
    return list(json.loads((run / "_meta/plan-1.json").read_text())["items"])


def test_too_many_failures_end_the_run_and_say_which_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "1")
    done = label(tmp_path / "run", *settings(tmp_path, SERIAL), "executor=serial", "max_failed_share=0.1")
    assert done.returncode == 1
    assert "1 of 8 pictures could not be processed" in done.stderr
    assert "cannot find the nouns of a poisonous prompt" in done.stderr
    assert not (tmp_path / "run/labels.parquet").exists()
