"""Adam (Kingma and Ba 2015) as torch computes it, without torch's optimizer class.

The class loads torch's compiler the first time one is made: 900 modules and 0.15 GB that nothing here uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
BETA1, BETA2, EPSILON = 0.9, 0.999, 6.25e-10


class Adam:
    """Betas 0.9 and 0.999, epsilon 6.25e-10, no weight decay; fused on CPU and CUDA.

    Attributes:
        moments: for each parameter ``step`` (scalar float32), ``exp_avg`` and ``exp_avg_sq`` (the parameter's shape).
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """For these parameters, in this order; they are changed in place."""
        self.parameters = list(parameters)
        self.moments = [
            {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for parameter in self.parameters
        ]

    @torch.no_grad()
    def advance(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One step at this learning rate; `gradients` in the order of the parameters."""
        steps, first, second = ([moments[name] for moments in self.moments] for name in MOMENTS)
        fused = self.parameters[0].device.type in ("cpu", "cuda")
        adam(
            self.parameters, list(gradients), first, second, [], steps, fused=fused, foreach=False, amsgrad=False,
            beta1=BETA1, beta2=BETA2, lr=rate, weight_decay=0.0, eps=EPSILON, maximize=False,
        )  # fmt: skip

    @torch.no_grad()
    def restore(self, moments: Sequence[Mapping[str, Tensor]]) -> None:
        """Copy what `moments` of another run held; raises KeyError or RuntimeError when it does not fit."""
        for own, theirs in zip(self.moments, moments, strict=True):
            for name in MOMENTS:
                own[name].copy_(theirs[name])
