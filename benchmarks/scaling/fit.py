"""From a few measured sizes to one that cannot be measured here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost against log size: 1 where twice the work costs twice as much."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def extrapolated(sizes: Sequence[float], costs: Sequence[float], size: float) -> float:
    """The cost at `size`: that of the largest measured one, grown by the fitted exponent, or in proportion if that is
    more."""
    growth = (size / sizes[-1]) ** max(exponent(sizes, costs), 1.0)
    return float(costs[-1] * growth)


def line(sizes: Sequence[float], costs: Sequence[float], size: float) -> float:
    """The cost at `size` on the straight line through the measured ones."""
    slope, start = np.polyfit(sizes, costs, 1)
    return float(start + slope * size)
