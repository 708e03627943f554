"""A run as the layout experiments read it: tables, codes and masks, with the split kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, Site
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, read_concepts
from gazetteer.labeling.evidence.counts import sum_evidence
from gazetteer.labeling.evidence.pooling import Grid, cell_areas
from gazetteer.labeling.evidence.run_codes import picture_grids, site_codes
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.own_counts import own_counts, with_counts
from gazetteer.labeling.layout.site_table import SiteTable, site_tables
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.synonyms import Synonyms, read_synonyms

_SITES_KEPT = 8  # sites whose codes stay in memory


@dataclass(frozen=True)
class LayoutRun:
    """A finished run.

    Attributes:
        store: its folder.
        image_ids, prompts, seeds, splits: of N pictures, sorted by id.
        maps: their masks on every grid.
        grids: grid of every site.
        mentioned: bool [N, C], whether the prompt names the concept.
        synonyms: the concepts' other names, which name them as well.
        given: whether its pictures were given, so that nobody may have decided of some cells what they show.
    """

    store: RunFolder
    image_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    splits: NDArray[np.str_]
    maps: ConceptMaps
    grids: dict[Site, Grid]
    mentioned: NDArray[np.bool_]
    synonyms: Synonyms = field(default_factory=dict)
    given: bool = False
    _read: dict[Site, SiteCodes] = field(default_factory=dict, repr=False)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Sorted."""
        return self.maps.concepts

    @property
    def pixels(self) -> float:
        """Pixels of a picture, the mean when sizes differ."""
        return float(self.maps.sizes.prod(axis=1).mean())

    @cached_property
    def tables(self) -> dict[Site, SiteTable]:
        """What the tables know of every site, from discovery pictures.

        A layout speaks of every cell: those of given pictures of which nobody decided what they show, which evidence
        leaves out, count here as cells without the concept, for features, where things usually are, and masks alike.
        """
        evidence = sum_evidence([self.store.read_table("evidence", filter=pc.field("stream") == IMAGE)])
        images = self.of_split("discovery")
        undecided = {site: self.codes(site, images).undecided() for site in self.grids} if self.given else {}
        undecided = {site: codes for site, codes in undecided.items() if len(codes.value)}
        tables = site_tables(evidence, self.grids, self.pixels, undecided)
        for site, codes in undecided.items():
            own = own_counts(tables[site], codes, self.truth(self.grids[site], images))
            tables[site] = with_counts(tables[site], own)
        return tables

    def of_split(self, split: str, most: int = 0) -> NDArray[np.int64]:
        """Indices of the pictures of a split, the first `most` by id (ids are digests, so these are random)."""
        rows = np.flatnonzero(self.splits == split)
        return rows[:most] if most else rows

    def truth(self, grid: Grid, images: NDArray[np.int64]) -> Truth:
        """The masks of some pictures on a grid; a pair is wanted when the prompt names it and the picture shows it."""
        return truth_of(self.maps, self.mentioned, grid, self.pixels, images)

    def codes(self, site: Site, images: NDArray[np.int64]) -> SiteCodes:
        """The stored codes of some pictures at a site, in the order given (ascending indices), ignored cells too.

        Raises:
            InputError: a picture without codes there.
        """
        if site not in self._read:
            while len(self._read) >= _SITES_KEPT:
                self._read.pop(next(iter(self._read)))
            self._read[site] = site_codes(self.store, site)
        return take_images(self._read[site], [self.image_ids[i] for i in images])


def truth_of(
    maps: ConceptMaps, mentioned: NDArray[np.bool_], grid: Grid, pixels: float, images: NDArray[np.int64]
) -> Truth:
    """The masks of some pictures (int64 [n], in this order) on a grid; nothing is made of the others."""
    cells = grid[0] * grid[1]
    place = np.full(len(maps.image_ids), -1)
    place[images] = np.arange(len(images))
    row = place[maps.union_image]
    known = row >= 0
    counts = np.zeros((len(images), len(maps.concepts), cells), np.int32)
    counts[row[known], maps.union_concept[known]] = maps.pixels[grid][known]
    areas, shown = np.full(cells, pixels / cells), counts.any(axis=2)
    own = np.array([cell_areas((int(h), int(w)), grid) for h, w in maps.sizes[images]]).reshape(-1, cells)
    covered: NDArray[np.int32] | NDArray[np.float32] = counts
    if (own != areas).any():  # pictures or cells of several sizes: what share of each cell is covered
        covered = (counts * (areas / np.maximum(own, 1))[:, None, :]).astype(np.float32)
    return Truth(covered, areas, mentioned[images] & shown, maps.asked[images])


