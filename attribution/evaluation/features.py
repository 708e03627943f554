"""Weights and features: does erasing a concept's weights silence the features labelled with it, and only those?

And the other way round: features ablated where they act, as the comparator of an edit of weights; attribution patching,
which asks the gradient which features a concept's J runs through; and the weights that write a feature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.located import whole_problem
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.summaries import interference, summary
from gazetteer.attribution.features.activity import activity, patching
from gazetteer.attribution.objective.objectives import Erase, FeatureActivation
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.components import component_rows
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.selection import Selection, jaccard, scope_weights, select
from gazetteer.data.core.settings import Count, Fraction, OneOf, settings
from gazetteer.data.core.sites import SITE_COLUMNS, Site, step_of
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.diffusion.steer import steer
from gazetteer.labeling.evidence.site_codes import site_of_row
from gazetteer.labeling.interventions.resolve import WRITTEN
from gazetteer.labeling.quality.intervals import Interval, mean_interval
from gazetteer.labeling.rules.null import seeded
from gazetteer.labeling.tables import load_labels
from gazetteer.sae.model.given import Saes

Labelled = dict[str, dict[Site, list[int]]]
"""Per concept and site its features, best first."""
SCORED = {
    "steps": ("gradient", "context"), "iterated": ("iterated", "context"), "live": ("cad", "erase-live"),
    "published": ("cad", "erase"),
}  # fmt: skip
"""Methods that rank weights by an estimator of another name or on another objective than ``erase``."""
RANKING = ("cad", *SCORED)
"""Methods with scores of their own, which a table of components can hold."""


@settings("")
class FeaturesConfig:
    """How weights and features of a concept are compared.

    Attributes:
        method, fraction: how weights are chosen to erase a concept.
        top: features per concept and site at most, by dataset_iou.
        written: of those of each concept, the best so many that fire, whose writing weights are scored.
        prompts: of the reporting half that name the concept, on which features are measured.
    """

    method: Annotated[str, OneOf(RANKING)] = "steps"
    fraction: Fraction = 0.1
    top: Count = 8
    written: Count = 2
    prompts: Count = 4


def relate(
    pairs: PicturePairs, every: Labelled, saes: Saes, concepts: Sequence[str], config: FeaturesConfig, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure both directions on labelled features.

    Args:
        pairs: paints the reporting half, of whose prompts and noise no edit is made.
        every: all labelled features of every concept that prompts name, best first (`labelled_features`).
        saes: of their sites.
        concepts: to measure, each with labels.
        seed: of the bootstrap, and of what is drawn to compare with.

    Returns:
        ``silenced``: ``own``, mean activation with the concept's weights edited ÷ intact over the features labelled
        with it, ``other``, over features labelled with other concepts that the same prompts name, and ``rest``, over
        all features of the block labelled with none of these (same inputs x_t, so only what the block writes counts);
        ``patching``: of the n features that attribution patching ranks first,
        n as many as are labelled, the fraction that is labelled with the concept (``labelled``) and what chance gives
        (``chance``); ``written``: Jaccard index of the weights chosen for the concept and those of the same scope that
        write a feature labelled with it (``own``) or one at the same site labelled with another concept that is drawn
        (``other``); ``written_all``: the same of all weights of the U-Net, the concept's by ``cad``; ``erase``:
        ``weights`` and ``features``, the
        edit of weights and the ablation of the labelled features in activation space, each ``target`` and ``others``.
        All [mean, low, high] over concepts; and the rows of components.parquet.

    Raises:
        InputError: an autoencoder that is missing or does not fit.
    """
    methods = pairs.methods
    labelled = {c: {site: numbers[: config.top] for site, numbers in features.items()} for c, features in every.items()}
    rows: list[dict[str, Any]] = []
    measures: dict[str, list[dict[str, float]]] = {"silenced": [], "patching": [], "written": [], "written_all": []}
    outcomes: dict[str, dict[str, Any]] = {"weights": {}, "features": {}}
    for concept in concepts:
        scene = pairs.relevant(concept, REPORT)
        naming = [case for case in scene if concept in case.named][: config.prompts]
        samples = _inputs(methods, naming, sorted({site.t for site in labelled[concept]}))
        beside = {c for case in naming for c in case.named if c != concept}
        measures["silenced"].append(_silenced(methods, concept, beside, labelled, every, samples, saes, config))
        measures["patching"].append(_patching(methods, concept, labelled[concept], samples, saes))
        written, more = _written(methods, concept, labelled, samples, saes, config, seed)
        for name, overlaps in written.items():
            measures[name].append(overlaps)
        rows += more
        edit = methods.edit("erase", config.method, concept, config.fraction)
        outcomes["weights"][concept] = pairs.under("erase", concept, scene, applied(methods.denoiser, edit))
        without = steer(methods.pipe, ablating_edits(labelled[concept]), saes)
        outcomes["features"][concept] = pairs.under("erase", concept, scene, without)
    erase = {
        name: {**summary("erase", list(by_concept.values()), 1000, seed), "interference": interference(by_concept)}
        for name, by_concept in outcomes.items()
    }
    return {**{k: _intervals(v, seed) for k, v in measures.items()}, "erase": erase}, rows


