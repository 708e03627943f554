"""From the tables of all shards to the tables a reader wants: candidates, labels, features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.sites import Site
from labeling.concept_maps import ConceptMaps, read_concepts
from labeling.evidence_view import views
from labeling.features import make_features
from labeling.labels import NULLS, LabelConfig, labels_of, make_candidates
from labeling.null import false_discovery, p_values
from labeling.site_codes import SiteCodes, codes_by_site


def pair_significance(
    codes: Mapping[Site, SiteCodes], maps: ConceptMaps, evidence: pa.Table, config: LabelConfig = LabelConfig()
) -> pa.Table:
    """p and q of every pair of every site that co-occurs in at least `config.min_images` discovery images.

    Args:
        codes: each site's codes.
        maps: the concepts' maps at every grid of `codes`.
        evidence: summed evidence of the same images.
        config: thresholds and sampling.
    Returns:
        NULLS, one row per tested pair; q by Benjamini-Hochberg within the site.
    """
    parts = []
    number = {name: i for i, name in enumerate(maps.concepts)}
    for site, splits in views(evidence).items():
        found = splits.get("discovery")
        if found is None or site not in codes:
            continue
        tested = np.flatnonzero(found.both >= config.min_images)
        feature = found.features[found.row[tested]]
        names = np.array([number[name] for name in found.concepts], np.int64)
        p = p_values(codes[site], maps, feature, names[found.concept[tested]], config=config.null)
        columns = [
            pa.repeat(site.block, len(p)), pa.repeat(site.branch, len(p)),
            pa.array(np.full(len(p), site.t, np.float32)), pa.array(feature.astype(np.int32)),
            pa.array(found.concepts, pa.string()).take(pa.array(found.concept[tested])),
            pa.array(p), pa.array(false_discovery(p)),
        ]  # fmt: skip
        parts.append(pa.Table.from_arrays(columns, schema=NULLS))
    return pa.concat_tables(parts) if parts else NULLS.empty_table()


def reduce_tables(
    images: pa.Table,
    codes: pa.Table,
    segments: pa.Table,
    evidence: pa.Table,
    feature_counts: Mapping[Site, int],
    model: str,
    config: LabelConfig = LabelConfig(),
    images_wanted: int = 0,
) -> dict[str, pa.Table]:
    """The final tables of a run.

    Args:
        images, codes, segments: the run's tables (schemas.IMAGES, CODES, SEGMENTS), rows in any order.
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
    flat = codes_by_site(codes)
    maps = read_concepts(images, segments, {(one.height, one.width) for one in flat.values()})
    candidates = make_candidates(evidence, pair_significance(flat, maps, evidence, config), model, config)
    features = make_features(flat, candidates, feature_counts, model, images_wanted)
    return {"labels": labels_of(candidates), "candidates": candidates, "features": features}
