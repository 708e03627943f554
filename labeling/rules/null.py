"""The location-preserving null: how much would a feature and a concept overlap if they only shared their
places?

Images are shuffled while every feature map and every concept map is kept whole. "sky" lies at the top of
nearly every picture, so a feature that merely fires at the top overlaps it in any picture: its observed
overlap is no larger than that of shuffled images.

Statistic: T = sum over images of the pixels of <support of the feature, union of the concept>. Its mean over
all shuffles has a closed form (view.SplitEvidence.expected_intersection). Its distribution comes
from permutations made of cyclic shifts: the images, in a random order, are cut into blocks; within a block of
B images the sums for all B shifts are entries of a sparse product

    T_b[s] = sum over i of <A_i, M_(i + s mod B)>,    [(blocks * features) x (images * cells)] @ [(images * cells) x
    concepts],

and a permutation of the whole set takes an independent shift in every block, T = sum over b of T_b[s_b]. The
shifts of one order are a group, so p = (1 + #{T >= T observed}) / (1 + P) is valid at any size of the set;
several orders make it depend less on who shares a block with whom. All sums are exact integers. Below what P
permutations resolve stands a bound of the same distribution (labeling/rules/tails.py), so that p has no floor
which many tests could not pass.

Where nobody decided what a part of a given picture shows, its masks have no pixels, and the feature's map is kept whole
all the same: a feature that knows nothing of a picture's masks, holes and all, is then as likely to lie with those of
any other, and p holds whatever share is ignored and wherever it lies. Maps without what fires there would have their
holes where the masks of their own picture have theirs, and overlap with them more than with another's.

Supports and maps are both sparse: what is multiplied are the active cells with what lies on them in another picture, a
handful of concepts, which beats a Fourier transform along the images (dense in features x cells), dense maps and
permuting one by one. Only the entries of tested pairs are added up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import TEXT
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.blocks import Blocks, block_sums, concept_pixels
from gazetteer.labeling.rules.config import NullConfig
from gazetteer.labeling.rules.tails import tail_bound

Ints = NDArray[np.int64]
_SUMS = 128 * 2**20  # block sums kept at a time
_AT_ONCE = 2**16  # sums of permutations at a time
_BOUNDED = 256  # pairs whose bound is reckoned at a time
_ENOUGH = 100
"""Pictures of the thinned set that a feature and a concept need; rarer ones are tested on all pictures."""


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on nothing but `parts`."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def prompt_lengths(codes: SiteCodes, maps: ConceptMaps) -> Ints | None:
    """Of a text stream the tokens of every prompt, padding apart: int64 [I]; else None.

    Prompts change places with others of about their length. A longer one has more words and more tokens to fire on, so
    that shuffled among all, whatever fires anywhere would seem to go with every word.
    """
    return None if codes.site.stream != TEXT or maps.read is None else maps.read.sum(axis=1, dtype=np.int64)


def exceedances(sums: Ints, blocks: Blocks, observed: Ints, permutations: int, random: np.random.Generator) -> Ints:
    """How many of `permutations` random shifts, one a block, reach the observed sum: int64 [T].

    The sums of all permutations grow block by block, for as many pairs at a time as a processor's cache holds; integers
    throughout, in 32 bits where no sum can exceed them.
    """
    count = np.zeros(len(observed), np.int64)
    shifts = np.stack([random.integers(0, size, permutations) for size in blocks.sizes])
    largest = int(np.maximum.reduceat(sums.max(axis=1, initial=0), blocks.firsts).astype(np.int64).sum())
    exact = np.int32 if largest < 2**31 else np.int64
    step = max(32, _AT_ONCE // permutations)
    for start in range(0, len(observed), step):
        here = slice(start, start + step)
        part = np.ascontiguousarray(sums[:, here], exact)
        total = np.zeros((permutations, part.shape[1]), exact)
        shifted = np.empty_like(total)
        for first, size, shift in zip(blocks.firsts, blocks.sizes, shifts, strict=True):
            # What is drawn is in range; "clip" only spares a copy of it.
            total += part[first : first + size].take(shift, axis=0, out=shifted, mode="clip")
        count[here] = (total >= observed[here]).sum(axis=0)
    return count


def _p_of_pairs(orders: list[tuple[Ints, Blocks]], config: NullConfig, key: tuple[object, ...]) -> NDArray[np.float64]:
    """p of every pair from the block sums of every order."""
    sums, blocks = orders[0]
    observed = sums[blocks.firsts].sum(axis=0, dtype=np.int64)
    share = -(-config.permutations // len(orders))
    count = np.zeros(len(observed), np.int64)
    for number, (sums, blocks) in enumerate(orders):
        count += exceedances(sums, blocks, observed, share, seeded(*key, "shifts", number))
    p = (1 + count) / (1 + share * len(orders))
    more = -(-config.refine // len(orders))
    rare = np.flatnonzero(count < config.refine_below)
    if more and len(rare):
        for number, (sums, blocks) in enumerate(orders):
            few = np.ascontiguousarray(sums[:, rare])
            count[rare] += exceedances(few, blocks, observed[rare], more, seeded(*key, "refine", number))
        p[rare] = (1 + count[rare]) / (1 + (share + more) * len(orders))
    rare = np.flatnonzero(count < config.refine_below)
    for start in range(0, len(rare), _BOUNDED):
        drawn = rare[start : start + _BOUNDED]
        bounds = [_bound(sums[:, drawn], blocks, observed[drawn]) for sums, blocks in orders]
        p[drawn] = np.minimum(p[drawn], np.mean(bounds, axis=0))
    return p


def _bound(sums: Ints, blocks: Blocks, observed: Ints) -> NDArray[np.float64]:
    """What permutations cannot resolve: Chernoff's bound for the shifts of one order, [pairs]."""
    parts = []
    for size in np.unique(blocks.sizes):
        rows = blocks.firsts[blocks.sizes == size][None, :] + np.arange(size)[:, None]
        parts.append((sums[rows], 1.0))
    return tail_bound(parts, observed)


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
    # Without thinning there is one set of images, whose pairs share their sums.
    common = np.ones(len(feature), np.bool_)
    if (thinned != here).any():
        common = _common(codes, owner, maps, thinned, feature, concept)
    for kept, chosen in ((thinned, common), (here, ~common)):
        picked = np.flatnonzero(chosen)
        for asked, pairs in _groups(maps.asked & kept[:, None], concept[picked]):
            for part in _portions(picked[pairs], feature, int(asked.sum()), config.orders):
                p[part] = _p_of_group(codes, owner, maps, asked, feature[part], concept[part], config)
    return p


