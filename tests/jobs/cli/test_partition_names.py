"""Whoever writes tables below a folder named ``column=value`` is told what DuckDB makes of it, by every verb."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.support.system.running import FEW, in_process

VERBS = {
    "label": ["label", "--out", "{out}/run", "--set", *FEW, "images=2", "generation.steps=1", "executor=serial"],
    "compact": ["compact", "{out}/run"],
    "publish": ["publish", "{run}", "--to", "{out}/published"],
    "export": ["export", "{run}", "--csv", "{out}/labels.csv"],
}


@pytest.mark.parametrize(
    ("verb", "folder"), [*((verb, "seed=3") for verb in VERBS), ("publish", "seed-3"), ("export", "seed-3")]
)
def test_a_column_in_the_path_is_said_once(
    verb: str, folder: str, scenes_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / folder
    if verb == "compact":
        shutil.copytree(scenes_run, out / "run")
    out.mkdir(exist_ok=True)
    with caplog.at_level(logging.WARNING):
        done = in_process(*(part.format(run=scenes_run, out=out) for part in VERBS[verb]))
    assert done.returncode == 0, done.stderr
    warned = [text for text in caplog.messages if "hive_partitioning=false" in text]
    assert len(warned) == ("=" in folder) and all("below seed=3, which DuckDB" in text for text in warned)
