"""`gazetteer attribute evaluate`: faithfulness of estimators, and what edits do to the configured model's pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from attribution.estimators import GROUPED, Options, estimate
from attribution.evaluate import Evaluation, Protocol
from attribution.faithfulness import ablation_study
from attribution.groups import row_groups
from attribution.methods import AMPLIFY, ERASE, MethodConfig, Methods
from attribution.objectives import Erase
from attribution.outcomes import CHOOSE, REPORT
from attribution.overlap import distribution, neighbours, overlaps
from attribution.problem import diffusion_problem
from attribution.samples import trajectory
from data.errors import InputError
from jobs.attribute_pictures import judge, painter, prepare
from jobs.config import RunConfig
from jobs.steer import load_judge
from labeling.detector_features import backbone_features
from labeling.detectors import load_detector
from labeling.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How much `gazetteer attribute evaluate` does; `quick` and `full` give two sizes.

    Attributes:
        pool: prompts painted, half to choose operating points, half to report on.
        erase, amplify: how many concepts, where none are named.
        looks: erase words for the look of a picture too (`steer.words`, read by `steer.judge`).
        located: methods whose choices are shown by layer and compared between concepts.
        ablations: per share, of the faithfulness study; estimators are compared at each of `ablation_shares`.
        study_samples: inputs of that study.
        points, groups: of the estimators that need them.
    """

    methods: MethodConfig
    protocol: Protocol
    steps: int
    pool: int
    erase: int
    amplify: int
    looks: bool
    located: tuple[str, ...]
    ablations: int
    ablation_shares: tuple[float, ...]
    study_samples: int
    points: int
    groups: int


def quick(run: RunConfig) -> EvaluateConfig:
    """Six concepts, few steps, few pictures: minutes with the embedded model."""
    steps = min(10, run.generation.steps)
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, context=6, tune_steps=24, seed=run.seed),
        Protocol(("cad", "steps", "random", "magnitude", "steps_random"), ("cad", "steps", "random", "steps_random"),
                 shares=(0.01, 0.05), special={"steps": (0.3,)}, most=5),
        steps=steps, pool=96, erase=6, amplify=4, looks=False, located=("cad", "steps"), ablations=334,
        ablation_shares=(0.01, 0.05, 0.2), study_samples=1, points=8, groups=100,
    )  # fmt: skip


def full(run: RunConfig) -> EvaluateConfig:
    """Ten concepts or more, every method, the configuration's own number of steps."""
    steps = run.generation.steps
    return EvaluateConfig(
        MethodConfig(steps=steps, guidance=run.generation.guidance, seeds=4, seed=run.seed),
        Protocol(ERASE, AMPLIFY, shares=(0.003, 0.01, 0.03, 0.1), special={"steps": (0.03, 0.1, 0.3)}, most=20,
                 paraphrased=("cad", "steps")),
        steps=steps, pool=400, erase=12, amplify=10, looks=True, located=("cad", "contrast", "iterated", "steps"),
        ablations=1000, ablation_shares=(0.001, 0.01, 0.05, 0.2), study_samples=4, points=16, groups=200,
    )  # fmt: skip


def evaluate(run: RunConfig, config: EvaluateConfig, concepts: Sequence[str] = ()) -> dict[str, Any]:
    """Measure faithfulness, erasing and amplifying on the configured model with its own detector.

    Returns:
        ``faithfulness`` (estimator -> [Pearson, low, high] pooled over shares as their mean, with ``rows`` beside it),
        ``erase``, ``amplify`` and, for looks, ``erase_looks`` (method -> see `Evaluation.run`), ``overlap`` and
        ``distribution`` of the weights chosen to erase (method -> concept -> …), ``neighbours``, ``intact_rates``.

    Raises:
        InputError: no prompt names the concepts.
    """
    known = sorted(Vocabulary(run.vocabulary).concepts)
    words = run.steer.words if config.looks and run.steer.judge else ()
    if wrong := sorted(set(concepts) - set(known)):
        raise InputError(f"{wrong[0]!r} is not in vocabulary.concepts: {', '.join(known)}.")
    methods, pool = prepare(run, config.methods, config.pool, words)
    pipe = methods.pipe
    detector = load_detector(run.detector)
    evaluation = Evaluation(
        methods, painter(pipe, dataclasses.replace(run.generation, steps=config.steps)),
        judge(detector, known, load_judge(run.steer.judge, words) if words else None), pool, config.protocol,
        features=backbone_features(detector) if run.detector.library == "transformers" else None,
        neighbours=neighbours(pipe, known),
    )  # fmt: skip
    rates = evaluation.rates(CHOOSE)
    both = set(rates) & set(evaluation.rates(REPORT))
    shown, missed = _by_need({name: rates[name] for name in both & set(known)})
    targets = list(concepts) or shown[: config.erase]
    if not targets:
        raise InputError("The model shows no concept in half of the prompts that name it; name some with --concepts.")
    rows = faithfulness(methods, targets[0], config, run.seed)
    result: dict[str, Any] = {"faithfulness": _pooled(rows), "faithfulness_rows": rows}
    result["erase"] = evaluation.run("erase", targets)
    result["erase"]["blocking"] = evaluation.blocked(targets)
    raised = list(concepts) or missed[: config.amplify]
    result["amplify"] = evaluation.run("amplify", raised) if raised else {}
    looks = [word for word in words if word in both and rates[word][0] >= 0.5]
    if looks:
        result["erase_looks"] = {**evaluation.run("erase", looks), "blocking": evaluation.blocked(looks)}
    result |= located(
        methods, config.located, {m: found["share"] for m, found in result["erase"].items() if "share" in found}
    )
    result["neighbours"] = evaluation.neighbours
    result["intact_rates"] = {c: {"named": named, "unnamed": unnamed} for c, (named, unnamed) in rates.items()}
    return result


def located(methods: Methods, names: Sequence[str], shares: dict[str, dict[str, float]]) -> dict[str, Any]:
    """``overlap`` (Jaccard) and ``distribution`` over layers of the weights that methods chose to erase concepts.

    Args:
        shares: per method and concept, the operating point.
    """
    found: dict[str, Any] = {"overlap": {}, "distribution": {}}
    for name in [name for name in names if name in shares]:
        chosen = {c: methods.choose("erase", name, c, share) for c, share in shares[name].items()}
        scope = methods.weights if name in ("cad", "live", "contrast") else methods.wide
        found["overlap"][name] = overlaps(chosen)
        found["distribution"][name] = {c: distribution(one, scope) for c, one in chosen.items()}
    return found


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


def _by_need(rates: dict[str, tuple[float, float]]) -> tuple[list[str], list[str]]:
    """Concepts to erase, best first, and to amplify, by how often they are shown where named and where not.

    What is painted whether it is named or not cannot be told from its surroundings: prefer what the prompt decides.
    """
    shown = [c for c in sorted(rates, key=lambda c: (rates[c][1] - rates[c][0], c)) if rates[c][0] >= 0.5]
    missed = [c for c in sorted(rates, key=lambda c: (rates[c][0], c)) if rates[c][0] < 1.0]
    return shown, missed


def _pooled(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Per estimator the mean Pearson over shares of single weights; of groups, for those that score only groups."""
    result = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        mine = [r["pearson"] for r in rows if r["estimator"] == name and r["unit"] == "weight"]
        mine = mine or [r["pearson"] for r in rows if r["estimator"] == name]
        result[name] = [float(v) for v in np.mean(mine, axis=0)]
    return result
