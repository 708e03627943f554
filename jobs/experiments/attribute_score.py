"""`gazetteer attribute score` and `apply`: a concept's or a feature's weights, as a table and as an edit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gazetteer.attribution.edits.checkpoint_edit import edit_model
from gazetteer.attribution.edits.delta import ablation, compose
from gazetteer.attribution.edits.delta_file import load_delta, save_delta
from gazetteer.attribution.objective.objectives import Amplify, Erase, FeatureActivation, Objective, user_objective
from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory
from gazetteer.attribution.scores.components import component_rows, write_components
from gazetteer.attribution.scores.estimators import GROUPED, Options, cost, estimate
from gazetteer.attribution.scores.groups import row_groups
from gazetteer.attribution.scores.overlap import by_step
from gazetteer.attribution.scores.selection import PRESETS, Share, count, scope_weights, select
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site, step_of
from gazetteer.data.tables.provenance import provenance
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.labeling.vocabulary.words import parts, words
from gazetteer.sae.model.checkpoint import load_site_saes

OBJECTIVES = ("erase", "erase-live", "amplify")


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What `gazetteer attribute score` is told.

    Attributes:
        concept: its prompt is the bare name, as published, unless `prompts` says otherwise.
        feature: instead of a concept, ``SITE:N``, e.g. ``mid_block.attentions.0-cond-t0.50:17``.
        prompts: prompts to sample on; needed for a feature.
        objective: one of OBJECTIVES, or ``module:attribute`` for a callable (unet, samples) -> J [N].
        estimator: a name of `gazetteer.attribution.scores.estimators.ESTIMATORS`.
        preset: ``cad``: scope, share of every row and pairing of x_t with timesteps as in the released code; a scope,
            share and per that are given are then ignored, steps, guidance, seeds and base are not.
        points, ablations, groups: of the estimators that need them.
        by_step: also say how Σ |w · dJ_t/dw| of the chosen weights is spread over the sampler's steps.
    """

    concept: str = ""
    feature: str = ""
    prompts: tuple[str, ...] = ()
    objective: str = "erase"
    estimator: str = "cad"
    preset: str = ""
    scope: str = "ff"
    share: float = 0.001
    per: str = "layer"
    base: str = ""
    steps: int = 50
    guidance: float = 3.0
    seeds: int = 1
    points: int = 8
    ablations: int = 500
    groups: int = 200
    by_step: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.concept) == bool(self.feature):
            raise InputError("Name a concept or a feature, one of the two.")
        if self.feature and not self.prompts:
            raise InputError("A feature needs prompts to be measured on: --prompts.")
        if self.by_step and self.feature:
            raise InputError("A feature lives at one step; --by-step is for concepts.")
        if self.preset and self.preset not in PRESETS:
            raise InputError(f"preset is {self.preset!r}; accepted: {', '.join(PRESETS)}.")


def score(run: RunConfig, config: ScoreConfig, out: str) -> dict[str, Any]:
    """Score the weights, write ``OUT/components.parquet`` and the edit ``OUT/<name>.safetensors``; say what was done.

    Raises:
        InputError: anything that does not fit.
    """
    if config.preset:
        preset = PRESETS[config.preset]
        config = dataclasses.replace(config, scope=preset.scope, share=preset.share.share, per=preset.share.per)
    torch.set_num_threads(run.threads or torch.get_num_threads())
    pipe: Any = load_pipeline(run.model)
    weights = scope_weights(pipe.unet, config.scope)
    problem, site, feature = _problem(pipe, run, config, weights)
    groups = row_groups(weights, config.groups) if config.estimator in GROUPED else None
    options = Options(seed=config.seed, points=config.points, ablations=config.ablations, groups=groups)
    scores = estimate(config.estimator, problem, options)
    sign = "negative" if config.objective == "amplify" else "positive"
    chosen = select(scores, Share(config.share, config.per, sign))
    if not chosen:
        raise InputError(
            f"A share of {config.share} per {config.per} takes no weight here (a row of fewer than "
            f"{1 / config.share if config.share else 0:.0f} weights gives up none); raise --share or use --per layer."
        )
    model = digest_path(run.model.path)
    about = provenance({"model": model}, dataclasses.asdict(config))
    name = "-".join(parts(words(f"{config.concept or config.feature}-{config.objective}")))
    path = Path(out) / f"{name}.safetensors"
    save_delta(ablation(weights, chosen, about), path)
    rows = component_rows(
        scores, chosen, estimator=config.estimator, objective=config.objective, concept=config.concept or None,
        site=(site.block, site.branch, site.t) if site else None, feature=feature,
    )  # fmt: skip
    table = write_components(out, rows, about)
    steps = {"by_step": by_step(problem, chosen, config.steps)} if config.by_step else {}
    by_module = {n: len(index) for n, index in sorted(chosen.items(), key=lambda item: -len(item[1]))}
    return {
        "edit": str(path), "components": str(table), "weights": count(chosen),
        "scored": sum(w.numel() for w in weights.values()), "J": problem.value(),
        "cost": cost(config.estimator, options, len(groups) if groups else 0), "by_module": by_module, **steps,
    }  # fmt: skip


