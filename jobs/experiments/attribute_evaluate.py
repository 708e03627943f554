"""`gazetteer attribute evaluate` and `features`: a run's configuration becomes models, their measurements files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gazetteer.attribution.edits.method_names import PARTS, accepted
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import REPORT, Prompts, named_in, part_prompts
from gazetteer.attribution.evaluation.evaluators import Evaluators, classifying, detecting, painter
from gazetteer.attribution.evaluation.features import FeaturesConfig, labelled_features, relate
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.suite import Subject, SuiteConfig, check_asked, run_suite
from gazetteer.attribution.features.erasing import FeatureErasers
from gazetteer.attribution.objective.problem import check_offload
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.scores.components import require_room, write_components
from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import claim_folder, try_folder
from gazetteer.data.core.importing import with_state
from gazetteer.data.core.settings import Effect
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.classifier import load_classifier
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.runs.folder import open_finished
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.fingerprint import marks_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_model import Studied, load_studied, model_marks, prompt_marks
from gazetteer.jobs.experiments.layout import check_config
from gazetteer.labeling.detect.detector_features import backbone_features, has_backbone
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.labeling.vocabulary.meant import meant
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.model.digests import digest_saes


def read_cases(run: RunConfig, pool: int, words: Sequence[str] = ()) -> Prompts:
    """`pool` cases of the run's prompts, and others that edits may be made from; InputError if they cannot be read."""
    return part_prompts(read_prompts(run.prompts), Vocabulary(run.vocabulary), words, pool, run.seed)


def style_words(run: RunConfig) -> tuple[str, ...]:
    """The words for the style of a picture that the run can tell apart."""
    return run.steer.words if run.steer.classifier else ()


def named(run: RunConfig, concept: str) -> tuple[str, str]:
    """The concept that is meant, and its kind (`defaults.KINDS`) as the evaluation has it: what is no object of
    `steer.concepts`, where these name any, covers the picture; InputError for an unknown one."""
    known, styles = Vocabulary(run.vocabulary).concepts, style_words(run)
    lists = f"vocabulary.concepts{' or steer.words' if styles else ''}"
    (meant_concept,) = meant([concept], (*known, *styles), f"{{!r}} is not in {lists}")
    if meant_concept not in known:
        return meant_concept, "styles"
    objects = set(run.steer.concepts) & set(known)
    return meant_concept, "objects" if meant_concept in objects or not objects else "areas"


def made_with(run: RunConfig, methods: MethodConfig) -> dict[str, Any]:
    """How edits are made: ``steps`` and ``guidance`` of the sampler, ``seeds`` (trajectories) and ``context`` (prompts
    that name it, and as many that do not) of a concept; and ``configured_steps``, the configuration's own."""
    own = {name: getattr(methods, name) for name in ("steps", "guidance", "seeds", "context")}
    return {**own, "configured_steps": run.generation.steps}


def load_methods(run: RunConfig, config: MethodConfig, prompts: Prompts) -> tuple[Methods, Studied]:
    """The run's model with all methods; InputError for a model that cannot be read."""
    use_threads(run.threads)
    known = sorted(Vocabulary(run.vocabulary).concepts)
    studied = load_studied(run.model)
    return Methods(studied.pipe, config, known, prompts.source, without), studied


