"""How many pictures a causal test needs, and what power it had: lack of pictures is not lack of an effect."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Floats = NDArray[np.float64]

ALPHA = 0.005
"""p that a pair needs to be sure beside others, for planning: of Benjamini and Hochberg's 0.05 when a tenth is real."""

_FLIPS = (2000, 20_000)
"""The fewest and the most sign changes that p is told by; ten of them at the p that is asked for."""
_TRIES = 200


def images_needed(power: float, fraction: float, alpha: float = ALPHA) -> int:
    """Pictures for which a rise in `fraction` of them, and no change in the others, is found with `power`.

    Flipping the signs of k differences above 0 gives p = 2 / 2^k at best, so at least k = log2(2 / alpha) pictures must
    rise; their number is binomial.
    """
    least = math.ceil(math.log2(2.0 / alpha))
    images = least
    while binom.sf(least - 1, images, fraction) < power:
        images += 1
    return images


def power_of(differences: Floats, rise: float, fraction: float, alpha: float = ALPHA) -> float:
    """How often p ≤ alpha when `fraction` of the pictures rises by `rise` on top of what is seen without a cause.

    What is seen without a cause are the differences [N] themselves with signs at random; a fixed seed draws signs and
    pictures.
    """
    rng = np.random.default_rng(0)
    images = len(differences)
    if not images:
        return 0.0
    flips = min(max(_FLIPS[0], math.ceil(10 / alpha)), _FLIPS[1])
    signs = rng.choice([-1.0, 1.0], (flips, images))
    values = differences * rng.choice([-1.0, 1.0], (_TRIES, images)) + rise * (rng.random((_TRIES, images)) < fraction)
    reached = np.abs(signs @ values.T) >= np.abs(values.sum(axis=1)) * (1 - 1e-9)
    p = (1 + reached.sum(axis=0)) / (1 + flips)
    return float((p <= alpha).mean())
