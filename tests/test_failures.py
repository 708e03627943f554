"""A bad picture becomes a row that says why; its neighbours are kept; a retry does exactly what failed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.running import digests, label

PROMPTS = ["a boat on the sea", "a tree and a house", "poison and a boat", "the sun", "two trees", "a dog on sand"]
FINAL = ("labels.parquet", "candidates.parquet", "features.parquet")


def settings(folder: Path) -> list[str]:
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    return [
        f"prompts.path={prompts}", "images=6", "shard_size=2", "coverage.first=1.0", "heldout=0.0",
        "vocabulary.ask=both", "vocabulary.nouns=tests.toy_work:nouns", "max_failed_share=0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("executor", "mode", "stage"),
    [("serial", "raise", "tag"), ("ray", "raise", "tag"), ("ray", "kill", "worker")],
)
def test_one_bad_picture_costs_one_picture_and_a_retry_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, mode: str, stage: str
) -> None:
    run, common = tmp_path / "run", [*settings(tmp_path), f"executor={executor}"]
    monkeypatch.setenv("GAZETTEER_TEST_POISON", mode)
    done = label(run, *common)
    assert done.returncode == 3, done.stderr
    (failure,) = pq.read_table(run / "failures").to_pylist()
    assert failure["stage"] == stage
    assert failure["message"]
    assert failure["attempts"] >= 1
    images = pq.read_table(run / "images").to_pylist()
    assert {row["prompt"] for row in images} == set(PROMPTS) - {"poison and a boat"}

    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    before = digests(run)
    assert label(run, *common).returncode == 3, "without --retry-failed nothing is tried again"
    assert digests(run) == before
    done = label(run, *common, retry_failed=True)
    assert done.returncode == 0, done.stderr
    after = digests(run)
    assert {name: after[name] for name in before if name not in FINAL} == {
        name: digest for name, digest in before.items() if name not in FINAL
    }, "no picture but the failed one was made again"
    whole = label(tmp_path / "whole", *common)
    assert whole.returncode == 0, whole.stderr
    assert [after[name] for name in FINAL] == [digests(tmp_path / "whole")[name] for name in FINAL]


def test_too_many_failures_end_the_run_and_say_which_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raise")
    done = label(tmp_path / "run", *settings(tmp_path), "executor=serial", "max_failed_share=0.1")
    assert done.returncode == 1
    assert "1 of 6 pictures could not be processed" in done.stderr
    assert "cannot find the nouns of a poisonous prompt" in done.stderr
    assert not (tmp_path / "run/labels.parquet").exists()
