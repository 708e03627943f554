"""One row for every feature of a site: how often and how strongly it fires, where best, and its best name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import FEATURES
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_arrays

TOP_IMAGES = 9
_BEST = {
    "best_label": "concept",
    "best_kind": "kind",
    "best_dataset_iou": "dataset_iou",
    "best_heldout_dataset_iou": "heldout_dataset_iou",
    "best_q_value": "q_value",
}


def _top_images(codes: SiteCodes, features: int) -> pa.ListArray:
    """Up to nine images per feature by the spatial mean of the activation, with the place of its maximum.

    gamma_c of arXiv 2504.15473, App. H; ties go to the smaller image id, equal maxima to the first cell.
    """
    starts = codes.pair_starts()
    if not len(starts):
        return pa.array([[]] * features, FEATURES.field("top_images").type)
    feature, image = codes.feature[starts], codes.image[starts]
    total = np.add.reduceat(codes.value.astype(np.float64), starts)
    lengths = np.diff(np.append(starts, len(codes.value)))
    peaks = np.flatnonzero(codes.value == np.repeat(np.maximum.reduceat(codes.value, starts), lengths))
    strongest = peaks[np.searchsorted(peaks, starts)]  # cells ascend within a pair: the first peak from its start on
    order = np.lexsort((image, -total, feature))
    first = np.searchsorted(feature[order], feature[order], side="left")
    top = order[np.arange(len(order)) - first < TOP_IMAGES]
    counts = np.bincount(feature[top], minlength=features)
    at = strongest[top]
    places = pa.StructArray.from_arrays(
        [
            pa.array(codes.image_ids, pa.string()).take(pa.array(image[top])),
            pa.array(codes.value[at]),
            pa.array((codes.cell[at] // codes.width).astype(np.int32)),
            pa.array((codes.cell[at] % codes.width).astype(np.int32)),
        ],
        fields=list(FEATURES.field("top_images").type.value_type),
    )
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32()), places, type=FEATURES.field("top_images").type
    )


def _best(candidates: pa.Table, features: int) -> dict[str, pa.Array]:
    """Numbers of labels and the statistics of the first, per feature."""
    feature = candidates["feature"].to_numpy()
    trusted, paper = (candidates[name].to_numpy() for name in ("trusted", "paper_label"))
    rank = pc.fill_null(candidates["rank"], 0).to_numpy()
    where = np.full(features, -1, np.int64)
    where[feature[rank == 1]] = np.flatnonzero(rank == 1)
    at = pa.array(where, mask=where < 0)
    columns = {name: candidates[source].combine_chunks().take(at) for name, source in _BEST.items()}
    columns["labels"] = pa.array(np.bincount(feature[trusted], minlength=features).astype(np.int32))
    columns["paper_labels"] = pa.array(np.bincount(feature[paper], minlength=features).astype(np.int32))
    return columns


def _activity(codes: SiteCodes | None, features: int, wanted: int, cells: int) -> dict[str, pa.Array]:
    """Counts, density and activations of every feature; a dead one has density 0 and no activation."""
    images = active = np.zeros(features, np.int64)
    total = peak = np.zeros(features)
    if codes is not None:
        cells = cells or codes.cells * len(codes.image_ids)
        starts = codes.pair_starts()
        images = np.bincount(codes.feature[starts], minlength=features)
        active = np.bincount(codes.feature, minlength=features)
        weights = codes.value.astype(np.float64)
        total = np.bincount(codes.feature, weights=weights, minlength=features).astype(np.float64)
        peak = np.zeros(features)
        if len(starts):
            np.maximum.at(peak, codes.feature[starts], np.maximum.reduceat(codes.value, starts))
    dead = active == 0
    top: pa.Array = pa.array([[]] * features, FEATURES.field("top_images").type)
    return {
        "images": pa.array(images.astype(np.int64)),
        "images_wanted": pa.array(np.full(features, wanted, np.int64)),
        "images_short": pa.array(np.maximum(0, wanted - images).astype(np.int64)),
        "density": pa.array(active / cells) if cells else pa.nulls(features, pa.float64()),
        "mean_activation": pa.array(total / np.maximum(active, 1), mask=dead),
        "max_activation": pa.array(peak, mask=dead),
        "dead": pa.array(dead),
        "top_images": top if codes is None else _top_images(codes, features),
    }


def make_features(
    site: Site, codes: SiteCodes | None, candidates: pa.Table, count: int, model: str, images_wanted: int = 0,
    cells: int = 0,
) -> pa.Table:  # fmt: skip
    """A row for every feature of a site, dead and unlabelled ones included.

    Args:
        site: where.
        codes: its codes over all images, discovery and held-out; None where there are none.
        candidates: the site's schemas.CANDIDATES.
        count: features of its autoencoder.
        model: name of the model under study.
        images_wanted: images a feature should fire in.
        cells: that count over all images of the codes; 0: all that there are.
    Returns:
        schemas.FEATURES ordered by feature.
    Raises:
        InputError: codes of a feature beyond `count`.
    """
    if codes is not None and codes.feature.max(initial=-1) >= count:
        raise InputError(f"Codes at {site.slug} name feature {codes.feature.max()}, but it has only {count}.")
    columns: dict[str, pa.Array] = {
        "model": pa.repeat(model, count), **site_arrays(site, count),
        "feature": pa.array(np.arange(count, dtype=np.int32)),
        **_activity(codes, count, images_wanted, cells), **_best(candidates, count),
    }  # fmt: skip
    return pa.Table.from_arrays([columns[name] for name in FEATURES.names], schema=FEATURES)
