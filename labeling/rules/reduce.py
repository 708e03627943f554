"""From the tables of all shards to the tables a reader wants: candidates, labels, features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pyarrow as pa
from scipy.stats import false_discovery_control

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import CANDIDATES, FEATURES
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, read_concepts
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site, same_site, site_arrays, site_order
from gazetteer.labeling.evidence.view import views
from gazetteer.labeling.rules.features import make_features
from gazetteer.labeling.rules.labels import NULLS, LabelConfig, labels_of, make_pairs
from gazetteer.labeling.rules.null import p_values
from gazetteer.labeling.rules.top_quantile import with_top_quantile


def pair_significance(
    codes: SiteCodes, maps: ConceptMaps, evidence: pa.Table, config: LabelConfig = LabelConfig()
) -> pa.Table:
    """p and q of every pair of a site that co-occurs in at least `config.min_images` discovery images.

    Args:
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`.
        evidence: summed evidence of the same images, rows of other sites unread.
        config: thresholds and sampling.
    Returns:
        NULLS, one row per tested pair; q by Benjamini-Hochberg within the site.
    """
    site = codes.site
    found = views(evidence).get(site, {}).get("discovery")
    if found is None:
        return NULLS.empty_table()
    number = {name: i for i, name in enumerate(maps.concepts)}
    tested = np.flatnonzero(found.both >= config.min_images)
    feature = found.features[found.row[tested]]
    names = np.array([number[name] for name in found.concepts], np.int64)
    p = p_values(codes, maps, feature, names[found.concept[tested]], config=config.null)
    columns = [
        *site_arrays(site, len(p)).values(), pa.array(feature.astype(np.int32)),
        pa.array(found.concepts, pa.string()).take(pa.array(found.concept[tested])),
        pa.array(p), pa.array(false_discovery_control(p)),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=NULLS)


def reduce_site(
    site: Site,
    codes: SiteCodes,
    maps: ConceptMaps,
    evidence: pa.Table,
    count: int,
    model: str,
    config: LabelConfig = LabelConfig(),
    images_wanted: int = 0,
) -> tuple[pa.Table, pa.Table]:
    """The candidates and features of one site; sites know nothing of one another, so any number may be done at once.

    Args:
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`, of every image of the run.
        evidence: the summed evidence of the site (schemas.EVIDENCE).
        count: features of its autoencoder.
        model, config, images_wanted: see `reduce_tables`.
    Returns:
        schemas.CANDIDATES and schemas.FEATURES.
    Raises:
        InputError: tables that contradict each other.
    """
    nulls = pair_significance(codes, maps, evidence, config)
    pairs = make_pairs(evidence, nulls, model, config)
    candidates = with_top_quantile(pairs, codes, maps, config.top_shares)
    return candidates, make_features(site, codes, candidates, count, model, images_wanted)


def join_sites(
    found: Mapping[Site, tuple[pa.Table, pa.Table]],
    feature_counts: Mapping[Site, int],
    model: str,
    images_wanted: int = 0,
) -> dict[str, pa.Table]:
    """The final tables from those of every site; a site without codes has dead features only.

    Args:
        found: per site what `reduce_site` returned.
        feature_counts: features of each site's autoencoder.
    """
    none = CANDIDATES.empty_table()
    whole = dict(found)
    for site, count in feature_counts.items():
        if site not in whole:
            whole[site] = none, make_features(site, None, none, count, model, images_wanted)
    order = sorted(whole, key=site_order)
    candidates = pa.concat_tables([none, *(whole[site][0] for site in order)]).combine_chunks()
    features = pa.concat_tables([FEATURES.empty_table(), *(whole[site][1] for site in order)]).combine_chunks()
    return {"labels": labels_of(candidates), "candidates": candidates, "features": features}


def known_sites(feature_counts: Mapping[Site, int]) -> dict[Site, int]:
    """The same counts by the sites as they read back from tables."""
    return {same_site(site): int(count) for site, count in feature_counts.items()}


def require_known(site: Site, sizes: Mapping[Site, int]) -> int:
    """Features of the autoencoder of `site`; InputError when none was named."""
    if site not in sizes:
        raise InputError(f"Codes exist at {site.slug}, for which no autoencoder was named.")
    return sizes[site]


def reduce_tables(
    images: pa.Table,
    codes: Iterable[tuple[Site, SiteCodes]],
    grids: Collection[Grid],
    segments: pa.Table,
    evidence: pa.Table,
    feature_counts: Mapping[Site, int],
    model: str,
    config: LabelConfig = LabelConfig(),
    images_wanted: int = 0,
) -> dict[str, pa.Table]:
    """The final tables of a run; one site's codes are looked at after the other.

    Args:
        images, segments: the run's tables (schemas.IMAGES, SEGMENTS), rows in any order.
        codes: the sites, each once, with their codes (`run_codes.all_codes`).
        grids: (height, width) of every grid of `codes`.
        evidence: the sum of the shards' evidence.
        feature_counts: features of each site's autoencoder.
        model: name of the model under study.
        config: trust thresholds and sampling of the null.
        images_wanted: images a feature should fire in (0: no wish).
    Returns:
        {"labels": ..., "candidates": ..., "features": ...} as schemas.FINAL_TABLES; a function of the run's
        content only, not of shards or row order.
    Raises:
        InputError: tables that contradict each other, or a corrupt mask.
    """
    maps = read_concepts(images, segments, grids)
    rows = rows_by_site(evidence)
    sizes = known_sites(feature_counts)
    found: dict[Site, tuple[pa.Table, pa.Table]] = {}
    for site, mine in codes:
        count = require_known(site, sizes)
        some = evidence.take(pa.array(rows.pop(site, np.zeros(0, np.int64))))
        found[site] = reduce_site(site, mine, maps, some, count, model, config, images_wanted)
    if rows:
        raise InputError(f"Evidence exists at {next(iter(rows)).slug}, where no picture has codes.")
    return join_sites(found, sizes, model, images_wanted)
