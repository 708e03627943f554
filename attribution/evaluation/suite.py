"""The whole evaluation of a model's weights: faithfulness of estimators, and what edits do to its pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from gazetteer.attribution.attacks.embedding import Inversion
from gazetteer.attribution.attacks.names import FLOOR
from gazetteer.attribution.attacks.relearning import Relearning
from gazetteer.attribution.attacks.words import Attack
from gazetteer.attribution.edits.defaults import POOL, dose, evaluated, tried
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE, FEATURES, MOST_STEPS, PARTS
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.checks import check_named, check_parts
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig, together
from gazetteer.attribution.evaluation.evaluators import Evaluators
from gazetteer.attribution.evaluation.located import everywhere, located
from gazetteer.attribution.evaluation.resistance import Resistance, ResistanceConfig
from gazetteer.attribution.faithfulness.heldout import HeldoutConfig, heldout_study, heldout_summary
from gazetteer.attribution.faithfulness.study import FaithfulnessConfig, faithfulness, pooled_correlations
from gazetteer.attribution.features.erasing import FeatureErasers
from gazetteer.attribution.scores.overlap import neighbours
from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.meant import meant

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
        heldout: of their faithfulness on other noise than they were made from, on these and on styles.
        resistance: the attacks on edits, and `attacked`, how many of the erased concepts they are tried on.
        styled: doses of methods to erase styles, where they differ from those of objects.
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
    heldout: HeldoutConfig
    resistance: ResistanceConfig
    attacked: int
    styled: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What a single result depends on, beside its own name: not which results are wanted."""
        e = self.evaluation
        study = {name: value for name, value in asdict(self.study).items() if name != "concepts"}
        return {
            "methods": asdict(self.methods), "pool": self.pool, "cases": e.most, "sought": e.seek,
            "attack": asdict(e.attack), "study": study, "heldout": _hard(self.heldout, "objects", "styles"),
            "resistance": _hard(self.resistance, "attacks", "methods"), "outcome": 5,
        }  # fmt: skip


def _hard(config: Any, *which: str) -> dict[str, Any]:
    """How hard something is tried, without the names of what was asked for."""
    return {name: value for name, value in asdict(config).items() if name not in which}


def quick(steps: int, guidance: float, seed: int) -> SuiteConfig:
    """Few concepts, few pictures, each method at its default dose: minutes with the embedded model."""
    methods = ("steps", "steps_random", "cad", "repaired", "uce", "sae_ablate", "sae_negative", "sae_replace")
    raising = ("steps", "steps_random", "cad")
    return SuiteConfig(
        MethodConfig(steps=min(MOST_STEPS, steps), guidance=guidance, seed=seed),
        EvaluationConfig(methods, raising, special={m: (dose("erase", m, "objects").taken,) for m in methods},
                         raised={m: (dose("amplify", m, "objects").taken,) for m in raising}, most=4, seek=8),
        pool=96, erase=2, amplify=1, styles=False, areas=False, fewer=("steps", "cad"), located=("cad", "steps"),
        study=FaithfulnessConfig(ablations=30, points=4),
        heldout=HeldoutConfig(1, 1, ablations=20, inputs=1, trajectories=(1, 4), points=4),
        resistance=ResistanceConfig(
            methods=("steps", "cad", "repaired", "sae_ablate"), words=Attack(rounds=3, tried=4),
            inversion=Inversion(steps=20, batch=4), relearning=Relearning(steps=10, batch=4),
        ),
        attacked=1, styled={m: (dose("erase", m, "styles").taken,) for m in methods},
    )  # fmt: skip


def full(steps: int, guidance: float, seed: int) -> SuiteConfig:
    """All objects, styles and areas, every method."""
    return SuiteConfig(
        evaluated(steps, guidance, seed),
        EvaluationConfig(ERASE, AMPLIFY, special={method: tried(method) for method in ERASE}, most=8, seek=64,
                         curved=("steps_random",), paraphrased=("cad", "steps"), attacked=("steps",)),
        pool=POOL, erase=12, amplify=13, styles=True, areas=True,
        fewer=("steps", "steps_random", "cad", "random", "repaired", *FEATURES), located=("cad", "steps"),
        study=FaithfulnessConfig(), heldout=HeldoutConfig(), resistance=ResistanceConfig(), attacked=12,
    )  # fmt: skip


