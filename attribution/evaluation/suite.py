"""The whole evaluation of a model's weights: faithfulness of estimators, and what edits do to its pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from gazetteer.attribution.edits.defaults import POOL, evaluated, tried
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig, together
from gazetteer.attribution.evaluation.evaluators import Evaluators
from gazetteer.attribution.evaluation.faithfulness import FaithfulnessConfig, faithfulness, pooled_correlations
from gazetteer.attribution.evaluation.located import everywhere, located
from gazetteer.attribution.scores.overlap import neighbours
from gazetteer.data.core.errors import InputError

SHOWN = 1 / 3
"""What is found in fewer of the pictures whose prompts name it is not erased unless asked for."""


@dataclass(frozen=True)
class SuiteConfig:
    """How much is evaluated; `quick` and `full` give two sizes.

    Attributes:
        pool: prompts painted, half to choose operating points, half to report on.
        erase, amplify: how many concepts, where none are named.
        styles: erase words for the style of a picture too.
        areas: erase concepts that are not objects too.
        fewer: the methods that styles and areas are erased by.
        located: methods whose choices are shown by layer and compared between concepts.
        study: of the faithfulness of estimators, on the concepts that are erased first.
    """

    methods: MethodConfig
    evaluation: EvaluationConfig
    pool: int
    erase: int
    amplify: int
    styles: bool
    areas: bool
    fewer: tuple[str, ...]
    located: tuple[str, ...]
    study: FaithfulnessConfig

    @property
    def settings(self) -> dict[str, Any]:
        """What a single result depends on, beside its own name: not which results are wanted."""
        e = self.evaluation
        study = {name: value for name, value in asdict(self.study).items() if name != "concepts"}
        return {
            "methods": asdict(self.methods), "pool": self.pool, "cases": e.most, "sought": e.seek,
            "attack": asdict(e.attack), "study": study,
        }  # fmt: skip


def quick(steps: int, guidance: float, seed: int) -> SuiteConfig:
    """Six concepts, few steps, few pictures: minutes with the embedded model."""
    methods = ("steps", "steps_random", "cad", "random", "magnitude")
    return SuiteConfig(
        MethodConfig(steps=min(10, steps), guidance=guidance, seed=seed),
        EvaluationConfig(methods, ("steps", "steps_random", "cad", "random"), fractions=(0.01, 0.05),
                         special={"steps": (0.003, 0.1)}, most=4, seek=8),
        pool=96, erase=6, amplify=2, styles=False, areas=False, fewer=(), located=("cad", "steps"),
        study=FaithfulnessConfig(ablations=200, points=8),
    )  # fmt: skip


def full(steps: int, guidance: float, seed: int) -> SuiteConfig:
    """All objects, styles and areas, every method."""
    doses = {method: tried(method) for method in ERASE}
    return SuiteConfig(
        evaluated(steps, guidance, seed),
        EvaluationConfig(ERASE, AMPLIFY, special=doses, most=8, seek=64,
                         curved=("steps_random",), paraphrased=("cad", "steps"), attacked=("steps",)),
        pool=POOL, erase=12, amplify=13, styles=True, areas=True,
        fewer=("steps", "steps_random", "cad", "random"), located=("cad", "steps"), study=FaithfulnessConfig(),
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        methods: the model with all ways to edit it.
        evaluators: paint and read.
        cases: both halves.
        concepts: all that the evaluators know, but for styles.
        objects: those of them that are things with a place, which are erased first.
        styles: words for the style of a picture that the evaluators know.
    """

    methods: Methods
    evaluators: Evaluators
    cases: Sequence[Case]
    concepts: Sequence[str]
    objects: Collection[str] = ()
    styles: Sequence[str] = ()


def check_asked(config: SuiteConfig, known: Collection[str], concepts: Sequence[str], only: Sequence[str]) -> None:
    """Raise InputError for a concept or method that an evaluation does not know."""
    if wrong := sorted(set(concepts) - set(known)):
        raise InputError(f"{wrong[0]!r} is not in vocabulary.concepts: {', '.join(sorted(known))}.")
    if wrong := sorted(set(only) - {*config.evaluation.erase, *config.evaluation.amplify}):
        raise InputError(f"Unknown method {wrong[0]!r}; accepted: {', '.join(config.evaluation.erase)}.")


