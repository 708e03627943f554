"""How much of a feature's activation each explanation accounts for: one measure for things, scenes, looks and places.

With a the activation in every cell of every picture of a split (0 where the feature is silent) and h what an
explanation says of the cell,

    region   the share of the cell that the concept's union covers
    scene    1 in every cell of a picture that shows the concept (of a text stream in every token, padding apart)
    style    1 in every cell of a picture with the look
    place    the share of the cell that lies in the place

the share explained is the squared correlation of a and h where they rise together, and 0 where they do not: what a
least-squares line over h leaves of the variance of a, taken from 1. All four are answers to one question, so they can
be compared. A picture that was not asked for a concept counts as one without it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.sites import TEXT
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import cell_areas
from gazetteer.labeling.evidence.site_codes import SiteCodes, compacted
from gazetteer.labeling.rules.kinds.places import PLACES, place_maps

Floats = NDArray[np.float64]

REGION, SCENE, STYLE, PLACE, WORD = "region", "scene", "style", "place", "word"


@dataclass(frozen=True)
class Explained:
    """What every explanation explains of F features in one split.

    Attributes:
        features: int64 [F], ascending: those that fire in the split.
        names, forms: of the H explanations: regions and scenes by concept, then styles, then places.
        fraction: float64 [F, H], of the activation's variance, in [0, 1].
        inside: float64 [F, H], share of the activation that lies where h says, in [0, 1]; of regions among the cells
            that somebody decided on.
        images: pictures of the split at the site.
    """

    features: NDArray[np.int64]
    names: tuple[str, ...]
    forms: tuple[str, ...]
    fraction: Floats
    inside: Floats
    images: int


def explain(
    codes: SiteCodes,
    maps: ConceptMaps,
    styles: Sequence[str] = (),
    looks: NDArray[np.bool_] | None = None,
    split: str = "discovery",
) -> Explained:
    """What regions, scenes, styles and places explain of every feature that fires in a split.

    Args:
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`.
        styles, looks: names of S looks and which of them each picture of `maps` has: bool [I, S].
        split: of which pictures.
    """
    owner = image_places(codes, maps)
    here = np.zeros(len(maps.image_ids), np.bool_)
    here[owner] = True
    here &= maps.splits == split
    kept = here[owner][codes.image]
    features, row = compacted(codes.feature[kept])
    value, image, cell = codes.value[kept].astype(np.float64), owner[codes.image[kept]], codes.cell[kept]
    total = np.bincount(row, value, len(features)).astype(np.float64)
    square = np.bincount(row, value**2, len(features)).astype(np.float64)
    sizes = maps.sizes_in_cells(codes.cells)
    size = int(sizes[here].sum())
    places = () if codes.site.stream == TEXT else tuple(PLACES)
    every = [
        _regions(codes, maps, here, (row, image, cell, value), len(features)),
        _by_picture(maps.present & here[:, None], (row, image, value), len(features), sizes),
        _by_picture(_looks(looks, here), (row, image, value), len(features), sizes),
    ]
    if places:
        every.append(_in_places(codes, (row, cell, value), len(features), int(here.sum())))
    both, first, second = (np.concatenate(parts, axis=-1) for parts in zip(*every, strict=True))
    concepts = maps.concepts
    inside = _share(both, total)
    if codes.ignored is not None:
        known = ~codes.ignored[kept]
        slots = tuple(part[known] for part in (row, image, cell, value))
        judged = _regions(codes, maps, here, slots, len(features))[0]
        decided = np.bincount(slots[0], slots[3], len(features)).astype(np.float64)
        inside[:, : len(concepts)] = _share(judged, decided)
    return Explained(
        features.astype(np.int64), (*concepts, *concepts, *styles, *places),
        (*[REGION] * len(concepts), *[SCENE] * len(concepts), *[STYLE] * len(styles), *[PLACE] * len(places)),
        _fractions(both, total[:, None], square[:, None], first, second, size),
        inside, int(here.sum()),
    )  # fmt: skip


def _share(both: Floats, total: Floats) -> Floats:
    """both [F, H] / total [F], 0 where there is nothing."""
    share: Floats = np.divide(both, total[:, None], out=np.zeros_like(both), where=total[:, None] > 0)
    return share


def _fractions(both: Floats, total: Floats, square: Floats, first: Floats, second: Floats, size: int) -> Floats:
    """Squared correlations, 0 where negative or undefined, from sums of ah, a, a², h, h² over `size` cells."""
    if not size:
        return np.zeros_like(both)
    covariance = both / size - (total / size) * (first / size)
    wide, tall = square / size - (total / size) ** 2, second / size - (first / size) ** 2
    # What is left of a difference of equal numbers is rounding, not spread.
    varied = (wide > 1e-12 * square / size) & (tall > 1e-12 * second / size)
    explained: Floats = np.divide(np.maximum(covariance, 0.0) ** 2, wide * tall, out=np.zeros_like(both), where=varied)
    return np.minimum(explained, 1.0)


def _regions(
    codes: SiteCodes, maps: ConceptMaps, here: NDArray[np.bool_], slots: tuple[NDArray, ...], features: int
) -> tuple[Floats, Floats, Floats]:
    """Sums of ah [F, C], h and h² [C] of the concepts' unions."""
    row, image, cell, value = slots
    grid = (codes.height, codes.width)
    of = np.flatnonzero(here[maps.union_image])
    sizes, which = np.unique(maps.sizes, axis=0, return_inverse=True)
    areas = np.stack([cell_areas((int(h), int(w)), grid) for h, w in sizes])[which.ravel()]
    covered = maps.pixels[grid][of] / np.maximum(areas[maps.union_image[of]], 1)
    union, where = np.nonzero(covered)
    at = maps.union_image[of][union] * codes.cells + where
    cells, concepts = len(maps.image_ids) * codes.cells, len(maps.concepts)
    masks = sp.csr_array((covered[union, where], (at, maps.union_concept[of][union])), (cells, concepts))
    active = sp.csr_array((value, (row, image * codes.cells + cell)), (features, cells))
    return (active @ masks).toarray(), np.asarray(masks.sum(axis=0)).ravel(), np.asarray((masks**2).sum(axis=0)).ravel()


def _by_picture(
    has: NDArray[np.bool_], slots: tuple[NDArray, ...], features: int, sizes: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Sums of ah [F, S], h and h² [S] where h is 1 in all cells, `sizes` [I], of pictures that `has` [I, S] marks."""
    row, image, value = slots
    mass = sp.csr_array((value, (row, image)), (features, len(has)))
    count = sizes.astype(np.float64) @ has
    return np.asarray(mass @ has.astype(np.float64)), count, count


def _in_places(
    codes: SiteCodes, slots: tuple[NDArray, ...], features: int, images: int
) -> tuple[Floats, Floats, Floats]:
    """Sums of ah [F, P], h and h² [P] of the built-in places."""
    row, cell, value = slots
    maps = place_maps((codes.height, codes.width))
    mean = sp.csr_array((value, (row, cell)), (features, codes.cells))
    return np.asarray(mean @ maps.T), maps.sum(axis=1) * images, (maps**2).sum(axis=1) * images


def _looks(looks: NDArray[np.bool_] | None, here: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.zeros((len(here), 0), np.bool_) if looks is None else looks & here[:, None]