def attacked_by(config: SuiteConfig, attacks: Sequence[str]) -> SuiteConfig:
    """The same evaluation with these attacks, the floor beside them; raises InputError for an unknown one."""
    named = tuple(attack for attack in attacks if attack != FLOOR)
    return replace(config, resistance=replace(config.resistance, attacks=named))


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
        erasers: erase through features, where there are autoencoders of the model.
        words: for styles, whether the evaluators know them or not: J needs none.
    """

    methods: Methods
    evaluators: Evaluators
    cases: Sequence[Case]
    concepts: Sequence[str]
    objects: Collection[str] = ()
    styles: Sequence[str] = ()
    erasers: FeatureErasers | None = None
    words: Sequence[str] = ()


def check_asked(config: SuiteConfig, known: Collection[str], concepts: Sequence[str], only: Sequence[str]) -> list[str]:
    """The concepts that are meant; InputError for a concept or method that an evaluation does not know."""
    named = meant(concepts, known, "{!r} is not in vocabulary.concepts")
    if wrong := sorted(set(only) - {*config.evaluation.erase, *config.evaluation.amplify}):
        accepted = ", ".join(dict.fromkeys((*config.evaluation.erase, *config.evaluation.amplify)))
        if wrong[0] in {*ERASE, *AMPLIFY}:
            raise InputError(f"The method {wrong[0]!r} is not in the quick set: {accepted}; leave out --quick for it.")
        raise InputError(f"Unknown method {wrong[0]!r}; accepted: {accepted}.")
    return named


def run_suite(
    subject: Subject,
    config: SuiteConfig,
    concepts: Sequence[str] = (),
    only: Sequence[str] = (),
    cache: ResultCache | None = None,
    parts: Collection[str] = PARTS,
) -> dict[str, Any]:
    """Measure faithfulness, erasing and amplifying.

    Args:
        concepts: to erase and to amplify; none: those the model shows, and those it misses.
        only: methods to evaluate beside the reference and those they follow; none: all of the configuration.
        cache: keeps every result as soon as it is there.
        parts: of `method_names.PARTS`, what is measured; the rest is empty.

    Returns:
        ``faithfulness``, ``faithfulness_spearman`` (estimator -> [correlation, low, high], see `pooled_correlations`;
        each in ``faithfulness_rows``), ``faithfulness_heldout`` (`heldout_summary`; ``faithfulness_heldout_rows``),
        ``erase``, ``amplify`` (method -> see `EditEvaluation.run`), apart from the objects ``erase_styles``,
        ``erase_areas`` (what covers the picture), ``amplify_styles`` (what is missed somewhere); ``erase_together``,
        objects and styles as one set (`together`), where styles were erased;
        ``attacks`` (method -> attack -> see `Resistance.run`);
        ``overlap``, ``distribution`` of the weights chosen to erase (method -> concept -> …), ``everywhere``,
        ``neighbours``, ``intact_rates``; ``nothing``, the groups that no concept belongs to.

    Raises:
        InputError: no prompt names the concepts, or an unknown part.
    """
    check_parts(parts)
    methods, cache = subject.methods, cache or ResultCache()
    evaluation = _evaluation(subject, config, cache)
    check_named(evaluation, concepts if {"erase", "attacks", "located", "amplify"} & set(parts) else ())
    rates = evaluation.pairs.rates(CHOOSE)
    targets, raised, styles, areas = _chosen(subject, config, evaluation, rates, concepts)
    styles, areas = (own if part in parts else [] for own, part in ((styles, "styles"), (areas, "areas")))
    result = {key: dict[str, Any]() for key in ("erase", "attacks", "amplify", "everywhere", "overlap", "distribution")}
    if {"erase", "attacks", "located"} & set(parts):
        result["erase"] = evaluation.run("erase", targets, only)
        result["erase"]["blocking"] = evaluation.blocked(targets)
    points = {method: figures["fraction"] for method, figures in result["erase"].items() if "fraction" in figures}
    if "attacks" in parts:
        resisting = replace(config.resistance, methods=()) if only else config.resistance  # all that are named
        resistance = Resistance(evaluation.pairs, resisting, evaluation.draws)
        result["attacks"] = resistance.run(points, concepts or targets[: config.attacked])
    if "amplify" in parts and raised:
        result["amplify"] = evaluation.run("amplify", raised, only)
    groups = {"erase_styles": styles, "erase_areas": areas, "amplify_styles": [s for s in styles if rates[s][0] < 1.0]}
    result |= _beside(evaluation, config, groups, only)
    if "erase_styles" in result and result["erase"]:
        result["erase_together"] = together(evaluation, [result["erase"], result["erase_styles"]])
    if "located" in parts:
        result["everywhere"] = everywhere(methods, [*targets, *styles, *areas], cache)
        result |= located(methods, config.located, points, targets, cache)
    return {
        "nothing": _nothing(config, parts, result),
        **result, **_faithful(methods, config, targets, concepts, subject.words, parts, cache),
        "neighbours": evaluation.pairs.neighbours,
        "intact_rates": {c: {"named": named, "unnamed": unnamed} for c, (named, unnamed) in rates.items()},
    }  # fmt: skip


def _nothing(c: SuiteConfig, parts: Collection[str], result: Mapping[str, Any]) -> list[str]:
    wanted = {"erase_styles": c.styles and "styles", "erase_areas": c.areas and "areas", "amplify": "amplify"}
    return [name for name, part in wanted.items() if part in parts and not result.get(name)]


def _faithful(
    methods: Methods, config: SuiteConfig, targets: Sequence[str], concepts: Sequence[str], styles: Sequence[str],
    parts: Collection[str], cache: ResultCache,
) -> dict[str, Any]:  # fmt: skip
    """How well scores foretell ablations, on the noise they were made from and on other noise."""
    rows, other = list[dict[str, Any]](), list[dict[str, Any]]()
    for concept in targets[: config.study.concepts] if "faithfulness" in parts else ():
        study = partial(faithfulness, methods, concept, config.study, methods.config.seed)
        rows += cache.json(("faithfulness", concept), study)
    kinds = dict.fromkeys(concepts or targets[: config.heldout.objects], "objects")
    kinds |= dict.fromkeys(styles[: config.heldout.styles], "styles")
    for concept in kinds if "heldout" in parts else ():
        # Noise that neither the edits nor the other study was made from.
        heldout = partial(heldout_study, methods, concept, config.heldout, methods.config.seed + 20_000)
        other += cache.json(("heldout by stage", concept), heldout)
    return {
        "faithfulness": pooled_correlations(rows), "faithfulness_spearman": pooled_correlations(rows, "spearman"),
        "faithfulness_rows": rows, "faithfulness_heldout_rows": other,
        "faithfulness_heldout": heldout_summary(other, kinds, config.evaluation.resamples, config.evaluation.seed),
    }  # fmt: skip


def _evaluation(subject: Subject, config: SuiteConfig, cache: ResultCache) -> EditEvaluation:
    s, near = subject, neighbours(subject.methods.pipe, subject.concepts)
    given = s.methods, s.evaluators, s.cases, config.evaluation
    return EditEvaluation(*given, neighbours=near, cache=cache, erasers=s.erasers)


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
    """Erasing or amplifying what is no object, by the named methods or else by fewer, without curves of followers."""
    pairs, result = evaluation.pairs, {}
    for name, members in groups.items():
        if not members:
            continue
        own = config.styled if name == "erase_styles" else {}
        plain = EditEvaluation(
            pairs.methods, pairs.evaluators, pairs.cases,
            replace(config.evaluation, curved=(), special={**config.evaluation.special, **own}),
            neighbours=pairs.neighbours, cache=pairs.cache, erasers=pairs.erasers,
        )  # fmt: skip
        goal = name.partition("_")[0]
        known = config.evaluation.erase if goal == "erase" else config.evaluation.amplify
        fewer = [method for method in only or config.fewer if method in known] or only
        result[name] = plain.run(goal, members, fewer)
        if goal == "erase":
            result[name]["blocking"] = evaluation.blocked(members)
    return result
