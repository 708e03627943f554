"""Pictures with exact masks that a layout is measured on: which of them, and what is known of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.schemas import SEGMENTS
from gazetteer.labeling.layout.evaluation.exact import exact_group
from gazetteer.labeling.layout.run import LayoutRun, open_run
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.runs.layout_runs import GENERATION, pipeline_run, random_saes


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(pipeline_run(tmp_path_factory.mktemp("painted") / "run", tiny_pipeline(), random_saes()))


def exact_of(folder: Path, source: LayoutRun, rows: list[int], asked: list[str]) -> Path:
    """Some pictures of a run with their masks, asked for these concepts alone."""
    wanted = pc.is_in(pc.field("image_id"), pa.array([source.image_ids[row] for row in rows]))
    for name in ("images", "segments"):
        table = source.store.read_table(name).filter(wanted)
        if name == "images":
            column = pa.array([asked] * table.num_rows, table.schema.field("asked").type)
            table = table.set_column(table.schema.get_field_index("asked"), table.schema.field("asked"), column)
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "part.parquet")
    return folder


def test_exact_masks_tell_absence_of_what_was_asked_alone(painted: LayoutRun, tmp_path: Path) -> None:
    held = painted.of_split("heldout")
    folder = exact_of(tmp_path / "asked", painted, list(held), ["dog"])
    group = exact_group(painted, folder, GENERATION, 8)(tiny_pipeline(), [1.0], tmp_path)
    shown = painted.maps.present[held]
    dog = painted.concepts.index("dog")
    assert np.array_equal(group.truth((4, 4)).asked, shown | (np.arange(len(painted.concepts)) == dog))


def test_masks_of_concepts_are_taken_as_meant_and_unknown_ones_said(
    painted: LayoutRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = painted.of_split("heldout")
    plain = exact_of(tmp_path / "plain", painted, list(held), ["dog"])
    other = exact_of(tmp_path / "other", painted, list(held), ["Dogs"])
    rows = pq.read_table(other / "segments").to_pylist()
    spelt = [{**row, "concept": "Boats"} for row in rows if row["concept"] == "boat"]
    table = pa.Table.from_pylist([*spelt, {**rows[0], "concept": "lighthouse"}], SEGMENTS)
    pq.write_table(table, other / "segments" / "part.parquet")
    known, read = (
        exact_group(painted, folder, GENERATION, 8)(tiny_pipeline(), [1.0], folder / "images")
        for folder in (plain, other)
    )
    boat, dog = (painted.concepts.index(name) for name in ("boat", "dog"))
    for column in (boat, dog):
        assert np.array_equal(read.truth((4, 4)).pixels[:, column], known.truth((4, 4)).pixels[:, column])
        assert np.array_equal(read.truth((4, 4)).asked[:, column], known.truth((4, 4)).asked[:, column])
    assert "the run does not know, which are left out: lighthouse." in caplog.text


def test_of_a_run_itself_its_held_out_pictures_are_measured(painted: LayoutRun, tmp_path: Path) -> None:
    held = tuple(painted.image_ids[row] for row in painted.of_split("heldout"))
    group = exact_group(painted, painted.store.path, GENERATION, 8)(tiny_pipeline(), [1.0], tmp_path)
    assert group.image_ids == held


def test_pictures_that_layouts_are_fitted_on_are_no_test_of_them(
    painted: LayoutRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted, held = painted.of_split("discovery"), painted.of_split("heldout")
    mixed = exact_of(tmp_path / "mixed", painted, [fitted[0], held[0]], ["dog"])
    assert exact_group(painted, mixed, GENERATION, 8)(tiny_pipeline(), [1.0], tmp_path).image_ids == (
        painted.image_ids[held[0]],
    )
    assert "1 of 2 pictures" in caplog.text
    with pytest.raises(InputError, match=r"holds only pictures that the layouts of .* are fitted on"):
        exact_group(painted, exact_of(tmp_path / "own", painted, list(fitted), ["dog"]), GENERATION, 8)