def labelled_features(run: str, concepts: Iterable[str]) -> Labelled:
    """The features of a finished run that are labelled with each concept in the cond branch."""
    return {concept: _features_of(run, concept) for concept in concepts}


def ablating_edits(features: Mapping[Site, Sequence[int]]) -> list[Edit]:
    """Edits that take z_f · f out of what blocks write, in every cell, at every step, in the site's branch.

    Of several sites of a block and branch the one nearest in t serves each step, the later in the process of two
    that are as near; where update and output of a block are heard, the update's, for both are one change.
    """
    edits, heard = [], dict[tuple[str, str, str], str]()
    for site in sorted(features, key=lambda site: -_rank(site)):
        heard[site.block, site.stream, site.branch] = site.signal
    features = {s: own for s, own in features.items() if heard[s.block, s.stream, s.branch] == s.signal}
    for place in dict.fromkeys(site.place for site in features):
        sites = sorted((site for site in features if site.place == place), key=lambda site: site.t)
        borders = [0.0, *((first.t + second.t) / 2 for first, second in pairwise(sites)), 1.0]
        for site, (low, high) in zip(sites, pairwise(borders), strict=True):
            if features[site]:
                target = Target(**site.columns(), features=tuple(features[site]))
                edits.append(
                    Edit(targets=(target,), window=(low, high), branch=site.branch, strength=-1.0, unit="code")
                )
    return edits


def _rank(site: Site) -> int:
    """The place of a site's signal among those that edits act on, first what is taken; the last of what is not."""
    return WRITTEN.index(site.signal) if site.signal in WRITTEN else len(WRITTEN)


def _features_of(run: str, concept: str) -> dict[Site, list[int]]:
    columns = [*SITE_COLUMNS, "feature", "dataset_iou"]
    table = load_labels(run, concept=concept, branch="cond", kind=SPATIAL_KINDS, columns=columns).to_pylist()
    numbers: dict[Site, list[int]] = {}
    for row in sorted(table, key=lambda row: (-row["dataset_iou"], row["feature"])):
        site = site_of_row(row)
        numbers.setdefault(site, []).append(int(row["feature"]))
    return numbers


def _inputs(methods: Methods, cases: Sequence[Case], moments: Sequence[float]) -> dict[float, Samples]:
    """Per moment t the intact U-Net's inputs on these cases, of whose prompts and noise no edit was made."""
    c = methods.config
    samples = trajectory(
        methods.pipe, [case.prompt for case in cases], [case.seed for case in cases], steps=c.steps,
        guidance=c.guidance, base=c.base, only=[step_of(t, c.steps) for t in moments],
    )  # fmt: skip
    return {t: samples.at(slice(i * len(cases), (i + 1) * len(cases))) for i, t in enumerate(moments)}


