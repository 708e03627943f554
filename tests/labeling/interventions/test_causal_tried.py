"""What a causal pass tries: on how many pictures a feature, and those last on which its settings are chosen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import FEATURES, FINAL_TABLES, LABELS
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.causal import measure
from gazetteer.jobs.experiments.causal.choose import (
    best_of_concepts,
    features_to_try,
    starts_of,
    tuning_features,
)
from tests.labeling.interventions.test_causal import SMALL
from tests.support.runs.runs import PROVENANCE, blank, parts

UP, MID = Site("up_blocks.1.attentions.0", "cond", 0.5), Site("mid_block.attentions.0", "cond", 0.5)
UNCOND = Site("mid_block.attentions.0", "uncond", 0.5)


def a_run(path: Path, *, many: int) -> RunFolder:
    """`many` features a site, the even ones called dog and the odd ones sky, with a higher IoU each."""
    run = RunFolder(path).open_or_create({"config": "abc"})
    run.commit_shard("s0", parts(0), {}, PROVENANCE)
    rows = [
        blank(LABELS, **site.columns(), feature=n, concept=("dog", "sky")[n % 2], kind="thing", rank=1,
              heldout_dataset_iou=n / 100)
        for site in (UP, MID, UNCOND) for n in range(many)
    ]  # fmt: skip
    run.write_final("labels", pa.Table.from_pylist(rows, schema=LABELS), PROVENANCE)
    rows = [
        blank(FEATURES, **site.columns(), feature=n, images=2, labels=1, best_dataset_iou=n / 100)
        for site in (UP, MID, UNCOND) for n in range(many)
    ]  # fmt: skip
    run.write_final("features", pa.Table.from_pylist(rows, schema=FEATURES), PROVENANCE)
    run.write_final("candidates", FINAL_TABLES["candidates"].empty_table(), PROVENANCE)
    run.finish({"shards": ["s0"]})
    return run


@pytest.mark.parametrize("pick", ["best", "sample"])
def test_a_quarter_is_for_tuning_and_the_pass_comes_to_it_last(tmp_path: Path, pick: str) -> None:
    run = a_run(tmp_path / "run", many=20)
    tuning = {(site.slug, row["feature"]) for site, row in tuning_features(run)}
    assert len(tuning) == 10 and {slug for slug, _ in tuning} <= {UP.slug, MID.slug}  # of 40 of the cond branch
    for site in (UP, MID, UNCOND):
        order = features_to_try(run, site, 0, pick)
        last = [(site.slug, feature) in tuning for feature in order]
        assert sorted(order) == list(range(20)) and last == sorted(last)
    if pick == "best":
        assert features_to_try(run, UNCOND, 0, pick) == list(range(19, -1, -1))


def test_a_sweep_takes_the_best_tuning_feature_of_each_concept(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", many=20)
    tuning = [(site.slug, row["feature"]) for site, row in tuning_features(run)]
    for site, feature, concept in best_of_concepts(run, 0):
        assert feature == max(n for _, n in tuning if n % 2 == (concept == "sky"))
        assert (site.slug, feature) in tuning
    assert [concept for _, _, concept in best_of_concepts(run, 1)] == [("dog", "sky")[max(n for _, n in tuning) % 2]]


def test_one_labelled_feature_is_enough_to_tune_on_and_none_is_said(tmp_path: Path) -> None:
    assert len(best_of_concepts(a_run(tmp_path / "one", many=1), 0)) == 1
    with pytest.raises(InputError, match="nothing to tune on"):
        best_of_concepts(a_run(tmp_path / "none", many=0), 0)


def test_a_labelled_feature_may_take_several_times_what_suffices_without_noise(
    scenes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes_run, run)
    monkeypatch.setattr(measure, "images_needed", lambda power, share: 1)
    tried = 0
    for named in ([], ["causal.images=2"]):
        config = load_config(None, [*SMALL, "executor=serial", *named])
        with measure.CausalPass(config, str(run)) as causal:
            every = len(starts_of(causal.folder, "heldout"))
            assert causal.images == (2 if named else min(measure.POOL, every)) and every >= 2
            assert len(causal.starts) == min(measure.POOL, every)  # those that can show the concept come first
            site = config.generation.sites[0]
            numbers = [switch.feature for switch in causal.switches(site, 0)]
            monkeypatch.setattr(measure, "label_of", lambda folder, site, first=numbers[0]: {first: "sky"})
            many = {switch.feature: len(switch.pictures) for switch in causal.switches(site, 0)}
            monkeypatch.undo()
            monkeypatch.setattr(measure, "images_needed", lambda power, share: 1)
            assert many == {number: causal.images if number == numbers[0] else 1 for number in numbers}
            tried += len(many)
        shutil.rmtree(run / "causal")
    assert tried > 2
