"""The location-preserving null: how much would a feature and a concept overlap if they only shared their
places?

Images are shuffled while every feature map and every concept map is kept whole. "sky" lies at the top of
nearly every picture, so a feature that merely fires at the top overlaps it in any picture: its observed
overlap is no larger than that of shuffled images.

Statistic: T = sum over images of the pixels of <support of the feature, union of the concept>. Its mean over
all shuffles has a closed form (evidence_view.SplitEvidence.expected_intersection). Its distribution comes
from permutations made of cyclic shifts: the images, in a random order, are cut into blocks; within a block of
B images the sums for all B shifts come from one sparse product

    T_b[s] = sum over i of <A_i, M_(i + s mod B)>,    [features x (cells * B)] @ [(cells * B) x (B *
    concepts)],

and a permutation of the whole set takes an independent shift in every block, T = sum over b of T_b[s_b]. The
shifts of one order are a group, so p = (1 + #{T >= T observed}) / (1 + P) is valid at any size of the set;
several orders make it depend less on who shares a block with whom. All sums are exact integers. Below what P
permutations resolve stands a bound of the same distribution (labeling/rules/tails.py), so that p has no floor
which many tests could not pass.

A support is a few cells of a few hundred features: the sparse product costs (active cells) x B x concepts
additions and beats both a Fourier transform along the images (dense in features x cells) and permuting one by
one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.tails import tail_bound

Ints = NDArray[np.int64]
_SUMS = 64 * 2**20  # block sums kept at a time
_SHIFTED = 16 * 2**20  # entries of the matrix of shifted concept maps at a time
_AT_ONCE = 2**20  # sums of permutations at a time
_DENSE = 64 * 2**20  # entries of the concept maps at a time
_ENOUGH = 100
"""Pictures of the thinned set that a feature and a concept need; rarer ones are tested on all pictures."""


@dataclass(frozen=True)
class NullConfig:
    """How the permutation distribution is sampled.

    Attributes:
        permutations: for every tested pair.
        refine: further permutations of the pairs that fewer than `refine_below` of the first ones reached. p
        is
            (1 + exceedances) / (1 + all permutations of the pair); it stays valid, since only small p are
            refined.
        refine_below: see there.
        orders: random orders of the images, each with an equal share of the permutations.
        block: images per block.
        max_images: more images than this are thinned by the digest of their ids, for pairs that are common enough
            to be judged by so many.
        seed: with the site and the image ids it decides every order and shift.
    """

    permutations: int = 1000
    refine: int = 4000
    refine_below: int = 10
    orders: int = 2
    block: int = 16
    max_images: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("permutations", 1), ("refine", 0), ("orders", 1), ("block", 2), ("max_images", 2)):
            if getattr(self, name) < low:
                raise InputError(f"{name} of the null must be at least {low}, not {getattr(self, name)}.")


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on nothing but `parts`."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def block_sums(
    supports: list[tuple[Ints, Ints, Ints]], maps: list[NDArray[np.int32]], features: int, row: Ints, column: Ints
) -> list[Ints]:
    """T_b[s] of every tested pair for every cyclic shift of every block.

    Args:
        supports: per block (feature, image, cell) of the active cells, images counted within the block.
        maps: per block int32 [B, C, cells], pixels of each concept in each cell.
        features: number of features.
        row, column: int64 [T], feature and concept of every pair.
    Returns:
        Per block int32 or, for large sums, int64 [B, T]; shift 0 is the observed pairing.
    """
    sums = []
    for (feature, image, cell), pixels in zip(supports, maps, strict=True):
        size, concepts, cells = pixels.shape
        # A sum never exceeds the pixels of the block; below 2**24 float32 holds it exactly, below 2**53
        # float64.
        largest = int(pixels.sum(axis=(0, 2), dtype=np.int64).max(initial=0))
        exact = np.float32 if largest < 2**24 else np.float64
        out = np.zeros((size, len(row)), np.int32 if largest < 2**31 else np.int64)
        step = max(1, _SHIFTED // max(1, cells * size * size))
        matrix = sp.csr_array((np.ones(len(cell), exact), (feature, cell * size + image)), (features, cells * size))
        for start in range(0, concepts, step):
            chosen_pixels = pixels[:, start : start + step].transpose(2, 0, 1).astype(exact)
            windows = sliding_window_view(
                np.concatenate((chosen_pixels, chosen_pixels[:, : size - 1]), axis=1), size, axis=1
            )
            shifted = windows.transpose(0, 1, 3, 2).reshape(cells * size, -1)  # [(cell, i), (shift, concept)]
            sums_here = (matrix @ shifted).reshape(features, size, -1)
            own = np.flatnonzero((column >= start) & (column < start + step))
            out[:, own] = sums_here[row[own], :, column[own] - start].T
        sums.append(out)
    return sums


def _exceedances(sums: list[Ints], observed: Ints, permutations: int, random: np.random.Generator) -> Ints:
    """How many of `permutations` random shifts, one a block, reach the observed sum: int64 [T].

    The sums of all permutations are one product, of the matrix that says which shift each of them takes in
    every block with the block sums; integers throughout, in 32 bits where no sum can exceed them.
    """
    count = np.zeros(len(observed), np.int64)
    shifts = np.stack([random.integers(0, len(block), permutations) for block in sums], axis=1)
    largest = sum(int(block.max(initial=0)) for block in sums)
    whole = np.concatenate(sums).astype(np.int32 if largest < 2**31 else np.int64, copy=False)
    firsts = np.cumsum([0, *(len(block) for block in sums[:-1])])
    step = max(1, _AT_ONCE // max(1, len(observed)))
    for start in range(0, permutations, step):
        taken = firsts + shifts[start : start + step]
        ends = np.arange(0, taken.size + 1, taken.shape[1])
        picks = sp.csr_array((np.ones(taken.size, whole.dtype), taken.ravel(), ends), (len(taken), len(whole)))
        count += ((picks @ whole) >= observed).sum(axis=0)
    return count


def _p_of_pairs(orders: list[list[Ints]], config: NullConfig, key: tuple[object, ...]) -> NDArray[np.float64]:
    """p of every pair from the block sums of every order."""
    observed = np.sum([block[0] for block in orders[0]], axis=0)
    fraction = -(-config.permutations // len(orders))
    count = np.zeros(len(observed), np.int64)
    for number, sums in enumerate(orders):
        count += _exceedances(sums, observed, fraction, seeded(*key, "shifts", number))
    p = (1 + count) / (1 + fraction * len(orders))
    more = -(-config.refine // len(orders))
    rare = np.flatnonzero(count < config.refine_below)
    if more and len(rare):
        for number, sums in enumerate(orders):
            few = [np.ascontiguousarray(block[:, rare]) for block in sums]
            count[rare] += _exceedances(few, observed[rare], more, seeded(*key, "refine", number))
        p[rare] = (1 + count[rare]) / (1 + (fraction + more) * len(orders))
    rare = np.flatnonzero(count < config.refine_below)
    if len(rare):
        p[rare] = np.minimum(p[rare], np.mean([_bound(sums, rare, observed[rare]) for sums in orders], axis=0))
    return p


def _bound(sums: list[Ints], pairs: Ints, observed: Ints) -> NDArray[np.float64]:
    """What permutations cannot resolve: Chernoff's bound for the shifts of one order, [pairs]."""
    sizes = {len(block) for block in sums}
    parts = [np.stack([block[:, pairs] for block in sums if len(block) == size], axis=1) for size in sorted(sizes)]
    return tail_bound([(part, 1.0) for part in parts], observed)


