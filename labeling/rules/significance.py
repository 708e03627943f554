"""Which pairs of a feature and a concept are tested, and what the two nulls say of them.

A pair is tested where chance would bring the two together often enough: (pictures with the feature) x (pictures with
the concept) / pictures >= `min_expected`. A filter on the observed overlap would pick the pairs that came together by
chance, and their p-values would no longer be even under the null. A tested pair that overlaps no more than expected is
given p = 1 without drawing; it counts among the tests all the same.

Pictures of one prompt are one witness: all of this looks at one of them (`ConceptMaps.one_a_prompt`).

The second null (labeling/rules/where.py) is a question about the pairs that the first one let pass, and they are its
family: a few pictures allow few orders, whose p would drown in the number of pairs that do not even go together. A
pair's place is known when both are rejected, so that `where_q_value` is the larger of the two q. Of what is rejected
twice, at most `max_q` may go with the concept by chance, and `max_q` be where it is by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_arrays
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.labels import NULLS
from gazetteer.labeling.rules.meetings import meetings
from gazetteer.labeling.rules.null import p_values
from gazetteer.labeling.rules.where import where_values

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairTests:
    """What shuffling says of the T tested pairs of a site's features, or of some of them, that meet.

    Attributes:
        feature, concept: int64 [T], by feature, then concept; concepts as `ConceptMaps.concepts` numbers them.
        p: float64 [T], of the first null.
        lift, where_p: float64 [T], of the second; NaN where the first one cannot be rejected.
        count: tested pairs, those that never meet included.
    """

    feature: Ints
    concept: Ints
    p: Floats
    lift: Floats
    where_p: Floats
    count: int


def pair_tests(codes: SiteCodes, maps: ConceptMaps, config: LabelConfig = LabelConfig()) -> PairTests:
    """Test every pair that co-occurs in a discovery picture often enough.

    Args:
        codes: of a site, or of some of its features.
        maps: the concepts' maps at the grid of `codes`.
        config: thresholds and sampling.
    """
    maps = maps.one_a_prompt()
    met = meetings(codes, maps)
    each = met.feature_images / max(met.images, 1)
    rows = np.flatnonzero(each[met.row] * met.concept_images[met.concept] >= config.min_expected)
    count = sum(int((each * shown >= config.min_expected).sum()) for shown in met.concept_images if shown > 0)
    feature, concept = met.features[met.row[rows]], met.concept[rows]
    p, lift, where_p = np.ones(len(rows)), *np.full((2, len(rows)), np.nan)
    more = np.flatnonzero(met.intersection[rows] > met.expected[rows])
    p[more] = p_values(codes, maps, feature[more], concept[more], config=config.null)
    maybe = np.flatnonzero(p <= config.max_q)  # q, which needs all pairs of the site, is never below p
    if len(maybe):
        lift[maybe], where_p[maybe] = where_values(codes, maps, feature[maybe], concept[maybe], config=config.null)
    return PairTests(feature, concept, p, lift, where_p, count)


def join_tests(parts: Sequence[PairTests]) -> PairTests:
    """Of a site from those of its features in ascending stretches."""
    names = ("feature", "concept", "p", "lift", "where_p")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], count=sum(part.count for part in parts), **arrays)


def significance(
    site: Site, tests: PairTests, concepts: Sequence[str], config: LabelConfig = LabelConfig()
) -> pa.Table:
    """p and q of every tested pair of a site that co-occurs in a discovery image.

    Args:
        tests: of all features of the site.
        concepts: their names, as `tests` numbers them.
    Returns:
        NULLS; q by Benjamini-Hochberg over the site's tested pairs, those that never meet included.
    """
    q = q_values(tests.p, tests.count)
    known = q <= config.max_q
    lift, where_p = (np.where(known, values, np.nan) for values in (tests.lift, tests.where_p))
    where_q = np.full(len(q), np.nan)
    where_q[known] = np.maximum(q[known], q_values(where_p[known], int(known.sum())))
    columns = [
        *site_arrays(site, len(q)).values(), pa.array(tests.feature.astype(np.int32)),
        pa.array(concepts, pa.string()).take(pa.array(tests.concept)), pa.array(tests.p), pa.array(q),
        *(pa.array(values, mask=np.isnan(values)) for values in (lift, where_p, where_q)),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=NULLS)


def q_values(p: Floats, tests: int) -> Floats:
    """Benjamini-Hochberg over `tests` p-values, of which those that are not in `p` are 1."""
    if not len(p):
        return p
    padded: Floats = false_discovery_control(np.concatenate((p, np.ones(max(0, tests - len(p))))))
    return padded[: len(p)]
