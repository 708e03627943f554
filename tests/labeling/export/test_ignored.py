"""What nobody decided on in given pictures stays so on every way out of a run: VOC, COCO, and the run as a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.picture import GivenPictures
from gazetteer.data.inputs.given.table import TablePictures
from gazetteer.data.inputs.given.undecided import undecided_cells
from gazetteer.data.inputs.given.voc import VocPictures
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import PART_TABLES
from gazetteer.labeling.export.coco import export_coco
from gazetteer.labeling.export.labelstudio import export_labelstudio
from gazetteer.labeling.export.voc import export_voc
from tests.support.runs.runs import PROVENANCE, parts
from tests.support.system.running import in_process

MARKED = {"feature": [3, 1, 2, 0], "value": [1.5, 0.25, -0.5, 0.0]}  # of two cells the right one


def given_run(path: Path, **fingerprint: str) -> RunFolder:
    """Two pictures of 8 x 12, i0 with its right half marked, by the finer of two grids and the coarser one."""
    run = RunFolder(path).open_or_create(fingerprint)
    for number in range(2):
        tables = parts(number)
        (row,) = tables["codes"].to_pylist()
        marks: dict[str, Any] = MARKED if number == 0 else {}
        coarse = {"block": "other", "width": 1, "feature": [3, 1], "value": [-1.5, 0.25]} if number == 0 else {}
        rows = [{**row, **marks}, {**row, **marks, "branch": "uncond"}, {**row, **coarse}]
        tables["codes"] = pa.Table.from_pylist(rows, schema=PART_TABLES["codes"])
        run.commit_shard(f"s{number}", tables, {}, PROVENANCE)
    run.finish({"shards": ["s0", "s1"]})
    return run


def test_a_run_keeps_what_is_to_be_ignored_on_every_way_out(tmp_path: Path) -> None:
    run = given_run(tmp_path / "run", **{"pictures.voc": "sha256:0"})
    assert export_voc(run, tmp_path / "voc")["with_ignored"] == 1
    assert export_coco(run, tmp_path / "coco" / "a.json")["with_ignored"] == 1
    expected = np.zeros((8, 12), bool)
    expected[:, 6:] = True
    ways: list[GivenPictures] = [
        TablePictures(run.path), VocPictures(str(tmp_path / "voc")), CocoPictures(str(tmp_path / "coco" / "a.json")),
    ]  # fmt: skip
    for source in ways:
        ignored = source.read("i0").ignored
        assert ignored is not None and np.array_equal(ignored, expected), type(source)
        assert [(concept, int(mask.sum())) for concept, mask in source.read("i0").segments] == [("dog", 12)]
        assert source.read("i1").ignored is None
    said = in_process("export", run.path, "--labelstudio", str(tmp_path / "t.json"), "--voc", str(tmp_path / "again"))
    assert said.returncode == 0, said.stderr
    assert "what is to be ignored, in 1 pictures, is written in whole cells" in said.stdout
    assert "left out: what is to be ignored, in 1 pictures; --coco and --voc keep it" in said.stdout


def test_tables_without_their_run_keep_it_too(tmp_path: Path) -> None:
    run = given_run(tmp_path / "run", **{"pictures.voc": "sha256:0"})
    shutil.rmtree(Path(run.path, "_meta"))
    source = TablePictures(run.path)
    assert [source.read(key).ignored is not None for key in source.keys] == [True, False]
    next(Path(run.path, "codes").iterdir()).write_bytes(b"torn")
    with pytest.raises(InputError, match="has a table codes/ that cannot be read"):
        TablePictures(run.path)
    shutil.rmtree(Path(run.path, "codes"))
    assert TablePictures(run.path).read("i0").ignored is None


def test_the_finest_grid_says_what_is_to_be_ignored(tmp_path: Path) -> None:
    run = given_run(tmp_path / "run", **{"pictures.table": "sha256:0"})
    assert {key: cells.tolist() for key, cells in undecided_cells(run).items()} == {"i0": [[False, True]]}
    assert export_labelstudio(run, tmp_path / "t.json")["ignored_left_out"] == 1
    export_coco(run, tmp_path / "a.json", pictures=False)
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert ["ignored" in image["gazetteer"] for image in images] == [True, False]


def test_generated_pictures_have_nothing_that_is_to_be_ignored(tmp_path: Path) -> None:
    run = given_run(tmp_path / "run", config="abc")
    assert not undecided_cells(run) and export_coco(run, tmp_path / "a.json", pictures=False)["with_ignored"] == 0