def evaluate(
    run: RunConfig, config: SuiteConfig, concepts: Sequence[str] = (), folder: str = "", only: Sequence[str] = (),
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:  # fmt: skip
    """Measure faithfulness, erasing and amplifying on the run's model with its own detector; see `run_suite`.

    Args:
        folder: keeps every result as soon as it is there; another call on it goes on where one was stopped, or with
            other concepts or methods.
        parts: of PARTS, what is measured.

    Returns:
        what `run_suite` does, with ``settings`` (a digest of what the results depend on), ``computed_in``,
        ``features_skipped``, why nothing was erased through features, ``source_of_choosing_half``: [n, m], of m
        prompts that edits were made from n are of the half that doses are chosen on (`Prompts.shared`), and `made_with`
        of edits and pictures.

    Raises:
        InputError: no prompt names the concepts, or the folder holds results of other settings, models or prompts.
    """
    check_offload(run.model.offload)
    known = sorted(Vocabulary(run.vocabulary).concepts)
    config = _with_parts(run, config, concepts, parts)
    words = style_words(run) if config.styles else ()
    concepts = check_asked(config, known, concepts, only)
    if wrong := sorted(set(parts) - set(PARTS)):
        raise InputError(f"Unknown part {wrong[0]!r}; accepted: {', '.join(PARTS)}.")
    prompts = read_cases(run, config.pool, words)
    painted = dataclasses.replace(run.generation, steps=config.methods.steps, exact=False)
    second = run.attribute.classifier
    saes, skipped = _saes(run)
    settings = {
        **config.settings, **_marks(run), **_judges(run, words),
        "saes": [digest_saes(run.saes), run.sae_check.signal, sorted(site.slug for site in saes)] if saes else "",
        "concepts": known,
        "cases": digest_json([[c.prompt, c.seed, sorted(c.named), c.half, *sorted(c.whole)] for c in prompts.cases]),
        "source": digest_json({prompt: sorted(named) for prompt, named in prompts.source.items()}),
    }  # fmt: skip
    cache = ResultCache(folder or None, settings)
    (methods, studied), detector = load_methods(run, config.methods, prompts), load_detector(run.detector)
    witness = load_classifier(second, known, "attribute.classifier") if second else None
    evaluators = Evaluators(
        painter(methods.pipe, painted),
        detecting(detector, known, load_classifier(run.steer.classifier, words) if words else None),
        classifying(witness) if witness else None,
        backbone_features(detector) if has_backbone(detector) else None,
        frozenset(witness.labels) if witness else None,
    )
    erasers = None
    try:
        erasers = FeatureErasers(methods.problems, saes) if saes else None
    except InputError as error:
        skipped = str(error)
    subject = Subject(methods, evaluators, prompts.cases, known, run.steer.concepts, words, erasers, run.steer.words)
    result = run_suite(subject, config, concepts, only, cache, parts)
    shared = [prompts.shared, len(prompts.source)]
    about = {"settings": digest_json(settings), "computed_in": studied.computed_in, "features_skipped": skipped}
    return {**result, **about, "source_of_choosing_half": shared, **made_with(run, config.methods)}


def _with_parts(run: RunConfig, config: SuiteConfig, concepts: Sequence[str], parts: Sequence[str]) -> SuiteConfig:
    """The same where all parts are measured; what is asked for by name is, also where the size leaves it out."""
    if set(parts) == set(PARTS):
        return config
    if "styles" in parts and not style_words(run):
        raise InputError("Styles cannot be told apart: set steer.words and steer.classifier.")
    if concepts and "areas" in parts:
        raise InputError("Areas are chosen by what the model shows; leave out --concepts, or take --parts erase.")
    styles, areas = config.styles or "styles" in parts, config.areas or "areas" in parts
    return dataclasses.replace(config, styles=styles, areas=areas)


def _marks(run: RunConfig) -> dict[str, Any]:
    """What of the configuration shapes the pictures of an evaluation and what is found in them; the sampler's steps are
    the evaluation's own."""
    marks = marks_of(run, {Effect.PICTURES, Effect.SEGMENTS}, "model", "generation", "detector")
    return {key: value for key, value in marks.items() if key != "generation.steps"}


def _judges(run: RunConfig, words: Sequence[str]) -> dict[str, str]:
    """The classifiers that judge the pictures (`with_state`); of styles none where no `words` are asked for."""
    styles = with_state(run.steer.classifier, "steer.classifier") if words else ""
    return {"classifier": with_state(run.attribute.classifier, "attribute.classifier"), "styles": styles}


def _saes(run: RunConfig) -> tuple[dict[Site, SparseAutoencoder], str]:
    """The autoencoders of the cond branch; or none, and why nothing can be erased through features."""
    sites = [Site(block, "cond", t) for block in run.generation.blocks for t in run.generation.t]
    if not run.saes:
        return {}, "no autoencoders: saes is not set"
    try:
        return load_site_saes(run.saes, sites, run.model.device, signal=run.sae_check.signal), ""
    except InputError as error:
        return {}, str(error)


def relate_features(
    run: RunConfig, labelled_run: str, concepts: Sequence[str], config: FeaturesConfig, methods: MethodConfig, out: str,
    *, pool: int = 96, most: int = 6,
) -> dict[str, Any]:  # fmt: skip
    """Tie the weights that carry concepts to the features that a finished run labelled; see `relate`.

    Args:
        pool: prompts painted, half to make edits from, half to report on.
        most: pictures that name a concept, beside half as many that do not.

    Returns:
        what `relate` gives, the path of ``OUT/components.parquet`` under ``components``, ``left_out``, concepts with
        labels that no prompt of the reporting half names (where none were asked for), and `made_with`.

    Raises:
        InputError: no label for a concept or no prompt that names it, a run that is not finished or that another model,
            sampling or autoencoders made, or a model or autoencoder that does not fit.
    """
    check_offload(run.model.offload)
    for name, value in (("pool", pool), ("most", most)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}.")
    accepted("erase", config.method)
    folder = open_finished(labelled_run)
    check_config(run, folder)
    known = sorted(Vocabulary(run.vocabulary).concepts)
    every = labelled_features(labelled_run, known)
    asked = meant(concepts, known, "{!r} is not in vocabulary.concepts")
    if bare := [c for c in asked if not every.get(c)]:
        raise InputError(f"{labelled_run} labels no feature {bare[0]!r} in the cond branch.")
    prompts = read_cases(run, pool)
    reported = named_in(prompts.cases, REPORT)
    targets = asked or [c for c in known if every[c] and c in reported]
    if unnamed := [c for c in asked if c not in reported]:
        raise InputError(f"No prompt of the evaluation names {unnamed[0]!r}; give more prompts or other concepts.")
    if not targets:
        raise InputError(f"{labelled_run} labels no feature in the cond branch with a concept that a prompt names.")
    settings = {**dataclasses.asdict(config), "methods": dataclasses.asdict(methods), "pool": pool, "most": most}
    settings |= {"saes": digest_saes(run.saes), "signal": run.sae_check.signal, "run": labelled_run}
    about = provenance({**model_marks(run), **prompt_marks(prompts, known)}, settings)
    require_room(out, about, ())
    try_folder(out)  # what cannot be written there is not worked for
    sites = {site for features in every.values() for site in features}
    saes = load_site_saes(run.saes, sites, run.model.device, signal=run.sae_check.signal)
    made, _ = load_methods(run, methods, prompts)
    paint = painter(made.pipe, dataclasses.replace(run.generation, steps=methods.steps))
    made.require_some("erase", config.method, config.fraction)
    evaluators = Evaluators(paint, detecting(load_detector(run.detector), known))
    pairs = PicturePairs(made, evaluators, prompts.cases, most)
    relation, rows = relate(pairs, every, saes, targets, config, run.seed)
    claim_folder(out)
    table = write_components(out, rows, about, ())
    left = [] if asked else [c for c in known if every[c] and c not in reported]
    return {**relation, "components": str(table), "left_out": left, **made_with(run, methods)}
