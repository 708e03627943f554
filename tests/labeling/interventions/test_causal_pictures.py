"""On how many pictures a causal pass tries a feature."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.causal import measure
from gazetteer.jobs.experiments.causal.choose import starts_of
from tests.labeling.interventions.test_causal import SMALL


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
