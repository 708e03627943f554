"""Ways to predict a layout that read no more than a run's tables and codes; each is a small class, made by fitting.

`resampled.py` has those that need what the model shows while it samples again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.layout.calibration import LayoutFit, on_grid
from gazetteer.labeling.layout.evaluation.reading import Place, Reading
from gazetteer.labeling.layout.label_layout import LabelLayout
from gazetteer.labeling.layout.metrics import Truth, fit_thresholds, macro_mean, pair_ious
from gazetteer.labeling.layout.own_counts import label_shift
from gazetteer.labeling.layout.score_maps import paper_maps

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ScoreMaps:
    """What a method says of N pictures.

    Attributes:
        where: float32 [N, cells, C], higher where the concept is likelier.
        whether: float32 [N, C], higher where the picture is likelier to show it.
        thresholds: float32 [C], of `where`.
        grid: of the cells.
    """

    where: Floats
    whether: Floats
    thresholds: Floats
    grid: Grid

    def miou(self, truth: Truth) -> float:
        """Mean over concepts of the mean IoU of their pairs."""
        return macro_mean(pair_ious(self.where, truth, self.thresholds), np.ones((1, len(self.where))))[0]


class Method(Protocol):
    """A fitted way to predict a layout."""

    def predict(self, reading: Reading) -> ScoreMaps:
        """Its maps of the pictures."""
        ...


@dataclass(frozen=True)
class PriorMethod:
    """Every concept where it is in the mean, whatever the picture."""

    thresholds: Floats

    @classmethod
    def fitted(cls, reading: Reading) -> PriorMethod:
        """On training pictures."""
        return cls(fit_thresholds(np.ascontiguousarray(reading.prior), reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        maps = np.repeat(reading.prior, len(reading.pictures.image_ids), axis=0)
        return ScoreMaps(maps, maps.max(axis=1), self.thresholds, reading.step.grid)


@dataclass(frozen=True)
class ChanceMethod:
    """The whole picture: of predictions that look at nothing, that with the highest expected IoU."""

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        maps = np.zeros((len(reading.pictures.image_ids), *reading.prior.shape[1:]), np.float32)
        return ScoreMaps(maps, maps.max(axis=1), np.zeros(maps.shape[2], np.float32), reading.step.grid)


@dataclass(frozen=True)
class EvidenceMethod:
    """The evidence of features at some places, calibrated together with the layout prior: Gazetteer's own method.

    Attributes:
        places: blocks and branches that are listened to.
        fit: the calibration.
        t: of the autoencoders and tables; None takes the run's nearest to the step.
        with_prior: whether the calibration knows where things usually are.
    """

    places: Sequence[Place]
    fit: LayoutFit
    t: float | None = None
    with_prior: bool = True

    @classmethod
    def fitted(
        cls, reading: Reading, places: Sequence[Place], *, t: float | None = None, with_prior: bool = True
    ) -> EvidenceMethod:
        """On training pictures."""
        inputs = reading.inputs(places, t=t, with_prior=with_prior)
        return cls(places, LayoutFit.of(inputs, reading.truth), t, with_prior)

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        inputs = reading.inputs(self.places, t=self.t, with_prior=self.with_prior)
        return calibrated(self.fit, inputs, reading.step.grid)


@dataclass(frozen=True)
class PaperMethod:
    """The published method (arXiv 2504.15473, section 3.4) at the place that is best on training pictures.

    Attributes:
        vectors: word vectors [C, d] of the concepts.
        top: features a cell gives.
    """

    place: Place
    thresholds: Floats
    vectors: NDArray[np.floating]
    top: int

    @classmethod
    def fitted(cls, reading: Reading, vectors: NDArray[np.floating], top: int) -> PaperMethod:
        """On training pictures; of equally good places the first."""
        predicted, reached = [], []
        for place in reading.step.cond:
            untuned = cls(place, np.zeros(len(vectors), np.float32), vectors, top).predict(reading)
            truth = reading.pictures.truth(untuned.grid)
            thresholds = fit_thresholds(untuned.where, truth)
            predicted.append(cls(place, thresholds, vectors, top))
            reached.append(ScoreMaps(untuned.where, untuned.whether, thresholds, untuned.grid).miou(truth))
        return predicted[int(np.argmax(np.nan_to_num(reached, nan=-1.0)))]

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        site = reading.step.site(self.place)
        table = reading.step.run.tables[site]
        codes = reading.codes(self.place, site)
        maps = paper_maps(table, codes, self.vectors, self.top, reading.own(site))
        return ScoreMaps(maps, maps.max(axis=1), self.thresholds, table.grid)


@dataclass(frozen=True)
class LabelsMethod:
    """A table of labels alone (`gazetteer.labeling.layout.label_layout`), at the block whose labels are best.

    Attributes:
        layout: what the labels say; the order of its concepts is the run's.
        thresholds: fitted on training pictures as those of every other method; None takes each picture's own
            (`LabelLayout.read`), for which no mask is needed.
        with_prior: whether it knows where things usually are.
    """

    layout: LabelLayout
    thresholds: Floats | None = None
    with_prior: bool = False

    @classmethod
    def fitted(cls, reading: Reading, layout: LabelLayout, *, with_prior: bool = False) -> LabelsMethod:
        """Thresholds on training pictures."""
        untuned = cls(layout, None, with_prior)
        maps, _, grid = untuned.maps(reading)
        return cls(layout, fit_thresholds(maps, reading.pictures.truth(grid)), with_prior)

    def maps(self, reading: Reading) -> tuple[Floats, Floats, Grid]:
        """Probabilities [N, cells, C], the cuts of each picture [N, C], and the grid."""
        (site,) = self.layout.sites_at(reading.step.t)
        codes = reading.codes((str(site.port), site.branch), site)
        grid, prior = (codes.height, codes.width), None
        if self.with_prior:
            prior = on_grid(reading.prior, reading.step.grid, grid)
        own = reading.own(site)
        shift = (
            None if own is None else label_shift(self.layout.weights[site], reading.step.run.tables[site], codes, own)
        )
        return *self.layout.read(codes, site, shift, prior), grid

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        maps, cuts, grid = self.maps(reading)
        if self.thresholds is not None:
            return ScoreMaps(maps, maps.max(axis=1), self.thresholds, grid)
        above = maps - cuts[:, None]
        return ScoreMaps(above, maps.max(axis=1), np.zeros(maps.shape[2], np.float32), grid)


def calibrated(fit: LayoutFit, inputs: Floats, grid: Grid) -> ScoreMaps:
    """The maps of a calibration."""
    return ScoreMaps(fit.where.probabilities(inputs), fit.peaks(inputs), fit.where.thresholds, grid)
