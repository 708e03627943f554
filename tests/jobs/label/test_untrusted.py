"""Why nothing was labelled: pairs counted by the rule that stopped them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CANDIDATES
from gazetteer.jobs.label.untrusted import print_stopped, stopped_pairs
from tests.support.runs.runs import PROVENANCE, SITE, blank

RULES = {
    "labels.min_images": 5, "labels.max_q": 0.05, "labels.min_lift": 1.2, "labels.min_dataset_iou": 0.04,
    "labels.min_precision": 0.3, "labels.min_specificity": 0.2,
}  # fmt: skip


def run_of(path: Path, *pairs: tuple[int, float | None, float, float, bool], **more: list) -> RunFolder:
    """A run with these pairs: pictures with both, q, lift, data-set IoU, trusted; `more`: other columns."""
    run = RunFolder(path).open_or_create(RULES)
    rows = [
        blank(CANDIDATES, model="m", **SITE, t=0.5, feature=n, concept="dog", images_both=both, q_value=q, lift=lift,
              dataset_iou=iou, mass_precision=0.9, explained=0.5, specificity=2.0, trusted=trusted)
        | {name: column[n] for name, column in more.items()}
        for n, (both, q, lift, iou, trusted) in enumerate(pairs)
    ]  # fmt: skip
    run.write_final("candidates", pa.Table.from_pylist(rows, schema=CANDIDATES), PROVENANCE)
    return run


def test_pairs_by_the_rule_that_stopped_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(
        tmp_path / "run",
        (9, 0.01, 3.0, 0.5, True),
        (2, None, 3.0, 0.5, False),
        (4, None, 1.0, 0.5, False),
        (9, 0.5, 3.0, 0.5, False),
        (9, 0.5, 1.0, 0.01, False),
        (9, 0.01, 3.0, 0.5, False),
    )
    found = stopped_pairs(run, 60)
    assert (found["pairs"], found["trusted"]) == (6, 1)
    assert [(row["rule"].split()[0], row["stopped"], row["stopped_alone"]) for row in found["rules"]] == [
        ("fewer", 2, 1), ("q", 2, 1), ("lift", 2, 0), ("data-set", 1, 0), ("another", 1, 1),
    ]  # fmt: skip
    # The median of 2 and 4 is 3: of 60 pictures, 100 would bring it to 5.
    assert found["images_needed"] == 100
    print_stopped(found, 60)
    said = capsys.readouterr().out
    assert "    2              1  fewer than labels.min_images=5 pictures with both\n" in said
    assert "images=100 instead of 60" in said


def test_what_is_trusted_was_stopped_by_nothing_and_a_gate_stops_its_own_kinds(tmp_path: Path) -> None:
    small = (9, 0.01, 3.0, 0.01)  # less than labels.min_dataset_iou, which scenes and parts may have
    run = run_of(
        tmp_path / "run",
        *[(*small, True)] * 2, *[(*small, False)] * 3, (9, 0.01, 3.0, 0.5, True),
        kind=["scene", "part", "scene", "part", "thing", "thing"],
        specificity=[2.0, 2.0, -0.5, 2.0, 2.0, -0.5],  # the last is trusted beside another
    )  # fmt: skip
    stopped = stopped_pairs(RunFolder(run.path), 60)
    assert (stopped["pairs"], stopped["trusted"]) == (6, 3)
    assert [(row["rule"].split()[0], row["stopped"], row["stopped_alone"]) for row in stopped["rules"]] == [
        ("data-set", 1, 1), ("a", 1, 1), ("another", 1, 1),
    ]  # fmt: skip


def test_where_nothing_was_seen_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = stopped_pairs(run_of(tmp_path / "run"), 60)
    assert found == {"pairs": 0, "trusted": 0, "rules": [], "images_needed": None}
    print_stopped(found, 60)
    assert "no feature ever fired in a picture that shows a concept" in capsys.readouterr().out
