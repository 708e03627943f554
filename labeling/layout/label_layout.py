"""The layout from tables of labels alone: no codes, no masks, no evidence of the run they came from.

Every feature that fires in a cell and is labelled with a concept moves the concept's log odds there by what its row
says, w(f, c) = logit(precision) - logit(precision / lift); each cell then takes `NEIGHBOURS` times the mean of its
3 x 3 neighbourhood. No threshold is fitted: read as log odds the evidence gives every cell a probability, and a
concept's mask in a picture is the set of cells with the highest expected IoU under them (`best_cuts`), none of them
less likely than all that a label speaks for (`spoken_cuts`); where places come from a prior, the likelier of the two
sets of cells that differ most (`splitting_cuts`).

labels.parquet holds what each feature is best called. candidates.parquet, which may stand in for it, holds every pair
that meets in a picture: what goes with a concept beyond chance counts, whether it won the feature or not; and
precision / lift, what shuffled pictures would give, says where the feature's habitual cells are, so that the features
of a neighbourhood tell together how common each concept is at that place (`Habits`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import expit, logit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import on_grid, prior_logit
from gazetteer.labeling.layout.label_weights import (
    MAX_Q,
    ROUNDING,
    SHARE,
    LabelWeights,
    complete_labels,
    label_concepts,
    label_weights,
    read_label_table,
)
from gazetteer.labeling.layout.model import LayoutPrediction
from gazetteer.labeling.layout.run import nearest_site
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.given import GivenSaes, loaded_saes

Floats = NDArray[np.float32]

UNFITTED, UNFITTED_PRIOR = "labels_unfitted", "labels_unfitted_prior"
UNFITTED_WINNERS, UNFITTED_WINNERS_PRIOR = "labels_unfitted_winners", "labels_unfitted_winners_prior"
"""What layouts of labels alone are called, by table and by prior, where they are drawn and where they are measured."""

NEIGHBOURS = 1.5
"""Weight of the mean over a cell's 3 x 3 neighbourhood beside the cell's own evidence (docs/results/layout.md)."""

SCALE = 0.25
"""From smoothed evidence to log odds: features of a cell repeat each other. Chosen on discovery pictures of the shipped
world (docs/results/layout.md); 0.1 to 0.3 are alike within 0.03 mIoU at t = 1.0 and 0.5."""

WINNERS_SCALE = 0.5
"""The same of labels.parquet, where a feature speaks for one concept alone and fewer say the same; chosen likewise."""

SPEAKS = 1e-6
"""Evidence that is more than a rounding error of the neighbourhood's mean."""

HABIT = 0.5
"""How many features of a neighbourhood a concept's mean base counts as, where they say what is common there."""


def label_maps(weights: LabelWeights, codes: SiteCodes, shift: NDArray[np.float64] | None = None) -> Floats:
    """Smoothed evidence of N pictures: float32 [N, cells, C].

    shift: float64 [N, cells, C], added to what each cell's labels say (`own_counts.label_shift`).
    """
    maps = _fired(weights.features, codes, weights.weights)
    if shift is not None:
        maps = maps + shift.reshape(maps.shape)
    summed = maps + NEIGHBOURS * _near(maps)
    return summed.reshape(len(codes.image_ids), codes.cells, -1).astype(np.float32)


def habit_odds(weights: LabelWeights, codes: SiteCodes) -> NDArray[np.float64]:
    """Log odds of every concept before any evidence, by what fires around a cell: float64 [N, cells, C] or [C].

    The mean of `Habits.odds` over the features of the 3 x 3 neighbourhood, a cell's mean number of them, and `HABIT`
    times the concept's base.
    """
    base = logit(np.clip(weights.base, *SHARE))
    if weights.habits is None:
        return base
    said = _near(_fired(weights.habits.features, codes, weights.habits.odds))
    many = _near(_fired(weights.habits.features, codes, weights.habits.known))
    probabilities: NDArray[np.float64] = (said + HABIT * base) / (many + HABIT)
    return probabilities.reshape(len(codes.image_ids), codes.cells, -1)


