"""`gazetteer attribute edit`: make one of the evaluated edits and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attribution.delta import save_delta
from attribution.methods import MethodConfig
from data.digests import digest_folder
from data.errors import InputError
from data.provenance import provenance
from jobs.attribute_pictures import prepare
from jobs.config import RunConfig


def make_edit(
    run: RunConfig,
    config: MethodConfig,
    out: str,
    *,
    concept: str,
    aim: str,
    method: str,
    share: float,
    pool: int = 400,
) -> dict[str, Any]:  # fmt: skip
    """Write ``OUT/<concept>-<aim>-<method>.safetensors``, made from one half of the configuration's prompts.

    Args:
        aim, method, share: see `attribution.methods.Methods.edit`.
        pool: prompts to draw from.

    Raises:
        InputError: an unknown concept, aim or method, or a share that takes nothing.
    """
    if concept not in run.vocabulary.concepts:
        known = ", ".join(sorted(run.vocabulary.concepts))
        raise InputError(f"{concept!r} is not in vocabulary.concepts: {known}.")
    methods, _ = prepare(run, config, pool)
    edit = methods.edit(aim, method, concept, share)
    if not len(edit):
        raise InputError(f"A share of {share} takes no weight here; raise --share.")
    model = digest_folder(run.model.path) if Path(run.model.path).exists() else run.model.path
    path = Path(out) / f"{concept.replace(' ', '-')}-{aim}-{method}.safetensors"
    save_delta(type(edit)(edit.changes, provenance({"model": model}, edit.provenance)), path)
    return {"edit": str(path), "weights": len(edit), "concept": concept, "aim": aim, "method": method}
