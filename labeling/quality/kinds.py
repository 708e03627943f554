"""How many features are called what kind of thing."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from gazetteer.data.tables.schemas import KINDS


def label_kinds(labels: pa.Table) -> dict[str, int]:
    """Features by the kind of their best label, every kind named.

    labels: schemas.LABELS with at least `kind` and `rank`.
    """
    counts = Counter(row["kind"] for row in labels.select(["kind", "rank"]).to_pylist() if row["rank"] == 1)
    return {kind: counts[kind] for kind in KINDS}
