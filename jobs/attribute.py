"""`gazetteer attribute`: score a concept's or a feature's weights, apply and undo edits, evaluate methods."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attribution.checkpoint_edit import edit_model
from attribution.components import component_rows, write_components
from attribution.delta import ablation, load_delta, save_delta
from attribution.estimators import GROUPED, Options, cost, estimate
from attribution.evaluate import CHOOSE, REPORT, Case, Evaluation, Images, Judge, Paint, Protocol
from attribution.faithfulness import ablation_study
from attribution.groups import row_groups
from attribution.methods import AMPLIFY, ERASE, MethodConfig, Methods
from attribution.objectives import Amplify, Erase, FeatureActivation, Objective, user_objective
from attribution.problem import Problem, diffusion_problem
from attribution.samples import Samples, generate_latents, noised_images, trajectory
from attribution.selection import PRESETS, Share, count, scope_weights, select
from data.digests import digest_folder
from data.errors import InputError
from data.prompt_pool import read_prompts
from data.provenance import provenance
from data.sites import Site, step_of
from diffusion.generate import GenerationConfig, Generator
from diffusion.load import load_pipeline
from jobs.config import RunConfig
from labeling.detectors import load_detector
from labeling.vocabulary import Vocabulary
from sae.checkpoint import load_site_saes

OBJECTIVES = ("erase", "erase-live", "amplify")


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What `gazetteer attribute score` is told.

    Attributes:
        concept: its prompt is the bare name, as published, unless `prompts` says otherwise.
        feature: instead of a concept, ``SITE:N``, e.g. ``mid_block.attentions.0-cond-t0.50:17``.
        prompts: prompts to sample on; needed for a feature.
        objective: one of OBJECTIVES, or ``module:attribute`` for a callable (unet, samples) -> J [N].
        estimator: a name of `attribution.estimators.ESTIMATORS`.
        preset: scope, share and steps as published; what else is given is then ignored.
        points, ablations, groups: of the estimators that need them.
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
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.concept) == bool(self.feature):
            raise InputError("Name a concept or a feature, one of the two.")
        if self.feature and not self.prompts:
            raise InputError("A feature needs prompts to be measured on: --prompts.")
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
    model = digest_folder(run.model.path) if Path(run.model.path).exists() else run.model.path
    about = provenance({"model": model}, dataclasses.asdict(config))
    name = re.sub(r"[^a-z0-9]+", "-", f"{config.concept or config.feature}-{config.objective}".lower()).strip("-")
    path = Path(out) / f"{name}.safetensors"
    save_delta(ablation(weights, chosen, about), path)
    rows = component_rows(
        scores, chosen, estimator=config.estimator, objective=config.objective, concept=config.concept or None,
        site=(site.block, site.branch, site.t) if site else None, feature=feature,
    )  # fmt: skip
    table = write_components(out, rows, about)
    by_module = {n: len(index) for n, index in sorted(chosen.items(), key=lambda item: -len(item[1]))}
    return {
        "edit": str(path), "components": str(table), "weights": count(chosen),
        "scored": sum(w.numel() for w in weights.values()), "J": problem.value(),
        "cost": cost(config.estimator, options, len(groups) if groups else 0), "by_module": by_module,
    }  # fmt: skip


def apply_edit(model: str, delta: str, out: str, *, undo: bool = False) -> dict[str, Any]:
    """Copy a model folder with an edit applied (or undone), without loading the model."""
    edit = load_delta(delta)
    edit_model(model, out, edit, undo=undo)
    return {"model": out, "weights": len(edit), "undone": undo}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How much `gazetteer attribute evaluate` does; `quick` and `full` give two sizes.

    Attributes:
        pool: prompts painted, half to choose operating points, half to report on.
        erase, amplify: how many concepts, where none are named.
        ablations: per share, of the faithfulness study; estimators are compared at each of `ablation_shares`.
    """

    methods: MethodConfig
    protocol: Protocol
    steps: int
    pool: int
    erase: int
    amplify: int
    ablations: int
    ablation_shares: tuple[float, ...]
    study_samples: int
    points: int
    groups: int


def quick(run: RunConfig) -> EvaluateConfig:
    """Few concepts, few steps, few pictures: meant to take minutes with the embedded model."""
    steps = min(8, run.generation.steps)
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, tune_steps=15, tune_prompts=2, seed=run.seed),
        Protocol(("cad", "contrast", "steps", "random", "magnitude", "wanda"), ("cad", "random", "magnitude"),
                 shares=(0.01, 0.05), most=6),
        steps=steps, pool=48, erase=2, amplify=2, ablations=334, ablation_shares=(0.01, 0.05, 0.2),
        study_samples=1, points=8, groups=100,
    )  # fmt: skip


