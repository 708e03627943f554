"""Tables about labels are of the labels that are there: where those became others at work, nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError, LockedError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import CAUSAL
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.experiments import examine as examining
from gazetteer.jobs.experiments.causal import measure
from gazetteer.jobs.label.relabel import relabel
from gazetteer.jobs.operate.verify import SOUND, verify
from tests.support.system.running import in_process

QUICK = ["accuracy.truth=''", "attribute.classifier=''", "steer.classifier=''", "steer.words=[]", "executor=serial"]
OTHER = ["labels.min_images=3", "labels.min_precision=0.6"]


@pytest.fixture
def run(scenes_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_run, tmp_path / "run"))


def test_examined_labels_that_are_made_again_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, own = run_config(run, QUICK), examining._truth

    def relabelled(*given: Any) -> Any:
        relabel(run, OTHER)
        return own(*given)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(examining, "_truth", relabelled)
        with pytest.raises(InputError, match=r"made again while gazetteer examine worked .* examiners.parquet is not"):
            examining.examine(config, str(run), 0)
    store = RunFolder(run)
    assert not store.has_final("examiners") and verify(run)["verdict"] == SOUND
    config = run_config(run, QUICK)
    with store.lock(), pytest.raises(LockedError):
        examining.examine(config, str(run), 0)
    done = in_process("examine", str(run), "--fresh", "0", "--set", *QUICK)
    assert done.returncode == 0, done.stderr
    assert read_provenance(run / "examiners.parquet")["fingerprint"] == store.of_tables()


def test_tried_labels_that_are_made_again_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(*_: Any) -> int:
        relabel(run, OTHER)
        return 0

    monkeypatch.setattr(measure.CausalPass, "rounds", rounds)
    monkeypatch.setattr(measure.CausalPass, "table", lambda *_: CAUSAL.empty_table())
    config = run_config(run, [*QUICK, "causal.images=1"])
    with pytest.raises(InputError, match=r"made again while gazetteer causal worked .* causal.parquet is not written"):
        measure.measure_causes(config, str(run), 1)
    assert not RunFolder(run).has_final("causal")
