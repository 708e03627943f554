"""Ways to erase or amplify a concept by its weights, and their controls: (method, concept, fraction) -> edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.edits.closed_form import concept_edit
from gazetteer.attribution.edits.delta import Delta, ablation
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE, TUNED, leader, takes_all
from gazetteer.attribution.edits.tune import Renew, gradient_steps
from gazetteer.attribution.objective.context import Context, context_samples
from gazetteer.attribution.objective.objectives import Amplify, Anchor, Distance, Erase
from gazetteer.attribution.objective.problem import Problem, Scores, diffusion_problem
from gazetteer.attribution.objective.samples import Samples, freeze_target, join, shuffled
from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory
from gazetteer.attribution.scores.estimators import CONTROLS, Options, estimate
from gazetteer.attribution.scores.selection import PRESETS, Chosen, Selection, count, random_like, scope_weights, select
from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
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
        batch: samples per U-Net call.
        erase_factor, amplify_factor: the target is the plain prompt's prediction and so many times what the concept
            adds; below 0 is negative guidance, as in ESD, which a few steps over few weights never quite reach.
        context: prompts that name the concept, and as many that do not, for ``iterated`` and ``steps``.
        context_steps: sampler steps at which these are compared, and as many at which others are held.
        decided: the fraction of the steps, from the first, in which it is decided what the picture shows: to erase, the
            former lie there; to amplify, and the latter, anywhere.
        rounds: gradients of ``iterated``.
        tune_steps, tune_rate: of Adam; the rate is relative to a layer's root mean square weight and for all weights of
            the scope; a fraction of them moves further, by fraction^(−1/3).
        seed: of everything random.
    """

    scope: str = "ff"
    per: str = "layer"
    wide: str = "cross"
    reference: str = "steps"
    template: str = "{}"
    base: str = ""
    steps: int = 50
    guidance: float = 3.0
    seeds: int = 1
    batch: int = 8
    erase_factor: float = -1.0
    amplify_factor: float = 3.0
    context: int = 8
    context_steps: int = 4
    decided: float = 0.3
    rounds: int = 60
    tune_steps: int = 36
    tune_rate: float = 0.045
    seed: int = 0

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"template is {self.template!r}; accepted: text with {{}} where the concept's name goes.")
        for name in ("steps", "seeds", "batch", "context", "context_steps", "rounds", "tune_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")