def full(run: RunConfig) -> EvaluateConfig:
    """Ten concepts or more, every method, the configuration's own number of steps."""
    steps = run.generation.steps
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, seeds=4, seed=run.seed),
        Protocol(ERASE, AMPLIFY, shares=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1), most=40),
        steps=steps, pool=400, erase=10, amplify=10, ablations=1000, ablation_shares=(0.001, 0.01, 0.05, 0.2),
        study_samples=4, points=16, groups=200,
    )  # fmt: skip


def evaluate(run: RunConfig, config: EvaluateConfig, concepts: Sequence[str] = ()) -> dict[str, Any]:
    """Measure faithfulness, erasing and amplifying on the configured model with its own detector.

    Returns:
        ``faithfulness`` (estimator -> [Pearson, low, high] pooled over shares as their mean, with ``rows`` beside it),
        ``erase`` and ``amplify`` (method -> ``target``, ``others``, ``change``, each [mean, low, high], …).

    Raises:
        InputError: no prompt names the concepts.
    """
    torch.set_num_threads(run.threads or torch.get_num_threads())
    pipe: Any = load_pipeline(run.model)
    vocabulary = Vocabulary(run.vocabulary)
    known = sorted(vocabulary.concepts)
    if wrong := sorted(set(concepts) - set(known)):
        raise InputError(f"{wrong[0]!r} is not in vocabulary.concepts: {', '.join(known)}.")
    cases = _cases(read_prompts(run.prompts), vocabulary, known, config.pool, run.seed)
    naming = {c: [k.prompt for k in cases if k.half == CHOOSE and c in k.named] for c in known}
    methods = Methods(pipe, config.methods, known, naming, without)
    generation = dataclasses.replace(run.generation, steps=config.steps)
    evaluation = Evaluation(methods, painter(pipe, generation), judge(run, known), cases, config.protocol)
    rates = evaluation.rates(CHOOSE)
    both = set(rates) & set(evaluation.rates(REPORT))
    # What is painted whether it is named or not cannot be told from its surroundings: prefer what the prompt decides.
    shown = [c for c in sorted(both, key=lambda c: rates[c][1] - rates[c][0]) if rates[c][0] >= 0.5]
    missed = [c for c in sorted(both, key=lambda c: rates[c][0]) if rates[c][0] < 1.0]
    targets = list(concepts) or shown[: config.erase]
    if not targets:
        raise InputError("The model shows no concept in half of the prompts that name it; name some with --concepts.")
    rows = faithfulness(methods, targets[0], config, run.seed)
    result: dict[str, Any] = {"faithfulness": _pooled(rows), "faithfulness_rows": rows}
    result["erase"] = evaluation.run("erase", targets)
    result["erase"]["blocking"] = evaluation.blocked(targets)
    raised = list(concepts) or missed[: config.amplify]
    result["amplify"] = evaluation.run("amplify", raised) if raised else {}
    result["intact_rates"] = {c: {"named": named, "unnamed": unnamed} for c, (named, unnamed) in rates.items()}
    return result


