"""The reduction of a run folder as work that can be shared out: masks shard by shard, then statistics site by site.

Workers of an executor read from the run what they need, so that nothing but the pooled masks (a few numbers a segment),
what the tests say (a few numbers a pair) and the finished tables travels. A large site is cut by its features: first
every stretch of them is tested, then, once the false discovery rates are known, which need the whole site, every
stretch becomes rows of the tables. A worker's memory holds the codes and the summed evidence of its stretch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.heap import freed_memory_kept
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, read_concepts
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.prompt_words import join_words, read_words
from gazetteer.labeling.evidence.run_codes import range_codes, range_evidence, sites_codes
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.styles import read_looks
from gazetteer.labeling.rules.reduce import Tests, Verdicts, columns_for, reduce_site, require_known, site_tests

SLOTS = 14_000_000
"""Slots of codes that a worker looks at together: at twice as many it held up to 14 GB (docs/results/jobs.md)."""

PAIRS = 2**24
"""Features x concepts of which a worker holds what each explains of the other: 1 GB while it does."""

SiteTables = dict[Site, tuple[pa.Table, pa.Table]]
"""Per site its candidates and features."""


@dataclass(frozen=True)
class Pictures:
    """What sites are compared with, of I images sorted by id.

    Attributes:
        maps: where each concept is in them.
        looks: bool [I, styles], which of the styles asked for each of them has (`styles.read_looks`).
        words: where each word is in the text stream of their prompts; None where no site listens to it.
    """

    maps: ConceptMaps
    looks: NDArray[np.bool_]
    words: ConceptMaps | None = None

    def maps_of(self, site: Site) -> ConceptMaps:
        """What a site is compared with."""
        maps = self.words if site.stream == TEXT else self.maps
        assert maps is not None
        return maps


@dataclass(frozen=True)
class PictureReader:
    """Decodes and pools the masks of some shards of the run at `path` to `grids`, and reads the looks of its images.

    places: of the text stream, whose words are read too; 0: nobody listens to it.
    given: the pictures were given, not drawn of their prompts.
    """

    path: str
    grids: Collection[Grid]
    config: LabelConfig
    places: int = 0
    given: bool = False

    def run(self, items: Sequence[str]) -> Pictures:
        """Those of the images of these shards."""
        run = RunFolder(self.path)
        images = run.read_table("images", items, columns=columns_for(self.config, self.places > 0))
        maps = read_concepts(images, run.read_table("segments", items), self.grids, by_prompt=not self.given)
        words = read_words(images, self.places) if self.places else None
        try:
            looks = read_looks(images, self.config.styles, self.config.style_classifier)
        except InputError as error:  # of tables alone: all that came before them serves with another one
            raise InputError(
                f"{error} The run's pictures and codes stay; it goes on with another labels.style_classifier."
            ) from error
        return Pictures(maps, looks, words)


def join_pictures(parts: Sequence[Pictures]) -> Pictures:
    """Those of all images from those of disjoint sets of them."""
    names = np.array([name for part in parts for name in part.maps.image_ids], np.str_)
    looks = np.concatenate([part.looks for part in parts])
    words = [part.words for part in parts if part.words is not None]
    maps = join_concepts([part.maps for part in parts])
    return Pictures(maps, looks[np.argsort(names, kind="stable")], join_words(words) if words else None)


@dataclass(frozen=True)
class SiteReducer:
    """Makes the tables of some sites of the run at `path`.

    Attributes:
        pictures: every image of the run.
        sizes: features of each site's autoencoder, by the sites as tables name them.
        model, config, images_wanted: see `gazetteer.labeling.rules.reduce.reduce_tables`.
    """

    path: str
    pictures: Pictures
    sizes: Mapping[Site, int]
    model: str
    config: LabelConfig
    images_wanted: int

    def run(self, items: Sequence[Site]) -> SiteTables:
        """The tables of these sites, read together and reduced one after the other."""
        run = RunFolder(self.path)
        codes = sites_codes(run, items)
        tables: SiteTables = {}
        for site in items:
            tables[site] = reduce_site(
                site, codes.pop(site), self.pictures.maps_of(site), self.pictures.looks, range_evidence(run, site),
                require_known(site, self.sizes), self.model, self.config, self.images_wanted,
            )  # fmt: skip
        return tables


def join_tables(parts: Sequence[SiteTables]) -> SiteTables:
    """The tables of a job that was done in parts."""
    return {site: tables for part in parts for site, tables in part.items()}


@dataclass(frozen=True)
class Stretch:
    """The features from `low` to `high` of a site, to be tested or, with `verdicts` on them, to become rows."""

    site: Site
    low: int
    high: int
    verdicts: Verdicts | None = None

    @property
    def slug(self) -> str:
        """Names it among the stretches of a run."""
        return f"{self.site.slug}-{self.low}-{'tables' if self.verdicts else 'tests'}"


def stretches(site: Site, features: int, slots: int, concepts: int) -> list[Stretch]:
    """A site cut so that a worker's memory holds every stretch; one that fits stays whole.

    How follows from the run alone, never from who works on it.

    Args:
        features: of its autoencoder; `slots`: of its codes in all pictures; `concepts`: of the run.
    """
    parts = max(-(-slots // SLOTS), -(-features * concepts // PAIRS), 1)
    edges = np.linspace(0, features, min(parts, max(features, 1)) + 1).astype(np.int64)
    return [Stretch(site, int(low), int(high)) for low, high in pairwise(edges)]


@dataclass(frozen=True)
class StretchReducer:
    """Tests stretches of sites of the run at `reducer.path`, or makes their rows."""

    reducer: SiteReducer

    def run(self, items: Sequence[Stretch]) -> list[Tests | tuple[pa.Table, pa.Table]]:
        """Of every stretch its tests, or its rows of candidates and features."""
        with freed_memory_kept():
            return [self._one(item) for item in items]

    def _one(self, item: Stretch) -> Tests | tuple[pa.Table, pa.Table]:
        reducer = self.reducer
        run, maps, looks = RunFolder(reducer.path), reducer.pictures.maps_of(item.site), reducer.pictures.looks
        count = require_known(item.site, reducer.sizes)
        # What no feature of the autoencoder can be comes with the last ones, and is refused with them.
        codes = range_codes(run, item.site, item.low, item.high if item.high < count else 2**31)
        if item.verdicts is None:
            return site_tests(codes, maps, looks, reducer.config)
        evidence = range_evidence(run, item.site, item.low, item.high)
        candidates, features = reduce_site(
            item.site, codes, maps, looks, evidence, count, reducer.model, reducer.config,
            reducer.images_wanted, item.verdicts,
        )  # fmt: skip
        return candidates, features.slice(item.low, item.high - item.low)
