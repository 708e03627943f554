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
    found: dict[Site, tuple[pa.Table, pa.Table]] = {}
    sizes = {same_site(site): int(count) for site, count in feature_counts.items()}
    for site, mine in codes:
        if site not in sizes:
            raise InputError(f"Codes exist at {site.slug}, for which no autoencoder was named.")
        some = evidence.take(pa.array(rows.pop(site, np.zeros(0, np.int64))))
        nulls = pair_significance(mine, maps, some, config)
        pairs = make_pairs(some, nulls, model, config)
        candidates = with_top_quantile(pairs, mine, maps, config.top_shares)
        found[site] = candidates, make_features(site, mine, candidates, sizes[site], model, images_wanted)
    if rows:
        raise InputError(f"Evidence exists at {next(iter(rows)).slug}, where no picture has codes.")
    none = CANDIDATES.empty_table()
    for site in sizes.keys() - found.keys():
        found[site] = none, make_features(site, None, none, sizes[site], model, images_wanted)
    order = sorted(found, key=site_order)
    candidates = pa.concat_tables([none, *(found[site][0] for site in order)]).combine_chunks()
    features = pa.concat_tables([FEATURES.empty_table(), *(found[site][1] for site in order)]).combine_chunks()
    return {"labels": labels_of(candidates), "candidates": candidates, "features": features}