def _fired(features: NDArray[np.int64], codes: SiteCodes, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Summed `values` [F, C] of those of the features [F] that fire in each cell: float64 [N, h, w, C]."""
    at = np.minimum(np.searchsorted(features, codes.feature), len(features) - 1)
    known = features[at] == codes.feature
    place = codes.image[known].astype(np.int64) * codes.cells + codes.cell[known]
    shape = (len(codes.image_ids) * codes.cells, len(features))
    fired = sp.csr_array((np.ones(len(place)), (place, at[known])), shape)
    summed: NDArray[np.float64] = fired @ values
    return summed.reshape(len(codes.image_ids), codes.height, codes.width, values.shape[1])


def _near(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over every cell's 3 x 3 neighbourhood, of maps [N, h, w, C]."""
    smoothed: NDArray[np.float64] = uniform_filter(maps, size=(1, 3, 3, 1), mode="nearest")
    return smoothed


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


def spoken_cuts(probability: Floats, evidence: Floats) -> Floats:
    """`best_cuts`, but none below every cell that a label speaks for: float32 [N, C].

    Where few features are labelled, what is common everywhere would by itself take all cells, so that the mask would
    say nothing of what the labels tell apart. Where no label speaks, nothing is to be told.

    Args:
        probability: [N, cells, C].
        evidence: of the same cells, above 0 where a label speaks for the concept.
    """
    lowest = np.where(evidence > SPEAKS, probability, np.inf).min(axis=1)
    cuts = best_cuts(probability)
    return np.where(np.isfinite(lowest), np.maximum(cuts, lowest), cuts).astype(np.float32)


def splitting_cuts(probability: Floats) -> Floats:
    """The threshold of every picture and concept that splits its cells best in two (Otsu's): float32 [N, C].

    The one with the highest variance between the cells above and below. A prior is the mean over pictures with and
    without the concept, too low for an expected IoU where it is shown; this asks for no more than the order of cells
    and their distances. scikit-image's takes one map a call.

    Args:
        probability: [N, cells, C].
    """
    ordered = -np.sort(-probability.astype(np.float64), axis=1)
    cells = ordered.shape[1]
    if cells == 1:
        return probability[:, 0]
    many, summed = np.arange(1, cells)[None, :, None], np.cumsum(ordered, axis=1)
    above, below = summed[:, :-1] / many, (summed[:, -1:] - summed[:, :-1]) / (cells - many)
    best = (many * (cells - many) * (above - below) ** 2).argmax(axis=1)
    return np.take_along_axis(ordered, best[:, None], axis=1)[:, 0].astype(np.float32)


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
            f"The table holds no thing, stuff or part that goes with a feature of the {branch} branch (a candidate "
            f"needs q of at most {MAX_Q:g} and a lift above 1), so that no layout follows from it; a run of more "
            "pictures has some."
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
        prior: float32 [cells, C] on `prior_grid`, mean masks (`layout_prior`), or None: what the table itself says of
            places (`habit_odds`).
    """

    branch: str
    concepts: tuple[str, ...]
    weights: Mapping[Site, LabelWeights]
    saes: Mapping[Site, SparseAutoencoder]
    prior: Floats | None = None
    prior_grid: Grid = (1, 1)

    @property
    def name(self) -> str:
        """As what it is measured (`gazetteer layout evaluate`)."""
        winners = all(weights.habits is None for weights in self.weights.values())
        names = (UNFITTED_WINNERS, UNFITTED_WINNERS_PRIOR) if winners else (UNFITTED, UNFITTED_PRIOR)
        return names[self.prior is not None]

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

    def read(
        self, codes: SiteCodes, site: Site, shift: NDArray[np.float64] | None = None, prior: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """The probability of every cell by the labels of `site`, float32 [N, cells, C], and the cuts, float32 [N, C].

        Args:
            shift: as for `label_maps`.
            prior: mean masks [1 or N, cells, C] on the codes' grid, in the place of the layout's own.
        """
        known = self.weights[site]
        evidence = label_maps(known, codes, shift)
        if prior is None and self.prior is not None:
            prior = on_grid(self.prior[None], self.prior_grid, (codes.height, codes.width))
        odds: NDArray[np.floating] = habit_odds(known, codes) if prior is None else prior_logit(prior)
        scale = WINNERS_SCALE if known.habits is None else SCALE
        probability = expit(scale * evidence + odds).astype(np.float32)
        return probability, spoken_cuts(probability, evidence) if prior is None else splitting_cuts(probability)

    def predict(self, codes: Mapping[Site, SiteCodes], t: float, step: int) -> LayoutPrediction:
        """The layout of N pictures from their codes, made by the autoencoders of `sites_at(t)`."""
        (site,) = self.sites_at(t)
        probabilities, cuts = self.read(codes[site], site)
        shape = (len(probabilities), len(self.concepts), codes[site].height, codes[site].width)
        where = probabilities.transpose(0, 2, 1).reshape(shape)
        return LayoutPrediction(t, step, self.concepts, where, cuts, probabilities.max(axis=1))


def layout_of_labels(
    labels: str | Path | pa.Table, saes: GivenSaes | None = None, branch: str = "cond",
    prior: tuple[Sequence[str], Floats, Grid] | None = None, *, signal: str = "",
) -> LabelLayout:  # fmt: skip
    """A layout predictor from a table of labels alone; nothing else of its run is needed, and nothing is fitted.

    Args:
        labels: candidates.parquet or labels.parquet, the table or its path; the first says more.
        saes: per site, or a configuration's ``saes``, for use inside a running pipeline.
        branch: ``cond`` or ``uncond``.
        prior: of `layout_prior`, where things usually are; None knows nothing of places.
        signal: what autoencoders that are loaded read where they do not say it (``sae_check.signal``).
    Raises:
        InputError: a table that cannot be read, says what cannot be or has no spatial label of the branch, a site
            without autoencoder, a feature that it does not have, or a prior of another shape than its grid's.
    """
    table = complete_labels(labels) if isinstance(labels, pa.Table) else read_label_table(labels)
    every = label_weights(table)
    block = best_block(every, branch)
    chosen = {site: sae for site, sae in every.items() if (str(site.port), site.branch) == (block, branch)}
    known = None if saes is None else loaded_saes(saes, chosen, signal=signal)
    missing = [site for site in chosen if known is not None and site not in known]
    if missing:
        raise InputError(f"No autoencoder was given for {missing[0].slug}, whose labels the table holds.")
    for site, weights in chosen.items():
        if known is not None and weights.features.max() >= known[site].config.n:
            raise InputError(
                f"The labels name feature {weights.features.max()} of {site.slug}, whose autoencoder has "
                f"{known[site].config.n}."
            )
    concepts = label_concepts(table)
    coding = {} if known is None else {site: known[site] for site in chosen}
    if prior is None:
        return LabelLayout(branch, concepts, chosen, coding)
    names, maps, grid = prior
    if maps.shape != (grid[0] * grid[1], len(names)) or not ((maps >= 0) & (maps <= 1 + ROUNDING)).all():
        raise InputError(
            f"The layout prior is {maps.shape} for a grid of {grid[0]} x {grid[1]} cells and {len(names)} concepts; "
            "it holds a share from 0 to 1 of every cell for every concept."
        )
    column = {name: i for i, name in enumerate(names)}
    unknown = [name for name in concepts if name not in column]
    if unknown:
        raise InputError(f"The layout prior knows no {unknown[0]!r}, which the labels name.")
    return LabelLayout(branch, concepts, chosen, coding, maps[:, [column[name] for name in concepts]], grid)
