"""The codes of a run as they lie on disk, site by site: all of them together may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.reading import SiteRows
from gazetteer.data.tables.schemas import CODES
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import (
    CODE_COLUMNS,
    SiteCodes,
    codes_by_site,
    codes_of_table,
    join_codes,
    rows_by_site,
)
from gazetteer.labeling.evidence.site_sum import UNMAPPED, SiteSum

READ_SLOTS = 2**26
"""Slots read at once: about 1 GB when flat, three times that while they are put in order."""

_SHAPE = [*SITE_COLUMNS, "height", "width", "k"]


def code_grids(run: RunFolder) -> dict[Site, Grid]:
    """Height and width in cells of every site of a run, sites in table order.

    Raises:
        InputError: a site with several grids.
    """
    return {site: grid for site, (grid, _) in code_shapes(run).items()}


def picture_grids(run: RunFolder) -> dict[Site, Grid]:
    """`code_grids` of the image stream: words lie nowhere in a picture."""
    return {site: grid for site, grid in code_grids(run).items() if site.stream == IMAGE}


def site_codes(run: RunFolder, site: Site) -> SiteCodes:
    """The codes of one site of a run; InputError when it has none."""
    by_site = codes_by_site(run.read_table("codes", filter=SiteRows(site.columns())))
    if not by_site:
        raise InputError(f"{run.path} has no codes at {site.slug}.")
    return next(iter(by_site.values()))


def all_codes(run: RunFolder, at_once: int = READ_SLOTS) -> Iterator[tuple[Site, SiteCodes]]:
    """Every site of a run with its codes, in table order, one after the other.

    Small sites are read together, so that a run of many shards is not gone through for each; what was handed out is
    not kept.

    Args:
        at_once: slots that may be read together; a site that has more is read alone.
    """
    for sites in site_batches({site: slots for site, (_, slots) in code_shapes(run).items()}, at_once):
        by_site = sites_codes(run, sites)
        for site in sites:
            yield site, by_site.pop(site)


def sites_codes(run: RunFolder, sites: Sequence[Site]) -> dict[Site, SiteCodes]:
    """The codes of some sites of a run, read together; naming the columns spares reading and hashing whole files."""
    wanted = reduce(or_, (SiteRows(site.columns()).expression for site in sites))
    return codes_by_site(run.read_table("codes", columns=CODES.names, filter=wanted))


def range_codes(run: RunFolder, site: Site, low: int, high: int) -> SiteCodes:
    """The slots of the features from `low` to `high` of one site of a run, read shard by shard: these alone are held.

    Raises:
        InputError: the site has no codes, several grids, or an image twice.
    """
    parts, own = [], SiteRows(site.columns())
    for shard in run.shard_ids():
        rows = run.read_table("codes", [shard], columns=CODE_COLUMNS, filter=own)
        if rows.num_rows:
            parts.append(codes_of_table(rows, site, (low, high)))
    if not parts:
        raise InputError(f"{run.path} has no codes at {site.slug}.")
    return join_codes(parts)


def range_evidence(run: RunFolder, site: Site, low: int = 0, high: int | None = None) -> pa.Table:
    """The summed evidence of these features of one site, and of its concepts and pictures, read shard by shard.

    Returns:
        schemas.EVIDENCE without maps: they are most of what would be read, and the codes that whoever asks for evidence
        has at hand say the same (`gazetteer.labeling.rules.meetings`).
    """
    own, total = SiteRows(site.columns(), low, high), SiteSum(site)
    for shard in run.shard_ids():
        total.add(run.read_table("evidence", [shard], columns=UNMAPPED, filter=own, encoded=True))
    return total.table()


def code_shapes(run: RunFolder) -> dict[Site, tuple[Grid, int]]:
    """Grid and number of slots of every site."""
    rows = run.read_table("codes", columns=_SHAPE)
    grids_slots: dict[Site, tuple[Grid, int]] = {}
    for site, numbers in rows_by_site(rows).items():
        shapes, counts = np.unique(
            np.stack([rows[name].to_numpy()[numbers] for name in ("height", "width", "k")], axis=1).astype(np.int64),
            axis=0, return_counts=True,
        )  # fmt: skip
        grids = {(int(height), int(width)) for height, width, _ in shapes}
        if len(grids) != 1:
            raise InputError(f"Codes of {site.slug} have several grids: {sorted(grids)}; one site needs one.")
        grids_slots[site] = grids.pop(), int((shapes.prod(axis=1) * counts).sum())
    return grids_slots


def site_batches(slots: dict[Site, int], at_once: int) -> Iterator[list[Site]]:
    """Consecutive sites with at most so many slots together, at least one each."""
    batch: list[Site] = []
    for site in slots:
        if batch and sum(slots[other] for other in [*batch, site]) > at_once:
            yield batch
            batch = []
        batch.append(site)
    if batch:
        yield batch
