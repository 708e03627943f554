"""Other thresholds of labels, tried on exact pictures without looking at the run's again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CANDIDATES, SPATIAL_KINDS
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.label.relabel import relabel
from gazetteer.labeling.quality.thresholds import COLUMNS, best_labels, print_thresholds, tried_thresholds
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import REGION, SCENE, Explained
from tests.support.runs.runs import blank

SITE = Site("mid", "cond", 0.5)
TRUTH = Explained(
    np.array([1, 2, 3, 4]),
    ("sea", "boat", "sea", "boat"), (REGION, REGION, SCENE, SCENE),
    np.array([[0.4, 0.1, 0.0, 0.0], [0.1, 0.3, 0.0, 0.0], [0.2, 0.1, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]]),
    np.zeros((4, 4)), 10,
)  # fmt: skip


def pair(feature: int, concept: str, kind: str = "thing", **changed: Any) -> dict[str, Any]:
    usual = {
        "images_both": 9, "dataset_iou": 0.3, "recall": 0.5, "lift": 4.0, "q_value": 0.01, "where_q_value": 0.01,
        "mass_precision": 0.6, "explained": 0.4, "specificity": 0.8,
    }  # fmt: skip
    return blank(CANDIDATES, **SITE.columns(), feature=feature, concept=concept, kind=kind, **{**usual, **changed})


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=CANDIDATES)


def test_thresholds_that_none_beats_are_said_beside_the_runs_own(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = table(
        pair(1, "sea"),  # right, and surest
        pair(2, "boat", mass_precision=0.25),  # right
        pair(3, "boat", mass_precision=0.15),  # wrong: the sea explains more
        pair(3, "moon", mass_precision=0.9),  # of what no picture shows nobody can say
        pair(4, "boat", "scene"),  # says nowhere where
    )
    config, grid = LabelConfig(min_precision=0.5), {"min_precision": [0.1, 0.2, 0.3, 0.6, 0.7]}
    tried = tried_thresholds(pairs, {SITE: TRUTH}, config, {"sea", "boat"}, grid)
    assert tried == [
        {"labels": 3, "right": 0.6667, "own": False, "min_precision": 0.1},
        {"labels": 2, "right": 1.0, "own": False, "min_precision": 0.2},
        {"labels": 1, "right": 1.0, "own": True, "min_precision": 0.5},
    ]
    print_thresholds(tried)
    assert "*      1 labels, 100.0% right: min_precision 0.5" in capsys.readouterr().out


def test_without_anything_to_judge_the_runs_own_say_so() -> None:
    own = [{"labels": 0, "right": None, "own": True, "min_precision": 0.2}]
    for pairs, truth in (
        (table(), {SITE: TRUTH}),
        (table(pair(1, "sea")), {}),
        (table(pair(1, "sea", lift=1.0)), {SITE: TRUTH}),
    ):
        assert tried_thresholds(pairs, truth, LabelConfig(), {"sea"}, {"min_precision": [0.2]}) == own


def test_a_run_whose_labels_need_no_lead_is_not_counted_by_pairs() -> None:
    """Feature 1 passes with both concepts; only the run knows which of them is its best."""
    pairs = table(pair(1, "sea"), pair(1, "boat", specificity=-0.5))
    config = LabelConfig(min_specificity=-1.0)
    tried = tried_thresholds(pairs, {SITE: TRUTH}, config, {"sea", "boat"}, {"min_specificity": [0.1]})
    assert tried == [{"labels": 1, "right": 1.0, "own": False, "min_specificity": 0.1}]
    assert tried_thresholds(pairs, {SITE: TRUTH}, config, {"sea"}, {"min_lift": [1.0]})[0]["own"] is False


def test_the_runs_own_thresholds_give_its_labels(scenes_run: Path, tmp_path: Path) -> None:
    """The rule asked of the table says what the rule said of the pictures."""
    run = shutil.copytree(scenes_run, tmp_path / "run")
    relabel(
        run, [f"labels.{setting}" for setting in ("max_q=1.0", "min_images=2", "min_specificity=0.1", "part_lift=2")]
    )
    store = RunFolder(run)
    pairs = store.read_final("candidates", [*COLUMNS, "rank"])
    pairs = pairs.filter(pa.compute.is_in(pairs["kind"], pa.array([*SPATIAL_KINDS, "scene"])))
    column = {
        name: pairs[name].to_numpy(zero_copy_only=False) for name in [*COLUMNS, "rank"] if name not in SITE_COLUMNS
    }
    said = best_labels(column, run_config(run).labels)
    labelled = (column["rank"] == 1) & np.isin(column["kind"].astype(str), SPATIAL_KINDS)
    assert set(column["kind"][labelled]) == set(SPATIAL_KINDS) and labelled.sum() > 50
    np.testing.assert_array_equal(said, labelled)
