"""`gazetteer attribute sheet`: pictures of what edits do, original, erased and amplified, for the atlas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gazetteer.attribution.edits.cast import fitted
from gazetteer.attribution.edits.defaults import POOL
from gazetteer.attribution.edits.delta import Delta, applied
from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.attribution.evaluation.cases import Case, said_of, showing
from gazetteer.attribution.evaluation.evaluators import Images, painter
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.core.threads import use_threads
from gazetteer.data.tables.images import encode_image
from gazetteer.diffusion.denoisers.registry import network
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.attribute_evaluate import read_cases, style_words
from gazetteer.jobs.experiments.attribute_model import load_studied


def write_sheet(run: RunConfig, edits: Sequence[str], pictures: int, out: str, others: int = 2) -> dict[str, Any]:
    """Write ``OUT/weights.json`` and the pictures it names: rows of original, erased, amplified, …

    Args:
        edits: files of `gazetteer attribute edit` or `score`, each made from the configured model.
        pictures: rows, of prompts that name the edits' concept: of the half that is reported on, or where none of it
            does of the other, which is said in every row.
        others: rows below them, of prompts that do not name it: they should come out as they were.

    Returns:
        ``sheet`` (the file), ``pictures`` and ``columns``; ``shown`` (of which prompts, where that is to be said).

    Raises:
        InputError: an edit that does not fit the model or says no concept, or no prompt that names it.
    """
    if not edits or pictures < 1 or others < 0:
        raise InputError("A sheet needs at least one edit and one picture, and no fewer than 0 others.")
    folder = OwnFiles(out, ["weights.json"], alone=True)
    deltas = [load_delta(path) for path in edits]
    about = [_about(delta, path) for delta, path in zip(deltas, edits, strict=True)]
    for path, edit in zip(edits, about, strict=True):
        if edit["concept"] != about[0]["concept"]:
            raise InputError(
                f"{path} is of {edit['concept']!r}, {edits[0]} of {about[0]['concept']!r}; a sheet shows edits of one "
                "concept."
            )
    concept, prompts = about[0]["concept"], read_cases(run, POOL, style_words(run))
    named = showing(prompts.cases, concept)[:pictures]
    if not named:
        raise InputError(f"No prompt of the configuration names {concept!r}.")
    half = [case for case in prompts.cases if case.half == named[0].half]
    shown, note = (
        named + [case for case in half if concept not in case.named][:others],
        said_of(named, prompts, concept),
    )
    columns, said = _columns(run, deltas, about, shown)
    said = [note, *said] if note else said
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(shown):
        files = {title: f"{number}-{title.replace(' ', '-')}.png" for title in columns}
        for title, file in files.items():
            folder.write(file, encode_image(columns[title][number]))
        apart = [] if concept in case.named else [f"the prompt does not name {concept}"]
        rows.append({"prompt": case.prompt, "seed": case.seed, "edits": [*apart, *said], "files": files})
    written = folder.write("weights.json", f"{json.dumps({'pictures': rows}, indent=1)}\n".encode())
    return {"sheet": str(written), "pictures": len(rows), "columns": list(columns), "shown": note}


def _columns(
    run: RunConfig, deltas: Sequence[Delta], about: Sequence[dict[str, str]], shown: Sequence[Case]
) -> tuple[dict[str, Images], list[str]]:
    """Per title the pictures of all cases, the intact model's first; and what each edit is, in words."""
    use_threads(run.threads)
    studied = load_studied(run.model)
    paint = painter(studied.pipe, run.generation)
    given = [case.prompt for case in shown], [case.seed for case in shown]
    for delta in deltas:  # what does not fit is refused before minutes of painting
        with applied(network(studied.pipe), delta, read_in=studied.dtype):
            pass
    columns, said = {"original": paint(*given)}, []
    for delta, edit in zip(deltas, about, strict=True):
        rounding = fitted(delta, lambda _: studied.dtype)[1]
        with applied(network(studied.pipe), delta, read_in=studied.dtype):
            columns[_title(edit, columns)] = paint(*given)
        rounded = f", {rounding}" if rounding.cast else ""
        said.append(f"{edit['goal']} {edit['concept']} by {edit['method']}: {len(delta)} weights{rounded}")
    return columns, said


def _about(delta: Delta, path: str) -> dict[str, str]:
    config = delta.provenance.get("config", {})
    if not config.get("concept"):
        raise InputError(f"{path} does not say which concept it is for; a sheet shows edits of one concept.")
    for key in ("concept", "goal", "objective", "method", "estimator"):
        if not isinstance(config.get(key) or "", str):
            raise InputError(f"{path} says its {key} is {config[key]!r}; accepted: text.")
    goal = config.get("goal") or ("amplify" if config.get("objective") == "amplify" else "erase")
    if goal not in ("erase", "amplify"):
        raise InputError(f"{path} says its goal is {goal!r}; accepted: erase, amplify.")
    return {"concept": config["concept"], "goal": goal, "method": config.get("method") or config.get("estimator", "")}


def _title(about: dict[str, str], taken: dict[str, Any]) -> str:
    title = {"erase": "erased", "amplify": "amplified"}[about["goal"]]
    title = title if title not in taken else f"{title} by {about['method']}"
    while title in taken:
        title += " again"
    return title