def run_suite(
    subject: Subject,
    config: SuiteConfig,
    concepts: Sequence[str] = (),
    only: Sequence[str] = (),
    cache: ResultCache | None = None,
) -> dict[str, Any]:
    """Measure faithfulness, erasing and amplifying.

    Args:
        concepts: to erase and to amplify; none: those the model shows, and those it misses.
        only: methods to evaluate beside the reference and those they follow; none: all of the configuration.
        cache: keeps every result as soon as it is there.

    Returns:
        ``faithfulness`` and ``faithfulness_spearman`` (estimator -> [correlation, low, high], the mean over concepts
        and fractions, see `pooled_correlations`; each in ``faithfulness_rows``),
        ``erase``, ``amplify`` (method -> see `EditEvaluation.run`) and, apart from the objects,
        ``erase_styles`` and ``erase_areas``, concepts that cover the picture and are often implied by the rest;
        ``erase_together``, objects and styles as one set (`together`), where styles were erased;
        ``overlap`` and ``distribution`` of the weights chosen to erase (method -> concept -> …), ``everywhere`` (see
        `everywhere`), ``neighbours``, ``intact_rates``.

    Raises:
        InputError: no prompt names the concepts.
    """
    methods, cache = subject.methods, cache or ResultCache()
    evaluation = EditEvaluation(
        methods, subject.evaluators, subject.cases, config.evaluation,
        neighbours=neighbours(methods.pipe, subject.concepts), cache=cache,
    )  # fmt: skip
    rates = evaluation.pairs.rates(CHOOSE)
    targets, raised, styles, areas = _chosen(subject, config, evaluation, rates, concepts)
    result: dict[str, Any] = {"erase": evaluation.run("erase", targets, only)}
    result["erase"]["blocking"] = evaluation.blocked(targets)
    result["amplify"] = evaluation.run("amplify", raised, only) if raised else {}
    result |= _beside(evaluation, config, {"erase_styles": styles, "erase_areas": areas}, only)
    if "erase_styles" in result:
        result["erase_together"] = together(evaluation, [result["erase"], result["erase_styles"]])
    result["everywhere"] = everywhere(methods, [*targets, *styles, *areas], cache)
    points = {method: found["fraction"] for method, found in result["erase"].items() if "fraction" in found}
    result |= located(methods, config.located, points, targets, cache)
    rows: list[dict[str, Any]] = []
    for concept in targets[: config.study.concepts]:
        study = partial(faithfulness, methods, concept, config.study, methods.config.seed)
        rows += cache.json(("faithfulness", concept), study)
    return {
        **result, "faithfulness": pooled_correlations(rows),
        "faithfulness_spearman": pooled_correlations(rows, "spearman"), "faithfulness_rows": rows,
        "neighbours": evaluation.pairs.neighbours,
        "intact_rates": {c: {"named": named, "unnamed": unnamed} for c, (named, unnamed) in rates.items()},
    }  # fmt: skip


def _chosen(
    subject: Subject, config: SuiteConfig, evaluation: EditEvaluation, rates: dict[str, tuple[float, float]],
    concepts: Sequence[str],
) -> tuple[list[str], list[str], list[str], list[str]]:  # fmt: skip
    """Concepts to erase and to amplify, styles and areas to erase, of those that both halves name."""
    both = set(rates) & evaluation.pairs.named(REPORT)
    shown, missed = _by_need({name: rates[name] for name in both & set(subject.concepts)}, subject.objects)
    objects = [c for c in shown if c in subject.objects] or shown
    targets = list(concepts) or objects[: config.erase]
    if not targets:
        raise InputError("The model shows hardly any concept where it is named; name some with --concepts.")
    styles = [word for word in subject.styles if word in both and rates[word][0] >= SHOWN]
    areas = [] if concepts or not config.areas else [c for c in shown if c not in objects and rates[c][1] < 0.5]
    return targets, list(concepts) or missed[: config.amplify], styles, areas


def _by_need(rates: dict[str, tuple[float, float]], objects: Collection[str]) -> tuple[list[str], list[str]]:
    """Concepts to erase, best first, and to amplify, by how often they are shown where named and where not.

    What is painted whether it is named or not cannot be told from its surroundings: prefer what the prompt decides.
    Objects may be missed from other noise even where none was.
    """
    shown = [c for c in sorted(rates, key=lambda c: (rates[c][1] - rates[c][0], c)) if rates[c][0] >= SHOWN]
    missed = [c for c in sorted(rates, key=lambda c: (rates[c][0], c)) if rates[c][0] < 1.0 or c in objects]
    return shown, missed


def _beside(
    evaluation: EditEvaluation, config: SuiteConfig, groups: dict[str, list[str]], only: Sequence[str]
) -> dict[str, Any]:
    """Erasing what is no object, by fewer methods and without the curves of followers."""
    pairs = evaluation.pairs
    plain = EditEvaluation(
        pairs.methods, pairs.evaluators, pairs.cases, replace(config.evaluation, curved=()),
        neighbours=pairs.neighbours, cache=pairs.cache,
    )  # fmt: skip
    fewer = [m for m in config.fewer if m in (only or config.fewer)] or only
    return {
        name: {**plain.run("erase", some, fewer), "blocking": evaluation.blocked(some)}
        for name, some in groups.items()
        if some
    }
