"""Passes with other settings: beside the run's own with --out, in its place with --replace, never over it unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CAUSAL, EFFECTS
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.experiments.causal.place import open_place
from tests.labeling.interventions.test_causal import SMALL
from tests.support.runs.runs import PROVENANCE, blank

PASS = {"starts": "abc", "strength": 4.0, "window": "early", "images": 2}


def begun(path: Path, fingerprint: dict[str, object]) -> RunFolder:
    """A run with one group of features recorded."""
    work = RunFolder(path).open_or_create(fingerprint)
    effects = pa.Table.from_pylist([blank(EFFECTS, image_id="a", state="plain")], schema=EFFECTS)
    work.commit_shard("group", {"effects": effects}, {}, PROVENANCE)
    return work


def test_a_pass_with_other_settings_is_removed_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path)
    begun(tmp_path / "causal", PASS)
    assert open_place(run, None, PASS, replace=True).shard_ids() == ["group"]  # the same pass is resumed
    other = {**PASS, "images": 164}
    with pytest.raises(InputError, match=r"images: was 2, now 164.*--out FOLDER.*--replace"):
        open_place(run, None, other, replace=False)
    beside = open_place(run, str(tmp_path / "beside"), other, replace=False)
    assert beside.read_json("run.json") == other and run.inside("causal").read_json("run.json") == PASS
    assert not capsys.readouterr().err
    assert open_place(run, None, other, replace=True).shard_ids() == []
    assert f"removing {tmp_path}/causal (1 groups of features)" in capsys.readouterr().err
    assert run.inside("causal").read_json("run.json") == other


def test_a_run_that_is_no_pass_is_never_removed(tmp_path: Path) -> None:
    work = begun(tmp_path / "run", {"config": "abc"})
    with pytest.raises(InputError, match="no causal pass; name another folder"):
        open_place(work, work.path, PASS, replace=True)
    assert work.shard_ids() == ["group"]


def test_the_table_of_a_pass_that_is_not_there_is_kept(tmp_path: Path) -> None:
    """As of a run that was copied without its folder causal/."""
    run = begun(tmp_path / "run", {"config": "abc"})
    run.write_final("causal", CAUSAL.empty_table(), PROVENANCE)
    with pytest.raises(InputError, match=r"holds a causal.parquet.*--out FOLDER, or say --replace"):
        open_place(run, None, PASS, replace=False)
    assert open_place(run, str(tmp_path / "beside"), PASS, replace=False).read_json("run.json") == PASS
    assert open_place(run, None, PASS, replace=True).read_json("run.json") == PASS
    assert open_place(run, None, PASS, replace=False).read_json("run.json") == PASS  # begun, and resumed


def test_a_trial_is_followed_by_the_pass_itself(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(scenes_run, tmp_path / "run")
    command = ["causal", str(run), "--features", "1", "--sites", "mid_block.attentions.0-cond-t0.50", "--json"]
    settings = ["--set", *SMALL, "executor=serial", "causal.stride=2"]

    def causal(images: int, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*command, "--images", str(images), *words, *settings])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert causal(1)[0] == 0
    trial = (run / "causal.parquet").read_bytes()
    code, _, said = causal(2)
    assert code == 2 and "images: was 1, now 2" in said and "--replace" in said
    code, printed, _ = causal(2, "--out", str(tmp_path / "beside"))
    beside = tmp_path / "beside" / "causal.parquet"
    assert code == 0 and json.loads(printed)["table"] == str(beside)
    assert (run / "causal.parquet").read_bytes() == trial
    code, printed, said = causal(2, "--replace")
    assert code == 0 and "removing" in said and json.loads(printed)["images"] == 2
    assert pq.read_table(run / "causal.parquet").equals(pq.read_table(beside))
    assert main([*command[:2], "--sweep", "--replace", *settings]) == 2
