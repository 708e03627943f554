"""A table of a run as CSV: its scalar columns, one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.types as types

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import new_file, replace_file
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.export.pictures import require_beside

TABLES = ("labels", "features", "candidates", "images", "segments")


def export_csv(run: RunFolder, file: str | Path, table: str = "labels") -> dict[str, Any]:
    """Write the scalar columns of a table; null is an empty field, and an empty text is quoted.

    Returns:
        counts, the columns, and those ``left_out`` because they hold lists, structures or bytes.
    Raises:
        InputError: not a finished run, no such table, or a file that is there already or cannot be written.
    """
    if table not in TABLES:
        raise InputError(f"There is no table {table!r} to export; accepted: {', '.join(TABLES)}.")
    run.require_finished()
    whole = run.read_table(table) if table in ("images", "segments") else run.read_final(table)
    scalars = [field.name for field in whole.schema if _scalar(field.type)]
    left = [name for name in whole.column_names if name not in scalars]
    target = new_file(file)
    require_beside(run, target)
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(whole.select(scalars), sink)
    replace_file(target, sink.getvalue().to_pybytes())
    return {"csv": str(target), "table": table, "rows": whole.num_rows, "columns": scalars, "left_out": left}


def _scalar(kind: pa.DataType) -> bool:
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))
