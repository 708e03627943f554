"""Does a feature know *where* a concept is? The null among the pictures that show it.

Shuffling all pictures (labeling/rules/null.py) asks whether feature and concept go together at all: a feature that
fires at random cells in every picture of the sea passes for "sea". Here only the pictures that have both are shuffled,
feature maps and concept maps kept whole. With a_i the feature's support in picture i, M_i the share of each cell that
the concept covers, and n such pictures,

    W = sum over i of <a_i, M_i> / |a_i|          (how much of the support lies on the concept, picture by picture)
    E = sum over cells of (sum of a_i / |a_i|) (sum of M_i) / n           (its mean over all shuffles)

`where_lift` is W / E. Supports count by their share, so that firing in more cells where the concept is larger is no
knowledge of its place. p: the pictures, in a random order, are cut into blocks of four to seven; each block takes one
of all orders of its concept maps, independently of the others (a group, so p is valid at any n). All combinations are
counted where they are few; otherwise they are drawn, where a bound does not say already that p is below what draws
resolve (labeling/rules/tails.py).
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import cell_areas
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.null import NullConfig, seeded
from gazetteer.labeling.rules.tails import tail_bound

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 4
_CLOSE = 1e-9  # sums of shares of equal size differ by rounding


def where_values(
    codes: SiteCodes,
    maps: ConceptMaps,
    feature: Ints,
    concept: Ints,
    split: str = "discovery",
    config: NullConfig = NullConfig(),
) -> tuple[Floats, Floats]:
    """`where_lift` and p of every pair of a feature and a concept at one site, float64 [T] each.

    Args:
        codes, maps, feature, concept, split: as `null.p_values`.
        config: `permutations`, `orders` and `seed` count.
    Returns:
        A pair that shares fewer than two pictures has p 1; one without overlap that could be expected, lift NaN.
    """
    image = image_places(codes, maps)
    owner = image[codes.image]
    grid = (codes.height, codes.width)
    order = np.argsort(codes.feature, kind="stable")
    order = order[maps.splits[owner[order]] == split]
    fired = codes.feature[order]
    by_concept = {int(c): np.flatnonzero(maps.union_concept == c) for c in np.unique(concept)}
    sizes, which = np.unique(maps.sizes, axis=0, return_inverse=True)
    areas = np.maximum(np.stack([cell_areas((int(h), int(w)), grid) for h, w in sizes]), 1)
    lift, p = np.full(len(feature), np.nan), np.ones(len(feature))
    for number in np.argsort(feature, kind="stable"):
        low, high = np.searchsorted(fired, (feature[number], feature[number] + 1))
        slots = order[low:high]
        unions = by_concept[int(concept[number])]
        images = maps.union_image[unions]  # ascending
        of = np.flatnonzero(np.isin(images, owner[slots], kind="table"))
        both = images[of]
        if len(both) < 2:
            continue
        key = (codes.site.slug, "where", config.seed, maps.concepts[concept[number]], int(feature[number]))
        own = slots[np.isin(owner[slots], both)]
        supports = np.zeros((len(both), codes.cells))
        supports[np.searchsorted(both, owner[own]), codes.cell[own]] = 1.0
        supports /= supports.sum(axis=1, keepdims=True)
        covered = maps.pixels[grid][unions[of]] / areas[which.ravel()[both]]
        lift[number], p[number] = _one(supports, covered, config, key)
    return lift, p


def _one(supports: Floats, covered: Floats, config: NullConfig, key: tuple[object, ...]) -> tuple[float, float]:
    """Lift and p of one pair from supports and cover [n, cells] of the pictures with both."""
    size = len(supports)
    observed = float((supports * covered).sum())
    expected = float(supports.sum(axis=0) @ covered.sum(axis=0)) / size
    p = [_p_in_order(supports[o], covered[o], config, (*key, n)) for n, o in enumerate(_orders(size, config, key))]
    return observed / expected if expected > 0 else np.nan, float(np.mean(p))


def _orders(size: int, config: NullConfig, key: tuple[object, ...]) -> list[Ints]:
    # One block holds every order of its pictures, so that a second order of them would say the same.
    count = config.orders if size >= 2 * BLOCK else 1
    return [seeded(*key, "order", number).permutation(size) for number in range(count)]


def _p_in_order(supports: Floats, covered: Floats, config: NullConfig, key: tuple[object, ...]) -> float:
    size = len(supports)
    blocks = np.array_split(np.arange(size), max(1, size // BLOCK))
    groups: dict[int, list[Ints]] = {}
    for block in blocks:
        groups.setdefault(len(block), []).append(block)
    outcomes = []  # [orders, blocks of this length]; the first order is the observed one
    for length, members in groups.items():
        places = np.stack(members)
        pairs = np.einsum("bic,bjc->bij", supports[places], covered[places])
        outcomes.append(pairs[:, np.arange(length), _all_orders(length)].sum(axis=2).T)
    observed = sum(float(part[0].sum()) for part in outcomes)
    reached = observed - _CLOSE * max(1.0, abs(observed))
    if len(blocks) == 1:
        return float((outcomes[0] >= reached).mean())
    bound = float(tail_bound([(part[:, :, None], 1.0) for part in outcomes], np.array([reached]))[0])
    if bound * (1 + config.permutations) <= 1:  # less than draws could say
        return bound
    random = seeded(*key, "draws")
    total = np.zeros(config.permutations)
    for part in outcomes:
        drawn = random.integers(0, len(part), (config.permutations, part.shape[1]))
        total += part[drawn, np.arange(part.shape[1])].sum(axis=1)
    return min(bound, float(1 + (total >= reached).sum()) / (1 + config.permutations))


@cache
def _all_orders(length: int) -> Ints:
    """Every order of so many things, the identity first: int64 [length!, length]."""
    return np.array(list(permutations(range(length))), np.int64)
