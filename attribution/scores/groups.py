"""Groups of weights that are ablated together: runs of rows (output neurons) of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gazetteer.attribution.objective.problem import Scores


@dataclass(frozen=True)
class Groups:
    """A partition of weights into runs of rows.

    Attributes:
        shapes: of each parameter, by name.
        spans: per group (parameter, first row, row after the last).
    """

    shapes: Mapping[str, torch.Size]
    spans: tuple[tuple[str, int, int], ...]

    def __len__(self) -> int:
        return len(self.spans)

    def factors(self, groups_kept: Tensor) -> dict[str, Tensor]:
        """What to multiply parameters with to zero the groups that are 0 in `groups_kept`, [groups] of 0 and 1.

        Parameters in which nothing is dropped are left out.
        """
        rows: dict[str, Tensor] = {}
        for (name, first, stop), keep in zip(self.spans, groups_kept.tolist(), strict=True):
            if not keep:
                mask = rows.setdefault(name, torch.ones(self.shapes[name][0], *[1] * (len(self.shapes[name]) - 1)))
                mask[first:stop] = 0.0
        return rows

    def only(self, group: int) -> dict[str, Tensor]:
        """The factors that zero one group."""
        mask = torch.ones(len(self))
        mask[group] = 0
        return self.factors(mask)

    def spread(self, alphas: Tensor) -> Scores:
        """Scores of weights that sum to `alphas` [groups], even within a group."""
        scores = {name: torch.zeros(shape) for name, shape in self.shapes.items()}
        for (name, first, stop), alpha in zip(self.spans, alphas.tolist(), strict=True):
            scores[name][first:stop] = alpha / scores[name][first:stop].numel()
        return scores

    def sums(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Σ of the scores in each group, [groups] float64."""
        by_row = {name: scores[name].double().flatten(1).sum(1) for name in self.shapes}
        return torch.stack([by_row[name][first:stop].sum() for name, first, stop in self.spans])


def row_groups(weights: Mapping[str, Tensor], groups: int) -> Groups:
    """About so many groups of neighbouring rows, of about equal numbers of weights, each within one parameter."""
    total = sum(w.numel() for w in weights.values())
    spans = []
    for name, weight in weights.items():
        parts = min(len(weight), max(1, round(groups * weight.numel() / total)))
        edges = [round(i * len(weight) / parts) for i in range(parts + 1)]
        spans += [(name, first, stop) for first, stop in pairwise(edges)]
    return Groups({name: w.shape for name, w in weights.items()}, tuple(spans))
