"""The whole job at full size on the embedded models, and what it must show (`make check-full`)."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.system.running import ROOT, gazetteer

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "run"
    done = gazetteer("label", "--out", str(out), timeout=3000)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def quality(run: Path) -> dict:
    done = gazetteer("quality", str(run), "--json", timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_at_least_four_hundred_pictures_at_twenty_four_sites(run: Path) -> None:
    assert pq.read_table(run / "images", columns=["image_id"]).num_rows >= 400
    assert (
        pq.read_table(run / "features.parquet", columns=["block", "branch", "t"])
        .group_by(["block", "branch", "t"])
        .aggregate([])
        .num_rows
        == 24
    )


def test_every_concept_is_the_best_label_of_a_feature(quality: dict) -> None:
    assert len(quality["concepts"]) == 16
    assert [row["concept"] for row in quality["concepts"] if row["features"] == 0] == []


def test_held_out_iou_grows_and_reaches_forty_percent_in_the_middle(quality: dict) -> None:
    best = {t: row["mean_heldout_iou"] for t, row in quality["best_block_by_t"].items()}
    assert best["0.50"] >= 0.40
    assert best["1.00"] < best["0.50"]
    assert best["1.00"] < best["0.00"]
    assert all(row["mean_heldout_iou"] < row["ceiling"] < 1 for row in quality["sites"])


def test_shuffled_concepts_hardly_pass(quality: dict) -> None:
    counts = quality["shuffled"]
    assert counts["trusted"] > 100
    assert counts["trusted_shuffled"] <= 0.02 * counts["trusted"]


def test_the_atlas_of_a_full_run_is_written(run: Path, tmp_path: Path) -> None:
    done = gazetteer("atlas", str(run), "--out", str(tmp_path / "atlas"), timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "atlas" / "index.html").is_file()


def test_the_embedded_models_are_as_good_as_their_card_says() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scenes.evaluate", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["detector"]["precision"] >= 0.95
    assert found["detector"]["recall"] >= 0.90
    assert found["detector"]["false_alarms"] <= 0.02
    assert found["segmenter"]["mean_iou"] >= 0.90
    assert found["concept_classifier"]["precision"] >= 0.90
    assert found["concept_classifier"]["recall"] >= 0.90
    assert found["concept_classifier"]["agreement"] >= 0.90
    assert found["text_to_image"]["objects_found"] >= 0.85
    assert found["text_to_image"]["styles_right"] >= 0.90
