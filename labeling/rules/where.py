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

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import cell_areas
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import NullConfig
from gazetteer.labeling.rules.null import prompt_lengths, seeded
from gazetteer.labeling.rules.tails import tail_bound_of_one

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
    lift, p = np.full(len(feature), np.nan), np.ones(len(feature))
    fires = _Fires.of(codes, maps, split, feature)
    grid = (codes.height, codes.width)
    sizes, which = np.unique(maps.sizes, axis=0, return_inverse=True)
    areas = np.maximum(np.stack([cell_areas((int(h), int(w)), grid) for h, w in sizes]), 1)
    place, lengths = np.full(len(maps.image_ids), -1), prompt_lengths(codes, maps)
    for number in np.unique(concept):
        unions = np.flatnonzero(maps.union_concept == number)
        images_of = maps.union_image[unions]
        covered = maps.pixels[grid][unions] / areas[which.ravel()[images_of]]
        place[images_of] = np.arange(len(unions))
        length = None if lengths is None else lengths[images_of]
        pairs = np.flatnonzero(concept == number)
        met = [fires.meet(int(feature[pair]), place) for pair in pairs]
        rows = np.concatenate([np.zeros(0, np.int64), *(meeting.union for meeting in met)])
        ends = np.cumsum([0, *(len(meeting.union) for meeting in met)])
        total = sp.csr_array((np.ones(len(rows)), rows, ends), (len(pairs), len(unions))) @ covered
        for row, (pair, meeting) in enumerate(zip(pairs, met, strict=True)):
            if len(meeting.union) >= 2:
                key = (codes.site.slug, "where", config.seed, maps.concepts[number], int(feature[pair]))
                lift[pair], p[pair] = _one(meeting, covered, total[row], config, key, length)
        place[images_of] = -1
    return lift, p


@dataclass(frozen=True)
class _Met:
    """The n pictures, ascending, in which a feature and a concept meet.

    Attributes:
        union: int64 [n], row of the concept's cover.
        starts, sizes: int64 [n], where the feature's cells of a picture begin in `cell`, and how many they are.
        cell: int32, the feature's cells in all pictures of the split.
    """

    union: Ints
    starts: Ints
    sizes: Ints
    cell: NDArray[np.int32]

    def cells(self, order: Ints) -> tuple[NDArray[np.int32], Ints]:
        """The cells of the pictures in an order, end to end, and where each picture's begin."""
        sizes = self.sizes[order]
        firsts = np.cumsum(sizes) - sizes
        return self.cell[np.repeat(self.starts[order] - firsts, sizes) + np.arange(sizes.sum())], firsts


@dataclass(frozen=True)
class _Fires:
    """Where and in which pictures of a split every feature fires.

    Attributes:
        cell: int32 [E], by feature, then picture, then cell.
        image, starts, sizes: int64 [R], of every (feature, picture): the picture, its first cell, how many.
        runs: {feature: (first, last + 1) of its R}.
    """

    cell: NDArray[np.int32]
    image: Ints
    starts: Ints
    sizes: Ints
    runs: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, codes: SiteCodes, maps: ConceptMaps, split: str, wanted: Ints) -> _Fires:
        image = image_places(codes, maps)
        wanted_mask = np.zeros(1 + max(int(codes.feature.max(initial=0)), int(wanted.max(initial=0))), np.bool_)
        wanted_mask[wanted] = True
        slots = np.flatnonzero((maps.splits == split)[image][codes.image] & wanted_mask[codes.feature])
        slots = slots[np.argsort(codes.feature[slots], kind="stable")]
        feature, owner = codes.feature[slots], image[codes.image[slots]]
        starts = np.flatnonzero((np.diff(feature, prepend=-1) != 0) | (np.diff(owner, prepend=-1) != 0))
        names = np.unique(wanted)
        first, last = (np.searchsorted(feature[starts], names, side) for side in ("left", "right"))
        runs = {int(name): (int(a), int(b)) for name, a, b in zip(names, first, last, strict=True)}
        return cls(codes.cell[slots], owner[starts], starts, np.diff(np.append(starts, len(slots))), runs)

    def meet(self, feature: int, place: Ints) -> _Met:
        """The pictures of a feature that have a `place` [I] (-1: none)."""
        low, high = self.runs[feature]
        union = place[self.image[low:high]]
        kept = np.flatnonzero(union >= 0)
        return _Met(union[kept], self.starts[low:high][kept], self.sizes[low:high][kept], self.cell)


