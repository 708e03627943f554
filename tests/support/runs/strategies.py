"""Small random runs for the labelling tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.labeling.evidence.counts import ImageEvidenceInput

SITES = (Site("down.0", "cond", 1.0), Site("down.0", "cond", 0.3), Site("mid", "uncond", 0.5))
CONCEPTS = ("car", "sea", "sky", "tree")


def random_code(rng: np.random.Generator, h: int, w: int, k: int, n: int, values: int = 4) -> SparseMap:
    """k distinct features a cell, some slots unused; few distinct values, so that constant maps occur."""
    feature = np.concatenate([rng.permutation(n)[:k] for _ in range(h * w)])
    value = rng.integers(0, values, h * w * k) / 2
    return SparseMap(h, w, k, feature.astype(np.uint32), value.astype(np.float16))


def random_image(rng: np.random.Generator, number: int, base: tuple[str, ...]) -> ImageEvidenceInput:
    """A picture of odd size with a few rectangles and codes on two grids."""
    size = (int(rng.integers(1, 14)), int(rng.integers(1, 14)))
    asked = tuple(c for c in CONCEPTS if c in base or rng.random() < 0.5)
    segments = []
    for _ in range(int(rng.integers(0, 4)) if asked else 0):
        mask = np.zeros(size, bool)
        y, x = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
        mask[y[0] : y[1], x[0] : x[1]] = True
        segments.append((str(rng.choice(asked)), mask))
    grids = {SITES[0]: (2, 3, 2), SITES[1]: (3, 2, 1), SITES[2]: (1, 1, 2)}
    codes = {site: random_code(rng, *grid, n=3) for site, grid in grids.items() if rng.random() < 0.8}
    split = "heldout" if rng.random() < 0.4 else "discovery"
    return ImageEvidenceInput(f"i{number:03d}", split, size, asked, segments, codes)


@st.composite
def small_runs(draw: st.DrawFn) -> tuple[list[ImageEvidenceInput], tuple[str, ...]]:
    """Up to six images and the base concepts they were all asked for."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base = tuple(c for c in CONCEPTS if rng.random() < 0.4)
    return [random_image(rng, number, base) for number in range(draw(st.integers(0, 6)))], base
