"""`gazetteer attribute sheet`: the same prompts and noise with the intact model and with each edit, for the atlas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gazetteer.attribution.edits.delta import Delta, applied
from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.attribution.evaluation.outcomes import REPORT, Case
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.tables.images import encode_image
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_pictures import POOL, cases, painter
from gazetteer.labeling.vocabulary.concepts import Vocabulary


def write_sheet(run: RunConfig, edits: Sequence[str], pictures: int, out: str, others: int = 2) -> dict[str, Any]:
    """Write ``OUT/weights.json`` and the pictures it names: rows of original, erased, amplified, …

    Args:
        edits: files of `gazetteer attribute edit` or `score`, each made from the configured model.
        pictures: rows, of prompts that name the first edit's concept and took no part in making it.
        others: rows below them, of prompts that do not name it: they should come out as they were.

    Raises:
        InputError: an edit that does not fit the model or says no concept, or no prompt that names it.
    """
    if not edits or pictures < 1 or others < 0:
        raise InputError("A sheet needs at least one edit and one picture, and no fewer than 0 others.")
    deltas = [load_delta(path) for path in edits]
    about = [_about(delta, path) for delta, path in zip(deltas, edits, strict=True)]
    concept, drawn = about[0]["concept"], _reported(run)
    named = [case for case in drawn if concept in case.named][:pictures]
    if not named:
        raise InputError(f"No prompt of the configuration names {concept!r}.")
    shown = named + [case for case in drawn if concept not in case.named][:others]
    torch.set_num_threads(run.threads or torch.get_num_threads())
    pipe: Any = load_pipeline(run.model)
    paint = painter(pipe, run.generation)
    given = [case.prompt for case in shown], [case.seed for case in shown]
    columns = {"original": paint(*given)}
    for delta, one in zip(deltas, about, strict=True):
        with applied(pipe.unet, delta):
            columns[_title(one, columns)] = paint(*given)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    said = [
        f"{one['aim']} {one['concept']} by {one['method']}: {len(d)} weights"
        for one, d in zip(about, deltas, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(shown):
        files = {title: f"{number}-{title.replace(' ', '-')}.png" for title in columns}
        for title, file in files.items():
            (folder / file).write_bytes(encode_image(columns[title][number]))
        apart = [] if concept in case.named else [f"the prompt does not name {concept}"]
        rows.append({"prompt": case.prompt, "seed": case.seed, "edits": [*apart, *said], "files": files})
    (folder / "weights.json").write_text(json.dumps({"pictures": rows}, indent=1) + "\n", encoding="utf-8")
    return {"sheet": str(folder / "weights.json"), "pictures": len(rows), "columns": list(columns)}


def _reported(run: RunConfig) -> list[Case]:
    """Cases of the reporting half, as `prepare` draws them."""
    vocabulary = Vocabulary(run.vocabulary)
    drawn = cases(read_prompts(run.prompts), vocabulary, sorted(vocabulary.concepts), (), POOL, run.seed)
    return [case for case in drawn if case.half == REPORT]


def _about(delta: Delta, path: str) -> dict[str, str]:
    config = delta.provenance.get("config", {})
    if not config.get("concept"):
        raise InputError(f"{path} does not say which concept it is for; a sheet shows edits of one concept.")
    aim = config.get("aim") or ("amplify" if config.get("objective") == "amplify" else "erase")
    return {"concept": config["concept"], "aim": aim, "method": config.get("method") or config.get("estimator", "")}


def _title(about: dict[str, str], taken: dict[str, Any]) -> str:
    title = {"erase": "erased", "amplify": "amplified"}[about["aim"]]
    title = title if title not in taken else f"{title} by {about['method']}"
    while title in taken:
        title += " again"
    return title