def _one(
    met: _Met, covered: Floats, total: Floats, config: NullConfig, key: tuple[object, ...], length: Ints | None
) -> tuple[float, float]:
    """Lift and p of one pair.

    Args:
        covered: [U, cells], the concept's maps; `total` [cells], the sum of those met.
        length: [U], of the prompts of a text stream, which change places with those of about their length.
    """
    size = len(met.union)
    cell, _ = met.cells(np.arange(size))
    weight = np.repeat(1 / met.sizes, met.sizes)
    observed = float((covered[np.repeat(met.union, met.sizes), cell] * weight).sum())
    expected = float(np.bincount(cell, weight, len(total)) @ total) / size
    orders = _orders(size, config, key)
    if length is not None:
        orders = [order[np.argsort(length[met.union[order]], kind="stable")] for order in orders]
    p = [_p_in_order(met, order, covered, config, (*key, n)) for n, order in enumerate(orders)]
    return observed / expected if expected > 0 else np.nan, float(np.mean(p))


def _orders(size: int, config: NullConfig, key: tuple[object, ...]) -> list[Ints]:
    # One block holds every order of its pictures, so that a second order of them would say the same.
    count = config.orders if size >= 2 * BLOCK else 1
    return [seeded(*key, "order", number).permutation(size) for number in range(count)]


def _blocks(size: int) -> list[tuple[int, int, int]]:
    """(first picture, blocks, pictures of each) of the blocks of equal length; the longer ones come first."""
    count = max(1, size // BLOCK)
    length, longer = divmod(size, count)
    parts = [(0, longer, length + 1), (longer * (length + 1), count - longer, length)]
    return [part for part in parts if part[1]]


def _p_in_order(met: _Met, order: Ints, covered: Floats, config: NullConfig, key: tuple[object, ...]) -> float:
    cell, firsts = met.cells(order)
    sizes, union = met.sizes[order], met.union[order]
    outcomes = []  # [orders, blocks of this length]; the first order is the observed one
    for first, blocks, length in _blocks(len(order)):
        last = first + blocks * length
        partners = union[first:last].reshape(blocks, length)
        begin = firsts[first]
        own_cells = cell[begin : firsts[last] if last < len(order) else None]
        slots = np.repeat(np.repeat(partners, length, axis=0), sizes[first:last], axis=0)
        lies_on = np.add.reduceat(covered[slots, own_cells[:, None]], firsts[first:last] - begin, axis=0)
        pairs = (lies_on / sizes[first:last, None]).reshape(blocks, length * length)
        outcomes.append(_choices(length) @ pairs.T)
    observed = sum(float(part[0].sum()) for part in outcomes)
    reached = observed - _CLOSE * max(1.0, abs(observed))
    if sum(part.shape[1] for part in outcomes) == 1:
        return float((outcomes[0] >= reached).mean())
    bound = tail_bound_of_one(outcomes, reached)
    if bound * (1 + config.permutations) <= 1:  # less than draws could say
        return bound
    random = seeded(*key, "draws")
    total = np.zeros(config.permutations)
    for part in outcomes:
        drawn = random.integers(0, len(part), (config.permutations, part.shape[1]))
        total += part[drawn, np.arange(part.shape[1])].sum(axis=1)
    return min(bound, float(1 + (total >= reached).sum()) / (1 + config.permutations))


@cache
def _choices(length: int) -> Floats:
    """Every order of so many things as 0 and 1, what takes which place: [length!, length * length]."""
    orders = _all_orders(length)
    chosen = np.zeros((len(orders), length, length))
    chosen[np.arange(len(orders))[:, None], np.arange(length), orders] = 1.0
    return chosen.reshape(len(orders), -1)


@cache
def _all_orders(length: int) -> Ints:
    """Every order of so many things, the identity first: int64 [length!, length]."""
    return np.array(list(permutations(range(length))), np.int64)
