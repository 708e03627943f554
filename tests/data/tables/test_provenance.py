"""Provenance of a shape that nobody writes is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import WORLD, read_world
from gazetteer.data.tables.provenance import KEY, read_provenance


@pytest.mark.parametrize("said", ["[]", '"x"', "3", "null", "[3]", "{", "[" * 100_000])
def test_provenance_that_is_no_object_is_refused(tmp_path: Path, said: str) -> None:
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({KEY: said}), file)
    with pytest.raises(InputError, match=r"table\.parquet carries provenance that is no JSON object"):
        read_provenance(file)


@pytest.mark.parametrize("said", ["{}", '{"config": []}', '{"config": null}', '{"config": "x"}'])
def test_a_part_of_provenance_that_is_no_object_is_refused_where_it_is_asked_for(tmp_path: Path, said: str) -> None:
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({KEY: said}), file)
    assert read_provenance(file) == json.loads(said)
    with pytest.raises(InputError, match=r"table\.parquet carries provenance whose config is no JSON object"):
        read_provenance(file, "config")


@pytest.mark.parametrize(
    "said", ["[]", "3", "{}", '{"views": 3}', '{"views": [[]]}', '{"views": null}', '{"views": ""}']
)
def test_a_description_of_a_world_of_another_shape_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / WORLD).write_text(said, encoding="utf-8")
    with pytest.raises(InputError, match="must hold views"):
        read_world(tmp_path)
