"""The reduction of a run folder as work that can be shared out: masks shard by shard, then statistics site by site.

Both are workers of an executor: each reads from the run what it needs, so that nothing but the pooled masks (a few
numbers a segment) and the finished tables travels. A site's memory holds its codes and its summed evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, read_concepts
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.prompt_words import join_words, read_words
from gazetteer.labeling.evidence.run_codes import sites_codes, sites_evidence
from gazetteer.labeling.evidence.site_codes import rows_by_site
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.styles import read_looks
from gazetteer.labeling.rules.reduce import columns_for, reduce_site, require_known

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


@dataclass(frozen=True)
class PictureReader:
    """Decodes and pools the masks of some shards of the run at `path` to `grids`, and reads the looks of its images.

    places: of the text stream, whose words are read too; 0: nobody listens to it.
    """

    path: str
    grids: Collection[Grid]
    config: LabelConfig
    places: int = 0

    def run(self, items: Sequence[str]) -> Pictures:
        """Those of the images of these shards."""
        run = RunFolder(self.path)
        images = run.read_table("images", items, columns=columns_for(self.config, self.places > 0))
        maps = read_concepts(images, run.read_table("segments", items), self.grids)
        words = read_words(images, self.places) if self.places else None
        return Pictures(maps, read_looks(images, self.config.styles, self.config.style_classifier), words)


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
        codes, evidence = sites_codes(run, items), sites_evidence(run, items)
        rows = rows_by_site(evidence)
        tables: SiteTables = {}
        for site in items:
            own_evidence = evidence.take(pa.array(rows[site])) if site in rows else evidence.slice(0, 0)
            maps = self.pictures.words if site.stream == TEXT else self.pictures.maps
            assert maps is not None
            tables[site] = reduce_site(
                site, codes.pop(site), maps, self.pictures.looks, own_evidence,
                require_known(site, self.sizes), self.model, self.config, self.images_wanted,
            )  # fmt: skip
        return tables


def join_tables(parts: Sequence[SiteTables]) -> SiteTables:
    """The tables of a job that was done in parts."""
    return {site: tables for part in parts for site, tables in part.items()}
