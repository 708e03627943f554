"""Pictures with exact masks, in the place of detected ones: the annotator's own error is out of the measurement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.schemas import IMAGES, SEGMENTS
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, read_concepts
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.layout.evaluation.group import Group, Images
from gazetteer.labeling.layout.evaluation.model_pass import noised
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.run import LayoutRun, mentions, truth_of
from gazetteer.labeling.vocabulary.meant import stands_for

log = logging.getLogger(__name__)


def exact_group(
    run: LayoutRun, folder: str | Path, generation: GenerationConfig, batch_size: int, most: int = 0
) -> Callable[[Any, Sequence[float], Path], Group]:
    """How to see the pictures of `folder`: (pipe, t values, scratch folder) -> group.

    Args:
        folder: holds ``images/`` and ``segments/``, Parquet of `data.tables.schemas`; `prompt` is the caption. Segments
            of concepts that the run does not know, however written, are left out, which is said, and so are, with a
            warning, the run's own discovery pictures.
        batch_size: pictures at once where `generation` is not exact.
        most: the first so many by image id; 0 takes all.

    Raises:
        InputError: the folder cannot be read, is empty or holds discovery pictures alone, or its captions name no
            concept that its masks show.
    """
    images, segments = _read(Path(folder), "images", IMAGES), _read(Path(folder), "segments", SEGMENTS)
    images, segments = _named(run, folder, images, segments)
    ids = _unseen(run, folder, images["image_id"].to_pylist())[: most or None]
    known, chosen = pa.array(run.concepts, pa.string()), pa.array(ids, pa.string())
    images = images.filter(pc.is_in(images["image_id"], chosen))
    wanted = pc.and_(pc.is_in(segments["image_id"], chosen), pc.is_in(segments["concept"], known))
    maps = _maps(run, images, segments.filter(wanted))
    rows = sorted(images.select(["image_id", "prompt", "image"]).to_pylist(), key=lambda row: row["image_id"])
    mentioned = mentions([row["prompt"] for row in rows], run.concepts, run.synonyms)
    pixels = float(maps.sizes.prod(axis=1).mean())

    def truth(grid: Grid, rows: Images) -> Truth:
        return truth_of(maps, mentioned, grid, pixels, rows)

    every = np.arange(len(rows))
    if not truth(next(iter(run.grids.values())), every).wanted.any():
        raise InputError(f"No caption in {folder} names a concept of the run that its masks show.")

    def see(pipe: Any, t: Sequence[float], scratch: Path) -> Group:
        place = scratch / "exact"
        place.mkdir()
        pictures = [(row["image_id"], row["prompt"], decode_image(row["image"]["bytes"])) for row in rows]
        seen = noised(pipe, generation, t, pictures, run.concepts, place, batch_size=batch_size)
        return Group(tuple(row["image_id"] for row in rows), truth, every, seen, stored=False)

    return see


def _named(run: LayoutRun, folder: str | Path, images: pa.Table, segments: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The tables with concepts called as the run calls them; what is none of its concepts is said."""
    shown, asked = segments["concept"].to_pylist(), images["asked"].to_pylist()
    name = stands_for({*shown, *(word for words in asked for word in words)}, run.concepts, run.synonyms)
    if unknown := sorted({own for own in shown if name[own] not in run.concepts}):
        log.warning(
            "%s shows concepts that the run does not know, which are left out: %s%s.",
            folder, ", ".join(unknown[:5]), f" and {len(unknown) - 5} more" if len(unknown) > 5 else "",
        )  # fmt: skip
    columns = (
        ("asked", [[name[word] for word in words] for words in asked]),
        ("concept", [name[own] for own in shown]),
    )
    tables = []
    for table, (column, values) in zip((images, segments), columns, strict=True):
        field = table.schema.field(column)
        tables.append(table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type)))
    return tables[0], tables[1]


def _unseen(run: LayoutRun, folder: str | Path, image_ids: Sequence[str]) -> list[str]:
    """Sorted, without pictures of the run that its layouts are fitted on; InputError where none is left."""
    if not image_ids:
        raise InputError(f"{folder} holds no pictures.")
    fitted = {name for name, split in zip(run.image_ids, run.splits, strict=True) if split == "discovery"}
    ids = sorted(set(image_ids) - fitted)
    if not ids:
        raise InputError(f"{folder} holds only pictures that the layouts of {run.store.path} are fitted on.")
    if len(ids) < len(image_ids):
        log.warning(
            "%d of %d pictures of %s are left out: layouts are fitted on them.",
            len(image_ids) - len(ids), len(image_ids), folder,
        )  # fmt: skip
    return ids


def _maps(run: LayoutRun, images: pa.Table, segments: pa.Table) -> ConceptMaps:
    """Masks of the run's concepts, with what each picture was asked for: elsewhere absence is not known."""
    at = images.schema.get_field_index("asked")
    all_of_them = pa.array([list(run.concepts)] * images.num_rows, IMAGES.field("asked").type)
    maps = read_concepts(
        images.set_column(at, IMAGES.field("asked"), all_of_them), segments, set(run.grids.values())
    )  # so that their concepts are the run's
    asked = dict(zip(images["image_id"].to_pylist(), map(set, images["asked"].to_pylist()), strict=True))
    said = [[concept in asked[name] for concept in maps.concepts] for name in maps.image_ids]
    return replace(maps, asked=np.array(said, bool) | maps.present)


def _read(folder: Path, name: str, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(folder / name, columns=schema.names).cast(schema)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{folder} has no readable table {name}/ of pictures with masks ({first_line(error)})."
        ) from error
