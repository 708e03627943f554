"""Score the weights of a pipeline for a concept or an SAE feature, and choose those that an edit takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import nn

from gazetteer.attribution.objective.objectives import Amplify, Erase, FeatureActivation, Objective, user_objective
from gazetteer.attribution.objective.problem import Scores, diffusion_problem
from gazetteer.attribution.objective.samples import Samples, shuffled
from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory, unconditioned
from gazetteer.attribution.scores.controls import CONTROLS
from gazetteer.attribution.scores.estimators import GROUPED, SQUARED, Options, cost, estimate, require_known
from gazetteer.attribution.scores.groups import row_groups
from gazetteer.attribution.scores.overlap import by_step
from gazetteer.attribution.scores.selection import (
    PRESETS,
    SCOPES,
    Chosen,
    Preset,
    Selection,
    Supply,
    TopFraction,
    require_some,
    scope_weights,
    select,
    supply,
)
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, OneOf, Seed, settings
from gazetteer.data.core.sites import Site, step_of
from gazetteer.diffusion.capture import width_of
from gazetteer.diffusion.denoisers.registry import network
from gazetteer.sae.model.checkpoint import expect_width, load_site_saes
from gazetteer.sae.model.sources import SaeSource

OBJECTIVES = ("erase", "erase-live", "amplify")
TOLD: dict[str, tuple[int, tuple[str, ...]]] = {
    "points": (8, ("integrated", "expected", "curved", "iterated")),
    "ablations": (500, ("coar",)),
    "groups": (200, GROUPED),
}
"""What only some estimators are told: the default, and those."""


@settings("")
class ScoreConfig:
    """What `gazetteer attribute score` is told.

    Attributes:
        concept: its prompt is the bare name, as published, unless `prompts` says otherwise.
        feature: instead of a concept, ``SITE:N``, e.g. ``mid_block.attentions.0-cond-t0.50:17``.
        prompts: prompts to sample on; needed for a feature.
        objective: one of OBJECTIVES, or ``module:attribute`` for a callable (unet, samples) -> J [N].
        estimator: a name of `gazetteer.attribution.scores.estimators.ESTIMATORS`.
        preset: ``cad``: scope, fraction of every row and pairing of x_t with timesteps as in the released code, so that
            none of them can be given beside it.
        scope, fraction, per: which weights are scored, and which part of them is taken (`Selection`); None: ``ff``,
            0.001 and ``layer``. The estimator ``iterated`` zeroes as many while it scores.
        points, ablations, groups: of the estimators that need them (`TOLD`), which others refuse; None: 8, 500 and 200.
        by_step: also say how Σ |w · dJ_t/dw| of the chosen weights is spread over the sampler's steps.
    """

    concept: str = ""
    feature: str = ""
    prompts: tuple[str, ...] = ()
    objective: str = "erase"
    estimator: str = "cad"
    preset: Annotated[str, OneOf(("", *PRESETS))] = ""
    scope: str | None = None
    fraction: TopFraction | None = None
    per: str | None = None
    base: str = ""
    steps: Count = 50
    guidance: float = 3.0
    seeds: Count = 1
    points: Count | None = None
    ablations: Count | None = None
    groups: Count | None = None
    by_step: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        if bool(self.concept) == bool(self.feature):
            raise InputError("Name a concept or a feature, one of the two.")
        if self.feature and not self.prompts:
            raise InputError("A feature needs prompts to be measured on: --prompts.")
        if self.by_step and self.feature:
            raise InputError("A feature lives at one step; --by-step is for concepts.")
        if self.feature and self.objective not in ("erase", "amplify"):
            raise InputError(
                "A feature is its own objective, of which erase and amplify take either sign; leave out "
                f"--objective {self.objective}."
            )
        if self.base and self.objective == "amplify" and not self.feature:
            raise InputError("amplify compares with no base concept; leave out --base.")
        if self.preset and (given := [n for n in ("scope", "fraction", "per") if getattr(self, n) is not None]):
            raise InputError(f"The preset {self.preset} sets {given[0]} itself; leave out --{given[0]} or --preset.")
        require_known(self.estimator)
        for name, (_, estimators) in TOLD.items():
            if getattr(self, name) is not None and self.estimator not in estimators:
                raise InputError(
                    f"--{name} is about {', '.join(estimators)}, and the estimator is {self.estimator}; leave it out."
                )
        if self.estimator in SQUARED and (self.feature or self.objective == "amplify"):
            _refuse_square(self)
        if (scope := _selection(self)[0]) not in SCOPES:  # which refuses an unknown --per
            raise InputError(f"scope is {scope!r}; accepted: {', '.join(SCOPES)}.")

    @property
    def told(self) -> dict[str, int]:
        """`points`, `ablations` and `groups`, those that were left out by their defaults."""
        return {name: usual if (own := getattr(self, name)) is None else own for name, (usual, _) in TOLD.items()}


@dataclass(frozen=True)
class Scored:
    """Scores of weights, and those that were chosen.

    Attributes:
        scope, selection: which weights were scored, and which part of them was taken.
        weights: that were scored, by name.
        chosen: flat indices of those that an edit takes.
        supply: how many were asked for, and how many could be taken.
        value: J of the intact model.
        site, feature: of an SAE feature.
        cost: evaluations and gradients of J that were spent.
        steps: per sampler step its part of Σ |w · dJ_t/dw| of the chosen weights, where `ScoreConfig.by_step` asks.
    """

    scope: str
    selection: Selection
    weights: dict[str, nn.Parameter]
    scores: Scores
    chosen: Chosen
    supply: Supply
    value: float
    site: Site | None
    feature: int | None
    cost: dict[str, int]
    steps: list[float]

    @property
    def empty(self) -> bool:
        """Whether all scores are 0."""
        return not any(bool(score.any()) for score in self.scores.values())


class NothingTakenError(InputError):
    """No weight can be taken by its score, whatever the fraction.

    Attributes:
        scored: what was scored all the same; nothing is chosen.
    """

    def __init__(self, message: str, scored: Scored) -> None:
        """message: why."""
        super().__init__(message)
        self.scored = scored


def score_weights(pipe: Any, config: ScoreConfig, saes: SaeSource = "", signal: str = "") -> Scored:
    """Score the weights of a pipeline's denoiser and choose the strongest.

    Args:
        saes: the autoencoders, as of `load_site_saes`, needed for a feature.
        signal: what they read where they do not say it, as of `load_site_saes`.

    Raises:
        InputError: anything that does not fit, or a fraction that takes nothing, before anything is sampled.
        NothingTakenError: no weight has a score by which it could be taken.
    """
    scope, selection = _selection(config)
    weights = scope_weights(network(pipe), scope)
    require_some(weights, selection, f"leave out --preset {config.preset}, which sets it" if config.preset else "")
    objective, samples, site, feature = _samples(pipe, (saes, signal), config)
    # The rounds of `iterated` go through the parts: every part of it shall have early steps and late ones.
    mixed = shuffled(samples, config.seed) if config.estimator == "iterated" else samples
    problem = diffusion_problem(network(pipe), objective, mixed, weights)
    told = config.told
    groups = row_groups(weights, told["groups"]) if config.estimator in GROUPED else None
    options = Options(seed=config.seed, points=told["points"], ablations=told["ablations"], groups=groups)
    if config.estimator == "iterated":
        options = replace(options, fraction=selection.fraction)
    scores = estimate(config.estimator, problem, options)
    taken = select(scores, selection)
    steps: list[float] = []
    if config.by_step and taken:  # one part a step
        each = len(samples) // config.steps
        steps = by_step(diffusion_problem(network(pipe), objective, samples, weights, each), taken, config.steps)
    spent = cost(config.estimator, options, len(groups) if groups else 0)
    scored = Scored(
        scope, selection, weights, scores, taken, supply(scores, selection, taken), problem.value(), site, feature,
        spent, steps,
    )  # fmt: skip
    if not taken:
        raise NothingTakenError(_why_nothing(scored, config), scored)
    return scored


def _why_nothing(scored: Scored, config: ScoreConfig) -> str:
    if scored.supply.eligible:
        return f"Nothing is taken: {scored.supply.short}."
    if scored.empty:
        if config.feature and not scored.value:
            return "The feature fires nowhere on these prompts (J is 0), so that no weight has a score; name others."
        if not scored.value and config.objective in ("erase", "erase-live"):
            return (
                f"The model predicts the same for {config.concept or config.prompts[0]!r} as for {config.base!r} "
                "(J is 0), so that no weight has a score; name another --base."
            )
        return f"All scores of the scope {scored.scope} are 0; name another --scope or --estimator."
    sign = {"positive": "above", "negative": "below"}[scored.selection.sign]
    return f"No weight of the scope {scored.scope} has a score {sign} 0, and only such are taken; name another --scope."


def _refuse_square(config: ScoreConfig) -> None:
    measured = "a feature" if config.feature else config.objective
    raise InputError(
        f"The estimator {config.estimator} needs an objective that is a squared distance, as erase is, not {measured}."
    )


def _selection(config: ScoreConfig) -> tuple[str, Selection]:
    """The scope, and which part of its weights is taken."""
    preset = PRESETS[config.preset] if config.preset else Preset("ff", Selection(0.001, "layer"))
    # Controls have no sign: what they take for erasing they take for amplifying.
    sign = "negative" if config.objective == "amplify" and config.estimator not in CONTROLS else "positive"
    fraction = preset.selection.fraction if config.fraction is None else config.fraction
    return config.scope or preset.scope, Selection(fraction, config.per or preset.selection.per, sign)


def _samples(
    pipe: Any, saes: tuple[SaeSource, str], config: ScoreConfig
) -> tuple[Objective, Samples, Site | None, int | None]:
    """What is measured on which samples, step by step, and the site and number of a feature."""
    prompts = list(config.prompts or (config.concept,)) * config.seeds
    seeds = [config.seed + i for i in range(len(prompts))]
    if config.objective == "amplify" and not config.feature:
        latents = generate_latents(pipe, prompts, seeds, steps=config.steps, guidance=config.guidance)
        samples = noised_images(pipe, latents, prompts, steps=config.steps, seed=config.seed, guidance=config.guidance)
        return Amplify(), samples, None, None
    measured = _feature(pipe, saes, config.feature) if config.feature else None  # before anything is sampled
    made = None if measured else _objective(config)
    samples = trajectory(
        pipe, prompts, seeds, steps=config.steps, guidance=config.guidance, base=config.base,
        pairing="published" if config.preset == "cad" else "matched",
    )  # fmt: skip
    if measured is not None:
        objective, site = measured
        samples = _at(samples, site.t, config)
        if site.branch == "uncond":
            samples = replace(samples, cond=unconditioned(pipe, prompts, config.guidance))
        return objective, samples, site, objective.feature
    assert made is not None
    return made, samples, None, None


def _objective(config: ScoreConfig) -> Objective:
    """Of a concept, by name; InputError where it cannot be imported, or does not fit the estimator."""
    named: dict[str, Callable[[], Objective]] = {"erase": Erase, "erase-live": lambda: Erase(stop_gradient=False)}
    made = named[config.objective]() if config.objective in named else user_objective(config.objective)
    if config.estimator in SQUARED and not hasattr(made, "residual"):
        _refuse_square(config)
    return made


def _feature(pipe: Any, saes: tuple[SaeSource, str], name: str) -> tuple[FeatureActivation, Site]:
    """The activation of a feature that is named ``SITE:N``, and its site."""
    slug, colon, number = name.rpartition(":")
    if not colon or not number.isdigit():
        raise InputError(f"feature is {name!r}; accepted: SITE:N, as mid_block.attentions.0-cond-t0.50:17.")
    site = Site.from_slug(slug)
    denoiser: Any = network(pipe)
    sae = load_site_saes(saes[0], [site], denoiser.device, signal=saes[1])[site]
    expect_width(sae, width_of(pipe, site.block), site)
    return FeatureActivation(site.port, int(number), sae), site


def _at(samples: Samples, t: float, config: ScoreConfig) -> Samples:
    """The samples of the one step where a site listens."""
    images = len(samples) // config.steps
    start = step_of(t, config.steps) * images
    return samples.at(slice(start, start + images))
