"""Where things usually are, from a run's evidence alone: the layout prior without codes or masks."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.evidence.counts import sum_evidence
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.view import views


def layout_prior(run: RunFolder) -> tuple[tuple[str, ...], NDArray[np.float32], Grid]:
    """The mean mask of every concept over a run's discovery pictures, on its finest grid of an image stream.

    Returns:
        concepts [C], sorted; float32 [cells, C], the share of the cell that the concept covers, over the pictures that
        were asked for it; (height, width) of the grid, which is taken to have the pictures' shape.
    Raises:
        InputError: no discovery pictures of an image stream, or a grid of another shape than the pictures.
    """
    of_pictures = pc.field("stream") == IMAGE  # places of words are no places in a picture
    evidence = sum_evidence([run.read_table("evidence", [shard], filter=of_pictures) for shard in run.shard_ids()])
    splits = [by_split["discovery"] for by_split in views(evidence).values() if "discovery" in by_split]
    if not splits:
        raise InputError(
            f"{run.path} has no discovery pictures of an image stream; a layout prior cannot be learned from it."
        )
    finest = max(splits, key=lambda split: split.concept_cells.shape[1])
    sizes = run.read_table("images", columns=["width", "height"])
    height, width = float(np.mean(sizes["height"])), float(np.mean(sizes["width"]))
    cells = finest.concept_cells.shape[1]
    rows = round((cells * height / width) ** 0.5)
    if rows < 1 or cells % rows:
        raise InputError(f"{run.path}: a grid of {cells} cells does not have the shape of its pictures.")
    area = np.maximum(finest.concept_asked, 1) * (height * width / cells)
    prior = (finest.concept_cells / area[:, None]).T.astype(np.float32)
    return tuple(finest.concepts), prior, (rows, cells // rows)
