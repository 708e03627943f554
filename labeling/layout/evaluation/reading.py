"""What the methods of layout prediction read at one sampler step: evidence maps, codes, what was seen of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import inputs_of
from gazetteer.labeling.layout.evaluation.group import Group
from gazetteer.labeling.layout.evaluation.model_pass import PassRecord
from gazetteer.labeling.layout.label_layout import LabelLayout, best_block
from gazetteer.labeling.layout.label_weights import columns_of, label_weights
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.model import finest
from gazetteer.labeling.layout.own_counts import OwnCounts, own_counts
from gazetteer.labeling.layout.run import LayoutRun, nearest_site
from gazetteer.labeling.layout.score_maps import evidence_maps
from gazetteer.labeling.layout.site_table import SiteTable
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Floats = NDArray[np.float32]

Place = tuple[str, str]
"""What is listened to, as text (`gazetteer.data.core.sites.Port`: a block, as a rule), and branch."""


def at(place: Place, t: float) -> Site:
    """The site of a place at a moment."""
    return Port.parse(place[0]).site(place[1], t)


@dataclass(frozen=True)
class SamplerStep:
    """A sampler step at which a run is read.

    Attributes:
        saes: per site of the run; needed where codes are not stored.
        t: 1.0 = first step, 0.0 = last.
    """

    run: LayoutRun
    saes: Mapping[Site, SparseAutoencoder]
    t: float

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every block and branch of the run, sorted."""
        return tuple(sorted({(str(site.port), site.branch) for site in self.run.grids}))

    @cached_property
    def cond(self) -> tuple[Place, ...]:
        """Those of the cond branch."""
        return tuple(place for place in self.places if place[1] == "cond")

    @cached_property
    def grid(self) -> Grid:
        """The finest of the run's."""
        return finest(list(self.run.grids.values()))

    @cached_property
    def table(self) -> SiteTable:
        """That of a site on `grid`, for the prior."""
        return next(table for table in self.run.tables.values() if table.grid == self.grid)

    @cached_property
    def labels(self) -> LabelLayout | None:
        """What the run's candidates say of the cond branch by themselves; None where nothing is sure there."""
        return self._of_table("candidates")

    @cached_property
    def winners(self) -> LabelLayout | None:
        """The same of the labels that won their features."""
        return self._of_table("labels")

    def _of_table(self, name: str) -> LabelLayout | None:
        every = label_weights(self.run.store.read_final(name, columns_of(name)), self.run.concepts)
        if not any(site.branch == "cond" for site in every):
            return None
        block = best_block(every, "cond")
        chosen = {site: sae for site, sae in every.items() if (str(site.port), site.branch) == (block, "cond")}
        return LabelLayout("cond", self.run.concepts, chosen, {})

    def readable(self, layout: LabelLayout) -> bool:
        """Whether the codes that labels need are at hand: those that a run stored of a step are of that step's
        autoencoders, and labels of another t are of others."""
        return not self.stored or any(abs(site.t - self.t) < 1e-4 for site in layout.sites_at(self.t))

    @property
    def stored(self) -> bool:
        """Whether the run stored codes of this step."""
        return any(abs(site.t - self.t) < 1e-4 for site in self.run.grids)

    @property
    def nearest_t(self) -> float:
        """The run's t next to this step."""
        return self.site(self.cond[0]).t

    @property
    def middle_t(self) -> float:
        """The middle one of the run's."""
        known = sorted({site.t for site in self.run.grids})
        return known[len(known) // 2]

    def site(self, place: Place, t: float | None = None) -> Site:
        """The run's site at a place nearest to this step, or to another t."""
        return nearest_site(list(self.run.grids), *place, self.t if t is None else t)


class Reading:
    """What is read of some pictures at a step; evidence maps are made once, for all methods.

    With `training` each picture's own counts are taken out of the tables before it is scored with them.
    """

    def __init__(self, step: SamplerStep, pictures: Group, training: bool = False) -> None:
        self.step, self.pictures, self.training = step, pictures, training
        self._evidence: dict[tuple[Place, float], tuple[Floats, Grid]] = {}
        self._own: dict[Site, OwnCounts] = {}

    @property
    def seen(self) -> PassRecord:
        """What was seen when the pictures were sampled again; InputError when they were not."""
        if self.pictures.seen is None:
            raise InputError(f"These pictures were not sampled again; nothing was seen of them at t={self.step.t:.2f}.")
        return self.pictures.seen

    @cached_property
    def truth(self) -> Truth:
        """The masks on the step's grid."""
        return self.pictures.truth(self.step.grid)

    @cached_property
    def prior(self) -> Floats:
        """Mean masks, float32 [1 or N, cells, C]: in training of all other pictures."""
        return self.step.table.prior(self.truth if self.training else None)

    def codes(self, place: Place, site: Site) -> SiteCodes:
        """The codes at this step by the autoencoder of `site`: stored ones where there are."""
        run, pictures, t = self.step.run, self.pictures, self.step.t
        if pictures.stored and abs(site.t - t) < 1e-4:
            return run.codes(site, pictures.rows)
        if pictures.seen is None:
            raise InputError(f"The run stores no codes at t={t:.2f}.")
        return pictures.seen.codes(at(place, t), site, self.step.saes[site])

    def own(self, site: Site) -> OwnCounts | None:
        """In training what the pictures added to the table of a site."""
        if not self.training:
            return None
        if site not in self._own:
            run, rows = self.step.run, self.pictures.rows
            truth = run.truth(run.grids[site], rows)
            self._own[site] = own_counts(run.tables[site], run.codes(site, rows), truth)
        return self._own[site]

    def evidence(self, place: Place, t: float | None = None) -> tuple[Floats, Grid]:
        """Evidence maps [N, cells, C] of a place with the tables of the nearest t, or of another, and their grid."""
        site = self.step.site(place, t)
        if (place, site.t) not in self._evidence:
            run = self.step.run
            maps = evidence_maps(run.tables[site], self.codes(place, site), self.own(site))
            self._evidence[place, site.t] = maps, run.grids[site]
        return self._evidence[place, site.t]

    def inputs(self, places: Sequence[Place], *, t: float | None = None, with_prior: bool = True) -> Floats:
        """What a calibration reads (`inputs_of`) of the evidence at some places."""
        parts = [self.evidence(place, t) for place in places]
        return inputs_of(parts, self.prior if with_prior else None, self.step.grid)
