"""On which pictures a concept can show: those whose other things keep company with it in the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COMPANY = 0.1
"""A picture can show a concept when it shows one that has it beside it in so many of its discovery pictures."""


def can_show(shown: NDArray[np.bool_], discovery: NDArray[np.bool_], concepts: Sequence[str]) -> NDArray[np.bool_]:
    """Which pictures can show which concept: bool [N, C]; all can where the run knows too little of a concept.

    Args:
        shown: bool [N, C], what is found in each picture.
        discovery: bool [N], the pictures from which company is counted.
        concepts: [C] names, for the shape alone.
    """
    known = shown[discovery].astype(np.float64)
    together = known.T @ known
    fraction = together / np.maximum(np.diag(together)[:, None], 1.0)  # [other, concept]
    able = (shown.astype(np.float64) @ (fraction >= COMPANY)) > 0
    able[:, np.diag(together)[: len(concepts)] == 0] = True
    showable: NDArray[np.bool_] = able | shown
    return showable
