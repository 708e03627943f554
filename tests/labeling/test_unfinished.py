"""The tables of a run that is under way are not handed out: they may be of two settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.schemas import CAUSAL
from gazetteer.labeling.tables import load_candidates, load_causal, load_features, load_images, load_labels
from tests.support.runs.atlas_run import PROVENANCE, make_run

LOADERS: list[Callable[..., Any]] = [load_labels, load_candidates, load_features, load_causal]


@pytest.mark.parametrize("load", LOADERS)
def test_a_run_under_way_is_refused_with_what_finishes_it(load: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.write_final("causal", CAUSAL.empty_table(), PROVENANCE)
    table = load(tmp_path / "run")
    run.clear_success()
    for place in (tmp_path / "run", run, f"file://{tmp_path / 'run'}"):
        with pytest.raises(InputError, match=r"is not a finished run; .*gazetteer label"):
            load(place)
    assert load_images(run).num_rows == 12
    run.finish(run.read_json("manifest.json"))
    assert load(run).equals(table)


@pytest.mark.parametrize("load", [load_labels, load_features])
def test_joined_tables_are_refused_too(load: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.write_final("causal", CAUSAL.empty_table(), PROVENANCE)
    run.clear_success()
    with pytest.raises(InputError, match="is not a finished run"):
        load(run, causal=True)


def test_what_was_never_there_is_said_as_before(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        load_labels(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"labels.parquet is missing"):
        load_labels(tmp_path)


def test_tables_alone_stay_readable(tmp_path: Path) -> None:
    """As who downloads no records has them."""
    make_run(tmp_path / "run")
    pq.write_table(pq.read_table(tmp_path / "run" / "labels.parquet"), tmp_path / "labels.parquet")
    assert load_labels(tmp_path).equals(load_labels(tmp_path / "run"))