def _silenced(
    methods: Methods, concept: str, beside: Collection[str], labelled: Labelled, every: Labelled,
    samples: Mapping[float, Samples], saes: Saes, config: FeaturesConfig,
) -> dict[str, float]:  # fmt: skip
    """Activity edited ÷ intact; `beside`: the other concepts that the prompts of the samples name."""
    edit = methods.edit("erase", config.method, concept, config.fraction)
    sums = {"own": [0.0, 0.0], "other": [0.0, 0.0], "rest": [0.0, 0.0]}
    for site, own in labelled[concept].items():
        named = {*own, *every[concept].get(site, [])}  # of the concept beyond its best too
        others = {f for c in beside if c in labelled for f in labelled[c].get(site, [])} - named
        before = activity(methods.denoiser, samples[site.t], site, saes[site])
        with applied(methods.denoiser, edit):
            after = activity(methods.denoiser, samples[site.t], site, saes[site])
        labelled_here = {f for c in {*beside, concept} if c in every for f in every[c].get(site, [])}
        rest = sorted(set(range(len(before))) - labelled_here)
        for name, numbers in (("own", own), ("other", sorted(others)), ("rest", rest)):
            sums[name][0] += float(before[numbers].sum())
            sums[name][1] += float(after[numbers].sum())
    return {name: after / before if before else np.nan for name, (before, after) in sums.items()}


def _patching(
    methods: Methods, concept: str, features: Mapping[Site, Sequence[int]], samples: Mapping[float, Samples], saes: Saes
) -> dict[str, float]:
    hits = chance = total = 0.0
    for site, own in features.items():
        alphas = patching(methods.denoiser, Erase(), samples[site.t], site, saes[site])
        first = alphas.sort(descending=True, stable=True).indices[: len(own)].tolist()
        hits += len(set(first) & set(own))
        chance += len(own) * len(own) / max(1, int((alphas != 0).sum()))
        total += len(own)
    return {"labelled": hits / total, "chance": chance / total}


def _written(
    methods: Methods, concept: str, labelled: Labelled, samples: Mapping[float, Samples], saes: Saes,
    config: FeaturesConfig, seed: int,
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:  # fmt: skip
    """Overlap of the concept's weights with those that write its features, and the rows of components.parquet.

    All weights are scored for features: most of what a block writes, its last layers among them, is of no scope of a
    method.
    """
    selection = Selection(config.fraction, "global")
    scores = methods.scores("erase", config.method, concept, config.fraction)
    chosen = methods.choose("erase", config.method, concept, config.fraction)
    estimator, objective = SCORED.get(config.method, (config.method, "erase"))
    rows = component_rows(scores, chosen, estimator=estimator, objective=objective, concept=concept)
    anywhere = select(estimate("cad", whole_problem(methods, concept)), selection)
    weights = scope_weights(methods.denoiser, "all")
    overlaps: dict[str, dict[str, list[float]]] = {
        name: {"own": [], "other": []} for name in ("written", "written_all")
    }
    best = [(site, numbers[0]) for site, numbers in labelled[concept].items() if site.t in samples and numbers]
    for site, own in best:
        if len(overlaps["written"]["own"]) == config.written:
            break
        firsts = {c: of[site][0] for c, of in sorted(labelled.items()) if c != concept and of.get(site)}
        rivals = [number for number in firsts.values() if number != own]
        drawn = [int(seeded("written", seed, concept, site.slug).choice(rivals))] if rivals else []
        for name, feature in [("own", own), *(("other", number) for number in drawn)]:
            activation = FeatureActivation(site.port, feature, saes[site])
            writes = estimate("cad", diffusion_problem(methods.denoiser, activation, samples[site.t], weights))
            taken = select(writes, selection)
            if not taken:  # it fires nowhere in these samples, so nothing writes it: the next site's instead
                break
            overlaps["written"][name].append(jaccard(chosen, select({n: writes[n] for n in scores}, selection)))
            overlaps["written_all"][name].append(jaccard(anywhere, taken))
            if name == "own":
                rows += component_rows(writes, taken, estimator="cad", objective="feature", site=site, feature=feature)
    means = {
        which: {name: float(np.mean(values)) if values else np.nan for name, values in by_name.items()}
        for which, by_name in overlaps.items()
    }
    return means, rows


def _intervals(rows: Sequence[Mapping[str, float]], seed: int) -> dict[str, Interval]:
    """Mean over concepts with a 95 % bootstrap interval; None where nothing was defined."""
    return {name: mean_interval([row[name] for row in rows], seed=seed) for name in rows[0]}
