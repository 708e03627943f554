"""`gazetteer attribute edit`: make one of the evaluated edits, save it, and show what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gazetteer.attribution.edits.delta import Delta, applied
from gazetteer.attribution.edits.delta_file import save_delta
from gazetteer.attribution.edits.methods import MethodConfig, Methods
from gazetteer.attribution.evaluation.outcomes import REPORT, Case, Images
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_pictures import POOL, painter, prepare
from gazetteer.labeling.vocabulary.concepts import Vocabulary


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """What `gazetteer attribute edit` is told.

    Attributes:
        concept, aim, method, share: see `gazetteer.attribution.edits.methods.Methods.edit`.
        sheet: prompts on the picture sheet; 0 leaves it out.
        pool: prompts of the configuration to draw from; the edit is made from one half, the sheet from the other.
    """

    concept: str
    aim: str = "erase"
    method: str = "steps"
    share: float = 0.1
    sheet: int = 4
    pool: int = POOL

    def __post_init__(self) -> None:
        if self.sheet < 0 or self.pool < 2:
            raise InputError("sheet must be at least 0 and pool at least 2.")


def make_edit(run: RunConfig, methods: MethodConfig, config: EditConfig, out: str) -> dict[str, Any]:
    """Write ``OUT/<concept>-<aim>-<method>.safetensors`` and a sheet beside it, original above edited.

    Raises:
        InputError: an unknown concept, aim or method, or a share that takes nothing.
    """
    if config.concept not in Vocabulary(run.vocabulary).concepts:
        known = ", ".join(sorted(Vocabulary(run.vocabulary).concepts))
        raise InputError(f"{config.concept!r} is not in vocabulary.concepts: {known}.")
    prepared, pool = prepare(run, methods, config.pool)
    edit = prepared.edit(config.aim, config.method, config.concept, config.share)
    if not len(edit):
        raise InputError(f"A share of {config.share} takes no weight here; raise --share.")
    model = digest_path(run.model.path)
    path = Path(out) / f"{config.concept.replace(' ', '-')}-{config.aim}-{config.method}.safetensors"
    save_delta(Delta(edit.changes, provenance({"model": model}, edit.provenance)), path)
    shown = [c for c in pool if c.half == REPORT and config.concept in c.named][: config.sheet]
    result = {"edit": str(path), "weights": len(edit), **dataclasses.asdict(config), "sheet": ""}
    if shown:
        result["sheet"] = str(path.with_suffix(".png"))
        _sheet(run, prepared, edit, shown).save(result["sheet"])
    return result


def _sheet(run: RunConfig, methods: Methods, edit: Delta, cases: list[Case]) -> Image.Image:
    """Same-seed pictures: a row of the intact model's, and below it a row of the edited one's."""
    paint = painter(methods.pipe, run.generation)
    given = [case.prompt for case in cases], [case.seed for case in cases]
    rows: list[Images] = [paint(*given)]
    with applied(methods.unet, edit):
        rows.append(paint(*given))
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))
