"""`gazetteer attribute score` and `apply`: a concept's or a feature's weights, as a table and as an edit."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gazetteer.attribution.edits.checkpoint_edit import edit_model
from gazetteer.attribution.edits.delta import ablation, compose
from gazetteer.attribution.edits.delta_file import load_delta, require_same, save_delta
from gazetteer.attribution.scores.components import NONE, component_rows, require_room, write_components
from gazetteer.attribution.scores.score import NothingTakenError, ScoreConfig, score_weights
from gazetteer.attribution.scores.selection import count
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import claim_folder, try_folder
from gazetteer.data.core.threads import use_threads
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_evaluate import named
from gazetteer.jobs.experiments.attribute_model import load_studied, model_marks
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.labeling.vocabulary.words import parts, words
from gazetteer.sae.model.digests import digest_saes


def score(run: RunConfig, config: ScoreConfig, out: str) -> dict[str, Any]:
    """Score the weights, write ``OUT/components.parquet`` and the edit ``OUT/<name>.safetensors``; say what was done.

    Rows of other concepts, features, objectives and estimators that the table has stay.

    Raises:
        InputError: anything that does not fit, an edit or rows of the same name and other settings in `out`, a
            concept that `vocabulary`, where it names any, does not name, or nothing to take by the scores, which are
            written all the same unless all are 0, and make room for a call of other settings.
    """
    if config.concept and Vocabulary(run.vocabulary).concepts:
        config = dataclasses.replace(config, concept=named(run, config.concept)[0])
    model = model_marks(run)
    path, asked = Path(out) / f"{_edit_name(config)}.safetensors", dataclasses.asdict(config) | config.told
    if config.feature:
        asked |= {"saes": digest_saes(run.saes), "signal": run.sae_check.signal}
    settled = ("scope", "fraction", "per")  # where they are None, by the objective and preset
    known = {name: value for name, value in asked.items() if value is not None or name not in settled}
    told_by = (
        ("concept", "feature", "estimator") if config.feature else ("concept", "feature", "estimator", "objective")
    )
    _require_room(path, provenance(model, known), told_by, asked.keys() - known.keys())
    try_folder(out)  # what cannot be written there is not worked for
    use_threads(run.threads)
    studied = load_studied(run.model)
    try:
        scored, nothing = score_weights(studied.pipe, config, run.saes, run.sae_check.signal), None
    except NothingTakenError as error:
        scored, nothing = error.scored, error
    if nothing and scored.empty:
        raise nothing
    site, taken = scored.site, scored.selection
    asked |= {"scope": scored.scope, "fraction": taken.fraction, "per": taken.per, **({NONE: True} if nothing else {})}
    about = provenance(model, asked)
    _require_room(path, about, told_by)
    claim_folder(out)
    rows = component_rows(
        scored.scores, scored.chosen, estimator=config.estimator,
        objective="feature" if config.feature else config.objective,
        concept=config.concept or None, site=site, feature=scored.feature,
    )  # fmt: skip
    table = write_components(out, rows, about, told_by)
    if nothing:
        raise InputError(f"{nothing} The scores are in {table}.") from nothing
    edit, _, said = studied.written(ablation(scored.weights, scored.chosen, about))
    save_delta(edit, path)
    return {
        "edit": str(path), "components": str(table), "weights": count(scored.chosen),
        "asked": scored.supply.asked, "eligible": scored.supply.eligible, "short": scored.supply.short,
        "scored": sum(w.numel() for w in scored.weights.values()), "J": scored.value, "cost": scored.cost,
        "computed_in": studied.computed_in, "said": said,
        "by_module": {n: len(i) for n, i in sorted(scored.chosen.items(), key=lambda item: -len(item[1]))},
        **({"by_step": scored.steps} if config.by_step else {}),
    }  # fmt: skip


def _edit_name(config: ScoreConfig) -> str:
    """What is scored, for what and, where it is not the default, by which estimator."""
    estimator = "" if config.estimator == ScoreConfig.__dataclass_fields__["estimator"].default else config.estimator
    return file_name("-".join(filter(None, (config.concept or config.feature, config.objective, estimator))))


def _require_room(
    path: Path, about: Mapping[str, Any], told_by: Sequence[str], unsettled: Collection[str] = ()
) -> None:
    require_same(path, about, unsettled)
    require_room(path.parent, about, told_by, unsettled)


def apply_edit(model: str, deltas: Sequence[str], out: str, *, undo: bool = False) -> dict[str, Any]:
    """Copy a model folder with edits applied together (or undone), without loading the model.

    Args:
        deltas: files of edits, each made from the same model; see `compose`.

    Returns:
        ``model``, the copy; ``weights``; ``undone``; ``left_out`` (of `edit_model`); ``rounding``, in words, and unless
        undone the numbers of `Rounding`, which are of what was written.

    Raises:
        InputError: edits that do not compose or do not fit the model.
    """
    edit = compose([load_delta(delta) for delta in deltas])
    part = next((part for part in ("unet", "transformer") if (Path(model) / part).is_dir()), "unet")
    rounding, without = edit_model(model, out, edit, part=part, undo=undo)
    said = "to what they were, bit for bit" if undo else str(rounding)
    done = {"model": out, "weights": len(edit), "undone": undo, "left_out": without, "rounding": said}
    return done if undo else {**done, **vars(rounding)}


def file_name(text: str) -> str:
    """A name for a file that says what is in it: letters and digits of any script, and hyphens."""
    return "-".join(parts(words(text)))
