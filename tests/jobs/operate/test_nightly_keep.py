"""Which runs `nightly --keep` keeps, and what a night makes of runs and checkpoints that are in a bad way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.operate.nightly import nightly
from tests.jobs.operate.test_nightly import config, outcomes


def labelled_at_once(
    monkeypatch: pytest.MonkeyPatch, root: Path, names: list[str], out_of_memory: tuple[str, ...] = ()
) -> list[str | None]:
    """Checkpoints of these names, and a `label` that makes empty finished runs of them; it fills what is returned."""
    reused: list[str | None] = []
    for name in names:
        (root / "checkpoints" / name).mkdir(parents=True)
        (root / "checkpoints" / name / "weights").write_text(name)

    def finished(one: RunConfig, out: str, *, reuse: str | None) -> dict[str, Any]:
        if Path(str(one.saes)).name in out_of_memory:
            raise RuntimeError("CUDA out of memory")
        reused.append(reuse)
        manifest = {"shards": [], "tables": {}, "failing": [], "images": 4, "replayed": 0}
        RunFolder(out).open_or_create(fingerprint_of(one)).finish(manifest)
        return manifest

    monkeypatch.setattr("gazetteer.jobs.operate.nightly.label", finished)
    monkeypatch.setattr("gazetteer.jobs.operate.nightly.unfinished_sites", lambda *_: [])
    return reused


def test_what_nobody_foresaw_of_one_checkpoint_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labelled_at_once(monkeypatch, tmp_path, ["step-1", "step-2"], ("step-1",))
    night = nightly(config(), tmp_path / "checkpoints", str(tmp_path / "out"), keep=2)
    assert outcomes(night) == {"step-1": "failed", "step-2": "labelled"}
    assert night["checkpoints"][0]["message"] == "RuntimeError: CUDA out of memory"
    assert "Traceback" in caplog.text and night["latest"] == night["checkpoints"][1]["run"]


def test_an_old_run_that_is_damaged_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reused = labelled_at_once(monkeypatch, tmp_path, ["step-1"])
    night = nightly(config(), tmp_path / "checkpoints", str(tmp_path / "out"))
    (tmp_path / "out" / night["latest"] / "_meta" / "run.json").write_text("{")
    shutil.rmtree(tmp_path / "checkpoints" / "step-1")
    later = labelled_at_once(monkeypatch, tmp_path, ["step-2", "step-3"])
    night = nightly(config(), tmp_path / "checkpoints", str(tmp_path / "out"))
    assert outcomes(night) == {"step-2": "labelled", "step-3": "labelled"} and reused == [None]
    assert later == [None, f"{tmp_path}/out/{night['checkpoints'][0]['run']}"]
    assert "nothing is taken over from it" in caplog.text


def test_runs_that_are_gone_are_not_among_those_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_at_once(monkeypatch, tmp_path, ["step-1", "step-2", "step-3"])
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "out"
    runs = [row["run"] for row in nightly(config(), checkpoints, str(out))["checkpoints"]]
    shutil.rmtree(out / runs[2])
    shutil.rmtree(checkpoints / "step-3")
    assert nightly(config(), checkpoints, str(out), keep=2)["deleted"] == []
    assert (out / runs[0]).is_dir() and (out / runs[1]).is_dir()
    assert nightly(config(), checkpoints, str(out), keep=1)["deleted"] == [runs[0]]


def test_what_would_be_deleted_in_the_same_night_is_not_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = labelled_at_once(monkeypatch, tmp_path, ["step-1", "step-9", "step-10"], ("step-10",))
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "out"
    night = nightly(config(), checkpoints, str(out), keep=1)
    assert outcomes(night) == {"step-1": "old", "step-9": "labelled", "step-10": "failed"}, "one that fails is none"
    assert "not labelled: --keep 1 would delete its run" in night["checkpoints"][0]["message"]
    assert [row["checkpoint"] for row in night["checkpoints"]] == ["step-1", "step-9", "step-10"]
    assert (len(made), night["deleted"]) == (1, [])
    night = nightly(config(), checkpoints, str(out), keep=2)
    assert outcomes(night) == {"step-1": "labelled", "step-9": "there", "step-10": "failed"}, "as --keep asks for more"


def test_runs_of_other_settings_are_deleted_before_those_of_the_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a later checkpoint that is gone, at whose run `latest` pointed; and none is made to be deleted."""
    made = labelled_at_once(monkeypatch, tmp_path, ["step-1", "step-2", "step-3"])
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "out"
    before = nightly(config(), checkpoints, str(out), keep=2)
    assert outcomes(before) == {"step-1": "old", "step-2": "labelled", "step-3": "labelled"}
    shutil.rmtree(checkpoints / "step-3")
    after = nightly(config("seed=7"), checkpoints, str(out), keep=2)
    assert outcomes(after) == {"step-1": "labelled", "step-2": "labelled"} and len(made) == 4
    assert sorted(after["deleted"]) == sorted(row["run"] for row in before["checkpoints"][1:])
    runs = [row["run"] for row in after["checkpoints"]]
    assert sorted(folder.name for folder in out.glob("step-*")) == sorted(runs)
    assert after["latest"] == runs[1] and (out / "latest").resolve() == out / runs[1]
    assert outcomes(nightly(config("seed=7"), checkpoints, str(out), keep=2)) == {"step-1": "there", "step-2": "there"}