def faithfulness(methods: Methods, concept: str, config: EvaluateConfig, seed: int) -> list[dict[str, Any]]:
    """Predicted against actual change of J_erase over random ablations, of weights and of groups of rows."""
    c = config.methods
    samples = trajectory(
        methods.pipe, [c.template.format(concept)], [seed], steps=c.steps, guidance=c.guidance, base=c.base,
        only=[int((i + 0.5) * c.steps / config.study_samples) for i in range(config.study_samples)],
    )  # fmt: skip
    weights = methods.weights
    live = diffusion_problem(methods.unet, Erase(stop_gradient=False), samples, weights, c.batch)
    published = diffusion_problem(methods.unet, Erase(), samples, weights, c.batch)
    groups = row_groups(weights, config.groups)
    options = Options(seed=seed + 1, points=config.points, groups=groups, share=0.05, ablations=3 * config.groups)
    scores = {"cad": estimate("cad", published, options)}
    for name in ("cad", "integrated", "expected", "random", "magnitude", "gradient", "wanda", "finite", "coar"):
        scores[f"{name}_live" if name in ("cad", "integrated", "expected") else name] = estimate(name, live, options)
    single = {name: s for name, s in scores.items() if name not in GROUPED}
    rows = ablation_study(live, single, config.ablation_shares, config.ablations, seed=seed + 2)
    return rows + ablation_study(live, scores, (0.05,), max(3, config.ablations // 3), groups=groups, seed=seed + 3)


def print_evaluation(result: dict[str, Any]) -> None:
    """The measurements as text."""
    print("faithfulness: Pearson of predicted and actual change of J, [low, high]")
    for row in result["faithfulness_rows"]:
        value, low, high = row["pearson"]
        print(f"  {row['estimator']:<16}{row['unit']:<8}share {row['share']:<7}{value:6.2f}  [{low:.2f}, {high:.2f}]")
    for aim, what in (("erase", "found edited / intact"), ("amplify", "shown where the intact model missed it")):
        print(f"{aim}: target ({what}), other concepts kept, change of pictures without it")
        for method, found in result[aim].items():
            print(f"  {method:<14}{''.join(_cell(found[name]) for name in _SHOWN)}")


_SHOWN = ("target", "others", "change")


def _cell(interval: Sequence[float | None]) -> str:
    if any(value is None for value in interval):
        return f"{'nothing to measure':>21}"
    mean, low, high = interval
    return f"{mean:7.2f} [{low:.2f}, {high:.2f}]"


def painter(pipe: Any, generation: GenerationConfig) -> Paint:
    """Paint with the pipeline as it stands, each picture from its own seed."""
    blocks = dataclasses.replace(generation, blocks=_any_block(pipe, generation), t=(1.0,))
    generator = Generator(pipe, blocks)

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        images: Images = []
        size = 1 if generation.exact else 8
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)
            painted = generator.sample(prompts[part], seeds[part], lambda *_: None)
            images += list(painted if painted is not None else [])
        return images

    return paint


def judge(run: RunConfig, concepts: Sequence[str]) -> Judge:
    """The configured detector, asked for all concepts of every picture."""
    detector = load_detector(run.detector)

    def look(images: Images) -> list[set[str]]:
        return [{d.concept for d in found} for found in detector.detect(images, [concepts] * len(images))]

    return look


def without(prompt: str, concept: str) -> str:
    """The prompt without a concept: its word or plural goes, with the article before it and the place behind."""
    words = r"(?:(?:an?|the|one|two|three|four|five|six|many|some|several) )?"
    place = r"(?: (?:on the (?:left|right)|in the middle))?"
    gone = re.sub(rf"\b{words}{re.escape(concept)}(?:s|es)?\b{place}", "", prompt, flags=re.IGNORECASE)
    gone = re.sub(r"\b(?:with|and|on|of)\s*(?=,|$|\b(?:with|and)\b)", "", gone.strip())
    gone = re.sub(r"^\s*(?:,|and|with|on)\s+", "", gone)
    return re.sub(r"\s*,(?:\s*,)*", ",", re.sub(r"\s+", " ", gone)).strip(" ,")


def _any_block(pipe: Any, generation: GenerationConfig) -> tuple[str, ...]:
    """Blocks the generator may listen to; nothing is done with them here, but another model may lack the configured."""
    names = {name for name, _ in pipe.unet.named_modules()}
    return tuple(b for b in generation.blocks if b in names) or ("mid_block",)


def _cases(prompts: Sequence[str], vocabulary: Vocabulary, known: Sequence[str], wanted: int, seed: int) -> list[Case]:
    """The first prompts that name a concept, taken in turns for each concept, alternately in the two halves."""
    named = [(p, frozenset(vocabulary.mentioned(p)) & frozenset(known)) for p in dict.fromkeys(prompts)]
    queues: dict[str, list[tuple[str, frozenset[str]]]] = {c: [row for row in named if c in row[1]] for c in known}
    taken: dict[str, frozenset[str]] = {}
    while len(taken) < wanted and any(queues.values()):
        for queue in queues.values():
            while queue and queue[0][0] in taken:
                queue.pop(0)
            # Two at a time: one for each half, so that both name every concept.
            for row in queue[:2]:
                taken[row[0]] = row[1]
            del queue[:2]
    rows = list(taken.items())[: max(2, wanted)]
    # Far from the seeds that edits are made from (`MethodConfig.seed` and on), so that no noise is seen twice.
    first = seed + 1_000_000
    return [Case(p, first + i, names, CHOOSE if i % 2 == 0 else REPORT) for i, (p, names) in enumerate(rows)]


def _pooled(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Per estimator the mean Pearson over shares of single weights; of groups, for those that score only groups."""
    result = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        mine = [r["pearson"] for r in rows if r["estimator"] == name and r["unit"] == "weight"]
        mine = mine or [r["pearson"] for r in rows if r["estimator"] == name]
        result[name] = [float(v) for v in np.mean(mine, axis=0)]
    return result


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
    return diffusion_problem(pipe.unet, objective, samples, weights), site, feature


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
