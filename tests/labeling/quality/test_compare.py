"""Comparing two runs by hand-made labels: same, changed, gained, lost, unlabelled in both."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.jobs.cli.main import main
from gazetteer.labeling.quality.compare import compare_runs, print_comparison
from tests.support.runs.runs import PROVENANCE, SITE, blank

BEFORE = {0: "dog", 1: "cat", 2: "sky", 3: None, 4: None}
AFTER = {0: "dog", 1: "tree", 2: None, 3: "boat", 4: None}


def run_of(path: Path, labels: dict[int, str | None], saes: str, t: float = 0.3, **settings: int) -> Path:
    """A finished run of one site; every named feature also has a second label, which does not count."""
    run = RunFolder(path).open_or_create({"saes": saes, **settings})
    rows = [
        blank(FINAL_TABLES["labels"], model="m", **SITE, t=t, feature=n, concept=concept, rank=rank,
              heldout_dataset_iou=n / 10)
        for n, best in labels.items() if best for rank, concept in ((1, best), (2, "moon"))
    ]  # fmt: skip
    run.write_final("labels", pa.Table.from_pylist(rows, schema=FINAL_TABLES["labels"]), PROVENANCE)
    features = [blank(FINAL_TABLES["features"], model="m", **SITE, t=t, feature=n) for n in labels]
    run.write_final("features", pa.Table.from_pylist(features, schema=FINAL_TABLES["features"]), PROVENANCE)
    run.finish({"shards": []})
    return path


def test_each_kind_of_change(tmp_path: Path) -> None:
    changes, found = compare_runs(run_of(tmp_path / "a", BEFORE, "x"), run_of(tmp_path / "b", AFTER, "y"))
    (site,) = found["sites"]
    assert site == {
        "site": "mid_block.attentions.0-cond-t0.30", "features": 5,
        "same": 1, "changed": 1, "gained": 1, "lost": 1, "unlabelled": 1,
    }  # fmt: skip
    assert [tuple(row.values())[5:] for row in changes.to_pylist()] == [
        (1, "changed", "cat", "tree", 0.1, 0.1),
        (2, "lost", "sky", None, 0.2, None),
        (3, "gained", None, "boat", None, 0.3),
    ]
    assert found["same_saes"] is False
    assert {c["concept"]: (c["before"], c["after"]) for c in found["concepts"]} == {
        "boat": (0, 1), "cat": (1, 0), "dog": (1, 1), "sky": (1, 0), "tree": (0, 1),
    }  # fmt: skip


def test_a_run_and_itself(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", BEFORE, "x")
    changes, found = compare_runs(run, run)
    assert changes.num_rows == 0
    assert found["same_saes"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run_of(tmp_path / "a", BEFORE, "x")), str(run_of(tmp_path / "b", AFTER, "y"))]
    assert main(["compare", *runs, "--out", str(tmp_path / "changes.parquet"), "--json"]) == 0
    out, said = capsys.readouterr()
    assert ["1", "cat", "tree"] in [line.split()[1:] for line in said.splitlines()]
    assert said.startswith("The autoencoders differ")  # before any number is read
    assert json.loads(out)["changes"] == 3
    assert pq.read_table(tmp_path / "changes.parquet")["change"].to_pylist() == ["changed", "lost", "gained"]
    (tmp_path / "changes.parquet").write_text("mine")
    assert main(["compare", *runs, "--out", str(tmp_path / "changes.parquet")]) == 2
    assert "changes.parquet is there already" in capsys.readouterr().err
    assert (tmp_path / "changes.parquet").read_text() == "mine"


def test_sites_left_out_are_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / "a", BEFORE, "x"), run_of(tmp_path / "b", AFTER, "x", t=0.8)]
    _, found = compare_runs(*runs)
    print_comparison(*compare_runs(*runs))
    first, second, third = capsys.readouterr().out.splitlines()[:3]
    assert first == f"Left out, as only {runs[0]} has it: {found['only_before'][0]}."
    assert second == f"Left out, as only {runs[1]} has it: mid_block.attentions.0-cond-t0.80."
    assert "no site in common" in third
    assert found["concepts"] == [], "and nothing of them is counted"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "b").open_or_create({})
    with pytest.raises(InputError, match="not a finished run"):
        compare_runs(run_of(tmp_path / "a", BEFORE, "x"), tmp_path / "b")


def test_other_settings_are_named_before_any_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / "a", BEFORE, "x"), run_of(tmp_path / "b", BEFORE, "x", **{"generation.steps": 4})]
    _, found = compare_runs(*runs)
    assert found["settings"] == {"generation.steps": {"before": None, "after": 4}}
    print_comparison(*compare_runs(*runs))
    said = capsys.readouterr().out
    assert said.startswith("Made with other settings, which change labels too: generation.steps nothing -> 4.\n")