def _groups(asked: NDArray[np.bool_], concept: Ints) -> Iterator[tuple[NDArray[np.bool_], Ints]]:
    """Tested pairs whose concepts were asked of the same images: (images bool [I], pairs)."""
    groups: dict[bytes, list[int]] = {}
    for number in np.unique(concept):
        groups.setdefault(asked[:, number].tobytes(), []).append(int(number))
    for numbers in groups.values():
        yield asked[:, numbers[0]], np.flatnonzero(np.isin(concept, numbers))


def p_values(
    codes: SiteCodes,
    maps: ConceptMaps,
    feature: Ints,
    concept: Ints,
    split: str = "discovery",
    config: NullConfig = NullConfig(),
) -> NDArray[np.float64]:
    """Permutation p-value of every (feature, concept) pair at one site.

    Args:
        codes: the site's codes.
        maps: the concepts' maps; only images of `split` that were asked for the concept are shuffled.
        feature, concept: int64 [T], feature numbers and indices into `maps.concepts`.
        split: which images.
        config: sampling.
    Returns:
        float64 [T], P(T >= observed | images shuffled), in (0, 1].
    Raises:
        InputError: codes of an image that `maps` lacks.
    """
    image = image_places(codes, maps)
    here = np.zeros(len(maps.image_ids), np.bool_)
    here[image] = True
    here &= maps.splits == split
    owner = image[codes.image]
    p = np.ones(len(feature))
    thinned = here.copy()
    if here.sum() > config.max_images:
        names = sorted(np.flatnonzero(here), key=lambda i: hashlib.sha256(maps.image_ids[i].encode()).digest())
        thinned[names[config.max_images :]] = False
    common = _common(codes, owner, maps, thinned, feature, concept)
    for images_used, chosen in ((thinned, common), (here, ~common)):
        pairs_chosen = np.flatnonzero(chosen)
        for asked, pairs in _groups(maps.asked & images_used[:, None], concept[pairs_chosen]):
            for part in _portions(pairs_chosen[pairs], feature, concept, int(asked.sum()), codes.cells, config.orders):
                p[part] = _p_of_group(codes, owner, maps, asked, feature[part], concept[part], config)
    return p


