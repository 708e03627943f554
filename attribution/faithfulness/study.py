"""How well estimators foretell what ablations do to a concept's J, on the methods' own weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.estimators import GROUPED, Options, estimate
from gazetteer.attribution.scores.faithfulness import ablation_study
from gazetteer.attribution.scores.groups import row_groups


@dataclass(frozen=True)
class FaithfulnessConfig:
    """How estimators are compared.

    Attributes:
        ablations: random ablations of single weights at each of `fractions`, and a third as many of groups of rows.
        fractions: of the weights that are ablated at a time.
        concepts: how many are studied.
        samples: inputs per concept, at sampler steps spread evenly.
        points, groups: of the estimators that need them.
    """

    ablations: int = 1000
    fractions: tuple[float, ...] = (0.01, 0.05, 0.2)
    concepts: int = 1
    samples: int = 1
    points: int = 16
    groups: int = 100


def faithfulness(methods: Methods, concept: str, config: FaithfulnessConfig, seed: int) -> list[dict[str, Any]]:
    """Predicted against actual change of J_erase over random ablations, of weights and of groups of rows.

    Args:
        seed: of the input's noise; those of scores and ablations follow from it.

    Returns:
        rows of `ablation_study`, with the ``concept``.
    """
    c = methods.config
    samples = trajectory(
        methods.pipe, [c.template.format(concept)], [seed], steps=c.steps, guidance=c.guidance, base=c.base,
        only=[int((i + 0.5) * c.steps / config.samples) for i in range(config.samples)],
    )  # fmt: skip
    weights = methods.weights
    live = diffusion_problem(methods.denoiser, Erase(stop_gradient=False), samples, weights, c.batch)
    published = diffusion_problem(methods.denoiser, Erase(), samples, weights, c.batch)
    groups = row_groups(weights, config.groups)
    options = Options(seed=seed + 1, points=config.points, groups=groups, fraction=0.05, ablations=3 * config.groups)
    scores = {"cad": estimate("cad", published, options)}
    for name in ("cad", "integrated", "expected", "random", "magnitude", "gradient", "wanda", "finite", "coar"):
        scores[f"{name}_live" if name in ("cad", "integrated", "expected") else name] = estimate(name, live, options)
    single, rows = {name: s for name, s in scores.items() if name not in GROUPED}, []
    for nth, fraction in enumerate(config.fractions):
        # Random ablations of the size that is asked about, but not the same ones.
        matched = estimate("expected", live, replace(options, fraction=fraction, points=2 * config.points))
        rows += ablation_study(
            live, {**single, "expected_matched": matched}, (fraction,), config.ablations, seed=seed + 10 + nth
        )  # fmt: skip
    rows += ablation_study(live, scores, (0.05,), max(3, config.ablations // 3), groups=groups, seed=seed + 3)
    return [{"concept": concept, **row} for row in rows]


def pooled_correlations(rows: Sequence[dict[str, Any]], statistic: str = "pearson") -> dict[str, list[float]]:
    """Per estimator the mean correlation over concepts and fractions of single weights; of groups, if it scores these.

    Every fraction has its own random ablations, so the half-widths of the intervals add in squares.
    """
    result = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        values = [r[statistic] for r in rows if r["estimator"] == name and r["unit"] == "weight"]
        value, low, high = np.array(values or [r[statistic] for r in rows if r["estimator"] == name]).T
        mean, many = value.mean(), len(value)
        below, above = (float(np.sqrt(((value - end) ** 2).sum())) / many for end in (low, high))
        result[name] = [float(mean), float(max(-1.0, mean - below)), float(min(1.0, mean + above))]
    return result
