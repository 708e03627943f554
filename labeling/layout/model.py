"""A fitted layout predictor: everything needed to say, at any sampler step, what will be where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import LayoutFit, inputs_of
from gazetteer.labeling.layout.own_counts import own_counts
from gazetteer.labeling.layout.run import LayoutRun, nearest_site, nearest_t, require_branch
from gazetteer.labeling.layout.score_maps import evidence_maps
from gazetteer.labeling.layout.site_table import SiteTable
from gazetteer.labeling.vocabulary.meant import meant
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.given import GivenSaes, loaded_saes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayoutPrediction:
    """What a predictor says of N pictures at one step.

    Attributes:
        t: 1.0 = first sampler step, 0.0 = last.
        step: 0-based.
        concepts: names, [C].
        where: float32 [N, C, height, width], probability that the cell shows the concept, given that it is named and
            painted.
        thresholds: float32 [N, C], of `where`: fitted on training pictures and the same for all N, or, from labels
            alone, each picture's own.
        whether: float32 [N, C], score of the picture showing the concept at all.
    """

    t: float
    step: int
    concepts: tuple[str, ...]
    where: Floats
    thresholds: Floats
    whether: Floats

    def mask(self, concept: str) -> NDArray[np.bool_]:
        """Predicted mask of a concept: bool [N, height, width]; InputError for an unknown one."""
        (known,) = meant([concept], self.concepts, "The layout knows no {!r}")
        number = self.concepts.index(known)
        return self.where[:, number] >= self.thresholds[:, number, None, None]

    def told(self, concept: str) -> NDArray[np.bool_]:
        """Whether anything tells one cell from another: bool [N]. Where nothing does, `mask` is all cells or none."""
        (known,) = meant([concept], self.concepts, "The layout knows no {!r}")
        where = self.where[:, self.concepts.index(known)]
        told: NDArray[np.bool_] = where.max(axis=(1, 2)) > where.min(axis=(1, 2))
        return told


class LayoutPredictor(Protocol):
    """What `gazetteer.labeling.layout.live.predict_layout` needs of a predictor."""

    @property
    def branch(self) -> str:
        """Which half of guidance is read."""
        ...

    @property
    def ports(self) -> tuple[Port, ...]:
        """What is listened to."""
        ...

    @property
    def saes(self) -> Mapping[Site, SparseAutoencoder]:
        """Per site the autoencoder its codes come from."""
        ...

    def sites_at(self, t: float) -> list[Site]:
        """The sites that are read at a step."""
        ...

    def grid_of(self, site: Site) -> Grid | None:
        """The only grid that a site can be read on; None: any."""
        ...

    def predict(self, codes: Mapping[Site, SiteCodes], t: float, step: int) -> LayoutPrediction:
        """The layout of N pictures from their codes at `sites_at(t)`."""
        ...


@dataclass(frozen=True)
class LayoutModel:
    """Evidence of all blocks of one guidance branch, calibrated together at every t of a run.

    Attributes:
        branch: which half of guidance is read.
        tables: per site what the run's tables know.
        saes: per site the autoencoder its codes come from; empty for a model that only reads stored codes.
        fits: per t of the run.
        prior: float32 [1, cells, C], mean masks of the discovery pictures.
        grid: of the predictions, the finest of the blocks'.
    """

    branch: str
    tables: Mapping[Site, SiteTable]
    saes: Mapping[Site, SparseAutoencoder]
    fits: Mapping[float, LayoutFit]
    prior: Floats
    grid: Grid

    @property
    def concepts(self) -> tuple[str, ...]:
        """Sorted."""
        return next(iter(self.tables.values())).concepts

    @property
    def ports(self) -> tuple[Port, ...]:
        """What is listened to, sorted."""
        return tuple(sorted({site.port for site in self.tables}))

    def grid_of(self, site: Site) -> Grid | None:
        """The grid that a site's tables were counted on."""
        return self.tables[site].grid

    def sites_at(self, t: float) -> list[Site]:
        """The site of every port whose t is nearest."""
        return [nearest_site(list(self.tables), str(port), self.branch, t) for port in self.ports]

    def predict(self, codes: Mapping[Site, SiteCodes], t: float, step: int) -> LayoutPrediction:
        """The layout of N pictures from their codes, made by the autoencoders of `sites_at(t)`."""
        sites = self.sites_at(t)
        inputs = inputs_of([(evidence_maps(self.tables[s], codes[s]), self.tables[s].grid) for s in sites],
                           self.prior, self.grid)  # fmt: skip
        fit = self.fits[nearest_t(self.fits, t)]
        where = fit.where.probabilities(inputs).transpose(0, 2, 1)
        shape = (len(where), len(self.concepts), *self.grid)
        cuts = np.repeat(fit.where.thresholds[None], len(where), axis=0)
        return LayoutPrediction(t, step, self.concepts, where.reshape(shape), cuts, fit.peaks(inputs))


def finest(grids: list[Grid]) -> Grid:
    """The grid with the most cells."""
    return max(grids, key=lambda grid: (grid[0] * grid[1], grid))


def fit_layout(run: LayoutRun, saes: GivenSaes | None = None, branch: str = "cond", *, signal: str = "") -> LayoutModel:
    """Fit a predictor on the discovery pictures of a run, from its tables alone.

    Args:
        saes: per site, or a configuration's ``saes``, for use inside a running pipeline.
        branch: ``cond`` or ``uncond``.
        signal: what autoencoders that are loaded read where they do not say it (``sae_check.signal``).
    Raises:
        InputError: the run has no site of the image stream on that branch, or `saes` lacks one.
    """
    sites = require_branch(run, branch)
    known = None if saes is None else loaded_saes(saes, sites, signal=signal)
    missing = [site for site in sites if known is not None and site not in known]
    if missing:
        raise InputError(f"No autoencoder was given for {missing[0].slug}.")
    grid = finest([run.grids[site] for site in sites])
    images = run.of_split("discovery")
    truth = run.truth(grid, images)
    tables = {site: run.tables[site] for site in sites}
    on_grid = next(table for table in tables.values() if table.grid == grid)
    fits = {}
    for t in sorted({site.t for site in sites}, reverse=True):
        parts = []
        for site in sorted(s for s in sites if s.t == t):
            codes, own_truth = run.codes(site, images), run.truth(run.grids[site], images)
            own = own_counts(tables[site], codes, own_truth)
            parts.append((evidence_maps(tables[site], codes, own), run.grids[site]))
        fits[t] = LayoutFit.of(inputs_of(parts, on_grid.prior(truth), grid), truth)
    chosen = {} if known is None else {site: known[site] for site in sites}
    return LayoutModel(branch, tables, chosen, fits, on_grid.prior(), grid)
