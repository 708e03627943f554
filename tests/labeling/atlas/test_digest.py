"""Which run an atlas is of: what it finished with, and what `gazetteer causal` has added since."""

from __future__ import annotations

from pathlib import Path

from gazetteer.data.tables.schemas import CAUSAL, EXAMINERS
from gazetteer.labeling.atlas.write import run_digest
from tests.support.runs.atlas_run import PROVENANCE, make_run


def test_an_atlas_is_not_the_runs_any_more_once_causes_were_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = run_digest(run)
    run.write_final("examiners", EXAMINERS.empty_table(), PROVENANCE)
    assert run_digest(run) == before, "no page shows it"
    run.write_final("causal", CAUSAL.empty_table(), PROVENANCE)
    measured = run_digest(run)
    run.write_final("causal", CAUSAL.empty_table(), {**PROVENANCE, "config": {"other": 1}})
    assert len({before, measured, run_digest(run)}) == 3
    (tmp_path / "run" / "causal.parquet").unlink()
    assert run_digest(run) == before
