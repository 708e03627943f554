"""`gazetteer attribute evaluate`: faithfulness of estimators, and what edits do to the configured model's pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE
from gazetteer.attribution.edits.methods import MethodConfig, Methods
from gazetteer.attribution.evaluation.cache import Kept
from gazetteer.attribution.evaluation.evaluate import Evaluation, Protocol
from gazetteer.attribution.evaluation.outcomes import CHOOSE, REPORT
from gazetteer.attribution.evaluation.together import together
from gazetteer.attribution.evaluation.witnesses import Witnesses
from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.estimators import GROUPED, Options, estimate
from gazetteer.attribution.scores.faithfulness import ablation_study
from gazetteer.attribution.scores.groups import row_groups
from gazetteer.attribution.scores.overlap import neighbours
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_located import everywhere, located
from gazetteer.jobs.experiments.attribute_pictures import judge, painter, prepare, witness
from gazetteer.jobs.experiments.steer import load_judge
from gazetteer.labeling.detect.detector_features import backbone_features
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.vocabulary.concepts import Vocabulary

SHOWN = 1 / 3
"""What is found in fewer of the pictures whose prompts name it is not erased unless asked for."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How much `gazetteer attribute evaluate` does; `quick` and `full` give two sizes.

    Attributes:
        pool: prompts painted, half to choose operating points, half to report on.
        erase, amplify: how many concepts, where none are named.
        looks: erase words for the look of a picture too (`steer.words`, read by `steer.judge`).
        areas: erase concepts that are not objects (`steer.concepts`) too.
        fewer: the methods that looks and areas are erased by.
        located: methods whose choices are shown by layer and compared between concepts.
        ablations: per share, of the faithfulness study; estimators are compared at each of `ablation_shares`.
        studied: concepts of that study, those that are erased first.
        study_samples: inputs of that study, per concept.
        points, groups: of the estimators that need them.
    """

    methods: MethodConfig
    protocol: Protocol
    steps: int
    pool: int
    erase: int
    amplify: int
    looks: bool
    areas: bool
    fewer: tuple[str, ...]
    located: tuple[str, ...]
    ablations: int
    ablation_shares: tuple[float, ...]
    studied: int
    study_samples: int
    points: int
    groups: int


def quick(run: RunConfig) -> EvaluateConfig:
    """Six concepts, few steps, few pictures: minutes with the embedded model."""
    steps = min(10, run.generation.steps)
    methods = ("steps", "steps_random", "cad", "random", "magnitude")
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, seed=run.seed),
        Protocol(methods, ("steps", "steps_random", "cad", "random"), shares=(0.01, 0.05),
                 special={"steps": (0.003, 0.1)}, most=4, seek=8),
        steps=steps, pool=96, erase=6, amplify=2, looks=False, areas=False, fewer=(), located=("cad", "steps"),
        ablations=200, ablation_shares=(0.01, 0.05, 0.2), studied=1, study_samples=1, points=8, groups=100,
    )  # fmt: skip


def full(run: RunConfig) -> EvaluateConfig:
    """All objects, looks and areas, every method."""
    steps = min(10, run.generation.steps)
    doses = {**dict.fromkeys(("steps", "steps_random"), (0.003, 0.01, 0.03, 0.1)),
             "cad": (0.003, 0.01, 0.02, 0.05)}  # fmt: skip
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, seeds=2, context=16, seed=run.seed),
        Protocol(ERASE, AMPLIFY, shares=(0.01, 0.05), special=doses, most=8, seek=64,
                 curved=("steps_random",), paraphrased=("cad", "steps"), attacked=("steps",)),
        steps=steps, pool=160, erase=12, amplify=13, looks=True, areas=True,
        fewer=("steps", "steps_random", "cad", "random"), located=("cad", "steps"),
        ablations=1000, ablation_shares=(0.01, 0.05, 0.2), studied=1, study_samples=1, points=16, groups=100,
    )  # fmt: skip


def evaluate(
    run: RunConfig, config: EvaluateConfig, concepts: Sequence[str] = (), folder: str = "", only: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure faithfulness, erasing and amplifying on the configured model with its own detector.

    Args:
        concepts: to erase and to amplify; none: those the model shows, and those it misses.
        folder: keeps every result as soon as it is there; another call on it goes on where one was stopped, or with
            other concepts or methods.
        only: methods to evaluate beside the reference and those they follow; none: all of the configuration.

    Returns:
        ``faithfulness`` and ``faithfulness_spearman`` (estimator -> [correlation, low, high], the mean over concepts
        and shares, see `_pooled`; each in ``faithfulness_rows``),
        ``erase``, ``amplify`` (method -> see `Evaluation.run`) and, apart from the objects (`steer.concepts`),
        ``erase_looks`` and ``erase_areas``, concepts that cover the picture and are often implied by the rest;
        ``erase_together``, objects and looks as one set (`together`), where looks were erased;
        ``overlap`` and ``distribution`` of the weights chosen to erase (method -> concept -> …), ``everywhere`` (see
        `everywhere`), ``neighbours``, ``intact_rates``.

    Raises:
        InputError: no prompt names the concepts, or the folder holds results of other settings.
    """
    known = sorted(Vocabulary(run.vocabulary).concepts)
    words = run.steer.words if config.looks and run.steer.judge else ()
    if wrong := sorted(set(concepts) - set(known)):
        raise InputError(f"{wrong[0]!r} is not in vocabulary.concepts: {', '.join(known)}.")
    if wrong := sorted(set(only) - {*config.protocol.erase, *config.protocol.amplify}):
        raise InputError(f"Unknown method {wrong[0]!r}; accepted: {', '.join(config.protocol.erase)}.")
    models = {name: digest_path(path) for name, path in (("model", run.model.path), ("detector", run.detector.path))}
    second = run.attribute.classifier
    kept = Kept(folder or None, {**_settings(config), **models, "classifier": second})
    methods, pool = prepare(run, config.methods, config.pool, words)
    pipe = methods.pipe
    detector = load_detector(run.detector)
    evaluation = Evaluation(
        methods, Witnesses(
            painter(pipe, dataclasses.replace(run.generation, steps=config.steps, exact=False)),
            judge(detector, known, load_judge(run.steer.judge, words) if words else None),
            witness(load_judge(second, known, "attribute.classifier")) if second else None,
            backbone_features(detector) if run.detector.library == "transformers" else None,
        ), pool, config.protocol, neighbours=neighbours(pipe, known), kept=kept,
    )  # fmt: skip
    rates = evaluation.rates(CHOOSE)
    both = set(rates) & evaluation.named(REPORT)
    shown, missed = _by_need({name: rates[name] for name in both & set(known)}, run.steer.concepts)
    objects = [c for c in shown if c in run.steer.concepts] or shown
    targets = list(concepts) or objects[: config.erase]
    if not targets:
        raise InputError("The model shows hardly any concept where it is named; name some with --concepts.")
    result: dict[str, Any] = {"erase": evaluation.run("erase", targets, only)}
    result["erase"]["blocking"] = evaluation.blocked(targets)
    raised = list(concepts) or missed[: config.amplify]
    result["amplify"] = evaluation.run("amplify", raised, only) if raised else {}
    looks = [word for word in words if word in both and rates[word][0] >= SHOWN]
    areas = [] if concepts or not config.areas else [c for c in shown if c not in objects and rates[c][1] < 0.5]
    plain = dataclasses.replace(config.protocol, curved=())
    beside = Evaluation(methods, evaluation.witnesses, pool, plain, neighbours=evaluation.neighbours, kept=kept)
    for name, some in (("erase_looks", looks), ("erase_areas", areas)):
        if some:
            found = beside.run("erase", some, [m for m in config.fewer if m in (only or config.fewer)] or only)
            result[name] = {**found, "blocking": evaluation.blocked(some)}
    if "erase_looks" in result:
        result["erase_together"] = together(evaluation, [result["erase"], result["erase_looks"]])
    result["everywhere"] = everywhere(methods, [*targets, *looks, *areas], kept)
    result |= located(
        methods,
        config.located,
        {m: found["share"] for m, found in result["erase"].items() if "share" in found},
        targets,
        kept,
    )
    rows: list[dict[str, Any]] = []
    for concept in targets[: config.studied]:
        rows += kept.json(("faithfulness", concept), partial(faithfulness, methods, concept, config, run.seed))
    result |= {
        "faithfulness": _pooled(rows),
        "faithfulness_spearman": _pooled(rows, "spearman"),
        "faithfulness_rows": rows,
    }
    result["neighbours"] = evaluation.neighbours
    result["intact_rates"] = {c: {"named": named, "unnamed": unnamed} for c, (named, unnamed) in rates.items()}
    return result


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """What a single result depends on, beside its own name: not which results are wanted."""
    p = config.protocol
    study = ("steps", "pool", "ablations", "ablation_shares", "study_samples", "points", "groups")
    return {
        "methods": dataclasses.asdict(config.methods), "cases": p.most, "sought": p.seek,
        "attack": dataclasses.asdict(p.attack),
        **{name: getattr(config, name) for name in study},
    }  # fmt: skip


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
    single, rows = {name: s for name, s in scores.items() if name not in GROUPED}, []
    for nth, share in enumerate(config.ablation_shares):
        # Random ablations of the size that is asked about, but not the same ones.
        matched = estimate("expected", live, dataclasses.replace(options, share=share, points=2 * config.points))
        rows += ablation_study(
            live, {**single, "expected_matched": matched}, (share,), config.ablations, seed=seed + 10 + nth
        )  # fmt: skip
    rows += ablation_study(live, scores, (0.05,), max(3, config.ablations // 3), groups=groups, seed=seed + 3)
    return [{"concept": concept, **row} for row in rows]


def _by_need(rates: dict[str, tuple[float, float]], objects: Collection[str]) -> tuple[list[str], list[str]]:
    """Concepts to erase, best first, and to amplify, by how often they are shown where named and where not.

    What is painted whether it is named or not cannot be told from its surroundings: prefer what the prompt decides.
    Objects may be missed from other noise even where none was.
    """
    shown = [c for c in sorted(rates, key=lambda c: (rates[c][1] - rates[c][0], c)) if rates[c][0] >= SHOWN]
    missed = [c for c in sorted(rates, key=lambda c: (rates[c][0], c)) if rates[c][0] < 1.0 or c in objects]
    return shown, missed


def _pooled(rows: Sequence[dict[str, Any]], statistic: str = "pearson") -> dict[str, list[float]]:
    """Per estimator the mean correlation over concepts and shares of single weights; of groups, if it scores no others.

    Every share has its own random ablations, so the half-widths of the intervals add in squares.
    """
    result = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        mine = [r[statistic] for r in rows if r["estimator"] == name and r["unit"] == "weight"]
        value, low, high = np.array(mine or [r[statistic] for r in rows if r["estimator"] == name]).T
        mean, many = value.mean(), len(value)
        below, above = (float(np.sqrt(((value - end) ** 2).sum())) / many for end in (low, high))
        result[name] = [float(mean), float(max(-1.0, mean - below)), float(min(1.0, mean + above))]
    return result
