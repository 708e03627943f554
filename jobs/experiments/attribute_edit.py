"""`gazetteer attribute edit`: make one of the evaluated edits, and paint before and after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from PIL import Image

from gazetteer.attribution.edits.defaults import POOL, Dose, dose, evaluated, unlike_evaluated
from gazetteer.attribution.edits.delta import Delta, applied
from gazetteer.attribution.edits.delta_file import require_same, save_delta
from gazetteer.attribution.edits.method_names import accepted, takes_all
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import Case, Prompts, said_of, showing
from gazetteer.attribution.evaluation.evaluators import Images, painter
from gazetteer.attribution.scores.selection import TopFraction
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import claim_folder, try_folder
from gazetteer.data.core.settings import Effect, Natural, settings
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.fingerprint import marks_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_evaluate import load_methods, made_with, named, read_cases, style_words
from gazetteer.jobs.experiments.attribute_model import model_marks, prompt_marks
from gazetteer.jobs.experiments.attribute_score import file_name
from gazetteer.labeling.vocabulary.concepts import Vocabulary


@settings("")
class EditConfig:
    """What `gazetteer attribute edit` is told.

    Attributes:
        concept: of the vocabulary, or a word for the style of a picture.
        goal, method: see `gazetteer.attribution.edits.methods.Methods.edit`.
        fraction: likewise; None takes the one that the method was evaluated with for such concepts (`dose`).
        sheet: prompts on the picture sheet; 0 leaves it out.
        pool: prompts that the evaluation paints; edits are made from others, pictures shown of the reporting half, or
            where none of it names the concept of the other.
    """

    concept: str
    goal: str = "erase"
    method: str = "steps"
    fraction: TopFraction | None = None
    sheet: Natural = 4
    pool: Annotated[int, Ge(2)] = POOL


def settled(run: RunConfig, methods: MethodConfig, config: EditConfig) -> tuple[EditConfig, str, Dose]:
    """The same with the concept that is meant and its fraction, the concept's kind, and the default dose; no model.

    Raises:
        InputError: an unknown concept, goal or method, or a fraction for a method that changes its whole scope.
    """
    concept, kind = named(run, config.concept)
    accepted(config.goal, config.method)  # `dose` knows ways to erase through features too
    default = dose(config.goal, config.method, kind, methods.reference)
    if takes_all(config.method) and config.fraction not in (None, 1.0):
        raise InputError(f"{config.method} changes all weights of its scope and takes no --fraction; leave it out.")
    fraction = default.taken if config.fraction is None else config.fraction
    return dataclasses.replace(config, concept=concept, fraction=fraction), kind, default


def make_edit(
    run: RunConfig, methods: MethodConfig, config: EditConfig, out: str, begin: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Write ``OUT/<concept>-<goal>-<method>.safetensors``, pictures before and after it, and a sheet of more of them.

    Args:
        methods: as the evaluation makes its edits (`gazetteer.attribution.edits.defaults.evaluated`): with them and the
            default `pool` the edit is, weight for weight, the one that was evaluated.
        begin: called before anything is sampled, when all that can be refused before has been.

    Returns:
        ``edit``, ``weights``, ``asked`` and ``eligible`` (`Supply`; None where no score chooses), ``short``,
        everything of `config`, ``kind`` (`defaults.KINDS`), ``measured`` (whether the evaluation chose this dose, for
        this method and kind, on all that is the same here), ``differs`` (the keys that are not), ``outcome`` (a
        `DoseOutcome` of there; None where it was not measured), ``too_strong`` (whether no dose that it tried kept the
        others), ``named_by`` (the prompts that name the concept that it was made from, 0 for its bare name; None
        where the method takes none), `made_with`, ``before`` and ``after`` (pictures of ``prompt``), ``sheet``; paths
        are empty without pictures; ``shown`` (of which prompts they are, where that is to be said, or why of none);
        ``computed_in``, ``said`` and ``rounding``, of the numbers.

    Raises:
        InputError: an unknown concept, goal or method, a fraction that takes nothing, or an edit of the same name and
            other settings in `out`.
    """
    config, kind, default = settled(run, methods, config)
    assert config.fraction is not None  # settled
    fraction = config.fraction
    path = Path(out) / f"{file_name(f'{config.concept}-{config.goal}-{config.method}')}.safetensors"
    taken = {"fraction": 1.0 if takes_all(config.method) else fraction, "config": vars(methods)}
    told = {"goal": config.goal, "method": config.method, "concept": config.concept}
    prompts = read_cases(run, config.pool, style_words(run))
    marks = {**model_marks(run), **prompt_marks(prompts, list(Vocabulary(run.vocabulary).concepts))}
    require_same(path, provenance(marks, {**told, **taken}))
    try_folder(out)  # what cannot be written there is not worked for
    prepared, studied = load_methods(run, methods, prompts)
    prepared.require_some(config.goal, config.method, fraction)
    begin()
    edit = prepared.edit(config.goal, config.method, config.concept, fraction)
    supply = prepared.supply(config.goal, config.method, config.concept, fraction)
    if not len(edit):
        raise InputError(
            f"Nothing is changed: {(supply and supply.short) or 'the method leaves all weights as they are'}."
        )
    about = provenance(marks, edit.provenance)
    stored, rounding, said = studied.written(Delta(edit.changes, about))
    claim_folder(out)
    save_delta(stored, path)
    differs, named_by = _differs(run, methods, marks, config), prepared.problems.named_by.get(config.concept)
    measured = default.measured and fraction == default.taken and not differs and named_by != 0
    shown = showing(prompts.cases, config.concept)[: config.sheet]
    return {
        "edit": str(path), "weights": len(edit), "asked": supply and supply.asked,
        "eligible": supply and supply.eligible, **dataclasses.asdict(config), "kind": kind,
        "measured": measured, "differs": differs, "too_strong": measured and default.too_strong,
        "outcome": dataclasses.asdict(default.outcome) if measured and default.outcome else None,
        "named_by": named_by, **made_with(run, methods),
        "computed_in": studied.computed_in, "said": said, "short": supply.short if supply else "",
        "rounding": str(rounding), "shown": _shown_of(prompts, config, shown),
        **_pictures(run, prepared, edit, shown, path),
    }  # fmt: skip


