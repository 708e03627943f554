"""Tables that other commands made of the labels are put aside when these become others, and stay when they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CAUSAL, EXAMINERS
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.label import run as label_run
from gazetteer.jobs.label.job import label
from gazetteer.jobs.operate.verify import verify
from tests.support.system.running import ONE_SITE, SMALL


def config() -> RunConfig:
    few = ["executor=serial", "generation.steps=2", "images=2", "coverage.first=1.0", "labels.min_images=1"]
    return load_config(None, [*SMALL, *ONE_SITE, *few])


def test_labels_that_become_others_put_them_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunFolder(tmp_path / "run")
    label(config(), store.path)
    about = {"fingerprint": store.of_tables()}
    store.write_final("causal", CAUSAL.empty_table(), about)
    store.write_final("examiners", EXAMINERS.empty_table(), about)
    causal = (tmp_path / "run" / "causal.parquet").read_bytes()

    store.drop_shard(store.shard_ids()[0])
    label(config(), store.path)
    assert store.has_final("causal") and store.has_final("examiners"), "the same tables were made again"

    made = label_run.reduce_run

    def fewer(*arguments: Any) -> dict[str, pa.Table]:
        tables = made(*arguments)
        return {**tables, "features": tables["features"].slice(1)}

    monkeypatch.setattr(label_run, "reduce_run", fewer)
    store.clear_success()
    (tmp_path / "run" / "labels.parquet").unlink()  # as where a shard was computed again
    capsys.readouterr()
    label(config(), store.path)
    said = capsys.readouterr().err
    assert not store.has_final("causal") and not store.has_final("examiners")
    (kept,) = (tmp_path / "run" / "_meta" / "relabelled").rglob("causal.parquet")
    assert kept.read_bytes() == causal and str(kept) in said
    assert f"gazetteer causal {store.path} makes it anew" in said
    assert f"gazetteer examine {store.path} makes it anew" in said
    assert verify(store.path)["verdict"] == "sound"
