"""Relearning: a few steps of training of all weights, on pictures of an erased concept or on something else.

What comes back after a few steps was hidden, not gone (Łucki et al. 2409.18025, for language models); training on
something else asks whether ordinary use of the model does it too (Suriyakumar et al. 2410.08074).
"""

from __future__ import annotations

from typing import Any

import torch

from gazetteer.attribution.edits.delta import Delta
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.objectives import Distance
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.settings import Count, Positive, settings
from gazetteer.diffusion.denoisers.registry import network


@settings("")
class Relearning:
    """How long is trained.

    Attributes:
        steps: of Adam, the rate falls linearly to 0.
        rate: relative to the root mean square of each weight matrix.
        batch: samples a step.
    """

    steps: Count = 20
    rate: Positive = 0.005
    batch: Count = 8


def relearned(pipe: Any, samples: Samples, relearning: Relearning = Relearning()) -> Delta:
    """What training of all weights of the pipeline as it stands (edited) changes; the pipeline is left as it was.

    The loss is the one the model was trained with, on noised pictures (`noised_images`).

    Args:
        samples: with the training targets, in an order in which every stretch has some of each kind.
    """
    denoiser = network(pipe)
    weights = scope_weights(denoiser, "all")
    every = {name: torch.arange(weight.numel()) for name, weight in weights.items()}
    problem = diffusion_problem(denoiser, Distance(), samples, weights, relearning.batch)
    return gradient_steps(problem, every, steps=relearning.steps, rate=relearning.rate)
