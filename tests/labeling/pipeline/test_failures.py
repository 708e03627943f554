"""A bad picture becomes a row that says why; its neighbours are kept; a retry does exactly what failed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gazetteer.jobs.cli.main import main
from gazetteer.jobs.operate.status import status
from gazetteer.jobs.operate.verify import verify
from tests.support.system.running import FEW, digests, gazetteer

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
    "executor=ray", "limits.picture_seconds=12", "limits.attempts=1",
    "pools=[{stages: [generate, detect, segment, evidence], workers: 2, memory_gib: 1.5}]",
]  # fmt: skip


def settings(prompts: Path) -> list[str]:
    lines = [*PROMPTS, *(f"{poison} poison and a boat" for poison in RAY)]
    prompts.write_text("\n".join(lines) + "\n")
    return [
        *FEW, f"prompts.path={prompts}", f"images={len(lines)}", "coverage.first=1.0", "heldout=0.0",
        "vocabulary.ask=both", "vocabulary.nouns=tests.support.system.toy_work:nouns", "max_failed_fraction=0.5",
        "executor=serial",
    ]  # fmt: skip


def gazetteer_label(run: Path, *words: str) -> int:
    """In this process, which is quicker to start; bad pictures on Ray have processes of their own."""
    return main(["label", "--out", str(run), *words])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the same prompts in which nothing is poison."""
    folder = tmp_path_factory.mktemp("whole")
    assert gazetteer_label(folder / "run", "--set", *settings(folder / "prompts.txt")) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("executor", "poisons"),
    [
        pytest.param([], SERIAL, id="serial"),
        pytest.param(LIMITED, RAY, id="ray", marks=[pytest.mark.alone, pytest.mark.full]),
    ],
)
def test_a_bad_picture_costs_one_picture_and_a_retry_mends_it(
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: list[str],
    poisons: dict[str, tuple[str, str]],
) -> None:
    """Items that raise, crash their process, hang or eat memory, each through a user's own noun finder."""
    run, common = tmp_path / "run", settings(tmp_path / "prompts.txt")
    monkeypatch.setenv("GAZETTEER_TEST_POISON", " ".join(poisons))
    done = gazetteer("label", "--out", str(run), "--set", *common, *executor)
    assert done.returncode == 3, done.stderr
    prompts = {row["image_id"]: row["prompt"] for row in plan(run)}
    failures = {prompts[row["item"]].split()[0]: row for row in pq.read_table(run / "failures").to_pylist()}
    assert {poison: (row["stage"], row["error"]) for poison, row in failures.items()} == poisons
    assert all(row["message"] and row["attempts"] >= 1 for row in failures.values())
    images = pq.read_table(run / "images").to_pylist()
    assert {row["prompt"] for row in images} == set(prompts.values()) - {prompts[f["item"]] for f in failures.values()}
    assert verify(run)["verdict"] == "sound"

    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    before = digests(run)
    assert gazetteer_label(run, "--set", *common) == 3, "without --retry-failed nothing is tried again"
    assert digests(run) == before
    assert gazetteer_label(run, "--retry-failed", "--set", *common) == 0
    after = digests(run)
    assert {name: after[name] for name in before if name not in FINAL} == {
        name: digest for name, digest in before.items() if name not in FINAL
    }, "no picture but the failed ones was made again"
    retries = {name for name in after if name.startswith("images/")} - before.keys()
    rows = [pq.read_table(run / retry).num_rows for retry in retries]
    assert sum(rows) == len(poisons) and max(rows) <= 2, "in shards no larger than the run's"
    assert [after[name] for name in FINAL] == [digests(whole)[name] for name in FINAL]


def test_a_picture_that_a_retry_made_counts_once_when_its_shard_is_made_again(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed for reasons of the moment, and comes through when what was damaged around it is computed anew."""
    run, common = tmp_path / "run", settings(tmp_path / "prompts.txt")
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    assert gazetteer_label(run, "--set", *common) == 3
    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    assert gazetteer_label(run, "--retry-failed", "--set", *common) == 0
    (failed,) = (part.name for part in (run / "failures").iterdir() if pq.read_metadata(part).num_rows)
    damaged = run / "codes" / failed
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert verify(run, drop=True)["verdict"] == "damaged"
    assert gazetteer_label(run, "--set", *common) == 0
    ids = pq.read_table(run / "images", columns=["image_id"])["image_id"].to_pylist()
    assert sorted(ids) == sorted({row["image_id"] for row in plan(run)})
    assert [digests(run)[name] for name in FINAL] == [digests(whole)[name] for name in FINAL]
    assert (verify(run)["verdict"], status(run)["state"]) == ("sound", "complete")
    assert gazetteer_label(run, "--retry-failed", "--set", *common) == 0


def plan(run: Path) -> list[dict[str, str]]:
    return list(json.loads((run / "_meta/plan-1.json").read_text())["items"])


def test_too_many_failures_end_the_run_and_say_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    common = settings(tmp_path / "prompts.txt")
    assert gazetteer_label(tmp_path / "run", "--set", *common, "max_failed_fraction=0.05") == 1
    said = capsys.readouterr().err
    assert "1 of 11 pictures could not be processed" in said
    assert "cannot find the nouns of a poisonous prompt" in said
    assert not (tmp_path / "run/labels.parquet").exists()