def apply_edit(model: str, deltas: Sequence[str], out: str, *, undo: bool = False) -> dict[str, Any]:
    """Copy a model folder with edits applied together (or undone), without loading the model.

    Args:
        deltas: files of edits, each made from the same model; see `compose`.

    Raises:
        InputError: edits that do not compose or do not fit the model.
    """
    edit = compose([load_delta(delta) for delta in deltas])
    rounding = edit_model(model, out, edit, undo=undo)
    return {"model": out, "weights": len(edit), "undone": undo, "rounding": str(rounding), **vars(rounding)}


def _problem(
    pipe: Any, run: RunConfig, config: ScoreConfig, weights: dict[str, torch.nn.Parameter]
) -> tuple[Problem, Site | None, int | None]:
    prompts = list(config.prompts or (config.concept,)) * config.seeds
    seeds = [config.seed + i for i in range(len(prompts))]
    site: Site | None = None
    feature: int | None = None
    if config.objective == "amplify" and not config.feature:
        latents = generate_latents(pipe, prompts, seeds, steps=config.steps, guidance=config.guidance)
        samples = noised_images(pipe, latents, prompts, steps=config.steps, seed=config.seed)
        objective: Objective = Amplify()
    else:
        samples = trajectory(
            pipe, prompts, seeds, steps=config.steps, guidance=config.guidance, base=config.base,
            pairing="published" if config.preset == "cad" else "matched",
        )  # fmt: skip
        objective, samples, site, feature = _objective(run, config, samples)
    # One part a step where steps are told apart.
    batch = len(prompts) if config.by_step else 8
    return diffusion_problem(pipe.unet, objective, samples, weights, batch), site, feature


def _objective(
    run: RunConfig, config: ScoreConfig, samples: Samples
) -> tuple[Objective, Samples, Site | None, int | None]:
    if config.feature:
        slug, colon, number = config.feature.rpartition(":")
        if not colon or not number.isdigit():
            raise InputError(
                f"feature is {config.feature!r}; accepted: SITE:N, as mid_block.attentions.0-cond-t0.50:17."
            )
        site, feature = Site.from_slug(slug), int(number)
        sae = load_site_saes(run.saes, [site])[site]
        if site.branch == "uncond":
            samples = dataclasses.replace(samples, cond=samples.base or {})
        return FeatureActivation(site.block, feature, sae), _at(samples, site.t, config), site, feature
    named: dict[str, Callable[[], Objective]] = {"erase": Erase, "erase-live": lambda: Erase(stop_gradient=False)}
    objective = named[config.objective]() if config.objective in named else user_objective(config.objective)
    return objective, samples, None, None


def _at(samples: Samples, t: float, config: ScoreConfig) -> Samples:
    """The samples of the one step where a site listens."""
    images = len(samples) // config.steps
    start = step_of(t, config.steps) * images
    return samples.at(slice(start, start + images))
