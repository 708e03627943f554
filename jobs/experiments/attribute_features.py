"""`gazetteer attribute features`: ties the weights that carry a concept to the SAE features labelled with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.methods import MethodConfig, Methods
from gazetteer.attribution.evaluation.evaluate import Evaluation, Protocol
from gazetteer.attribution.evaluation.outcomes import REPORT, Case, Interval, interference, summary
from gazetteer.attribution.evaluation.silence import Saes, activity, patching, silenced
from gazetteer.attribution.evaluation.witnesses import Witnesses
from gazetteer.attribution.objective.objectives import Erase, FeatureActivation
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.components import component_rows, write_components
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.selection import Share, jaccard, scope_weights, select
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site, step_of
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_located import whole_problem
from gazetteer.jobs.experiments.attribute_pictures import judge, painter, prepare
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.tables import load_labels
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.model.checkpoint import load_site_saes

Labelled = dict[str, dict[Site, list[int]]]
"""Per concept and site its features, best first."""
SCORED = {
    "steps": ("gradient", "context"), "iterated": ("iterated", "context"), "live": ("cad", "erase-live"),
    "published": ("cad", "erase"),
}  # fmt: skip
"""Methods that rank weights by an estimator of another name or on another objective than ``erase``."""
RANKING = ("cad", *SCORED)
"""Methods with scores of their own, which a table of components can hold."""


@dataclasses.dataclass(frozen=True)
class FeaturesConfig:
    """What `gazetteer attribute features` does.

    Attributes:
        method, share: how weights are chosen to erase a concept.
        top: features per concept and site at most, by dataset_iou.
        written: of those of each concept, the best so many whose writing weights are scored.
        prompts: of the reporting half that name the concept, on which features are measured.
        pool: prompts painted, half to make edits from, half to report on.
        most: pictures that name a concept, and as many that do not.
    """

    method: str = "steps"
    share: float = 0.1
    top: int = 8
    written: int = 2
    prompts: int = 4
    pool: int = 96
    most: int = 6
    methods: MethodConfig = MethodConfig()

    def __post_init__(self) -> None:
        for name in ("top", "written", "prompts", "pool", "most"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.method not in RANKING:
            raise InputError(f"method is {self.method!r}; accepted: {', '.join(RANKING)}, which rank the weights.")


def relate(
    run: RunConfig, labelled_run: str, concepts: Sequence[str], config: FeaturesConfig, out: str
) -> dict[str, Any]:
    """Measure both directions on the features that a finished run labelled; write ``OUT/components.parquet``.

    Returns:
        ``silenced``: ``own``, mean activation with the concept's weights edited ÷ intact over the features labelled
        with it, ``other``, over features labelled with other concepts that the same prompts name, and ``rest``, over
        all features of the block labelled with none of these (same inputs x_t, so only what the block writes counts);
        ``patching``: of the n features that attribution patching ranks first,
        n as many as are labelled, the share that is labelled with the concept (``labelled``) and what chance gives
        (``chance``); ``written``: Jaccard index of the weights chosen for the concept and those of the same scope that
        write a feature labelled with it (``own``) or with another concept (``other``); ``written_all``: the same of
        all weights of the U-Net, the concept's by ``cad``; ``erase``: ``weights`` and ``features``, the
        edit of weights and the ablation of the labelled features in activation space, each ``target`` and ``others``.
        All [mean, low, high] over concepts; ``components``, the table.

    Raises:
        InputError: no label for a concept, or a run, model or autoencoder that does not fit.
    """
    known = sorted(Vocabulary(run.vocabulary).concepts)
    every = {c: _features_of(labelled_run, c) for c in known}
    labelled = {c: {site: some[: config.top] for site, some in features.items()} for c, features in every.items()}
    targets = list(concepts) or [c for c in known if labelled[c]]
    if bare := [c for c in targets if not labelled.get(c)]:
        raise InputError(f"{labelled_run} labels no feature {bare[0]!r} in the cond branch.")
    saes = load_site_saes(run.saes, {site for features in labelled.values() for site in features})
    methods, pool = prepare(run, config.methods, config.pool)
    pipe = methods.pipe
    evaluation = Evaluation(
        methods,
        Witnesses(
            painter(pipe, dataclasses.replace(run.generation, steps=config.methods.steps)),
            judge(load_detector(run.detector), known),
        ),
        pool,
        Protocol((), (), most=config.most),
    )
    rows: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, float]]] = {"silenced": [], "patching": [], "written": [], "written_all": []}
    outcomes: dict[str, dict[str, Any]] = {"weights": {}, "features": {}}
    for concept in targets:
        scene = evaluation.relevant(concept, REPORT)
        naming = [case for case in scene if concept in case.named][: config.prompts]
        samples = _inputs(methods, naming, sorted({site.t for site in labelled[concept]}))
        beside = {c for case in naming for c in case.named if c != concept}
        found["silenced"].append(_silenced(methods, concept, beside, labelled, every, samples, saes, config))
        found["patching"].append(_patching(methods, concept, labelled[concept], samples, saes))
        written, more = _written(methods, concept, labelled, samples, saes, config)
        for name, one in written.items():
            found[name].append(one)
        rows += more
        edit = methods.edit("erase", config.method, concept, config.share)
        outcomes["weights"][concept] = evaluation.under("erase", concept, scene, applied(pipe.unet, edit))
        quiet = silenced(pipe, labelled[concept], saes)
        outcomes["features"][concept] = evaluation.under("erase", concept, scene, quiet)
    about = provenance({}, {**dataclasses.asdict(config), "run": labelled_run})
    table = write_components(out, rows, about)
    erase = {
        name: {**summary("erase", list(some.values()), 1000, run.seed), "interference": interference(some)}
        for name, some in outcomes.items()
    }
    return {**{k: _intervals(v, run.seed) for k, v in found.items()}, "erase": erase, "components": str(table)}


def _features_of(run: str, concept: str) -> dict[Site, list[int]]:
    columns = ["block", "branch", "t", "feature", "dataset_iou"]
    table = load_labels(run, concept=concept, branch="cond", columns=columns).to_pylist()
    found: dict[Site, list[int]] = {}
    for row in sorted(table, key=lambda row: (-row["dataset_iou"], row["feature"])):
        site = Site(row["block"], row["branch"], round(float(row["t"]), 6))
        found.setdefault(site, []).append(int(row["feature"]))
    return found


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
    edit = methods.edit("erase", config.method, concept, config.share)
    sums = {"own": [0.0, 0.0], "other": [0.0, 0.0], "rest": [0.0, 0.0]}
    for site, own in labelled[concept].items():
        others = {f for c in beside if c in labelled for f in labelled[c].get(site, [])} - set(own)
        before = activity(methods.unet, samples[site.t], site, saes[site])
        with applied(methods.unet, edit):
            after = activity(methods.unet, samples[site.t], site, saes[site])
        told = {f for c in {*beside, concept} if c in every for f in every[c].get(site, [])}
        rest = sorted(set(range(len(before))) - told)
        for name, some in (("own", own), ("other", sorted(others)), ("rest", rest)):
            sums[name][0] += float(before[some].sum())
            sums[name][1] += float(after[some].sum())
    return {name: after / before if before else np.nan for name, (before, after) in sums.items()}


def _patching(
    methods: Methods, concept: str, features: Mapping[Site, Sequence[int]], samples: Mapping[float, Samples], saes: Saes
) -> dict[str, float]:
    hits = chance = total = 0.0
    for site, own in features.items():
        alphas = patching(methods.unet, Erase(), samples[site.t], site, saes[site])
        first = alphas.sort(descending=True, stable=True).indices[: len(own)].tolist()
        hits += len(set(first) & set(own))
        chance += len(own) * len(own) / max(1, int((alphas != 0).sum()))
        total += len(own)
    return {"labelled": hits / total, "chance": chance / total}


def _written(
    methods: Methods, concept: str, labelled: Labelled, samples: Mapping[float, Samples], saes: Saes,
    config: FeaturesConfig,
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:  # fmt: skip
    """Overlap of the concept's weights with those that write its features, and the rows of components.parquet.

    All weights are scored for features: most of what a block writes, its last layers among them, is of no scope of a
    method.
    """
    share = Share(config.share, "global")
    scores = methods.scores("erase", config.method, concept, config.share)
    chosen = methods.choose("erase", config.method, concept, config.share)
    estimator, objective = SCORED.get(config.method, (config.method, "erase"))
    rows = component_rows(scores, chosen, estimator=estimator, objective=objective, concept=concept)
    anywhere = select(estimate("cad", whole_problem(methods, concept)), share)
    weights = scope_weights(methods.unet, "all")
    found: dict[str, dict[str, list[float]]] = {name: {"own": [], "other": []} for name in ("written", "written_all")}
    for name, owner in [("own", concept), *(("other", c) for c in sorted(labelled) if c != concept)]:
        places = [(site, f) for site, some in labelled[owner].items() if site.t in samples for f in some[:1]]
        for site, feature in places[: config.written if name == "own" else 1]:
            activation = FeatureActivation(site.block, feature, saes[site])
            writes = estimate("cad", diffusion_problem(methods.unet, activation, samples[site.t], weights))
            taken = select(writes, share)
            found["written"][name].append(jaccard(chosen, select({n: writes[n] for n in scores}, share)))
            found["written_all"][name].append(jaccard(anywhere, taken))
            if name == "own":
                place = (site.block, site.branch, site.t)
                rows += component_rows(writes, taken, estimator="cad", objective="feature", site=place, feature=feature)
        if name == "other" and len(found["written"]["other"]) >= config.written:
            break
    means = {
        which: {name: float(np.mean(values)) if values else np.nan for name, values in some.items()}
        for which, some in found.items()
    }
    return means, rows


def _intervals(rows: Sequence[Mapping[str, float]], seed: int) -> dict[str, Interval]:
    """Mean over concepts with a 95 % bootstrap interval; None where nothing was defined."""
    generator = np.random.default_rng(seed)
    result: dict[str, Interval] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        values = values[~np.isnan(values)]
        if not len(values):
            result[name] = [None, None, None]
            continue
        draws = values[generator.integers(0, len(values), (1000, len(values)))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        result[name] = [float(values.mean()), float(low), float(high)]
    return result
