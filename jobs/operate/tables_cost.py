"""What the tables of a run cost once its pictures are labelled: reducing and compacting, on CPUs alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.rules.run_reduce import stretches

SLOT_SECONDS = 6.6e-6
"""CPU seconds a slot of the codes, of 4,096 pictures at a site with 5,120 features and 80 concepts; with more pictures
it is less (`benchmarks/scale.py`)."""
MASK_SECONDS = 3e-3
"""CPU seconds a picture, to read and pool its masks (the same)."""
COMPACT_SECONDS = 0.08
"""CPU seconds a megabyte of parts that are put together (a copy of the embedded world's run)."""


def tables_cost(
    slots: Mapping[Site, int], features: Mapping[Site, int], concepts: int, images: int, size: int, like: str = ""
) -> dict[str, Any]:
    """Seconds of making the final tables, the tasks they are shared out in, and CPU seconds of ``gazetteer compact``.

    ``reduce`` has ``cpu_seconds`` or, where they are a run's own, ``wall_seconds``: what its driver waited for its
    executor, however many workers that had.

    Args:
        slots: of the codes of every site, in all pictures; `features`: of its autoencoder.
        concepts: asked of the pictures.
        images: of the run.
        size: bytes of its parts.
        like: a run; where it is finished, its own seconds of reducing are taken, by pictures.
    """
    tasks = sum(len(stretches(site, features[site], count, concepts)) for site, count in slots.items())
    reduce = {"cpu_seconds": sum(slots.values()) * SLOT_SECONDS + images * MASK_SECONDS}
    measured = (RunFolder(like).read_json("manifest.json") or {}) if like else {}
    if measured.get("images") and measured.get("seconds", {}).get("reduce"):
        reduce = {"wall_seconds": measured["seconds"]["reduce"] / measured["images"] * images}
    return {
        "reduce": {**reduce, "tasks": tasks},
        "compact": {"cpu_seconds": size / 1e6 * COMPACT_SECONDS},
    }
