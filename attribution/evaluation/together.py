"""Concepts that were erased in several evaluations, as one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.attribution.evaluation.evaluate import Evaluation
from gazetteer.attribution.evaluation.outcomes import REPORT, Outcome, summary, with_differences


def together(evaluation: Evaluation, parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Erasing all concepts of the parts, by the methods that all parts have; nothing is measured again.

    Args:
        evaluation: whose `Kept` holds the outcomes of the parts.
        parts: what `Evaluation.run` gave, and under ``blocking`` what `Evaluation.blocked` gave; each method keeps the
            share that it has in the part.

    Returns:
        per method `summary` over the concepts of all parts, ``concepts``, and ``minus`` as in `Evaluation.run`.
    """

    def read(method: str, found: Mapping[str, Any]) -> list[Outcome]:
        if method == "blocking":
            return [evaluation.blocking(concept) for concept in found["concepts"]]
        return [evaluation.outcome("erase", method, c, found["share"], REPORT) for c in found["concepts"]]

    outcomes, results, draws = {}, {}, (evaluation.protocol.resamples, evaluation.protocol.seed)
    for method in [m for m in parts[0] if all(m in part for part in parts)]:
        outcomes[method] = [outcome for part in parts for outcome in read(method, part[method])]
        results[method] = {
            **summary("erase", outcomes[method], *draws),
            "concepts": [concept for part in parts for concept in part[method]["concepts"]],
        }
    return with_differences("erase", results, outcomes, *draws)
