"""What is there already and does not say what it was made with is not written over, and said in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.attribution.scores.components import COMPONENTS, FILE, require_room
from gazetteer.attribution.scores.same import refuse_others
from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.provenance import with_provenance

NOW: dict[str, Any] = {"fingerprint": {"model": 1}, "config": {"estimator": "update", "steps": 1}}
SHAPES = [[], 3, "x", None, ["estimator"], "estimator"]


@pytest.mark.parametrize("part", ["fingerprint", "config"])
@pytest.mark.parametrize("value", SHAPES)
def test_settings_of_another_shape_are_refused(part: str, value: Any, tmp_path: Path) -> None:
    refuse_others("edit", NOW, NOW)
    with pytest.raises(InputError, match=f"edit is there already .*its {part} is no mapping"):
        refuse_others("edit", {**NOW, part: value}, NOW)
    table = with_provenance(pa.Table.from_pylist([], schema=COMPONENTS), {**NOW, part: value})
    pq.write_table(table, tmp_path / FILE)
    with pytest.raises(InputError, match=rf"{FILE} carries provenance whose {part} is no JSON object"):
        require_room(tmp_path, NOW, ["steps"])


@pytest.mark.parametrize("value", [3, "x", None, [3], [[]], {}])
def test_other_calls_of_another_shape_are_refused(value: Any, tmp_path: Path) -> None:
    said = {**NOW, "config": {**NOW["config"], "others": value}}
    pq.write_table(with_provenance(pa.Table.from_pylist([], schema=COMPONENTS), said), tmp_path / FILE)
    with pytest.raises(InputError, match=f"{FILE} does not say any more of which calls its rows are"):
        require_room(tmp_path, NOW, ["steps"])
