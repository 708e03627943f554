"""Ways to erase or amplify a concept by its weights, and their controls: (method, concept, share) -> edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.delta import Delta, ablation
from attribution.estimators import CONTROLS, Options, estimate
from attribution.objectives import Amplify, Distance, Erase
from attribution.problem import Problem, Scores, diffusion_problem
from attribution.samples import Samples, freeze_base, generate_latents, noised_images, trajectory
from attribution.selection import Chosen, Share, random_like, scope_weights, select
from attribution.tune import gradient_steps
from data.errors import InputError

ERASE = ("cad", "live", "contrast", "steps", *CONTROLS, "steps_random")
AMPLIFY = ("cad", "contrast", *CONTROLS)


@dataclass(frozen=True)
class MethodConfig:
    """How concepts are attributed.

    Attributes:
        scope, per: which weights are scored, and within what the top share is taken.
        template: the concept's prompt, ``{}`` stands for its name; the published code uses the bare name.
        base: the base concept's prompt.
        steps, guidance: of the sampler; the published code uses 50 and 3.
        seeds: trajectories per concept (published: one); for amplify, pictures per concept (published: 50).
        batch: samples per U-Net call.
        tune_steps, tune_rate, keep: of the gradient steps: how many, Adam's rate relative to a layer's root mean
            square weight, and the weight of the distance to the intact model on prompts without the concept.
        tune_prompts: prompts that name the concept, and their copies without it, for the gradient steps.
        seed: of everything random.
    """

    scope: str = "ff"
    per: str = "layer"
    template: str = "{}"
    base: str = ""
    steps: int = 50
    guidance: float = 3.0
    seeds: int = 1
    batch: int = 8
    tune_steps: int = 30
    tune_rate: float = 0.02
    keep: float = 1.0
    tune_prompts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"template is {self.template!r}; accepted: text with {{}} where the concept's name goes.")
        for name in ("steps", "seeds", "batch", "tune_steps", "tune_prompts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")


class Methods:
    """All methods on one pipeline; scores are computed once per concept and kept."""

    def __init__(
        self,
        pipe: Any,
        config: MethodConfig,
        concepts: Sequence[str],
        naming: Mapping[str, Sequence[str]],
        without: Callable[[str, str], str],
    ) -> None:
        """Prepare.

        Args:
            concepts: all concepts to tell apart.
            naming: per concept, prompts that name it and that edits may be made from (never those reported on).
            without: (prompt, concept) -> the prompt without the concept.

        Raises:
            InputError: an unknown scope.
        """
        self.pipe, self.config, self.concepts = pipe, config, tuple(concepts)
        self.naming, self.without = naming, without
        self.weights = scope_weights(pipe.unet, config.scope)
        self._kept: dict[tuple[str, ...], Scores] = {}
        self._edits: dict[tuple[str, ...], Delta] = {}

    @property
    def unet(self) -> nn.Module:
        """The model under study."""
        unet: nn.Module = self.pipe.unet
        return unet

    def edit(self, aim: str, method: str, concept: str, share: float) -> Delta:
        """The edit of a method.

        Args:
            aim: ``erase`` or ``amplify``.
            share: of the weights of the scope, by `MethodConfig.per`.

        Raises:
            InputError: unknown method.
        """
        if method not in {"erase": ERASE, "amplify": AMPLIFY}[aim]:
            raise InputError(f"Unknown method {method!r} to {aim}.")
        if not method.startswith("steps"):
            return self._edit(aim, method, concept, share)
        # Only these are dear enough to keep.
        key = (aim, method, concept, str(share))
        if key not in self._edits:
            self._edits[key] = self._edit(aim, method, concept, share)
        return self._edits[key]

    def _edit(self, aim: str, method: str, concept: str, share: float) -> Delta:
        about = {"aim": aim, "method": method, "concept": concept, "share": share, "config": vars(self.config)}
        chosen = self.choose(aim, "contrast" if method.startswith("steps") else method, concept, share)
        if method == "steps_random":
            chosen = random_like(chosen, self.weights, self.config.seed)
        return (
            self._tuned(concept, chosen, about) if method.startswith("steps") else ablation(self.weights, chosen, about)
        )

    def choose(self, aim: str, method: str, concept: str, share: float) -> Chosen:
        """The weights a method takes; controls take as many per layer as `cad` does at the same share."""
        sign = "positive" if aim == "erase" else "negative"
        if method not in CONTROLS:
            return select(self.scores(aim, method, concept), Share(share, self.config.per, sign))
        counts = self.choose(aim, "cad", concept, share)
        if method == "random":
            return random_like(counts, self.weights, self.config.seed)
        scores = self.scores(aim, method, concept)
        # Controls rank by a number that has no sign: the highest, in equal numbers per layer.
        return {
            name: scores[name].reshape(-1).sort(descending=True, stable=True).indices[: len(index)].sort().values
            for name, index in counts.items()
        }

    def scores(self, aim: str, method: str, concept: str) -> Scores:
        """α of every weight of the scope under a method.

        ``cad``: the published estimator and objective. ``live``: the same without the stop-gradient. ``contrast``:
        cad, each concept's α divided by the sum of |α|, minus the largest among the other concepts (for amplify:
        plus): what a weight does for this concept beyond what it does for any other. Controls: see `estimators`.
        """
        key = (aim, method, concept)
        if key not in self._kept:
            if method == "contrast":
                self._kept[key] = self._contrast(aim, concept)
            else:
                problem = self.problem(aim, concept, stop_gradient=method != "live")
                name = "cad" if method == "live" else method
                self._kept[key] = estimate(name, problem, Options(seed=self.config.seed))
        return self._kept[key]

    def problem(self, aim: str, concept: str, *, stop_gradient: bool = True) -> Problem:
        """J of a concept on the whole scope: the published objectives on the concept's own prompt."""
        c = self.config
        prompts = [c.template.format(concept)] * c.seeds
        seeds = [c.seed + i for i in range(c.seeds)]
        if aim == "erase":
            samples = trajectory(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base)
            return diffusion_problem(self.unet, Erase(stop_gradient), samples, self.weights, c.batch)
        latents = generate_latents(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance)
        samples = noised_images(self.pipe, latents, prompts, steps=c.steps, seed=c.seed)
        return diffusion_problem(self.unet, Amplify(), samples, self.weights, c.batch)

    def _contrast(self, aim: str, concept: str) -> Scores:
        own = _shares(self.scores(aim, "cad", concept))
        sign = 1.0 if aim == "erase" else -1.0
        highest: Scores | None = None
        for other in self.concepts:
            if other != concept:
                theirs = {name: sign * s for name, s in _shares(self.scores(aim, "cad", other)).items()}
                highest = theirs if highest is None else {n: torch.maximum(highest[n], s) for n, s in theirs.items()}
        if highest is None:
            return own
        return {name: s - sign * highest[name].clamp_min(0) for name, s in own.items()}

    def _tuned(self, concept: str, chosen: Chosen, about: dict[str, Any]) -> Delta:
        """Gradient steps: paint prompts that name the concept as the intact model paints them without it."""
        c = self.config
        named = [p for p in self.naming.get(concept, ()) if self.without(p, concept) != p][: c.tune_prompts]
        named = named or [c.template.format(concept)]
        plain = [self.without(p, concept) for p in named]
        moving = {name: w for name, w in self.weights.items() if name in chosen}
        only = _spread(c.steps, 4)
        seeds = [c.seed + 1000 + i for i in range(len(named))]

        def frozen(prompts: Sequence[str], base: Sequence[str]) -> Problem:
            samples: Samples = trajectory(
                self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=base, only=only
            )
            return diffusion_problem(self.unet, Distance(), freeze_base(self.unet, samples, c.batch), moving, c.batch)

        problems = [(1.0, frozen(named, plain)), (c.keep, frozen(plain, plain))]
        return gradient_steps(problems, chosen, steps=c.tune_steps, rate=c.tune_rate, provenance=about)


def _shares(scores: Mapping[str, Tensor]) -> Scores:
    total = sum(float(s.abs().sum()) for s in scores.values()) or 1.0
    return {name: s / total for name, s in scores.items()}


def _spread(steps: int, wanted: int) -> list[int]:
    """`wanted` steps spread evenly over all, from the middle of each stretch."""
    wanted = min(wanted, steps)
    return [int((i + 0.5) * steps / wanted) for i in range(wanted)]
