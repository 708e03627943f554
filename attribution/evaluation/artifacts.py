"""Whether erased pictures are still pictures: artifacts and realism of what prompts that name the concept now give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.evaluation.outcomes import Outcome
from gazetteer.attribution.evaluation.summaries import NOTHING, shown
from gazetteer.labeling.quality.intervals import grouped_mean

NEIGHBOURS = 3
"""The k of the reference pictures' neighbourhoods, as published."""


def artifacts(outcomes: Sequence[Outcome], reference: NDArray[np.float64], resamples: int, seed: int) -> dict[str, Any]:
    """How many erased pictures lie outside of what the intact model paints, and how real they are.

    Improved precision and the realism score (Kynkäänniemi et al. 1904.06991, eq. 1-2 and 5): a picture lies outside
    when it is in no reference picture's ball, whose radius reaches its `NEIGHBOURS`-th neighbour; its realism is the
    largest radius ÷ distance, over the half of the reference pictures with the smaller radii.

    Args:
        outcomes: one a concept, with `Outcome.traits` of the pictures whose prompts name it.
        reference: [pictures, traits] of the intact model, of other prompts.

    Returns:
        ``rate``, the fraction outside, and ``realism``, each beside ``intact_rate`` and ``intact_realism``, the same of
        the intact model's pictures of the same prompts and noise, and ``more``, the paired difference of the rates:
        [mean, low, high] over concepts and pictures; ``pictures`` and ``reference``, how many. None without features.
    """
    measured = [outcome.traits for outcome in outcomes if outcome.traits[0].size]
    if not measured or len(reference) <= NEIGHBOURS:
        nothing = {name: list(NOTHING) for name in ("rate", "intact_rate", "more", "realism", "intact_realism")}
        return {**nothing, "pictures": 0, "reference": len(reference)}
    scale = np.maximum(reference.std(axis=0), 1e-9)
    known = reference / scale
    radii = np.sort(_distances(known, known), axis=1)[:, NEIGHBOURS]  # the first is the picture itself
    sides = [[_judged(side / scale, known, radii) for side in pair] for pair in measured]
    outside = [[(1.0 - inside) for inside, _ in pair] for pair in sides]
    groups = [number for number, pair in enumerate(sides) for _ in pair[0][0]]
    real = [np.concatenate([pair[side][1] for pair in sides]) for side in (0, 1)]
    means = [grouped_mean(values.tolist(), groups, resamples=resamples, seed=seed) for values in real]
    return {
        "rate": shown([after for _, after in outside], resamples, seed),
        "intact_rate": shown([before for before, _ in outside], resamples, seed),
        "more": shown([after - before for before, after in outside], resamples, seed, least=-1.0),
        "realism": means[1], "intact_realism": means[0],
        "pictures": len(groups), "reference": len(reference),
    }  # fmt: skip


def _judged(
    pictures: NDArray[np.float64], known: NDArray[np.float64], radii: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether each picture lies inside some ball, 1 or 0, and its realism."""
    distances = np.maximum(_distances(pictures, known), 1e-12)
    narrow = radii <= np.median(radii)
    inside = np.asarray((distances <= radii).any(axis=1), dtype=np.float64)
    realism: NDArray[np.float64] = (radii[narrow] / distances[:, narrow]).max(axis=1)
    return inside, realism


def _distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0.0))
    return distances