def _shown_of(prompts: Prompts, config: EditConfig, shown: list[Case]) -> str:
    """Of which prompts pictures are shown, or why of none, in words; empty where they are of those reported on."""
    concept = config.concept
    if not config.sheet:
        return "no pictures: --sheet is 0"
    if not shown:
        elsewhere = sum(concept in named for named in prompts.source.values())
        others = f"; {elsewhere} that edits are made from do" if elsewhere else ""
        return f"no pictures: of the {len(prompts.cases)} prompts that are painted none names {concept}{others}"
    return said_of(shown, prompts, concept)


def _differs(run: RunConfig, methods: MethodConfig, marks: dict[str, Any], config: EditConfig) -> list[str]:
    """The keys of all that decides an edit and the pictures of it that are not as they were evaluated."""
    sampled = marks_of(run, {Effect.PICTURES}, "generation")
    own = evaluated(run.generation.steps, run.generation.guidance, run.seed)
    made = [f"methods.{name}" for name, value in vars(methods).items() if value != getattr(own, name)]
    return made + unlike_evaluated({**marks, **sampled, "seed": run.seed, "pool": config.pool})


def _pictures(run: RunConfig, methods: Methods, edit: Delta, cases: list[Case], path: Path) -> dict[str, str]:
    """Same-seed pictures: the first before and after the edit, and a sheet of all, original above edited."""
    if not cases:
        return {"prompt": "", "before": "", "after": "", "sheet": ""}
    paint = painter(methods.pipe, run.generation)
    given = [case.prompt for case in cases], [case.seed for case in cases]
    rows: list[Images] = [paint(*given)]
    with applied(methods.denoiser, edit):
        rows.append(paint(*given))
    files = {name: str(path.with_name(f"{path.stem}-{name}.png")) for name in ("before", "after")}
    for file, row in zip(files.values(), rows, strict=True):
        Path(file).write_bytes(encode_image(row[0]))
    sheet = str(path.with_suffix(".png"))
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(sheet)
    return {"prompt": cases[0].prompt, **files, "sheet": sheet}
