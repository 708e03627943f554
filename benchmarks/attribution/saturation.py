"""Who predicts ablations of a saturated model, and who does not: Pearson of predicted and actual change, per estimator.

J = f(s₁ − θ₁) + f(s₂ − θ₂), each s a sum of x_i w_i over 20 positive weights, inputs x of 1, 1, 0, −0.5 in turn. The
first sum overshoots its threshold by a third, the second lies just above it. f is linear, a steep sigmoid (flat where
the first sum lies, so the gradient sees the second only), or a step (no gradient anywhere).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.problem import Problem
from gazetteer.attribution.scores.estimators import Options, estimate
from gazetteer.attribution.scores.faithfulness import ablation_study
from gazetteer.attribution.scores.groups import row_groups
from gazetteer.data.core.terminal import print_table

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda s: s,
    "sigmoid": lambda s: torch.sigmoid(4 * s),
    "step": lambda s: (s > 0).to(s) + 0 * s,
}
ESTIMATORS = ("cad", "integrated", "expected", "finite", "coar", "magnitude", "random")


def study(shape: str, fraction: float, ablations: int) -> dict[str, list[float]]:
    """Pearson [value, low, high] per estimator on one toy."""
    w = nn.Parameter(torch.rand(40, 1, generator=torch.Generator().manual_seed(0)) + 0.05)
    x = torch.tensor([1.0, 1.0, 0.0, -0.5] * 10).unsqueeze(1)
    thresholds = (x * w).detach().view(2, 20).sum(1) / torch.tensor([1.33, 1.05])
    problem = Problem(
        nn.Module(), {"w": w}, (lambda: SHAPES[shape]((x * w).view(2, 20).sum(1) - thresholds).sum().reshape(1),)
    )
    options = Options(seed=1, points=64, fraction=fraction, ablations=400, groups=row_groups({"w": w}, 40))
    scores = {name: estimate(name, problem, options) for name in ESTIMATORS}
    return {row["estimator"]: row["pearson"] for row in ablation_study(problem, scores, [fraction], ablations, seed=2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=0.3, help="of the weights zeroed at a time")
    parser.add_argument("--ablations", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    result = {shape: study(shape, arguments.fraction, arguments.ablations) for shape in SHAPES}
    print_table(
        {"estimator": "", **dict.fromkeys(SHAPES, ">")},
        ([name, *("{:.2f} [{:.2f}, {:.2f}]".format(*result[shape][name]) for shape in SHAPES)] for name in ESTIMATORS),
    )
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
