"""The tables of a run as a reader meets them: their files and one sentence each, for cards and descriptions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from gazetteer.data.runs.finals import ALL_FINALS
from gazetteer.data.tables.schemas import PART_TABLES

MEANING = {
    "labels": "one row per site, feature and trusted concept, with the evidence",
    "features": "one row per site and feature: how often it fires, where most, its best label",
    "candidates": "every pair that was tested, with the verdicts of both rules",
    "causal": "what switching features on and off did to the pictures",
    "examiners": "what measures that chose no label say of every label",
    "images": "the pictures with prompt, seed and split",
    "segments": "the objects found in the pictures, with COCO run-length masks",
    "codes": "which features fired in which cell of which picture, sparse",
    "evidence": "the additive counts behind the labels",
    "failures": "pictures that could not be processed, and why",
}
FIRST = ("labels", "features", "images", "segments", "candidates")
"""The order in which a reader wants them; the others follow."""


@dataclass(frozen=True)
class Table:
    """One table of a run.

    Attributes:
        name: as in ``load_dataset(RUN, name)``.
        files: a path or pattern below the run.
        schema: of every file.
    """

    name: str
    files: str
    schema: pa.Schema

    @property
    def meaning(self) -> str:
        """One sentence."""
        return MEANING.get(self.name, "see the documentation of the tables")


def tables_of(names: Iterable[str]) -> list[Table]:
    """The tables that lie among the file names of a run, in a reader's order."""
    names = list(names)
    tables = [Table(table, f"{table}.parquet", schema) for table, schema in ALL_FINALS.items()
             if f"{table}.parquet" in names]  # fmt: skip
    tables += [Table(table, f"{table}/*.parquet", schema) for table, schema in PART_TABLES.items()
              if any(name.startswith(f"{table}/") for name in names)]  # fmt: skip
    return sorted(
        tables, key=lambda table: (FIRST.index(table.name) if table.name in FIRST else len(FIRST), table.name)
    )
