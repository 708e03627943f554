"""One-line access to components.parquet, with pyarrow alone; `from gazetteer import load_components` is the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.tables.schemas import COMPONENTS

FILE = "components.parquet"


def load_components(
    folder: str | os.PathLike[str],
    *,
    concept: str | None = None,
    feature: int | None = None,
    block: str | None = None,
    estimator: str | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read components.parquet of a folder (or the file itself), filtered by what is given.

    Raises:
        InputError: there is none, it is damaged, or an unknown column.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    for column in columns or ():
        if column not in COMPONENTS.names:
            raise InputError(f"The table components has no column {column!r}; it has {', '.join(COMPONENTS.names)}.")
    wanted = None
    for name, value in (("concept", concept), ("feature", feature), ("block", block), ("estimator", estimator)):
        if value is not None:
            this = pc.field(name) == value
            wanted = this if wanted is None else wanted & this
    require_file("The components", path, "a folder of gazetteer attribute score, or components.parquet itself")
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns), filters=wanted)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is missing or corrupt; gazetteer attribute score writes it.") from error
    return table.replace_schema_metadata(None)
