"""The layout from labels.parquet alone: no codes, no masks, no evidence of the run it came from.

Every feature that fires in a cell and is labelled with a concept moves the concept's log odds there by what its row
says, w(f, c) = logit(precision) - logit(precision / lift); each cell then takes `NEIGHBOURS` times the mean of its
3 x 3 neighbourhood. No threshold is fitted: read as log odds the evidence gives every cell a probability, and a
concept's mask in a picture is the set of cells with the highest expected IoU under them (`best_cuts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import expit, logit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SIGNALS, SITE_COLUMNS, STREAMS, Port, Site
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site
from gazetteer.labeling.layout.calibration import enlarge, prior_logit
from gazetteer.labeling.layout.model import LayoutPrediction
from gazetteer.labeling.layout.run import nearest_site
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Floats = NDArray[np.float32]

NEIGHBOURS = 1.5
"""Weight of the mean over a cell's 3 x 3 neighbourhood beside the cell's own evidence (docs/results/layout.md)."""

SCALE = 0.25
"""From smoothed evidence to log odds: features of a cell repeat each other. Chosen on discovery pictures of the shipped
world (docs/results/layout.md); 0.1 to 0.3 are alike within 0.03 mIoU at t = 1.0 and 0.5."""

_COLUMNS = (*SITE_COLUMNS, "feature", "concept", "precision", "lift", "dataset_iou")
_SHARE = (1e-3, 1.0 - 1e-3)


@dataclass(frozen=True)
class LabelWeights:
    """What the labels of a site say.

    Attributes:
        features: int64 [F], ascending.
        weights: float64 [F, C], 0 without a label.
        base: float64 [C], the share of its cells that shuffled pictures give to the concept (precision / lift), mean
            over its labels; 0 without one.
        best: summed over concepts, the highest `dataset_iou` of a label.
    """

    features: NDArray[np.int64]
    weights: NDArray[np.float64]
    base: NDArray[np.float64]
    best: float


def read_label_table(path: str | Path) -> pa.Table:
    """A labels.parquet, wherever it lies.

    Raises:
        InputError: no such file, not Parquet, or without the columns that a layout reads.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; a layout needs a labels.parquet.") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table of labels: {str(error).splitlines()[0]}") from error
    for name, usual in (("stream", STREAMS[0]), ("signal", SIGNALS[0])):
        if name not in table.column_names:  # written before there were others
            table = table.append_column(name, pa.array([usual] * table.num_rows, pa.string()))
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; a layout needs {', '.join(_COLUMNS)}.")
    return table


def spatial_labels(labels: pa.Table) -> pa.Table:
    """The rows that say where something is: of kinds, where the table tells them apart, those of `SPATIAL_KINDS`."""
    if "kind" not in labels.column_names:
        return labels
    return labels.filter(pc.is_in(labels["kind"], pa.array(SPATIAL_KINDS)))


def label_concepts(labels: pa.Table) -> tuple[str, ...]:
    """The concepts of spatial labels, sorted."""
    return tuple(sorted(set(spatial_labels(labels)["concept"].to_pylist())))


def label_weights(labels: pa.Table, concepts: Sequence[str] | None = None) -> dict[Site, LabelWeights]:
    """The weights of every site with a spatial label.

    Args:
        labels: columns block, branch, t, feature, concept, precision, lift and dataset_iou; `spatial_labels` count.
        concepts: the axis of the weights; None takes `label_concepts`.
    Returns:
        by site; sites without such a label are left out.
    Raises:
        InputError: a precision or lift that is no number above 0.
    """
    labels = spatial_labels(labels).select(list(_COLUMNS))
    names = list(label_concepts(labels) if concepts is None else concepts)
    if concepts is not None:
        labels = labels.filter(pc.is_in(labels["concept"], pa.array(names, pa.string())))
    number = {name: i for i, name in enumerate(names)}
    by_site = {}
    for site, rows in rows_by_site(labels).items():
        own = labels.take(pa.array(rows))
        column = np.array([number[name] for name in own["concept"].to_pylist()], np.int64)
        precision, lift, iou = (np.asarray(own[n], np.float64) for n in ("precision", "lift", "dataset_iou"))
        if not (np.isfinite(precision).all() and (precision >= 0).all() and (lift > 0).all()):
            raise InputError(f"The labels of {site.slug} hold a precision or lift that is no number above 0.")
        features, row = np.unique(np.asarray(own["feature"]), return_inverse=True)
        expected = np.clip(precision / lift, *_SHARE)
        weights, best = np.zeros((len(features), len(names))), np.zeros(len(names))
        weights[row, column] = logit(np.clip(precision, *_SHARE)) - logit(expected)
        np.maximum.at(best, column, np.nan_to_num(iou))
        total, count = np.bincount(column, expected, len(names)), np.bincount(column, minlength=len(names))
        base = total / np.maximum(count, 1)
        by_site[site] = LabelWeights(features.astype(np.int64), weights, base, float(best.sum()))
    return by_site


def label_maps(weights: LabelWeights, codes: SiteCodes) -> Floats:
    """Smoothed evidence of N pictures: float32 [N, cells, C]."""
    concepts = weights.weights.shape[1]
    shape = (len(codes.image_ids) * codes.cells, len(weights.features))
    at = np.minimum(np.searchsorted(weights.features, codes.feature), len(weights.features) - 1)
    known = weights.features[at] == codes.feature
    place = codes.image[known].astype(np.int64) * codes.cells + codes.cell[known]
    fired = sp.csr_array((np.ones(len(place)), (place, at[known])), shape)
    maps = (fired @ weights.weights).reshape(len(codes.image_ids), codes.height, codes.width, concepts)
    near = uniform_filter(maps, size=(1, 3, 3, 1), mode="nearest")
    return (maps + NEIGHBOURS * near).reshape(len(codes.image_ids), codes.cells, concepts).astype(np.float32)