class Methods:
    """All methods on one pipeline; scores are computed once per concept and kept."""

    def __init__(
        self,
        pipe: Any,
        config: MethodConfig,
        concepts: Sequence[str],
        prompts: Mapping[str, frozenset[str]],
        without: Callable[[str, str], str],
    ) -> None:
        """Prepare.

        Args:
            concepts: all concepts to tell apart.
            prompts: prompts that edits may be made from (never those reported on), and the concepts each names.
            without: (prompt, concept) -> the prompt without the concept.

        Raises:
            InputError: an unknown scope.
        """
        self.pipe, self.config, self.concepts = pipe, config, tuple(concepts)
        self.prompts, self.without = dict(prompts), without
        self.weights = scope_weights(pipe.unet, config.scope)
        self.wide = scope_weights(pipe.unet, config.wide)
        self._kept: dict[tuple[str, ...], Scores] = {}
        self._samples: dict[tuple[str, ...], Samples] = {}
        self._walks: dict[tuple[str | int, ...], Samples] = {}
        self._edits: dict[tuple[str, ...], Delta] = {}

    @property
    def unet(self) -> nn.Module:
        """The model under study."""
        unet: nn.Module = self.pipe.unet
        return unet

    def edit(self, goal: str, method: str, concept: str, fraction: float) -> Delta:
        """The edit of a method.

        Args:
            goal: ``erase`` or ``amplify``.
            fraction: of the weights of the method's scope.

        Raises:
            InputError: unknown method.
        """
        if method not in {"erase": ERASE, "amplify": AMPLIFY}[goal]:
            raise InputError(f"Unknown method {method!r} to {goal}.")
        key = (goal, method, concept, "" if takes_all(method) else str(fraction))
        if key not in self._edits:
            about = {
                "goal": goal,
                "method": method,
                "concept": concept,
                "fraction": fraction,
                "config": vars(self.config),
            }
            if method == "uce":
                self._edits[key] = concept_edit(
                    self.pipe, self.wide, self.config.template.format(concept), self.config.base,
                    [self.config.template.format(other) for other in self.concepts if other != concept],
                    provenance=about,
                )  # fmt: skip
                return self._edits[key]
            chosen = self.choose(goal, method, concept, fraction)
            if (loss := method.partition("_")[0]) in TUNED:
                c = self.config
                problem = self.problem(goal, concept, "context" if loss == "steps" else loss)
                edit = gradient_steps(
                    problem, chosen, steps=c.tune_steps, rate=self._rate(chosen), provenance=about,
                    renew=self._esd(concept) if loss == "esd" else None,
                )  # fmt: skip
            else:
                edit = ablation({**self.weights, **self.wide}, chosen, about)
            self._edits[key] = edit
        return self._edits[key]

    def choose(self, goal: str, method: str, concept: str, fraction: float) -> Chosen:
        """The weights a method takes; followers take as many of each layer as their `leader` does at this fraction."""
        c = self.config
        sign = "positive" if goal == "erase" else "negative"
        if method.endswith("_all"):
            return {name: torch.arange(w.numel()) for name, w in self.wide.items()}
        if method in ("iterated", "steps"):
            return select(self.scores(goal, method, concept, fraction), Selection(fraction, "global"))
        if not (followed := leader(method, c.reference)):
            per = PRESETS["cad"].selection.per if method == "published" else c.per
            return select(self.scores(goal, method, concept), Selection(fraction, per, sign))
        counts = self.choose(goal, followed, concept, fraction)
        if method in TUNED:
            return counts
        weights = {**self.weights, **self.wide}
        if method.endswith("random"):
            return random_like(counts, weights, c.seed)
        scores = self.scores(goal, method, concept)
        # Controls rank by a number that has no sign: the highest, in equal numbers per layer.
        return {
            name: scores[name].reshape(-1).sort(descending=True, stable=True).indices[: len(index)].sort().values
            for name, index in counts.items()
        }

    def scores(self, goal: str, method: str, concept: str, fraction: float = 0.0) -> Scores:
        """α of every weight of the scope under a method.

        ``cad``: the published estimator and objective, every x_t with its own timestep. ``published``: every x_t with
        the timestep of the step that led to it, as the released code pairs them. ``live``: cad without the
        stop-gradient. ``contrast``: cad, each concept's α divided by the sum of |α|, minus the largest among the other
        concepts (for amplify: plus): what a weight does for this concept beyond what it does for any other.
        ``iterated``: see `iterated`, on `context_samples`. ``steps``: |dJ/dw| there, the weights whose small moves
        matter most. Controls: see `estimators`.
        """
        key = (goal, method, concept, str(fraction) if method == "iterated" else "")
        if key not in self._kept:
            self._kept[key] = self._scores(goal, method, concept, fraction)
        return self._kept[key]

    def _scores(self, goal: str, method: str, concept: str, fraction: float) -> Scores:
        c = self.config
        if method == "contrast":
            return self._contrast(goal, concept)
        if method == "iterated":
            options = Options(seed=c.seed, fraction=fraction, rounds=c.rounds)
            return estimate("iterated", self.problem(goal, concept, "context"), options)
        if method == "steps":
            return estimate("gradient", self.problem(goal, concept, "context"))
        kind = method if method in ("live", "published") else "wide" if method in CONTROLS else "cad"
        name = "cad" if method in ("live", "published") else method.removeprefix("cad_")
        return estimate(name, self.problem(goal, concept, kind), Options(seed=c.seed))

    def _rate(self, chosen: Chosen) -> float:
        fraction = count(chosen) / sum(w.numel() for w in self.wide.values())
        return self.config.tune_rate * fraction ** (-1 / 3) if fraction else self.config.tune_rate

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
            return diffusion_problem(self.unet, Distance(), self._context(goal, concept), weights, c.batch)
        if kind == "esd":
            return self._esd(concept)(0, nullcontext)
        if kind == "ca":
            return self._anchored(concept)
        prompts = [c.template.format(concept)] * c.seeds
        seeds = [c.seed + i for i in range(c.seeds)]
        if goal == "erase":
            samples = trajectory(
                self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base,
                pairing="published" if kind == "published" else "matched",
            )  # fmt: skip
            return diffusion_problem(self.unet, Erase(kind != "live"), samples, weights, c.batch)
        latents = generate_latents(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance)
        samples = noised_images(self.pipe, latents, prompts, steps=c.steps, seed=c.seed)
        return diffusion_problem(self.unet, Amplify(), samples, weights, c.batch)

    def context(self, concept: str) -> Context:
        """Prompts to measure a concept on: those that name it beside something else, and others."""
        c = self.config
        named = [p for p, has in self.prompts.items() if concept in has and self.without(p, concept) not in (p, "")]
        named = named[: c.context] or [c.template.format(concept)]
        kept = [p for p, has in self.prompts.items() if concept not in has]
        return Context(tuple(named), tuple(self.without(p, concept) for p in named), tuple(kept[: c.context]))

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
        return prompts, freeze_target(self.unet, replace(samples, base=None), 1.0)

    def _context(self, goal: str, concept: str) -> Samples:
        c, spread = self.config, _spread(self.config.steps, self.config.context_steps)
        if (goal, concept) not in self._samples:
            self._samples[goal, concept] = context_samples(
                self.pipe, self.context(concept), c.erase_factor if goal == "erase" else c.amplify_factor, self._walk,
                early=_first(c.steps, c.decided, c.context_steps) if goal == "erase" else spread,
                only=spread, seed=c.seed,
            )  # fmt: skip
        return self._samples[goal, concept]

    def _esd(self, concept: str) -> Renew:
        """ESD's loss: x_t of guided trajectories of the model being trained, targets of the model as it was.

        ‖ Φ(x_t, c; w) − [Φ(x_t; w*) − η (Φ(x_t, c; w*) − Φ(x_t; w*))] ‖² with η = 1 on the concept's own prompt.
        """
        c = self.config

        def renew(step: int, as_before: Callable[[], AbstractContextManager[None]]) -> Problem:
            seeds = [c.seed + 3000 + step * c.seeds + i for i in range(c.seeds)]
            prompts = [c.template.format(concept)] * c.seeds
            samples = trajectory(self.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base)
            with as_before():
                aimed = freeze_target(self.unet, samples, -1.0)
            return diffusion_problem(self.unet, Distance(), shuffled(aimed, step), self.wide, c.batch)

        return renew

    def _anchored(self, concept: str) -> Problem:
        """Concept ablation's loss: pictures of the prompts without the concept, the prompts with it to match them."""
        c, context = self.config, self.context(concept)
        seeds = [c.seed + 4000 + i for i in range(len(context.plain))]
        latents = generate_latents(self.pipe, context.plain, seeds, steps=c.steps, guidance=c.guidance)
        samples = noised_images(
            self.pipe, latents, context.named, steps=c.steps, seed=c.seed, base=context.plain,
        )  # fmt: skip
        return diffusion_problem(self.unet, Anchor(), shuffled(samples, c.seed), self.wide, c.batch)

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
        found = join(*(self._walks[(prompt, *only)] for prompt in prompts))
        # From prompt by prompt to step by step.
        return found.at(torch.arange(len(found)).view(len(prompts), -1).T.reshape(-1))

    def _contrast(self, goal: str, concept: str) -> Scores:
        own = _fractions(self.scores(goal, "cad", concept))
        sign = 1.0 if goal == "erase" else -1.0
        highest: Scores | None = None
        for other in self.concepts:
            if other != concept:
                theirs = {name: sign * s for name, s in _fractions(self.scores(goal, "cad", other)).items()}
                highest = theirs if highest is None else {n: torch.maximum(highest[n], s) for n, s in theirs.items()}
        if highest is None:
            return own
        return {name: s - sign * highest[name].clamp_min(0) for name, s in own.items()}


def _fractions(scores: Mapping[str, Tensor]) -> Scores:
    total = sum(float(s.abs().sum()) for s in scores.values()) or 1.0
    return {name: s / total for name, s in scores.items()}


def _spread(steps: int, wanted: int) -> list[int]:
    """`wanted` steps spread evenly over all, from the middle of each stretch."""
    wanted = min(wanted, steps)
    return [int((i + 0.5) * steps / wanted) for i in range(wanted)]


def _first(steps: int, fraction: float, wanted: int) -> list[int]:
    """`wanted` steps spread over the first `fraction` of all, the very first among them."""
    last = max(0, round(fraction * steps) - 1)
    return sorted({round(last * i / max(1, wanted - 1)) for i in range(wanted)})
