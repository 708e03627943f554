"""What `gazetteer quality` reports, by hand, and that it judges a run by the run's own settings."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gazetteer.data.tables.schemas import CANDIDATES
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.quality.report import labels_of, print_quality, run_quality
from gazetteer.labeling.quality.shuffle_check import shuffled_label_counts
from gazetteer.labeling.rules.config import LabelConfig
from tests.support.runs.layout_runs import world_run
from tests.support.runs.runs import PROVENANCE, SITE, blank, finished_run, rewrite
from tests.support.runs.small_world import MID, sky_world

# Of three features for dog: data-set IoU of the support (discovery, held out), then the same above the threshold.
PAIRS = {1: (0.6, 0.1, 0.5, 0.3), 2: (0.5, 0.4, 0.7, 0.2), 3: (0.4, 0.9, 0.6, 0.8)}
COLUMNS = ("dataset_iou", "heldout_dataset_iou", "top_iou", "heldout_top_iou")


def test_the_best_feature_is_chosen_on_discovery_and_reported_held_out(tmp_path: Path) -> None:
    """Feature 1 is best by its support, feature 2 above the threshold, and feature 3 in both ways held out."""
    run = finished_run(tmp_path / "run")
    rows = [
        blank(CANDIDATES, model="tiny", **SITE, t=0.3, concept="dog", feature=feature, rank=1 if feature > 1 else 2)
        | dict(zip(COLUMNS, found, strict=True))
        for feature, found in PAIRS.items()
    ]
    run.write_final("candidates", pa.Table.from_pylist(rows, schema=CANDIDATES), PROVENANCE)
    result = run_quality(run.path, shuffle=False)
    (site,) = result["sites"]
    assert {name: site[name] for name in SITE} == SITE and site["t"] == pytest.approx(0.3)
    assert (site["mean_heldout_iou"], site["mean_heldout_support_iou"]) == (0.2, 0.1)
    # The dog covers 12 of the left cell's 48 pixels.
    assert site["ceiling"] == 0.25
    assert result["best_block_by_t"] == {"0.30": site}
    (dog,) = result["concepts"]
    assert (dog["concept"], dog["features"], dog["best_heldout_iou"]) == ("dog", 2, 0.2)


def test_the_best_site_is_chosen_on_discovery_too(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")

    def at_two_steps(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("t")
        later = pa.array([0.8] * table.num_rows, table.field("t").type)
        return pa.concat_tables([table, table.set_column(place, table.field("t"), later)])

    rewrite(next(Path(run.path, "codes").iterdir()), at_two_steps)
    rows = [
        blank(CANDIDATES, model="tiny", **SITE, t=t, concept="dog", feature=1, top_iou=iou, heldout_top_iou=held)
        for t, iou, held in ((0.3, 0.5, 0.1), (0.8, 0.4, 0.9))
    ]
    run.write_final("candidates", pa.Table.from_pylist(rows, schema=CANDIDATES), PROVENANCE)
    result = run_quality(run.path, shuffle=False)
    assert [round(site["mean_discovery_iou"], 2) for site in result["sites"]] == [0.4, 0.5]
    (dog,) = result["concepts"]
    assert dog["best_heldout_iou"] == pytest.approx(0.1), "0.9 is luck that only the held-out pictures know of"


def test_what_no_held_out_picture_measures_is_no_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two concepts with segments the dog's feature was never measured held out; where it alone is, nothing is."""

    def quality(*concepts: str, kind: str = "thing") -> dict[str, Any]:
        run = finished_run(tmp_path / "-".join([*concepts, kind]))
        measured = {"dog": {"top_iou": 0.7}, "cat": {"top_iou": 0.7, "heldout_top_iou": 0.6}}
        rows = [
            blank(CANDIDATES, model="m", **SITE, t=0.3, feature=1, concept=name, kind=kind, **measured[name])
            for name in concepts
        ]
        run.write_final("candidates", pa.Table.from_pylist(rows, schema=CANDIDATES), PROVENANCE)
        segments = run.read_table("segments")
        at = segments.schema.get_field_index("concept")
        named = pa.array([concepts[n % len(concepts)] for n in range(segments.num_rows)])
        for shard, part in enumerate(sorted(Path(run.path, "segments").iterdir())):
            rewrite(part, lambda table, n=shard: table.set_column(at, table.field(at), named.slice(n, 1)))
        return run_quality(run.path, shuffle=False)

    both, alone = quality("dog", "cat"), quality("dog")
    assert [site["mean_heldout_iou"] for site in both["sites"]] == [0.6]
    assert {row["concept"]: row["best_heldout_iou"] for row in both["concepts"]} == {"dog": None, "cat": 0.6}
    assert list(both["concepts"][1]["by_site"].values()) == [None] and both["concepts"][1]["concept"] == "dog"
    assert [site["mean_heldout_iou"] for site in alone["sites"]] == [None] and alone["best_block_by_t"] == {}
    (look,) = quality("dog", kind="style")["concepts"]
    assert look["best_heldout_iou"] == 0.0, "a look of that name is no feature of the concept"
    print_quality(alone)
    assert re.search(r"^dog +0 +-$", capsys.readouterr().out, re.MULTILINE)


def test_the_control_uses_the_settings_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = sky_world(40)
    labels = LabelConfig(max_q=1.0, min_lift=0.0, min_images=1, min_dataset_iou=0.0, permutations=50, refine=0,
                         min_precision=0.0, min_explained=0.0, min_specificity=-1.0)  # fmt: skip
    evidence = EvidenceConfig(hit_iou=0.05)
    made = {f"labels.{name}": value for name, value in asdict(labels).items()}
    made |= {f"evidence.{name}": value for name, value in asdict(evidence).items()}
    run = world_run(tmp_path / "run", world, "a sky and a ball", made)
    for name, table in world.reduce({MID: 4}, config=labels).items():
        run.write_final(name, table, PROVENANCE)
    result = run_quality(run.path)
    tables = (world.images, world.codes, world.segments, {MID: 4}, world.base)
    assert result["shuffled"] == shuffled_label_counts(*tables, evidence, labels)
    by_default = shuffled_label_counts(*tables)
    assert all(result["shuffled"][name] > by_default[name] for name in ("trusted", "q", "paper"))
    print_quality(result)
    q, shuffled = (result["shuffled"][name] for name in ("q", "q_shuffled"))
    assert f"its q-value alone {q}, {shuffled} shuffled" in capsys.readouterr().out


def test_code_that_a_run_names_is_not_executed_by_the_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"labels.styles": ["night"], "labels.style_classifier": "somebody.looks:load sha256:0123"}
    world = sky_world(40)
    run = world_run(tmp_path / "run", world, "a sky and a ball", made)
    for name, table in world.reduce({MID: 4}).items():
        run.write_final(name, table, PROVENANCE)
    result = run_quality(run.path)
    assert result["shuffled"]["unheard"] == "somebody.looks:load"
    print_quality(result)
    assert "somebody.looks:load is code of the run and was not executed" in capsys.readouterr().out
    assert labels_of(run).style_classifier == "somebody.looks:load"