def best_cuts(probability: Floats) -> Floats:
    """The threshold of every picture and concept with the highest expected IoU: float32 [N, C].

    Of cells with probabilities p, taken as independent, the k likeliest have an expected intersection of their sum and
    an expected union of k plus the sum of all others; the k with the highest ratio of the two is taken.

    Args:
        probability: [N, cells, C].
    """
    ordered = -np.sort(-probability, axis=1)
    inside = np.cumsum(ordered, axis=1, dtype=np.float64)
    union = np.arange(1, ordered.shape[1] + 1)[None, :, None] + inside[:, -1:] - inside
    best = (inside / union).argmax(axis=1)
    return np.take_along_axis(ordered, best[:, None], axis=1)[:, 0]


def best_block(weights: Mapping[Site, LabelWeights], branch: str) -> str:
    """The block of a branch whose labels overlap their concepts most (`LabelWeights.best` summed over t).

    Raises:
        InputError: no label of that branch.
    """
    summed: dict[str, float] = {}
    for site, weight in weights.items():
        if site.branch == branch:
            summed[str(site.port)] = summed.get(str(site.port), 0.0) + weight.best
    if not summed:
        raise InputError(
            f"The table holds no label of a thing, stuff or part on the {branch} branch, so that no layout follows "
            "from it; a run of more pictures has some."
        )
    return max(summed, key=lambda block: (summed[block], block))


@dataclass(frozen=True)
class LabelLayout:
    """A layout predictor made of labels alone; made by `layout_of_labels`.

    Attributes:
        branch: which half of guidance is read.
        concepts: sorted.
        weights: of every site that is read, all of one block.
        saes: per site the autoencoder that codes come from; empty where codes are given.
        prior: float32 [cells, C] on `prior_grid`, mean masks (`layout_prior`), or None: every cell alike.
    """

    branch: str
    concepts: tuple[str, ...]
    weights: Mapping[Site, LabelWeights]
    saes: Mapping[Site, SparseAutoencoder]
    prior: Floats | None = None
    prior_grid: Grid = (1, 1)

    @property
    def ports(self) -> tuple[Port, ...]:
        """The port that is listened to."""
        return tuple({site.port for site in self.weights})

    def sites_at(self, t: float) -> list[Site]:
        """The site whose t is nearest."""
        return [nearest_site(list(self.weights), str(self.ports[0]), self.branch, t)]

    def grid_of(self, site: Site) -> Grid | None:
        """Any grid will do."""
        return None

    def probabilities(self, codes: SiteCodes, site: Site) -> Floats:
        """float32 [N, cells, C] of every cell, by the labels of `site`."""
        known = self.weights[site]
        if self.prior is None:
            odds = logit(np.clip(known.base, *_SHARE))
        else:
            odds = prior_logit(enlarge(self.prior[None], self.prior_grid, (codes.height, codes.width)))
        return expit(SCALE * label_maps(known, codes) + odds).astype(np.float32)

    def predict(self, codes: Mapping[Site, SiteCodes], t: float, step: int) -> LayoutPrediction:
        """The layout of N pictures from their codes, made by the autoencoders of `sites_at(t)`."""
        (site,) = self.sites_at(t)
        probabilities = self.probabilities(codes[site], site)
        shape = (len(probabilities), len(self.concepts), codes[site].height, codes[site].width)
        where = probabilities.transpose(0, 2, 1).reshape(shape)
        return LayoutPrediction(t, step, self.concepts, where, best_cuts(probabilities), probabilities.max(axis=1))


def layout_of_labels(
    labels: str | Path | pa.Table, saes: Mapping[Site, SparseAutoencoder] | None = None, branch: str = "cond",
    prior: tuple[Sequence[str], Floats, Grid] | None = None,
) -> LabelLayout:  # fmt: skip
    """A layout predictor from a labels.parquet alone; nothing else of its run is needed, and nothing is fitted.

    Args:
        labels: the table or its path.
        saes: per site, for use inside a running pipeline.
        branch: ``cond`` or ``uncond``.
        prior: of `layout_prior`, where things usually are; None knows nothing of places.
    Raises:
        InputError: a table that cannot be read or has no spatial label of the branch, or a site without autoencoder.
    """
    table = labels if isinstance(labels, pa.Table) else read_label_table(labels)
    every = label_weights(table)
    block = best_block(every, branch)
    chosen = {site: sae for site, sae in every.items() if (str(site.port), site.branch) == (block, branch)}
    missing = [site for site in chosen if saes is not None and site not in saes]
    if missing:
        raise InputError(f"No autoencoder was given for {missing[0].slug}, whose labels the table holds.")
    concepts = label_concepts(table)
    known = None if saes is None else {site: saes[site] for site in chosen}
    if prior is None:
        return LabelLayout(branch, concepts, chosen, known or {})
    names, maps, grid = prior
    column = {name: i for i, name in enumerate(names)}
    unknown = [name for name in concepts if name not in column]
    if unknown:
        raise InputError(f"The layout prior knows no {unknown[0]!r}, which the labels name.")
    return LabelLayout(branch, concepts, chosen, known or {}, maps[:, [column[name] for name in concepts]], grid)