def _common(
    codes: SiteCodes, owner: Ints, maps: ConceptMaps, images_used: NDArray[np.bool_], feature: Ints, concept: Ints
) -> NDArray[np.bool_]:
    """Pairs of a feature and a concept that both occur in `_ENOUGH` of the pictures `images_used` [I]: bool [T]."""
    starts = codes.pair_starts()
    fired = codes.feature[starts][images_used[owner[starts]]]
    pictures = np.bincount(fired, minlength=int(feature.max(initial=0)) + 1)[feature]
    shown = np.bincount(maps.union_concept[images_used[maps.union_image]], minlength=len(maps.concepts))[concept]
    return np.minimum(pictures, shown) >= _ENOUGH


def _portions(pairs: Ints, feature: Ints, images: int, orders: int) -> Iterator[Ints]:
    """Pairs in portions whose sums fit in memory, by feature."""
    pairs = pairs[np.argsort(feature[pairs], kind="stable")]
    step = max(1, _SUMS // max(1, orders * images))
    for first in range(0, len(pairs), step):
        yield pairs[first : first + step]


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
    row_of = np.full(1 + max(int(codes.feature.max(initial=0)), int(names[-1])), -1)
    row_of[names] = np.arange(len(names))
    slots = np.flatnonzero(asked[owner] & (row_of[codes.feature] >= 0))
    supports = row_of[codes.feature[slots]], owner[slots], codes.cell[slots]
    pixels = concept_pixels(maps, (codes.height, codes.width), asked, concepts, config.block)
    key = (codes.site.slug, config.seed, *(maps.image_ids[i] for i in images))
    size = max(2, min(config.block, len(images) // 4))
    orders, lengths = [], prompt_lengths(codes, maps)
    for number in range(config.orders):
        order = seeded(*key, "order", number).permutation(images)
        if lengths is not None:
            order = order[np.argsort(lengths[order], kind="stable")]
        blocks = Blocks.of(order, size)
        orders.append((block_sums(supports, pixels, codes.cells, blocks, row, column), blocks))
    return _p_of_pairs(orders, config, key)
