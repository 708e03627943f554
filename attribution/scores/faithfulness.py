"""How well scores predict: predicted against actual change of J over random ablations (P2 section 6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from gazetteer.attribution.objective.problem import Problem, Scores
from gazetteer.attribution.scores.groups import Groups
from gazetteer.data.core.errors import InputError
from gazetteer.labeling.quality.intervals import bootstrap

Statistic = dict[str, list[float]]


def ablation_study(
    problem: Problem,
    scores: Mapping[str, Scores],
    fractions: Sequence[float],
    ablations: int,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Zero random weights (or groups), `ablations` times at each fraction, and compare.

    Args:
        scores: per estimator; the same ablations serve all of them. They must come from other randomness than `seed`.
        fractions: of the weights (or groups) zeroed at a time, each weight independently.
        ablations: per fraction.

    Returns:
        one row per fraction and estimator: ``fraction``, ``estimator``, ``pearson`` and ``spearman`` of −Σ α over the
        ablated weights against J(ablated) − J(intact), each [value, low, high] (95 %, bootstrap over ablations),
        ``ablations``, ``unit`` (weight or group), ``mean_change`` of J relative to J.
    """
    if ablations < 3:
        raise InputError(f"A correlation needs at least 3 ablations, not {ablations}.")
    generator = torch.Generator("cpu").manual_seed(seed)
    intact, rows, names = problem.value(), [], list(scores)
    if groups is not None:
        table = torch.stack([groups.sums(scores[name]) for name in names])
    else:
        table = torch.stack([torch.cat([scores[n][key].reshape(-1) for key in problem.weights]) for n in names])
    for fraction in fractions:
        actual, guesses = np.empty(ablations), np.empty((ablations, len(names)))
        for nth in range(ablations):
            dropped = (torch.rand(table.shape[1], generator=generator) < fraction).to(table.dtype)
            guesses[nth] = -(table @ dropped).double().numpy()
            with problem.scaled(_factors(problem, 1 - dropped, groups)):
                actual[nth] = problem.value() - intact
        predicted = dict(zip(names, guesses.T, strict=True))
        for name, guess in predicted.items():
            rows.append(
                {
                    "fraction": fraction,
                    "unit": "weight" if groups is None else "group",
                    "estimator": name,
                    **correlations(guess, actual, resamples=resamples, seed=seed),
                    "ablations": ablations,
                    "mean_change": float(actual.mean() / abs(intact)) if intact else 0.0,
                }
            )
    return rows


def _factors(problem: Problem, mask: Tensor, groups: Groups | None) -> dict[str, Tensor]:
    """What to multiply the weights with, from one number per weight (or group) in order."""
    if groups is not None:
        return groups.factors(mask)
    sizes = [w.numel() for w in problem.weights.values()]
    parts = mask.split(sizes)
    return {name: part.view(w.shape) for (name, w), part in zip(problem.weights.items(), parts, strict=True)}


def correlations(
    predicted: NDArray[np.float64], actual: NDArray[np.float64], *, resamples: int = 1000, seed: int = 0
) -> Statistic:
    """Pearson and Spearman correlation, each [value, low, high]: 95 % percentile bootstrap over the pairs.

    A constant side correlates with nothing: 0.
    """
    ranks = stats.rankdata(predicted), stats.rankdata(actual)
    result = {}
    for name, (x, y) in {"pearson": (predicted, actual), "spearman": ranks}.items():
        interval = bootstrap(partial(_pearson, x, y), len(x), resamples=resamples, seed=seed)
        result[name] = [float(value) for value in interval]
    return result


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the pairs, each counted as the weights say, [samples, pairs] -> [samples]."""
    x, y = (side - side.mean() for side in (x, y))
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    var_x, var_y = weights @ x**2 / total - mean_x**2, weights @ y**2 / total - mean_y**2
    both = weights @ (x * y) / total - mean_x * mean_y
    # What is constant in a sample has a variance of rounding errors.
    varied = (var_x > 1e-12 * np.square(x).max()) & (var_y > 1e-12 * np.square(y).max())
    return np.where(varied, both / np.sqrt(np.where(varied, var_x * var_y, 1.0)), 0.0)