def open_run(run: Any) -> LayoutRun:
    """Read a finished run.

    Raises:
        InputError: it is not finished, or holds no pictures of one of the splits.
    """
    store = open_finished(run)
    columns = ["image_id", "prompt", "seed", "split", "width", "height", "asked"]
    images = store.read_table("images", columns=columns)
    grids = picture_grids(store)
    given = bool(given_setting(store.read_json("run.json") or {}))
    maps = read_concepts(images, store.read_table("segments"), grids.values(), by_prompt=not given)
    ordered = sorted(images.select(columns[:4]).to_pylist(), key=lambda row: row["image_id"])
    prompts, synonyms = tuple(row["prompt"] for row in ordered), read_synonyms(store)
    layout_run = LayoutRun(
        store, maps.image_ids, prompts, tuple(row["seed"] for row in ordered),
        np.array([row["split"] for row in ordered]), maps, grids, mentions(prompts, maps.concepts, synonyms),
        synonyms, given,
    )  # fmt: skip
    for split in ("discovery", "heldout"):
        if not len(layout_run.of_split(split)):
            raise InputError(f"{store.path} has no {split} pictures; a layout needs both splits (config key heldout).")
    return layout_run


def require_branch(run: LayoutRun, branch: str) -> list[Site]:
    """The run's sites of the image stream on a branch; InputError where it has none."""
    if not run.grids:
        raise InputError(
            f"{run.store.path} listens to words alone, which lie nowhere in a picture; a layout needs a site of the "
            "image stream (config key generation.streams)."
        )
    sites = [site for site in run.grids if site.branch == branch]
    if not sites:
        raise InputError(f"{run.store.path} has no site of the {branch} branch (config key generation.branches).")
    return sites


def mentions(
    prompts: Sequence[str], concepts: Sequence[str], synonyms: Synonyms = MappingProxyType({})
) -> NDArray[np.bool_]:
    """Whether each prompt names each concept, by one of its `synonyms` too, plurals included: bool [N, C]."""
    index = ConceptIndex({concept: synonyms.get(concept, ()) for concept in concepts})
    named = [index.find(prompt)[0] for prompt in prompts]
    return np.array([[concept in those for concept in concepts] for those in named], np.bool_).reshape(
        len(prompts), len(concepts)
    )


def take_images(codes: SiteCodes, image_ids: Sequence[str]) -> SiteCodes:
    """The codes of some pictures, given in ascending order.

    Raises:
        InputError: a picture without codes.
    """
    place = {name: number for number, name in enumerate(codes.image_ids)}
    missing = [name for name in image_ids if name not in place]
    if missing:
        raise InputError(f"The picture {missing[0]} has no codes at {codes.site.slug}.")
    new = np.full(len(codes.image_ids), -1, np.int32)
    new[[place[name] for name in image_ids]] = np.arange(len(image_ids), dtype=np.int32)
    wanted = new[codes.image] >= 0
    return SiteCodes(
        codes.site, tuple(image_ids), codes.height, codes.width,
        new[codes.image[wanted]], codes.feature[wanted], codes.cell[wanted], codes.value[wanted],
        None if codes.ignored is None else codes.ignored[wanted],
    )  # fmt: skip


def nearest_site(sites: Sequence[Site], port: str, branch: str, t: float) -> Site:
    """The site of a port and branch whose t is nearest; of two equally near ones the earlier in sampling.

    port: as text (`gazetteer.data.core.sites.Port`).
    """
    here = [site for site in sites if str(site.port) == port and site.branch == branch]
    if not here:
        raise InputError(f"The run has no site at {port}, {branch}.")
    nearest = nearest_t([site.t for site in here], t)
    return next(site for site in here if site.t == nearest)


def nearest_t(known: Iterable[float], t: float) -> float:
    """The nearest to `t` of those known; of two equally near ones the earlier in sampling."""
    return min(known, key=lambda moment: (round(abs(moment - t), 6), -moment))
