"""What is lowered to erase or amplify a concept: the published objectives, and those in context, on a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gazetteer.attribution.edits.tune import Renew
from gazetteer.attribution.objective.context import Context, context_samples
from gazetteer.attribution.objective.objectives import Amplify, Anchor, Distance, Erase
from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.samples import Samples, freeze_target, join, shuffled
from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Fraction, Positive, Seed, settings
from gazetteer.diffusion.denoisers.registry import network


@settings("")
class MethodConfig:
    """How concepts are attributed.

    Attributes:
        scope, per: of ``cad``, ``live`` and ``contrast``: which weights are scored, and within what the top fraction is
            taken; ``published`` takes its fraction of every row.
        wide: the scope of ``iterated``, ``steps`` and the controls, whose fractions are of all its weights together.
        reference: the method whose counts per layer the controls take, but for those of ``cad``.
        template: the concept's prompt, ``{}`` stands for its name; the published code uses the bare name.
        base: the base concept's prompt.
        steps, guidance: of the sampler; the published code uses 50 and 3.
        seeds: trajectories per concept (published: one); for amplify, pictures per concept (published: 50).
        batch: samples per call of the denoiser.
        erase_factor, amplify_factor: the target is the plain prompt's prediction and so many times what the concept
            adds; below 0 is negative guidance, as in ESD, which a few steps over few weights never quite reach.
        context: prompts that name the concept, and as many that do not, for ``iterated`` and ``steps``.
        context_steps: sampler steps at which these are compared, and as many at which others are held.
        decided: the fraction of the steps, from the first, in which it is decided what the picture shows: to erase, the
            former lie there; to amplify, and the latter, anywhere.
        rounds: gradients of ``iterated``.
        tune_steps, tune_rate: of Adam; the rate is relative to a layer's root mean square weight and for all weights of
            the scope; a fraction of them moves further, by fraction^(−1/3).
        repair_steps, repair_rate: of ``repaired``, on all weights of `wide`.
        seed: of everything random.
    """

    scope: str = "ff"
    per: str = "layer"
    wide: str = "cross"
    reference: str = "steps"
    template: str = "{}"
    base: str = ""
    steps: Count = 50
    guidance: float = 3.0
    seeds: Count = 1
    batch: Count = 8
    erase_factor: float = -1.0
    amplify_factor: float = 3.0
    context: Count = 8
    context_steps: Count = 4
    decided: Fraction = 0.3
    rounds: Count = 60
    tune_steps: Count = 36
    tune_rate: Positive = 0.045
    repair_steps: Count = 16
    repair_rate: Positive = 0.01
    seed: Seed = 0

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"template is {self.template!r}; accepted: text with {{}} where the concept's name goes.")


class ConceptProblems:
    """Every J of a concept on one pipeline; what was sampled for one is kept for others."""

    def __init__(
        self,
        pipe: Any,
        config: MethodConfig,
        prompts: Mapping[str, frozenset[str]],
        without: Callable[[str, str], str],
    ) -> None:
        """Prepare; see `Methods` for the arguments.

        Raises:
            InputError: an unknown scope.
        """
        self.pipe, self.config = pipe, config
        self.prompts, self.without = dict(prompts), without
        self.weights = scope_weights(self.denoiser, config.scope)
        self.wide = scope_weights(self.denoiser, config.wide)
        self._samples: dict[tuple[str, ...], Samples] = {}
        self._walks: dict[tuple[str | int, ...], Samples] = {}
        self.named_by: dict[str, int] = {}
        """Of every concept whose context was asked for, how many prompts that name it beside something else are in it;
        with none its bare name stands for them."""

    @property
    def denoiser(self) -> nn.Module:
        """The network under study."""
        return network(self.pipe)

    def problem(self, goal: str, concept: str, kind: str = "cad") -> Problem:
        """J of a concept.

        Args:
            kind: ``cad``, the published objectives on the concept's own prompt; ``published``, with the released
                code's pairing too; ``live``, without stop-gradient; ``wide``, as ``cad`` on the wide scope;
                ``context``, the distance to what is wanted on prompts that name the concept and on those that do not
                (`context_samples`), on the wide scope; ``esd`` and ``ca``, the losses of ESD (2303.07345 eq. 7,
                η = 1) and of concept ablation (`objectives.Anchor`), there too.
        """
        c = self.config
        weights = self.wide if kind in ("wide", "context", "esd", "ca") else self.weights
        if kind == "context":
            return diffusion_problem(self.denoiser, Distance(), self._context(goal, concept), weights, c.batch)
        if kind == "esd":
            return self.esd(concept)(0, nullcontext)
        if kind == "ca":
            return self._anchored(concept)
        prompts = [c.template.format(concept)] * c.seeds
        seeds = [c.seed + i for i in range(c.seeds)]
        if goal == "erase":
            samples = trajectory(
                self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base,
                pairing="published" if kind == "published" else "matched",
            )  # fmt: skip
            return diffusion_problem(self.denoiser, Erase(kind != "live"), samples, weights, c.batch)
        latents = generate_latents(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance)
        samples = noised_images(self.pipe, latents, prompts, steps=c.steps, seed=c.seed, guidance=c.guidance)
        return diffusion_problem(self.denoiser, Amplify(), samples, weights, c.batch)

    def context(self, concept: str) -> Context:
        """Prompts to measure a concept on: those that name it beside something else, and others; see `named_by`."""
        c = self.config
        named = [p for p, has in self.prompts.items() if concept in has and self.without(p, concept) not in (p, "")]
        self.named_by[concept] = len(named[: c.context])
        named = named[: c.context] or [c.template.format(concept)]
        prompts_without = [p for p, has in self.prompts.items() if concept not in has]
        return Context(
            tuple(named), tuple(self.without(p, concept) for p in named), tuple(prompts_without[: c.context])
        )

    def unedited(self, concept: str, most: int = 4) -> tuple[tuple[str, ...], Samples]:
        """Prompts that name the concept and, where it is decided what is shown, the present model's own predictions.

        Returns:
            the prompts, and samples of them with targets, as `trajectory` orders them.
        """
        c, prompts = self.config, self.context(concept).named[:most]
        samples = trajectory(
            self.pipe, prompts, [c.seed + 5000 + i for i in range(len(prompts))], steps=c.steps, guidance=c.guidance,
            only=_first(c.steps, c.decided, 2),
        )  # fmt: skip
        return prompts, freeze_target(self.denoiser, replace(samples, base=None), 1.0)

    def held(self, concept: str) -> Problem:
        """What an edit of the concept should leave as it is, on the wide scope: prompts that do not name it.

        The prompts of its context without the concept, others, and the empty one, with the intact model's predictions.
        """
        samples = self._context("erase", concept)
        assert samples.weight is not None
        # The context's named samples weigh less than what is held, which all weigh the same.
        stays = (samples.weight >= samples.weight.max()).nonzero().squeeze(1)
        return diffusion_problem(self.denoiser, Distance(), samples.at(stays), self.wide, self.config.batch)

    def wanted(self, concept: str) -> Samples:
        """The concept's bare name over the steps in which pictures take shape, with the intact model's own predictions.

        What an embedding is searched for that asks an edited model for the concept (`attacks.embedding`). Taken once,
        before anything is edited, in random order.
        """
        c, key = self.config, ("wanted", concept)
        if key not in self._samples:
            steps = sorted({int(place * c.steps) for place in (0, 0.1, 0.2, 0.3, 0.5, 0.7)})
            samples = trajectory(
                self.pipe, [c.template.format(concept)] * 3, [c.seed + 6000 + i for i in range(3)], steps=c.steps,
                guidance=c.guidance, only=steps,
            )  # fmt: skip
            self._samples[key] = shuffled(freeze_target(self.denoiser, replace(samples, base=None), 1.0), c.seed)
        return self._samples[key]

    def pictured(self, concept: str, most: int, own: bool = True) -> tuple[tuple[str, ...], Samples]:
        """Noised pictures that the intact model painted, with the targets it was trained on (`noised_images`).

        Args:
            most: pictures.
            own: of prompts that name the concept; else of prompts that do not.

        Returns:
            the prompts, and samples of them step by step; taken once, before anything is edited.
        """
        c, context = self.config, self.context(concept)
        prompts = (context.named if own else context.kept)[:most]
        key = ("pictured", concept, str(most), str(own))
        if key not in self._samples:
            seeds = [c.seed + 7000 + i for i in range(len(prompts))]
            latents = generate_latents(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance)
            only = _spread(c.steps, c.context_steps)
            samples = noised_images(
                self.pipe, latents, prompts, steps=c.steps, seed=c.seed + 1, only=only, guidance=c.guidance
            )
            self._samples[key] = replace(samples, base=None)
        return prompts, self._samples[key]

    def _context(self, goal: str, concept: str) -> Samples:
        c, spread = self.config, _spread(self.config.steps, self.config.context_steps)
        if (goal, concept) not in self._samples:
            self._samples[goal, concept] = context_samples(
                self.pipe, self.context(concept), c.erase_factor if goal == "erase" else c.amplify_factor, self._walk,
                early=_first(c.steps, c.decided, c.context_steps) if goal == "erase" else spread,
                only=spread, seed=c.seed, guidance=c.guidance,
            )  # fmt: skip
        return self._samples[goal, concept]

    def esd(self, concept: str) -> Renew:
        """ESD's loss: x_t of guided trajectories of the model being trained, targets of the model as it was.

        ‖ Φ(x_t, c; w) − [Φ(x_t; w*) − η (Φ(x_t, c; w*) − Φ(x_t; w*))] ‖² with η = 1 on the concept's own prompt.
        """
        c = self.config

        def renew(step: int, as_before: Callable[[], AbstractContextManager[None]]) -> Problem:
            seeds = [c.seed + 3000 + step * c.seeds + i for i in range(c.seeds)]
            prompts = [c.template.format(concept)] * c.seeds
            samples = trajectory(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base)
            with as_before():
                aimed = freeze_target(self.denoiser, samples, -1.0)
            return diffusion_problem(self.denoiser, Distance(), shuffled(aimed, step), self.wide, c.batch)

        return renew

    def _anchored(self, concept: str) -> Problem:
        """Concept ablation's loss: pictures of the prompts without the concept, the prompts with it to match them."""
        c, context = self.config, self.context(concept)
        seeds = [c.seed + 4000 + i for i in range(len(context.plain))]
        latents = generate_latents(self.pipe, context.plain, seeds, steps=c.steps, guidance=c.guidance)
        samples = noised_images(
            self.pipe, latents, context.named, steps=c.steps, seed=c.seed, base=context.plain, guidance=c.guidance,
        )  # fmt: skip
        return diffusion_problem(self.denoiser, Anchor(), shuffled(samples, c.seed), self.wide, c.batch)

    def _walk(self, prompts: Sequence[str], only: Sequence[int]) -> Samples:
        """Inputs of the intact model at some steps; a prompt's trajectory serves every concept it is used for."""
        c = self.config
        places = {prompt: place for place, prompt in enumerate(self.prompts)}
        for start in range(0, len(prompts), c.batch):
            part = [p for p in prompts[start : start + c.batch] if (p, *only) not in self._walks]
            if part:
                # Other noise than that of the published objectives, and than that of the evaluation.
                seeds = [c.seed + 10_000 + places.get(prompt, len(places)) for prompt in part]
                many = trajectory(
                    self.pipe, part, seeds, steps=c.steps, guidance=c.guidance, base=c.base, only=only
                )  # fmt: skip
                for place, prompt in enumerate(part):
                    self._walks[(prompt, *only)] = many.at(slice(place, None, len(part)))
        samples = join(*(self._walks[(prompt, *only)] for prompt in prompts))
        # From prompt by prompt to step by step.
        return samples.at(torch.arange(len(samples)).view(len(prompts), -1).T.reshape(-1))


def _spread(steps: int, wanted: int) -> list[int]:
    """`wanted` steps spread evenly over all, from the middle of each stretch."""
    wanted = min(wanted, steps)
    return [int((i + 0.5) * steps / wanted) for i in range(wanted)]


def _first(steps: int, fraction: float, wanted: int) -> list[int]:
    """`wanted` steps spread over the first `fraction` of all, the very first among them."""
    last = max(0, round(fraction * steps) - 1)
    return sorted({round(last * i / max(1, wanted - 1)) for i in range(wanted)})
