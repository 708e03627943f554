"""Which pairs of a feature and a concept are tested, and what the two nulls say of them.

A pair is tested where chance would bring the two together often enough: (pictures with the feature) x (pictures with
the concept) / pictures >= `min_expected`. A filter on the observed overlap would pick the pairs that came together by
chance, and their p-values would no longer be even under the null. A tested pair that overlaps no more than expected is
given p = 1 without drawing; it counts among the tests all the same.

The second null (labeling/rules/where.py) is a question about the pairs that the first one let pass, and they are its
family: a few pictures allow few orders, whose p would drown in the number of pairs that do not even go together. A
pair's place is known when both are rejected, so that `where_q_value` is the larger of the two q. Of what is rejected
twice, at most `max_q` may go with the concept by chance, and `max_q` be where it is by chance.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_arrays
from gazetteer.labeling.evidence.view import SplitEvidence, views
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.labels import NULLS
from gazetteer.labeling.rules.null import p_values
from gazetteer.labeling.rules.where import where_values

Floats = NDArray[np.float64]


def pair_significance(
    codes: SiteCodes, maps: ConceptMaps, evidence: pa.Table, config: LabelConfig = LabelConfig()
) -> pa.Table:
    """p and q of every tested pair of a site that co-occurs in a discovery image.

    Args:
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`.
        evidence: summed evidence of the same images, rows of other sites unread.
        config: thresholds and sampling.
    Returns:
        NULLS; q by Benjamini-Hochberg over the site's tested pairs, those that never meet included.
    """
    site = codes.site
    discovery = views(evidence).get(site, {}).get("discovery")
    if discovery is None:
        return NULLS.empty_table()
    expected, tests = expectations(discovery, config.min_expected)
    rows = np.flatnonzero(expected >= config.min_expected)
    feature = discovery.features[discovery.row[rows]]
    number = {name: i for i, name in enumerate(maps.concepts)}
    concept = np.array([number[name] for name in discovery.concepts], np.int64)[discovery.concept[rows]]
    p = np.ones(len(rows))
    more = np.flatnonzero(discovery.intersection[rows] > discovery.expected_intersection()[rows])
    p[more] = p_values(codes, maps, feature[more], concept[more], config=config.null)
    q = q_values(p, tests)
    lift, where_p, where_q = np.full((3, len(rows)), np.nan)
    known = np.flatnonzero(q <= config.max_q)
    if len(known):
        lift[known], where_p[known] = where_values(codes, maps, feature[known], concept[known], config=config.null)
        where_q[known] = np.maximum(q[known], q_values(where_p[known], len(known)))
    columns = [
        *site_arrays(site, len(p)).values(), pa.array(feature.astype(np.int32)),
        pa.array(discovery.concepts, pa.string()).take(pa.array(discovery.concept[rows])), pa.array(p), pa.array(q),
        *(pa.array(values, mask=np.isnan(values)) for values in (lift, where_p, where_q)),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=NULLS)


def expectations(discovery: SplitEvidence, least: float) -> tuple[Floats, int]:
    """Pictures that chance would give both, of every pair that meets [T], and how many pairs have at least `least`."""
    each = discovery.feature_images / max(discovery.images, 1)
    pairs = each[discovery.row] * discovery.concept_images[discovery.concept]
    tests = sum(int((each * count >= least).sum()) for count in discovery.concept_images if count > 0)
    return pairs, tests


def q_values(p: Floats, tests: int) -> Floats:
    """Benjamini-Hochberg over `tests` p-values, of which those that are not in `p` are 1."""
    if not len(p):
        return p
    padded: Floats = false_discovery_control(np.concatenate((p, np.ones(max(0, tests - len(p))))))
    return padded[: len(p)]