def _common(
    codes: SiteCodes, owner: Ints, maps: ConceptMaps, images_used: NDArray[np.bool_], feature: Ints, concept: Ints
) -> NDArray[np.bool_]:
    """Pairs of a feature and a concept that both occur in `_ENOUGH` of the pictures `kept` bool [I]: bool [T]."""
    starts = codes.pair_starts()
    fired = codes.feature[starts][images_used[owner[starts]]]
    pictures = np.bincount(fired, minlength=int(feature.max(initial=0)) + 1)[feature]
    shown = np.bincount(maps.union_concept[images_used[maps.union_image]], minlength=len(maps.concepts))[concept]
    return np.minimum(pictures, shown) >= _ENOUGH


def _portions(pairs: Ints, feature: Ints, concept: Ints, images: int, cells: int, orders: int) -> Iterator[Ints]:
    """Pairs in portions whose maps and sums fit in memory: a few concepts each, by feature."""
    names = np.unique(concept[pairs])
    wide = max(1, _DENSE // max(1, images * cells))
    step = max(1, _SUMS // max(1, orders * images))
    for start in range(0, len(names), wide):
        pairs_here = pairs[np.isin(concept[pairs], names[start : start + wide])]
        pairs_here = pairs_here[np.argsort(feature[pairs_here], kind="stable")]
        for first in range(0, len(pairs_here), step):
            yield pairs_here[first : first + step]


def _p_of_group(
    codes: SiteCodes,
    owner: Ints,
    maps: ConceptMaps,
    asked: NDArray[np.bool_],
    feature: Ints,
    concept: Ints,
    config: NullConfig,
) -> NDArray[np.float64]:
    """p of pairs whose concepts were asked of the images `asked` bool [I]; `owner` is the image of each slot."""
    names, row = np.unique(feature, return_inverse=True)
    concepts, column = np.unique(concept, return_inverse=True)
    images = np.flatnonzero(asked)
    place = np.cumsum(asked) - 1
    slots = np.flatnonzero(asked[owner] & np.isin(codes.feature, names))
    slot_row = np.searchsorted(names, codes.feature[slots])
    dense = np.zeros((len(images), len(concepts), codes.cells), np.int32)
    used = np.flatnonzero(asked[maps.union_image] & np.isin(maps.union_concept, concepts))
    dense[place[maps.union_image[used]], np.searchsorted(concepts, maps.union_concept[used])] = maps.pixels[
        codes.height, codes.width
    ][used]
    key = (codes.site.slug, config.seed, *(maps.image_ids[i] for i in images))
    block = max(2, min(config.block, len(images) // 4))
    orders = []
    for number in range(config.orders):
        shuffled = seeded(*key, "order", number).permutation(images)
        blocks = np.array_split(shuffled, max(1, -(-len(images) // block)))
        block_of, rank = np.zeros((2, len(asked)), np.int64)
        for which, members in enumerate(blocks):
            block_of[members], rank[members] = which, np.arange(len(members))
        by_block = np.argsort(block_of[owner[slots]], kind="stable")
        cuts = np.searchsorted(block_of[owner[slots]][by_block], np.arange(1, len(blocks)))
        supports = [
            (slot_row[part], rank[owner[slots[part]]], codes.cell[slots[part]].astype(np.int64))
            for part in np.split(by_block, cuts)
        ]
        orders.append(block_sums(supports, [dense[place[members]] for members in blocks], len(names), row, column))
    return _p_of_pairs(orders, config, key)
